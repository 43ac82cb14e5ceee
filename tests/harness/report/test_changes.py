"""What `lockstep compare` says of two results, made by hand so that the truth is known; and of real ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lockstep_bench.harness import compare
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.records.format import Block, Event, PlannedDataset, Status
from lockstep_bench.harness.report.changes import cells, fail_on_slower, notes, page, write_csv
from support.hand_made import begin, end, evaluation, make_plan, turn, write

RESULTS = Path(__file__).parents[3] / "results"
ZEN_4 = {"brand": "AMD EPYC", "family": 25, "model": 17, "vectors": "AVX-512", "cpus": 2, "memory_gibibytes": 24.0}
ZEN_3 = {**ZEN_4, "model": 1, "vectors": "AVX2"}
BLAS = {"user_api": "blas", "internal_api": "openblas", "version": "0.3.31", "architecture": "Zen"}


def result(
    folder: Path,
    ratios: Mapping[str, float],
    *,
    seed: int = 0,
    rounds: int = 40,
    drift: float = 1.0,
    replicates: int = 1,
    commit: str | None = "c0ffee",
    machine: str = "this machine",
    dataset: str = "mnist",
    threads: int = 2,
    slice_steps: int = 2,
    batch_size: int = 15,
    epochs: int = 1,
    numpy: str = "2.4.6",
    blas: str = "0.3.31",
    python: str = "3.11.7",
    source: str | None = "a",
    versions: Mapping[str, str] | None = None,
    failed: Status | None = None,
    error: float = 6.0,
    memory: int = 100,
    details: dict[str, Any] | None = None,
) -> Path:
    """A results folder of numpy and others, whose times are so many times numpy's but for 5 % of noise.

    Numpy's own times wander by a factor of two within the run; `drift` is what all of them take longer by.
    `source` is that of numpy's adapter, `failed` how the last backend ends; `error` and `memory` are the others'.
    """
    random = np.random.default_rng(seed)
    names = ["numpy", *ratios]
    plan = make_plan(
        *names,
        commit=commit,
        commit_clean=None if commit is None else True,
        problem=Problem(epochs=epochs, batch_size=batch_size),
        dataset=PlannedDataset(name=dataset, sha256=f"5ha of {dataset}", train_images=30, test_images=10_000),
        blocks=[
            Block(id=f"{threads}-{number}", seed=0, threads=threads, replicate=number)
            for number in range(1, replicates + 1)
        ],
        slice_steps=slice_steps,
        machine=machine,
    )
    own = {"numpy": numpy, **dict.fromkeys(ratios, "1.0"), **(versions or {})}
    blocks = []
    for _ in plan.blocks:
        events: list[Event] = []
        for name in names:
            code = source if name == "numpy" else source and "b"
            events += begin(name, {name: own[name]}, source=code, pools=[{**BLAS, "version": blas}])
        machine_now = drift * np.exp(np.log(2) * (1 + np.sin(np.linspace(0, 9, rounds))) / 2)
        for number, now in enumerate(machine_now, start=1):
            for name in names:
                noise = np.exp(0.05 * random.standard_normal())
                events.append(turn(name, 1, number, float(now * ratios.get(name, 1.0) * noise)))
        for name in names:
            as_numpy = name == "numpy"
            events += [
                evaluation(name, 1, 6.0 if as_numpy else error, peak_bytes=100 if as_numpy else memory),
                end(name, failed, "because") if failed and name == names[-1] else end(name),
            ]
        blocks.append([*events, end(None)])
    return write(folder, plan, *blocks, on=machine, python=python, details=details)


def row_of(changes: pd.DataFrame, backend: str) -> "pd.Series[Any]":
    """The one row of a backend."""
    (index,) = changes.index[changes["backend"] == backend]
    row: pd.Series[Any] = changes.loc[index]
    return row


def test_a_result_against_itself_shows_no_difference(tmp_path: Path) -> None:
    """For every backend, with a ratio of 1 and no drift."""
    folder = result(tmp_path / "a", {"keras": 2.0, "jax": 0.5})
    changes = compare(folder, folder)
    assert changes["backend"].tolist() == ["numpy", "keras", "jax"]
    assert set(changes["verdict"]) == {"no difference shown"}
    assert set(changes["ratio"]) == set(changes["drift"]) == {1.0}
    assert set(changes["changed"]) == {""}


@pytest.mark.parametrize("name", ["standard", "native"])
def test_real_results_against_themselves_show_no_difference(name: str) -> None:
    """The committed ones, of both profiles."""
    changes = compare(RESULTS / name, RESULTS / name)
    assert len(changes) >= 4
    assert set(changes["verdict"]) == {"no difference shown"}
    assert (changes.loc[changes["backend"] != "numpy", "ratio_low"] < 1).all()


def test_only_what_got_slower_is_called_so_whatever_the_machine_did(tmp_path: Path) -> None:
    """Keras by 15 %, on a machine that takes 1.7 times as long for everything; jax and torch are as they were."""
    old = result(tmp_path / "old", {"keras": 2.0, "jax": 0.5, "torch": 1.1}, rounds=150)
    new = result(tmp_path / "new", {"keras": 2.3, "jax": 0.5, "torch": 1.1}, rounds=150, seed=1, drift=1.7)
    changes = compare(old, new).set_index("backend")
    assert changes["verdict"].to_dict() == {
        "numpy": "no difference shown",
        "keras": "slower",
        "jax": "no difference shown",
        "torch": "no difference shown",
    }
    assert changes["drift"].tolist() == pytest.approx([1.7] * 4, rel=0.05)
    keras = row_of(compare(old, new), "keras")
    assert keras["ratio_low"] < 1.15 < keras["ratio_high"]
    assert keras[["rounds_old", "rounds_new"]].tolist() == [150, 150]
    assert compare(new, old).set_index("backend")["verdict"]["keras"] == "faster"


def test_several_processes_show_what_one_cannot(tmp_path: Path) -> None:
    """Eight percent, less than two runs may differ by, and more than four and four may."""
    one, four = (
        compare(
            result(tmp_path / f"old-{count}", {"keras": 2.0}, rounds=100, replicates=count),
            result(tmp_path / f"new-{count}", {"keras": 2.16}, rounds=100, replicates=count, seed=1),
        )
        for count in (1, 4)
    )
    assert row_of(one, "keras")["verdict"] == "no difference shown"
    assert row_of(four, "keras")["verdict"] == "slower"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"machine": "that machine"}, "measured under other conditions; machine: this machine, 2 CPUs"),
        ({"dataset": "digits"}, "measured under other conditions; dataset: mnist and digits"),
        ({"threads": 1}, "measured under other conditions; threads: 2 and 1"),
        ({"slice_steps": 9}, "measured on other work: slices of 2 steps"),
        ({"batch_size": 30}, "measured on other work: slices of 2 steps, batches of 15"),
        ({"numpy": "2.5.0"}, "numpy, the yardstick, changed as well: numpy 2.4.6 to 2.5.0"),
        ({"blas": "0.4"}, "numpy, the yardstick, changed as well: BLAS openblas 0.3.31 Zen to openblas 0.4 Zen"),
        ({"python": "3.12.0"}, "numpy, the yardstick, changed as well: Python 3.11.7 to 3.12.0"),
        ({"source": "z"}, "numpy, the yardstick, changed as well: adapter a to z"),
        ({"source": None, "commit": "other"}, "whether numpy, the yardstick, changed as well was not recorded"),
        ({"rounds": 5}, "in {new} it was timed in 5 rounds: 6 are needed"),
        ({"failed": "error"}, "in {new} keras ended as error: because"),
        ({"failed": "not-identical"}, "in {new} keras ended as not-identical: because"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_is_not_comparable_is_not_compared(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    """The reason is said, and there is no ratio."""
    old = result(tmp_path / "old", {"keras": 2.0})
    new = result(tmp_path / "new", {"keras": 3.0}, **options)
    keras = row_of(compare(old, new), "keras")
    assert keras["verdict"] == "not comparable"
    assert keras["reason"].startswith(reason.format(new=new))
    assert np.isnan(keras["ratio"])


@pytest.mark.parametrize(
    ("name", "details", "reason"),
    [
        ("AMD EPYC (Zen 4, AVX-512), 2 CPUs, 24 GiB", {}, ""),
        (
            "AMD EPYC, 2 CPUs, 24 GiB",
            {"identity": ZEN_3},
            "measured under other conditions; machine: AMD EPYC, family 25",
        ),
        (
            "AMD EPYC, 2 CPUs, 24 GiB",
            {"identity": None},
            "the machine's identity is not recorded in {new}; nothing says",
        ),
        (
            "AMD EPYC, 2 CPUs, 23 GiB",
            {"identity": None},
            "the machine's identity is not recorded in {new}; nothing says",
        ),
        (
            "AMD EPYC, 2 CPUs, 24 GiB",
            {"identity": None, "caches": {"L1 Data": "48K"}},
            "measured under other conditions; machine: caches of L1 Data 32K and of L1 Data 48K",
        ),
        (
            "AMD EPYC, 4 CPUs, 24 GiB",
            {"identity": None},
            "measured under other conditions; machine: AMD EPYC (Zen 4, AVX-512), 2 CPUs, 24 GiB and AMD EPYC, 4 CPUs",
        ),
    ],
    ids=["same", "another", "unknown", "rounded", "other caches", "other CPUs"],
)
def test_a_machine_is_known_by_its_identity(tmp_path: Path, name: str, details: dict[str, Any], reason: str) -> None:
    """One name may be of two CPUs; a record of before is compared where nothing that it has says otherwise."""
    here = {"identity": ZEN_4, "caches": {"L1 Data": "32K"}}
    old = result(tmp_path / "old", {"keras": 2.0}, machine="AMD EPYC (Zen 4, AVX-512), 2 CPUs, 24 GiB", details=here)
    new = result(tmp_path / "new", {"keras": 3.0}, machine=name, details={**here, **details})
    keras = row_of(compare(old, new), "keras")
    assert keras["reason"].startswith(reason.format(new=new))
    assert keras["verdict"] == ("not comparable" if reason.startswith("measured") else "slower")
    assert (keras["reason"] == "") == (reason == "")


def test_records_of_before_adapters_had_hashes_are_comparable_at_one_commit(tmp_path: Path) -> None:
    """Without a hash or a commit, nobody knows."""
    old, new = (result(tmp_path / name, {"keras": 2.0}, source=None) for name in ("old", "new"))
    assert row_of(compare(old, new), "keras")["verdict"] == "no difference shown"
    old, new = (result(tmp_path / f"un{name}", {"keras": 2.0}, source=None, commit=None) for name in ("old", "new"))
    assert row_of(compare(old, new), "keras")["verdict"] == "not comparable"


def test_what_is_in_one_only_is_said(tmp_path: Path) -> None:
    """Of either side."""
    old = result(tmp_path / "old", {"keras": 2.0, "jax": 1.0})
    new = result(tmp_path / "new", {"jax": 1.0, "torch": 1.0})
    changes = compare(old, new)
    assert changes["backend"].tolist() == ["numpy", "jax", "keras", "torch"]
    assert row_of(changes, "keras")["reason"] == f"it is only in {old}"
    assert row_of(changes, "torch")["reason"] == f"it is only in {new}"


def test_versions_errors_and_memory_are_compared(tmp_path: Path) -> None:
    """Also where times are not; errors only where they are of the same training."""
    old = result(tmp_path / "old", {"keras": 2.0}, memory=200)
    new = result(
        tmp_path / "new", {"keras": 2.0}, seed=1, versions={"keras": "1.1"}, commit="beef", error=6.5, memory=300
    )
    keras = row_of(compare(old, new), "keras")
    assert keras["changed"] == "commit c0ffee to beef; keras 1.0 to 1.1"
    assert keras["test_error_change"] == pytest.approx(0.5)
    assert keras["memory_change_percent"] == pytest.approx(50)
    assert next(row for row in cells(compare(old, new)) if row[0] == "keras")[-2:] == ["+0.50", "+50"]
    slightly = compare(old, new).assign(test_error_change=-0.001, memory_change_percent=-0.1)
    assert next(row for row in cells(slightly) if row[0] == "keras")[-2:] == ["+0.00", "+0"]
    longer = result(tmp_path / "longer", {"keras": 2.0}, epochs=2)
    assert np.isnan(row_of(compare(old, longer), "keras")["test_error_change"])


def test_failing_on_what_is_slower(tmp_path: Path) -> None:
    """By more than so many percent, and where nothing could be seen at all."""
    old = result(tmp_path / "old", {"keras": 2.0}, rounds=100)
    slower = compare(old, result(tmp_path / "new", {"keras": 2.4}, rounds=100, seed=1))
    with pytest.raises(LockstepError, match=r"slower by more than 10 %: keras 1\."):
        fail_on_slower(slower, 10)
    fail_on_slower(slower, 30)
    fail_on_slower(compare(old, old), 0)
    with pytest.raises(LockstepError, match="nothing was comparable"):
        fail_on_slower(compare(old, result(tmp_path / "other", {"keras": 2.0}, machine="another")), 10)


def test_markdown_and_csv_say_the_same(tmp_path: Path) -> None:
    """The answer first, a row for each backend, notes of drift and changes; the CSV has every column."""
    old = result(tmp_path / "old", {"keras": 2.0, "jax": 1.0}, rounds=100)
    new = result(tmp_path / "new", {"keras": 2.6, "jax": 1.0}, rounds=100, seed=1, drift=2, versions={"jax": "2.0"})
    changes = compare(old, new)
    text = page(changes, "old", "new")
    assert text.startswith("## new against old\n\nSlower: keras 1.")
    assert "No difference shown: numpy; jax." in text
    assert "\n| keras | slower | 1." in text
    assert "- jax changed: jax 1.0 to 2.0\n" in text
    assert any(note.startswith("numpy, the yardstick, took 2.0") for note in notes(changes))
    write_csv(tmp_path / "changes.csv", changes)
    read = pd.read_csv(tmp_path / "changes.csv")
    assert list(read) == list(changes)
    assert read["ratio"].tolist() == pytest.approx(changes["ratio"].tolist(), abs=1e-4)


def test_rows_of_one_backend_are_told_apart(tmp_path: Path) -> None:
    """By what they differ in: here the number of threads."""
    old = result(tmp_path / "old", {"keras": 2.0}, threads=1)
    new = result(tmp_path / "new", {"keras": 2.0, "jax": 1.0}, threads=2)
    names = [line[0] for line in list(cells(compare(old, new)))[1:]]
    assert names == ["numpy", "keras", "jax"]
    both = pd.concat([compare(old, old), compare(new, new)])
    assert "keras (1 thread)" in [line[0] for line in cells(both)]


def benchmark_file(path: Path, keras: float, *, seed: int = 0, phase: str = "train", **changes: Any) -> Path:
    """A JSON file as the suite writes it, of one backend that takes so many times numpy's time."""
    random = np.random.default_rng(seed)
    reference = np.exp(0.05 * random.standard_normal(20))
    info = {
        "backend": "keras",
        "style": "tuned",
        "threads": 2,
        "device": "cpu",
        "profile": "identical",
        "dataset": "mnist",
        "dataset_sha256": "5ha",
        "train_images": 15_000,
        "batch_size": 15,
        "seed": 0,
        "steps": 11_000,
        "test_error_percent": 9.0,
        "memory_peak_bytes": 100,
        "identical": True,
        "versions": {"keras": "3"},
        "source_sha256": "b",
        "reference_seconds": reference.tolist(),
        "reference": {"versions": {"numpy": "2"}, "source_sha256": "a", "pools": [BLAS]},
        **changes,
    }
    data = (keras * reference * np.exp(0.05 * random.standard_normal(20))).tolist()
    content = {
        "machine_info": {"name": "this machine", "python": "3.11.7", "cpu": "more"},
        "commit_info": {"id": "c0ffee", "dirty": False},
        "benchmarks": [{"group": phase, "name": f"test_{phase}[keras]", "extra_info": info, "stats": {"data": data}}],
    }
    path.write_text(json.dumps(content))
    return path


