"""`lockstep seeds`: every seed is trained once, checked as planned, recorded, and counts only if it is what it says."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import beta

from lockstep_bench.backends.jax import JaxScan
from lockstep_bench.harness.checks.equivalence import allowed_disagreements
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.problem import Problem, epoch_order, initial_weights
from lockstep_bench.harness.records.format import EndEvent, SeedsEvent, SeedsPlan
from lockstep_bench.harness.records.raw_files import block_path, plan_path, read_arrays, read_block, read_plan_of
from lockstep_bench.harness.report.seeds_summary import answer
from lockstep_bench.harness.report.write import write_seeds_report
from lockstep_bench.harness.running.progress import Pulse
from lockstep_bench.harness.running.seeds import plan_seeds, train_seeds
from lockstep_bench.harness.tables.seeds_tables import SeedsResults, load_seeds, spread
from lockstep_bench.harness.worker.metrics import score
from support.command import LOCKSTEP, lockstep
from support.once import once

pytestmark = pytest.mark.frameworks
COUNT, EPOCHS, IMAGES = 3, 2, 157
OPTIONS = ["--dataset", "digits", "--count", "3", "--together", "2", "--check", "2", "--epochs", "2", "--threads", "1"]
WRONG = """
from lockstep_bench.backends.jax_vmap import JaxVmap

class Wrong(JaxVmap):
    name = "jax-vmap-wrong"

    def train_seeds(self, orders):
        {train}
        return super().train_seeds(orders)
"""
Change = Callable[[list[dict[str, object]]], object]


def plan_of(digits: Dataset, **options: int) -> SeedsPlan:
    """Three seeds, two of them together, the first of both blocks checked."""
    small = {"epochs": EPOCHS, "train_images": IMAGES, "threads": 1}
    asked: dict[str, Any] = {**small, "count": COUNT, "together": 2, "check": 2, **options}
    return plan_seeds(digits, **asked)


@pytest.fixture(scope="module")
def trained(digits: Dataset, shared: Path) -> Path:
    """A folder of three seeds, with its report."""

    def make(out: Path) -> None:
        pulse = Pulse(Console(file=StringIO()))  # it names every turn, or raises
        train_seeds(plan_of(digits), digits.folder, out, heartbeat=pulse.heartbeat)
        write_seeds_report(out)

    return once(shared / "seeds", make)


def changed(trained: Path, folder: Path, block: str, change: Change) -> SeedsResults:
    """The results after the lines of a block's raw file were changed."""
    copy = Path(copytree(trained, folder / "changed"))
    path = copy / "blocks" / f"{block}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_seeds(copy)


def of_epochs(lines: list[dict[str, object]]) -> list[dict[str, object]]:
    """The lines that hold the scores of an epoch."""
    return [line for line in lines if line["event"] == "seeds"]


def statuses(results: SeedsResults) -> dict[int, str]:
    """What became of each seed."""
    return dict(zip(results.table["seed"], results.table["status"], strict=True))


def test_every_seed_is_there_once_and_checked_as_planned(trained: Path) -> None:
    """A row for each seed and epoch; the first of each block held against jax-scan after every epoch."""
    results = load_seeds(trained)
    rows = list(zip(results.table["seed"], results.table["epoch"], strict=True))
    assert rows == [(seed, epoch) for seed in range(COUNT) for epoch in (1, 2)]
    assert set(results.table["status"]) == {"ok"}
    assert results.cut == ()
    checked = results.table.dropna(subset="disagreements")
    assert list(checked["seed"]) == [0, 0, 2, 2]
    assert checked["disagreements"].max() <= allowed_disagreements(297)
    assert checked["weights_difference"].max() < 1e-5


def test_every_seed_is_the_network_that_jax_scan_trains_on_it(digits: Dataset, trained: Path) -> None:
    """Those that no one checked too: same loss, and at most so many images predicted differently as the gate allows."""
    table = load_seeds(trained).table
    for seed in range(COUNT):
        backend, problem = JaxScan(), Problem()
        backend.build(problem, initial_weights(problem, seed), digits.train.first(IMAGES), "cpu", 1)
        for epoch in range(1, EPOCHS + 1):
            loss = backend.train(epoch_order(seed, epoch, IMAGES))
            found = score(backend.predict(digits.test.images), digits.test.labels, problem.classes)
            [row] = table[(table["seed"] == seed) & (table["epoch"] == epoch)].itertuples()
            assert row.train_loss == pytest.approx(loss, rel=1e-5)
            assert row.test_loss == pytest.approx(found.loss, rel=1e-5)
            assert row.test_error_percent == pytest.approx(found.error_percent, abs=100 / 297 + 1e-9)


