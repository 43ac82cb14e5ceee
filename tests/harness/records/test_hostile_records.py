"""Records from strangers are data: they run nothing, lead nowhere and fill no memory."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pytest

from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.records import raw_files
from lockstep_bench.harness.records.raw_files import read_block, read_plan
from lockstep_bench.harness.report.side_by_side import write_side_by_side
from lockstep_bench.harness.report.write import write_report
from lockstep_bench.harness.tables.results import COLUMNS, FORMULA, load, write_tables
from support.command import files, lockstep_process
from support.reports import MakeResults, change_plan, is_one_sentence, no_more_than

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
        process = lockstep_process("run", "--resume", "--out", folder, cwd=cwd)
        assert process.returncode == 2
        assert "keras came from a file, and none that a plan names is loaded" in process.stderr
        assert is_one_sentence(process.stderr.strip().splitlines()[-1])
        assert not marker.exists()
        assert raw.items() <= files(folder).items()
    assert lockstep_process("report", folder, cwd=folder).returncode == 0
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
