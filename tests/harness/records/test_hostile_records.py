"""Records from strangers are data: they run nothing, lead nowhere, fill no memory, and spoil nothing but themselves."""

import csv
import io
import json
import os
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any, Final, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from lockstep_bench.harness import cli
from lockstep_bench.harness.cli.terminal import console
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.data.find import DIGITS
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.records import raw_files
from lockstep_bench.harness.records.format import (
    EndEvent,
    Event,
    MachineEvent,
    Plan,
    Status,
)
from lockstep_bench.harness.records.raw_files import read_arrays, read_block, read_plan
from lockstep_bench.harness.report.side_by_side import write_side_by_side
from lockstep_bench.harness.report.summary import write_summary
from lockstep_bench.harness.report.write import write_report
from lockstep_bench.harness.tables.learnt import read_learnt
from lockstep_bench.harness.tables.results import COLUMNS, FORMULA, Results, load, write_tables
from support.command import files, lockstep
from support.events import events_of, json_values, text

MakeResults = Callable[..., Results]


def change_plan(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Damage the plan of a results folder."""
    plan = json.loads((folder / "plan.json").read_text())
    change(plan)
    (folder / "plan.json").write_text(json.dumps(plan))


def is_one_sentence(text: str) -> bool:
    """Whether this is a single line of reasonable length."""
    return 0 < len(text) < 1000 and "\n" not in text and all(sign.isprintable() for sign in text)


@contextmanager
def no_more_than(limit: int) -> Iterator[None]:
    """See that what is done within takes no more memory than that at any time, in bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.fixture
def quick_report(monkeypatch: pytest.MonkeyPatch) -> list[Results]:
    """Reports without pictures and page, which have tests of their own and take seconds; what they are made from."""
    made: list[Results] = []

    def tables_too(folder: Path) -> Results:
        made.append(write_tables(folder))
        return made[-1]

    monkeypatch.setattr("lockstep_bench.harness.report.write.write_tables", tables_too)
    monkeypatch.setattr("lockstep_bench.harness.report.write.write_charts", lambda *_: None)
    monkeypatch.setattr("lockstep_bench.harness.report.write.write_page", lambda *_: None)
    return made


def report_code(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of `lockstep report`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["lockstep", "report", *map(str, arguments)])
    monkeypatch.setattr(console, "width", 200)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


UNSAFE: Final = {
    "up": "../x",
    "below": "a/b",
    "absolute": "/etc/hostname",
    "tag": "<script>",
    "empty": "",
    "long": "x" * 200,
    "newline": "a\nb",
    "newline at the end": "a\n",
    "hidden": ".hidden",
    "option": "-x",
    "backslash": "a\\b",
    "nul": "a\0b",
    "other letters": "nümpy",
}
PLACES: Final[dict[str, Callable[[dict[str, Any], str], object]]] = {
    "backend": lambda plan, name: plan["backends"][1].update(name=name),
    "block": lambda plan, name: plan["blocks"][0].update(id=name),
    "dataset": lambda plan, name: plan["dataset"].update(name=name),
}


@pytest.mark.parametrize("name", UNSAFE.values(), ids=list(UNSAFE))
@pytest.mark.parametrize("place", PLACES)
def test_a_plan_s_unsafe_names_are_refused(tmp_path: Path, make_results: MakeResults, place: str, name: str) -> None:
    """Of a backend, a block, a dataset: in one sentence, and nothing is written, in the folder or outside."""
    make_results(tmp_path / "mine", seeds=2)
    (tmp_path / "mine" / "x.jsonl").write_bytes((tmp_path / "mine" / "blocks" / "seed-0.jsonl").read_bytes())
    change_plan(tmp_path / "mine", lambda plan: PLACES[place](plan, name))
    before = files(tmp_path)
    with pytest.raises(LockstepError, match=r"is not a plan: .*String should match pattern") as caught:
        write_report(tmp_path / "mine")
    assert is_one_sentence(str(caught.value))
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", UNSAFE.values(), ids=list(UNSAFE))
@pytest.mark.parametrize("kind", ["start", "build", "turn", "evaluation", "end"])
def test_an_event_s_unsafe_name_is_refused(tmp_path: Path, make_results: MakeResults, kind: str, name: str) -> None:
    """By file and line, in one sentence."""
    plan = make_results(tmp_path, epochs=1).plan
    path = tmp_path / "blocks" / "seed-0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    number = next(place for place, line in enumerate(lines) if line["event"] == kind)
    lines[number]["backend"] = name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(LockstepError, match=f"line {number + 1}, is not an event: {kind}.backend: String ") as caught:
        read_block(tmp_path, plan.blocks[0])
    assert is_one_sentence(str(caught.value))


def test_names_twice_are_refused(tmp_path: Path, make_results: MakeResults) -> None:
    """Of backends or of blocks: what is recorded of one would count for the other."""
    make_results(tmp_path, seeds=2)
    change_plan(tmp_path, lambda plan: plan["blocks"][1].update(id="seed-0"))
    with pytest.raises(LockstepError, match=r"is not a plan: .*seed-0 is in it twice"):
        load(tmp_path)
    change_plan(tmp_path, lambda plan: (plan["blocks"][1].update(id="b"), plan["backends"][1].update(name="numpy")))
    with pytest.raises(LockstepError, match=r"is not a plan: .*numpy is in it twice"):
        load(tmp_path)


def test_a_plan_s_spec_is_never_imported(tmp_path: Path, make_results: MakeResults) -> None:
    """A file that the plan names is not run: the report works without it, and resuming says why it does not go on."""
    folder = tmp_path / "mine"
    make_results(folder, epochs=1, dataset="digits")
    marker = tmp_path / "marker"
    for where in (folder, tmp_path):
        (where / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    for spec in ("./evil.py", str(folder / "evil.py"), "evil", "evil:Backend"):
        # mypy cannot infer a lambda that has a default.
        change_plan(folder, lambda plan, spec=spec: plan["backends"][1].update(spec=spec))  # type: ignore[misc]
        load(folder)
        assert not marker.exists()
    change_plan(folder, lambda plan: plan["backends"][1].update(spec="./evil.py"))
    for cwd in (folder,):
        raw = {name: content for name, content in files(folder).items() if name.startswith(("plan.json", "blocks/"))}
        process = lockstep("run", "--resume", "--out", folder, cwd=cwd)
        assert process.returncode == 2
        assert "keras came from a file, and none that a plan names is loaded" in process.stderr
        assert is_one_sentence(process.stderr.strip().splitlines()[-1])
        assert not marker.exists()
        assert raw.items() <= files(folder).items()
    assert lockstep("report", folder, cwd=folder).returncode == 0
    assert not marker.exists()


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("summary.csv", "file"),
        ("report.html", "file"),
        ("plan.json", "plan"),
        ("blocks/seed-0.npz", "file"),
        ("charts", "folder"),
        ("charts/loss.svg", "file"),
        ("logs", "folder"),
        ("summary.md", "missing"),
    ],
)
def test_a_link_is_never_followed(tmp_path: Path, make_results: MakeResults, link: str, target: str) -> None:
    """Wherever it lies in the folder and leads to: a report refuses it in one sentence, and the target stays."""
    outside, folder = tmp_path / "outside", tmp_path / "mine"
    make_results(folder)
    (outside / "folder").mkdir(parents=True)
    for name in ("file", "folder/loss.svg"):
        (outside / name).write_text("a file of my own")
    (folder / "plan.json").rename(outside / "plan") if link == "plan.json" else None
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(outside / target)
    before = files(tmp_path)
    with pytest.raises(LockstepError, match="is a link, which could lead a report's files anywhere") as caught:
        write_report(folder)
    assert is_one_sentence(str(caught.value))
    assert files(tmp_path) == before
    assert not (outside / "missing").exists()