def test_digits_of_checked_seeds_are_kept(digits: Dataset, trained: Path) -> None:
    """Error and disagreements can be counted again from them; a block that nobody checked has none."""
    plan, table = read_plan_of(trained, SeedsPlan), load_seeds(trained).table
    for block in plan.blocks:
        arrays = read_arrays(trained, block)
        own = table[table["seed"] == block.seed]
        differ = (arrays["predicted/jax-vmap"] != arrays["predicted/jax-scan"]).sum(axis=1)
        assert list(differ) == list(own["disagreements"])
        wrong = (arrays["predicted/jax-vmap"] != digits.test.labels).mean(axis=1)
        np.testing.assert_allclose(100 * wrong, own["test_error_percent"], atol=1e-4)


def test_the_report_is_a_pure_function_of_the_raw_files(trained: Path, tmp_path: Path) -> None:
    """`lockstep report` makes it again byte for byte, and puts the answer into a document."""
    raw = ignore_patterns("*.csv", "*.md", "charts")
    copy = Path(copytree(trained, tmp_path / "copy", ignore=raw))
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- lockstep report: begin -->\n<!-- lockstep report: end -->\nafter\n")
    process = lockstep("report", copy, "--into", document)
    assert process.returncode == 0, process.stderr
    made = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert made == {path.relative_to(trained): path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert {str(path) for path in made} >= {"seeds.csv", "seeds.md", "charts/final_error.png", "charts/final_error.svg"}
    text = answer(load_seeds(copy))
    assert document.read_text() == (
        f"before\n<!-- lockstep report: begin -->\n{text}\n<!-- lockstep report: end -->\nafter\n"
    )
    assert "THESE ARE NOT MNIST NUMBERS" in (copy / "seeds.md").read_text()


@pytest.mark.parametrize(("field", "value"), [("disagreements", 2), ("weights_difference", 0.2)])
def test_a_seed_that_fails_the_gate_does_not_count(trained: Path, tmp_path: Path, field: str, value: float) -> None:
    """From whatever epoch on: it is not-identical in all of its rows, and left out of every number."""

    def plant(lines: list[dict[str, object]]) -> None:
        of_epochs(lines)[0]["scores"][0][field] = value  # type: ignore[index]

    results = changed(trained, tmp_path, "seeds-0-to-1", plant)
    assert statuses(results) == {0: "not-identical", 1: "ok", 2: "ok"}
    assert len(results.errors(EPOCHS)) == COUNT - 1
    write_seeds_report(tmp_path / "changed")
    page = (tmp_path / "changed" / "seeds.md").read_text()
    assert "seed 0: not-identical: after epoch 1" in page
    assert "2 seeds of the 3 that were planned came through" in page
    assert f"| 2 | {results.errors(2).mean():.2f} |" in page


def test_a_seed_trained_wrongly_is_found(digits: Dataset, tmp_path: Path) -> None:
    """A backend that trains in another order than it is given, in a real run."""
    file = tmp_path / "wrong.py"
    file.write_text(WRONG.replace("{train}", "orders = orders[:, ::-1].copy()"))
    plan = plan_of(digits, count=2, check=1)
    wrong = plan.backends[1].model_copy(update={"name": "jax-vmap-wrong", "spec": str(file)})
    train_seeds(plan.model_copy(update={"backends": [plan.backends[0], wrong]}), digits.folder, tmp_path / "out")
    results = load_seeds(tmp_path / "out")
    assert statuses(results) == {0: "not-identical", 1: "ok"}


def test_other_initial_weights_are_found(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the seed that is trained is not the one that is checked, before anything is trained."""
    monkeypatch.setattr(SeedsPlan, "seeds", lambda self, block: [block.seed + 1])
    plan = plan_of(digits, count=1, check=1)
    train_seeds(plan, digits.folder, tmp_path / "out")
    events = read_block(tmp_path / "out", plan.blocks[0]).events
    assert not [event for event in events if isinstance(event, SeedsEvent)]
    [end] = [event for event in events if isinstance(event, EndEvent) and event.backend]
    assert (end.status, end.reason) == ("error", "its initial weights of seed 1 are not jax-scan's")


def test_a_block_that_fails_is_said_and_tried_again(digits: Dataset, tmp_path: Path) -> None:
    """The others go on; with what failed mended, resuming trains that block and no other."""
    file, out = tmp_path / "wrong.py", tmp_path / "out"
    file.write_text(WRONG.replace("{train}", "assert len(orders) == 2, 'one seed alone'"))
    plan = plan_of(digits, check=0, epochs=1)
    wrong = plan.backends[1].model_copy(update={"spec": str(file)})
    plan = plan.model_copy(update={"backends": [plan.backends[0], wrong]})
    train_seeds(plan, digits.folder, out)
    assert statuses(load_seeds(out)) == {0: "ok", 1: "ok", 2: "error"}
    assert "AssertionError: one seed alone" in load_seeds(out).table["reason"].iloc[-1]
    first = block_path(out, plan.blocks[0], "jsonl").read_bytes()
    file.write_text(WRONG.replace("{train}", "pass"))
    train_seeds(plan, digits.folder, out, resume=True)
    assert statuses(load_seeds(out)) == {0: "ok", 1: "ok", 2: "ok"}
    assert block_path(out, plan.blocks[0], "jsonl").read_bytes() == first


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "interrupted"])
def test_ended_and_resumed_gives_the_same_table(trained: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Ended in its second block: the first stays byte for byte, the second counts once; who interrupts is told so."""
    out = tmp_path / "out"
    command = [*LOCKSTEP, "seeds", *OPTIONS, "--train-images", str(IMAGES), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    second = out / "blocks" / "seeds-2-to-2.jsonl"
    while not (second.exists() and second.read_bytes()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate()
    if number == signal.SIGTERM:
        assert process.returncode == 1
        assert f"interrupted: the blocks that were done are in {out}" in " ".join(said.split())
    plan = read_plan_of(out, SeedsPlan)
    assert not read_block(out, plan.blocks[1]).complete
    assert set(load_seeds(out).table["seed"]) == {0, 1}
    first = block_path(out, plan.blocks[0], "jsonl").read_bytes()
    done = lockstep(*command[len(LOCKSTEP) :], "--resume")
    assert done.returncode == 0, done.stderr
    assert block_path(out, plan.blocks[0], "jsonl").read_bytes() == first
    pd.testing.assert_frame_equal(load_seeds(out).table, load_seeds(trained).table)
    other = lockstep("seeds", *OPTIONS, "--train-images", "150", "--out", out, "--resume")
    assert other.returncode == 2
    assert "train_images 157, and now it is 150" in other.stderr.replace("\n", " ")


HOSTILE: dict[str, tuple[Change, str]] = {
    "an error beyond 100 %": (
        lambda lines: of_epochs(lines)[0]["scores"][0].update(test_error_percent=101),  # type: ignore[index]
        "is not an event: seeds.scores.0.test_error_percent",
    ),
    "another seed": (
        lambda lines: of_epochs(lines)[1]["scores"][1].update(seed=7),  # type: ignore[index]
        "its records are not of every epoch and seed",
    ),
    "an epoch left out": (
        lambda lines: lines.remove(of_epochs(lines)[0]),
        "its records are not of every epoch and seed",
    ),
    "an epoch twice": (lambda lines: lines.insert(-2, of_epochs(lines)[0]), "is an event that cannot come there"),
    "a check left out": (
        lambda lines: of_epochs(lines)[1]["scores"][0].pop("disagreements"),  # type: ignore[index]
        "after epoch 2 it was not checked, which was planned",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_records_are_named_and_do_not_count(trained: Path, tmp_path: Path, what: str) -> None:
    """Of the block alone; the others are as good as before."""
    change, reason = HOSTILE[what]
    results = changed(trained, tmp_path, "seeds-0-to-1", change)
    bad = results.table[results.table["status"] != "ok"]
    assert 0 in set(bad["seed"])
    assert all(reason in text for text in bad["reason"])
    assert statuses(results)[2] == "ok"
    write_seeds_report(tmp_path / "changed")
    assert reason in (tmp_path / "changed" / "seeds.md").read_text()


@pytest.mark.parametrize("bytes_left_out", [1, 40, 400])
def test_a_file_that_breaks_off_is_read_up_to_there(trained: Path, tmp_path: Path, bytes_left_out: int) -> None:
    """It is named, and its seeds do not count, as they did not come to their end."""
    copy = Path(copytree(trained, tmp_path / "copy"))
    path = copy / "blocks" / "seeds-0-to-1.jsonl"
    os.truncate(path, path.stat().st_size - bytes_left_out)
    results = load_seeds(copy)
    assert statuses(results) == {2: "ok"}
    assert "seeds-0-to-1.jsonl" in results.cut[0]


def test_damaged_files_are_said_by_the_command(trained: Path, tmp_path: Path) -> None:
    """Exit code 1, the file and what to do; a plan that contradicts itself, and a link, too."""
    copy = Path(copytree(trained, tmp_path / "copy"))
    (copy / "blocks" / "seeds-0-to-1.jsonl").write_text("nonsense\n")
    process = lockstep("report", copy)
    assert process.returncode == 1
    assert "damaged" in process.stderr
    path = plan_path(copy, SeedsPlan)
    plan = json.loads(path.read_text())
    for change in ({"count": 9}, {"together": 0}, {"checked": ["seeds-7-to-8"]}, {"backends": plan["backends"][:1]}):
        path.write_text(json.dumps({**plan, **change}))
        with pytest.raises(LockstepError, match=r"seeds\.json is not a plan"):
            load_seeds(copy)
    (copy / "link").symlink_to(tmp_path)
    with pytest.raises(LockstepError, match="is a link"):
        write_seeds_report(copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "--count must be from 1 to 100,000, not 0"),
        ({"together": 101}, "--together must be from 1 to 100, not 101"),
        ({"check": 3}, "--check 3 is not between 0 and the 2 blocks of 2 seeds"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"train_images": 10_000}, "--train-images 10000"),
    ],
)
def test_what_cannot_be_done_is_refused_beforehand(digits: Dataset, options: dict[str, int], message: str) -> None:
    """In a sentence that names the option."""
    with pytest.raises(UsageError, match=message):
        plan_of(digits, **options)


def test_checked_blocks_are_spread_over_the_run(digits: Dataset) -> None:
    """From the first on, each once."""
    for count, check in ((40, 3), (7, 4), (8, 1), (8, 0)):
        plan = plan_of(digits, count=count, check=check)
        places = [[block.id for block in plan.blocks].index(name) for name in plan.checked]
        assert len(set(places)) == check
        assert places == sorted(places)
        assert places[:1] == [0][:check]


def made_up(trained: Path, errors: list[list[float]]) -> SeedsResults:
    """Results with these test errors, (seeds, epochs)."""
    results = load_seeds(trained)
    rows = [
        {**results.table.iloc[0].to_dict(), "seed": seed, "epoch": epoch, "test_error_percent": error}
        for seed, own in enumerate(errors)
        for epoch, error in enumerate(own, start=1)
    ]
    return results._replace(table=pd.DataFrame(rows))


def test_spread_is_what_can_be_counted_by_hand(trained: Path) -> None:
    """Four seeds and two epochs, the target between them."""
    found = spread(made_up(trained, [[8.0, 6.0], [7.0, 6.5], [9.0, 7.0], [7.5, 7.5]]), target=7.0)
    assert found is not None
    assert (found.seeds, found.mean, found.least, found.most) == (4, 6.75, 6.0, 7.5)
    assert found.deviation == pytest.approx(0.6455, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((6.75 - 3.18245 * 0.32275, 6.75 + 3.18245 * 0.32275), abs=1e-4)
    assert found.quantiles == pytest.approx((6.075, 6.375, 6.75, 7.125, 7.425))
    assert (found.reached, found.share) == (3, 75.0)
    exact = 100 * beta.ppf(0.025, 3, 2), 100 * beta.ppf(0.975, 4, 1)  # Clopper and Pearson's formula
    assert (found.share_low, found.share_high) == pytest.approx(exact)
    assert found.distance == pytest.approx(0.25 / 0.6455, abs=1e-3)
    assert (found.half_reached, found.nearest, found.nearest_median) == (2, 2, 6.75)
    assert (found.first, found.last) == (1, 2)


def test_spread_of_few_seeds_says_what_it_can(trained: Path) -> None:
    """One seed has no interval, none has no spread; and a target that nobody reaches is never reached."""
    one = spread(made_up(trained, [[8.0, 7.5]]), target=7.0)
    assert one is not None
    assert np.isnan([one.low, one.high, one.deviation, one.distance]).all()
    assert (one.half_reached, one.first, one.last, one.reached) == (None, None, None, 0)
    nobody = load_seeds(trained)
    nobody = nobody._replace(table=nobody.table.assign(status="not-identical"))
    assert spread(nobody, target=7.0) is None
    assert "No seed of the 3 that were planned came through" in answer(nobody)


def test_the_answer_on_mnist_places_the_notebook_s_error(trained: Path) -> None:
    """And nowhere else, for it is an error on MNIST."""
    results = made_up(trained, [[8.0, 6.0], [7.0, 6.5], [9.0, 7.0], [7.5, 7.5]])
    assert "7.21" not in answer(results)
    dataset = results.plan.dataset.model_copy(update={"name": "mnist"})
    text = answer(results._replace(plan=results.plan.model_copy(update={"dataset": dataset})))
    assert "At or below the notebook's 7.21 % ended 3 of 4: 75.0 % (exact 95 % interval 19.4 to 99.4 %)" in text
    assert "0.7 standard deviations above the mean" in text
    assert "Half of the seeds had been at or below 7.21 % by the end of epoch 2" in text
