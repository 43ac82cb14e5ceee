"""A damaged block, or a folder of none, spoils nothing but itself; events that make no sense are no crash."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Final, get_args

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.records import raw_files
from lockstep_bench.harness.records.format import EndEvent, Event, MachineEvent, Plan, Status
from lockstep_bench.harness.report.summary import write_summary
from lockstep_bench.harness.tables.results import Results, write_tables
from support.command import lockstep
from support.events import events_of, json_values, text
from support.reports import MakeResults, is_one_sentence, report_code


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