def test_a_plan_that_is_too_large_is_refused(
    tmp_path: Path, make_results: MakeResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence, and it is not read to its end."""
    make_results(tmp_path)
    with (tmp_path / "plan.json").open("ab") as file:
        file.truncate(256 << 20)
    monkeypatch.setattr(raw_files, "RECORD_BYTES", 1 << 20)
    sentence = r"plan\.json has more than the 1,048,576 bytes that are read"
    with no_more_than(4 << 20), pytest.raises(LockstepError, match=sentence) as caught:
        read_plan(tmp_path)
    assert is_one_sentence(str(caught.value))


def test_a_line_that_is_too_long_is_refused(
    tmp_path: Path, make_results: MakeResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it is an event: it is named, and the other block counts."""
    make_results(tmp_path, seeds=2)
    path = tmp_path / "blocks" / "seed-1.jsonl"
    first, *rest = path.read_bytes().splitlines(keepends=True)
    machine = json.loads(first) | {"details": {"python": "3" * 10_000}}
    path.write_bytes(json.dumps(machine).encode() + b"\n" + b"".join(rest))
    assert not load(tmp_path).cut
    monkeypatch.setattr(raw_files, "LINE_BYTES", 9_999)
    results = load(tmp_path)
    assert results.cut == ("blocks/seed-1.jsonl, line 1, has more than 9,999 bytes; restore the file",)
    assert list(results.runs["status"]) == ["ok"] * 3 + ["error"] * 3


def test_a_block_that_is_too_large_is_refused(
    tmp_path: Path, make_results: MakeResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, the other block counts, and it is not read to its end."""
    plan = make_results(tmp_path, seeds=2).plan
    with no_more_than(4 << 20):  # whatever the limit is
        assert read_block(tmp_path, plan.blocks[1]).complete
    with (tmp_path / "blocks" / "seed-1.jsonl").open("ab") as file:
        file.truncate(256 << 20)
    monkeypatch.setattr(raw_files, "BLOCK_BYTES", 1 << 20)
    sentence = r"seed-1\.jsonl has more than the 1,048,576 bytes that are read"
    with no_more_than(4 << 20), pytest.raises(LockstepError, match=sentence) as caught:
        read_block(tmp_path, plan.blocks[1])
    results = load(tmp_path)
    assert results.cut == (str(caught.value).replace(f"{tmp_path}/", ""),)
    assert list(results.runs["status"]) == ["ok"] * 3 + ["error"] * 3


def test_arrays_that_unpack_to_too_much_are_left_out(
    tmp_path: Path, make_results: MakeResults, monkeypatch: pytest.MonkeyPatch, quick_report: list[Results]
) -> None:
    """A small file may claim gigabytes of zeros: it is named, and none of it is unpacked."""
    block = make_results(tmp_path).plan.blocks[0]
    path = tmp_path / "blocks" / "seed-0.npz"
    np.savez_compressed(path, allow_pickle=False, probabilities=np.zeros(128 << 20, np.uint8))
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(raw_files, "ARRAYS_BYTES", 32 << 20)
    sentence = r"seed-0\.npz cannot be read: it unpacks to 134,217,\d+ bytes"
    with no_more_than(4 << 20), pytest.raises(LockstepError, match=sentence) as caught:
        read_arrays(tmp_path, block)
    assert is_one_sentence(str(caught.value))
    results = write_report(tmp_path)
    assert results.is_damaged
    assert str(caught.value) in results.cut
    assert str(caught.value) in (tmp_path / "summary.md").read_text()
    assert list(results.runs["status"]) == ["ok"] * 3


def npy(header: str, content: bytes = b"") -> bytes:
    """An array's file with this header, whatever follows."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


@pytest.mark.parametrize(
    "member",
    [
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,), }\n"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }\n", b"12345678"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }\n", b"short"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"\x80\x04N."),
        npy("__import__('os').mkdir('marker')\n"),
        npy("(" * 5000 + "\n"),
        npy(""),
        b"\x93NUMPY",
        b"",
    ],
    ids=["large", "negative", "short", "objects", "code", "nested", "empty header", "magic alone", "nothing"],
)
def test_arrays_with_a_lying_header_are_left_out(
    tmp_path: Path, make_results: MakeResults, monkeypatch: pytest.MonkeyPatch, member: bytes
) -> None:
    """Whatever an array claims of itself, it is read as it is or refused by the file's name; nothing of it is run."""
    block = make_results(tmp_path).plan.blocks[0]
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "blocks" / "seed-0.npz", "w") as archive:
        archive.writestr("probabilities.npy", member)
    with pytest.raises(LockstepError, match=r"^seed-0\.npz cannot be read: "):
        read_arrays(tmp_path, block)
    assert not (tmp_path / "marker").exists()