def test_benchmark_files_are_compared_as_results_are(tmp_path: Path) -> None:
    """By phase; a slow-down is seen, and none where there is none."""
    old, new = benchmark_file(tmp_path / "old.json", 2.0), benchmark_file(tmp_path / "new.json", 2.5, seed=1)
    changes = compare(old, new)
    assert changes[["phase", "backend", "verdict"]].to_numpy().tolist() == [["train", "keras", "slower"]]
    assert set(compare(old, old)["verdict"]) == {"no difference shown"}
    other = benchmark_file(tmp_path / "other.json", 2.0, phase="predict")
    assert compare(old, other)["verdict"].tolist() == ["not comparable"] * 2


def test_benchmark_file_without_single_times_is_not_comparable(tmp_path: Path) -> None:
    """As pytest-benchmark saves it by default; so is one whose network was another."""
    old, new = benchmark_file(tmp_path / "old.json", 2.0), benchmark_file(tmp_path / "new.json", 2.0)
    content = json.loads(new.read_text())
    del content["benchmarks"][0]["stats"]["data"]
    new.write_text(json.dumps(content))
    assert "save them by --benchmark-json" in compare(old, new)["reason"][0]
    wrong = benchmark_file(tmp_path / "wrong.json", 2.0, identical=False)
    assert "was not identical" in compare(old, wrong)["reason"][0]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"machine_info": {}, "commit_info": {}, "benchmarks": []}'])
def test_other_json_files_are_refused(tmp_path: Path, content: str) -> None:
    """In one sentence that says what makes a suitable one."""
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(LockstepError, match="is not of `pytest tests/benchmarks --benchmark-json FILE`"):
        compare(tmp_path / "a.json", tmp_path / "a.json")


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    """A file of another kind, nothing at all, a folder without a plan."""
    (tmp_path / "a.txt").touch()
    for path in (tmp_path / "a.txt", tmp_path / "none", tmp_path / "none.json"):
        with pytest.raises(UsageError, match="is neither a results folder nor"):
            compare(path, path)
    with pytest.raises(LockstepError, match="holds no results"):
        compare(tmp_path, tmp_path)