class MakesFolder:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["probabilities", "weights/hidden_kernel", "more"])
def test_pickled_arrays_are_never_loaded(
    tmp_path: Path, make_results: MakeResults, quick_report: list[Results], name: str
) -> None:
    """They could run anything: the file is named, and the report does the rest."""
    folder, marker = tmp_path / "mine", tmp_path / "marker"
    make_results(folder)
    path = folder / "blocks" / "seed-0.npz"
    arrays: dict[str, Any] = {name: np.array([MakesFolder(marker)], object)}
    np.savez(path, allow_pickle=True, **arrays)
    results = write_report(folder)
    assert not marker.exists()
    (cut,) = results.cut
    assert cut.startswith("seed-0.npz cannot be read: ")
    assert results.is_damaged
    assert list(results.runs["status"]) == ["ok"] * 3
    assert cut in (folder / "summary.md").read_text()
    with np.load(path, allow_pickle=True) as loaded:
        _ = loaded[name]
    assert marker.exists(), "had it been loaded, it would have been seen"


WEIGHTS: Final = {"weights/hidden_kernel": (784, 784), "weights/output_kernel": (784, 10), "probabilities": (297, 10)}


@pytest.mark.parametrize(
    ("problem", "dataset", "shapes"),
    [
        ({"inputs": 100}, {}, {"weights/hidden_kernel": (100, 784)}),
        ({"classes": 20}, {}, {"weights/output_kernel": (784, 20), "probabilities": (297, 20)}),
        ({"classes": 2}, {}, {"weights/output_kernel": (784, 2), "probabilities": (297, 2)}),
        ({}, {"test_images": 5}, {"probabilities": (5, 10)}),
        ({"hidden": 1}, {}, {"weights/hidden_kernel": (784, 1), "weights/output_kernel": (1, 10)}),
        ({}, {}, {"probabilities": (297,)}),
    ],
    ids=["inputs", "more classes", "fewer classes", "test images", "one unit", "another shape"],
)
def test_arrays_of_a_network_that_cannot_be_are_shown_or_refused(
    tmp_path: Path,
    make_results: MakeResults,
    digits: Dataset,
    problem: dict[str, int],
    dataset: dict[str, int],
    shapes: dict[str, tuple[int, ...]],
) -> None:
    """A plan may agree with its arrays and yet fit no dataset of its name: that is no crash."""
    make_results(tmp_path, dataset="digits")
    change_plan(
        tmp_path,
        lambda plan: (
            plan["problem"].update(problem),
            plan["dataset"].update({"sha256": DIGITS.sha256, "test_images": 297} | dataset),
        ),
    )
    arrays: dict[str, Any] = {
        name: np.random.default_rng(0).random(shape, np.float32) for name, shape in (WEIGHTS | shapes).items()
    }
    np.savez(tmp_path / "blocks" / "seed-0.npz", allow_pickle=False, **arrays)
    try:
        read_learnt(tmp_path, read_plan(tmp_path), digits)
    except LockstepError as error:
        assert is_one_sentence(str(error))  # noqa: PT017 # some can be shown


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.update(blocks=[]),
        lambda plan: plan.update(backends=[]),
        lambda plan: plan["problem"].update(hidden=10**400),
        lambda plan: plan["problem"].update(batch_size=10**30),
        lambda plan: plan["problem"].update(epochs=10**30),
        lambda plan: plan["dataset"].update(test_images=0),
        lambda plan: plan["blocks"][0].update(threads=0),
        lambda plan: plan["blocks"][0].update(seed=-1),
        lambda plan: plan.update(slice_steps=10**30),
        lambda plan: plan.update(turn_timeout_seconds=0),
    ],
    ids=[
        *("no blocks", "no backends", "hidden", "batch size", "epochs", "test images", "threads", "seed"),
        *("slice steps", "timeout"),
    ],
)
def test_a_plan_of_what_cannot_be_run_is_refused(
    tmp_path: Path, make_results: MakeResults, change: Callable[[dict[str, Any]], object]
) -> None:
    """Nothing to run, or numbers that no run can have: in one sentence."""
    make_results(tmp_path)
    change_plan(tmp_path, change)
    with pytest.raises(LockstepError, match=r"plan\.json is not a plan: ") as caught:
        load(tmp_path)
    assert is_one_sentence(str(caught.value))


FORMULAS: Final = [
    '=HYPERLINK("http://x")',
    "@SUM(1)",
    "+1+cmd|' /C calc'!A0",
    "-1+cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    "a\r=1+1",
    "a\n=1+1",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_is_one_that_a_spreadsheet_would_run(tmp_path: Path, make_results: MakeResults, formula: str) -> None:
    """A machine's name, a version, a reason, side by side too; what is a number stays one, even below 0."""
    folder = tmp_path / "mine"
    make_results(folder, machine=formula, failed=("keras", "error", formula, 1))
    path = folder / "blocks" / "seed-0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["event"] == "machine":
            line["details"] = {"python": formula}
        elif line["event"] == "start":
            line |= {"versions": {formula: formula}, "source_sha256": formula}
        elif line["event"] == "build":
            line["pools"] = [{"user_api": "blas", "internal_api": formula}]
        elif line["event"] == "turn":
            line["train_loss"] = -1.5
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    change_plan(folder, lambda plan: plan.update(device=formula))
    write_side_by_side(tmp_path / "both", {folder: write_tables(folder)})
    for table in (folder / f"{name}.csv" for name in COLUMNS):
        for one in (table, tmp_path / "both" / table.name):
            header, *rows = csv.reader(io.StringIO(one.read_bytes().decode(), newline=""))
            assert rows
            for name, cell in ((name, cell) for row in rows for name, cell in zip(header, row, strict=True)):
                is_number = cell.lstrip("-").replace(".", "", 1).replace("e-", "", 1).isdigit()
                assert is_number or not cell.startswith(FORMULA), f"{one.name}, {name}: {cell}"
    turns = pd.read_csv(folder / "turns.csv")
    assert list(turns["train_loss"]) == [-1.5] * len(turns)
    runs = pd.read_csv(folder / "runs.csv")
    assert runs["startup_seconds"].dtype.kind == "f"
    assert runs["machine"].str.contains(formula.strip().replace("\r", " "), regex=False).all()


def change_turn(**changed: object) -> Callable[[list[bytes]], list[bytes]]:
    """Damage that gives the first turn other numbers."""

    def damage(lines: list[bytes]) -> list[bytes]:
        place = next(place for place, line in enumerate(lines) if b'"turn"' in line)
        text = json.dumps(json.loads(lines[place]) | changed)
        return [*lines[:place], text.encode(), *lines[place + 1 :]]

    return damage


def repeat_turn(lines: list[bytes]) -> list[bytes]:
    """The first turn twice."""
    place = next(place for place, line in enumerate(lines) if b'"turn"' in line)
    return [*lines[: place + 1], *lines[place:]]


def put(line: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Damage that puts a line in the middle."""
    return lambda lines: [*lines[:5], line, *lines[5:]]


DAMAGES: Final[dict[str, Callable[[list[bytes]], list[bytes]]]] = {
    "garbage": put(b"\x00\x01 no event"),
    "a turn twice": repeat_turn,
    "no number": change_turn(train_loss=float("nan")),
    "infinity": change_turn(train_loss=float("inf")),
    "negative time": change_turn(train_seconds=-1.0),
    "no time": change_turn(train_seconds=0.0),
    "no steps": change_turn(steps=0),
    "backwards": change_turn(start=30, stop=0),
    "no images": change_turn(start=30, stop=30),
    "large integer": change_turn(steps=10**30),
    "large number": change_turn(train_loss=1e300),
    "text for a number": change_turn(train_seconds="fast"),
    "unknown field": change_turn(more=1),
    "nested": put(b"[" * 100_000 + b"]" * 100_000),
    "nested within": put(b'{"event":"machine","details":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"),
    "no UTF-8": put(b'{"event":"end","backend":"numpy","status":"error","reason":"\xff\xfe"}'),
    "lone surrogate": put(b'{"event":"end","backend":"numpy","status":"error","reason":"\\ud800"}'),
    "nothing after the end": lambda lines: [*lines, lines[-1]],
    "empty line": put(b""),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_results: MakeResults) -> tuple[Path, Results]:
    """Results of two blocks without damage."""
    folder = tmp_path_factory.mktemp("results") / "whole"
    return folder, make_results(folder, seeds=2)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_a_damaged_block_spoils_nothing_but_itself(
    tmp_path: Path,
    whole: tuple[Path, Results],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quick_report: list[Results],
    damage: Callable[[list[bytes]], list[bytes]],
) -> None:
    """The other block's numbers are all there; the file is named wherever one looks, and the exit code is 1."""
    undamaged, folder = whole[1], Path(copytree(whole[0], tmp_path / "damaged"))
    path = folder / "blocks" / "seed-1.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in damage(path.read_bytes().splitlines())))
    assert report_code(monkeypatch, folder) == 1
    shown = capsys.readouterr()
    (results,) = quick_report
    (cut,) = results.cut
    assert results.is_damaged
    assert cut.startswith("blocks/seed-1.jsonl, line ")
    assert is_one_sentence(cut)
    assert cut in (folder / "summary.md").read_text()
    assert cut in shown.err
    assert f"{folder} has damaged files, which were left out" in shown.err
    for name in ("runs", "epochs", "turns"):
        own, expected = (getattr(one, name)[getattr(one, name)["block"] == "seed-0"] for one in (results, undamaged))
        assert len(own)
        assert_frame_equal(own, expected)
        assert set(getattr(results, name)["block"]) == ({"seed-0", "seed-1"} if name == "runs" else {"seed-0"})
    bad = results.runs[results.runs["block"] == "seed-1"]
    assert list(bad["status"]) == ["error"] * 3
    assert set(bad["reason"]) == {cut}
    assert list(results.summary["runs_ok"]) == [1] * 3


def test_a_folder_without_results_does_not_stop_the_others(tmp_path: Path, make_results: MakeResults) -> None:
    """It is named, the exit code is 1, and all the others stand side by side."""
    make_results(tmp_path / "good", epochs=1)
    (tmp_path / "bad").mkdir()
    process = lockstep("report", "bad", "missing", "good", "--out", "both", cwd=tmp_path)
    assert process.returncode == 1
    for name in ("bad", "missing"):
        assert f"{name} holds no results: plan.json is missing" in process.stderr
    assert set(pd.read_csv(tmp_path / "both" / "summary.csv")["results"]) == {"good"}
    assert (tmp_path / "good" / "report.html").is_file()
    assert not list((tmp_path / "bad").iterdir())
    assert not (tmp_path / "missing").exists()


few = st.integers(0, 8)
"""Of epochs and rounds there are few, so that events meet."""
backends = st.sampled_from(["numpy", "keras", "pytorch", "stranger"])
*others, turn, evaluation = events_of(backends, few)
events: st.SearchStrategy[Event] = st.one_of(
    *others,
    *2 * (turn, evaluation),
    st.builds(EndEvent, backend=backends, status=st.just("ok") | st.sampled_from(get_args(Status)), reason=text),
)
machines = st.builds(
    MachineEvent,
    machine=text,
    started=text,
    details=st.dictionaries(st.just("python") | text, json_values, max_size=2),
)
sequences = st.lists(events | machines, max_size=25)


@pytest.fixture(scope="module")
def senseless(tmp_path_factory: pytest.TempPathFactory, make_results: MakeResults) -> Plan:
    """The plan of results whose events make no sense."""
    return make_results(tmp_path_factory.mktemp("plan"), seeds=2, begun=False).plan


@settings(deadline=None, max_examples=50)
@given(sequences, sequences, st.booleans(), st.sampled_from(["identical", "native"]))
def test_events_that_make_no_sense_are_a_table_or_an_error(
    senseless: Plan, first: list[Event], second: list[Event], is_over: bool, profile: str
) -> None:
    """Each of them valid, all of them together anything: tables and summary are written, or one sentence says why."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        raw_files.write_plan(folder, senseless.model_copy(update={"profile": profile}))
        (folder / "blocks").mkdir()
        ends = [EndEvent(backend=backend, status="ok") for backend in ("numpy", "keras")]
        for block, written in zip(senseless.blocks, (first, second), strict=True):
            lines = [event.model_dump_json() for event in [*written, *(ends if is_over else [])]]
            (folder / "blocks" / f"{block.id}.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        try:
            write_summary(folder, write_tables(folder))
        except LockstepError as error:
            assert is_one_sentence(str(error))  # noqa: PT017 # most examples raise nothing
