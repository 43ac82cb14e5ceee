"""What is written is read back equal, what a crash leaves is read up to there, and what is damaged is refused."""

import json
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lockstep_bench.backends import NAME
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.records.format import (
    Block,
    BuildEvent,
    EndEvent,
    Event,
    ExtraEvent,
    FloorEvent,
    MachineEvent,
    Plan,
    PlannedBackend,
    PlannedDataset,
    SeedsPlan,
    StartEvent,
    Status,
)
from lockstep_bench.harness.records.raw_files import (
    BLOCK_END,
    BlockFile,
    Recorded,
    block_path,
    blocks_left,
    key,
    locked,
    read_arrays,
    read_block,
    read_plan,
    remove_arrays,
    write_arrays,
    write_plan,
)
from support.events import counts, events_of, json_values, text

BLOCK = Block(id="seed-0-threads-1-cpu", seed=0, threads=1)
PLAN = Plan(
    lockstep="0.1.0",
    commit="c" * 40,
    commit_clean=True,
    command="lockstep run --seeds 0",
    preset="quick",
    problem=Problem(epochs=1),
    dataset=PlannedDataset(name="digits", sha256="5" * 64, train_images=1500, test_images=297),
    backends=[
        PlannedBackend(name="numpy", style="idiomatic", spec="numpy", versions={"numpy": "2.4.6"}),
        PlannedBackend(name="mine", style="tuned", spec="./mine.py", versions={}, skip="magic is not installed"),
    ],
    blocks=[BLOCK],
    device="cpu",
    slice_steps=200,
    turn_timeout_seconds=300.0,
    target_error_percent=7.21,
    machine="Some CPU, 2 CPUs, 8 GiB",
)
EVENTS: list[Event] = [
    MachineEvent(machine="Some CPU", started="2025-01-01T00:00:00+00:00", details={"cpus": 2, "blas": [{"a": None}]}),
    StartEvent(
        backend="numpy", start_seconds=0.5, import_seconds=0.1, versions={"numpy": "2.4.6"}, memory_bytes=40_000_000
    ),
    BuildEvent(
        backend="numpy",
        build_seconds=0.01,
        weights_sha256="5" * 64,
        memory_bytes=50_000_000,
        pools=[{"internal_api": "openblas", "version": None}],
        variables={"OMP_NUM_THREADS": "1"},
    ),
    FloorEvent(round=1, at_seconds=1.5, flops_per_second=1e11, bytes_per_second=1e10),
    ExtraEvent(backend="numpy", latency_seconds=[1e-4, 2e-4], call_seconds=None),
    EndEvent(backend="numpy", status="error", reason="Ärger: “nein”\nzwei Zeilen \u2028 und ein Bild 🐛"),
    EndEvent(backend=None, status="ok"),
]

names = st.from_regex(NAME, fullmatch=True)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(MachineEvent, machine=text, started=text, details=st.dictionaries(text, json_values, max_size=3)),
    *events_of(names, counts),
    st.builds(EndEvent, backend=st.none() | names, status=st.sampled_from(get_args(Status)), reason=st.none() | text),
)
attempts = st.lists(events, max_size=4, unique_by=key).map(
    lambda found: [event for event in found if not isinstance(event, MachineEvent) and key(event) != BLOCK_END]
)
"""What can stand in one attempt at a block."""


def write_events(folder: Path, written: list[Event]) -> Path:
    """A block's raw file with these events."""
    with BlockFile(folder, BLOCK) as file:
        for event in written:
            file.append(event)
    return block_path(folder, BLOCK, "jsonl")


@settings(deadline=None)
@given(attempts)
def test_events_are_read_back_equal(written: list[Event]) -> None:
    """Whatever they hold: any text, any finite number to its last bit."""
    with TemporaryDirectory() as folder:
        path = write_events(Path(folder), written)
        assert path.read_bytes().count(b"\n") == len(written)
        assert read_block(Path(folder), BLOCK).events == written


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event)
def test_event_is_one_line_on_the_disk_at_once(tmp_path: Path, event: Event) -> None:
    """It can be read while the block goes on, and is JSON with its kind."""
    with BlockFile(tmp_path, BLOCK) as file:
        file.append(event)
        (line,) = block_path(tmp_path, BLOCK, "jsonl").read_bytes().splitlines()
        assert json.loads(line)["event"] == event.event
        assert read_block(tmp_path, BLOCK).events == [event]


def test_file_cut_anywhere_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    """At every byte: the complete lines before the cut, and no error."""
    path = write_events(tmp_path, EVENTS)
    content = path.read_bytes()
    for stop in range(len(content) + 1):
        path.write_bytes(content[:stop])
        assert read_block(tmp_path, BLOCK).events == EVENTS[: content[:stop].count(b"\n")], f"cut after {stop} bytes"


@settings(deadline=None)
@given(attempts, st.data())
def test_file_cut_anywhere_says_so(written: list[Event], data: st.DataObject) -> None:
    """Whatever it held: what was complete before the cut is read, and that more is missing is said."""
    with TemporaryDirectory() as folder:
        whole = [*written, EndEvent(backend=None, status="ok")]
        path = write_events(Path(folder), whole)
        content = path.read_bytes()
        stop = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:stop])
        found = read_block(Path(folder), BLOCK)
        complete = content[:stop].count(b"\n")
        assert found.events == whole[:complete]
        is_line_whole = stop == 0 or content[:stop].endswith(b"\n")
        last = whole[complete - 1] if complete else None
        if is_line_whole and isinstance(last, EndEvent) and last.backend is None:
            assert found.cut == ""
        elif is_line_whole:
            assert found.cut == f"{BLOCK.id}.jsonl stops after {complete} lines, before the end of its block"
        else:
            assert found.cut == f"{BLOCK.id}.jsonl breaks off in line {complete + 1}, which was left out"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (b"", "the text: Invalid JSON"),
        (b"\x00\x00\x00", "the text: Invalid JSON"),
        (b"\xff\xfe", "the text: Invalid JSON"),
        (b'{"event":"start","backend":"nu', "the text: Invalid JSON"),
        (b"[]", "the text: Input should be an object"),
        (b"{}", "the text: Unable to extract tag"),
        (b'{"event":"stop"}', "the text: Input tag 'stop'"),
        (b'{"event":"end","backend":null}', "end.status: Field required"),
        (b'{"event":"end","backend":null,"status":"fine"}', "end.status: Input should be"),
        (b'{"event":"end","backend":null,"status":"ok","more":1}', "end.more: Extra inputs are not permitted"),
    ],
)
def test_damaged_line_is_refused_by_file_and_line(tmp_path: Path, damage: bytes, reason: str) -> None:
    """Also the last one, if it is whole: a line that is no event is never passed over."""
    path = write_events(tmp_path, EVENTS)
    lines = path.read_bytes().splitlines()
    for number in range(1, len(lines) + 1):
        path.write_bytes(b"".join(line + b"\n" for line in (*lines[: number - 1], damage, *lines[number:])))
        with pytest.raises(LockstepError) as caught:
            read_block(tmp_path, BLOCK)
        assert str(caught.value).startswith(f"{path}, line {number}, is not an event: {reason}")
        assert str(caught.value).endswith("; restore the file")


def test_block_that_was_not_begun_has_no_events(tmp_path: Path) -> None:
    """Neither its file nor its folder need be there."""
    assert read_block(tmp_path, BLOCK).events == []


def test_an_attempt_that_was_cut_short_stays_marked_and_does_not_count(tmp_path: Path) -> None:
    """At every byte: what was complete stays, marked as interrupted, and the next attempt alone is read."""
    content = write_events(tmp_path, EVENTS).read_bytes()
    again = [EVENTS[0], EndEvent(backend=None, status="ok")]
    for stop in range(len(content)):
        path = block_path(tmp_path, BLOCK, "jsonl")
        path.write_bytes(content[:stop])
        write_events(tmp_path, again)
        whole, new = content[: content[:stop].rfind(b"\n") + 1], path.read_bytes()
        assert new.startswith(whole)
        marks = new[len(whole) :].splitlines()[: -len(again)]
        ended = [(event["status"], event["reason"]) for event in map(json.loads, marks)]
        assert ended == [("interrupted", "the run ended before its block did")] * bool(whole)
        assert read_block(tmp_path, BLOCK) == Recorded(again, before=1 if whole else 0)


def test_a_block_that_is_complete_is_not_marked_when_it_is_run_again(tmp_path: Path) -> None:
    """It came to its end; the attempt below it is the one that counts."""
    write_events(tmp_path, EVENTS)
    path = write_events(tmp_path, EVENTS)
    assert path.read_bytes().count(b"\n") == 2 * len(EVENTS)
    assert read_block(tmp_path, BLOCK) == Recorded(EVENTS, before=1)


@pytest.mark.parametrize("event", [EVENTS[1], EVENTS[3], EVENTS[-1]], ids=lambda event: event.event)
def test_nothing_is_counted_twice(tmp_path: Path, event: Event) -> None:
    """A second start, floor of a round, or end in one attempt is refused by file and line."""
    path = write_events(tmp_path, EVENTS)
    path.write_bytes(path.read_bytes() + event.model_dump_json().encode() + b"\n")
    with pytest.raises(LockstepError, match=f"line {len(EVENTS) + 1}, is an event that cannot come there"):
        read_block(tmp_path, BLOCK)


def test_a_line_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """A file-size limit stands for a full disk: what was complete is readable, and the message says what to do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with BlockFile(tmp_path, BLOCK) as file:
            file.append(EVENTS[0])
            resource.setrlimit(resource.RLIMIT_FSIZE, (file.path.stat().st_size + 10, hard))
            with pytest.raises(LockstepError) as caught:
                file.append(EVENTS[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = "cannot be written: File too large; make room, then go on with --resume: what was complete is kept"
    assert str(caught.value) == f"{file.path} {said}"
    assert read_block(tmp_path, BLOCK).events == EVENTS[:1]


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_folder_that_goes_while_it_is_written_is_noticed(tmp_path: Path, how: str) -> None:
    """Whatever would go into a file that nobody finds again is an error at once."""
    folder = tmp_path / "out"
    with BlockFile(folder, BLOCK) as file:
        file.append(EVENTS[0])
        if how == "removed":
            shutil.rmtree(folder)
        elif how == "moved":
            folder.rename(tmp_path / "elsewhere")
        else:
            file.path.unlink()
            file.path.write_text("")
        with pytest.raises(LockstepError, match="was removed or replaced while the run wrote it"):
            file.append(EVENTS[1])


def test_two_runs_cannot_write_into_one_folder(tmp_path: Path) -> None:
    """The second is refused while the first lives, be it another process; a dead one holds nothing."""
    code = "import sys, time; from pathlib import Path; from lockstep_bench.harness.records.raw_files import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="another run is writing into"), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path):
        pass


def test_events_cannot_be_changed() -> None:
    """A record is what was measured."""
    with pytest.raises(ValidationError, match="frozen"):
        EVENTS[-1].status = "ok"  # type: ignore[union-attr] # which is the point


def test_plan_is_read_back_equal(tmp_path: Path) -> None:
    """With its Problem, into a folder that is made for it."""
    write_plan(tmp_path / "new" / "folder", PLAN)
    assert read_plan(tmp_path / "new" / "folder") == PLAN


def test_reference_is_the_first_backend() -> None:
    """The others are compared with it."""
    assert PLAN.reference.name == "numpy"


def test_plan_is_never_overwritten(tmp_path: Path) -> None:
    """The folder of another run stays as it is."""
    write_plan(tmp_path, PLAN)
    with pytest.raises(FileExistsError):
        write_plan(tmp_path, PLAN.model_copy(update={"slice_steps": 2}))
    assert read_plan(tmp_path) == PLAN


def test_folder_without_a_plan_is_refused(tmp_path: Path) -> None:
    """The message says what is missing, and what to give."""
    with pytest.raises(LockstepError) as caught:
        read_plan(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds no results: plan.json is missing; give a folder that `lockstep run` wrote"
    )


def test_text_that_is_no_plan_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    (tmp_path / "plan.json").write_bytes(b"{")
    with pytest.raises(LockstepError) as caught:
        read_plan(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'plan.json'} is not a plan: the text: Invalid JSON")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"slice_steps": None}, "slice_steps: Input should be a valid integer"),
        ({"slice_steps": "two"}, "slice_steps: Input should be a valid integer"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"format": 1}, "format: Input should be 2"),
        ({"profile": "other"}, "profile: Input should be "),
        ({"problem": {"hidden": 0}}, "problem: Value error, hidden must be at least 1, not 0"),
        ({"problem": {"dtype": "float16"}}, "problem.dtype: Input should be 'float32' or 'float64'"),
        ({"problem": {"momentum": 0.9}}, "problem.momentum: Unexpected keyword argument"),
        ({"backends": [{"name": "numpy"}]}, "backends.0.style: Field required"),
    ],
)
def test_plan_with_another_field_is_refused_by_name(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    """Of a wrong type or value, unknown, of another version of the format, or inside of the Problem."""
    content = json.dumps(json.loads(PLAN.model_dump_json()) | change)
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(LockstepError) as caught:
        read_plan(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'plan.json'} is not a plan: {reason}")


@pytest.mark.parametrize("field", ["lockstep", "problem", "dataset", "backends", "blocks", "machine"])
def test_plan_without_a_field_is_refused_by_name(tmp_path: Path, field: str) -> None:
    """Nothing that was resolved is filled in later."""
    content = json.loads(PLAN.model_dump_json())
    del content[field]
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(LockstepError, match=f"plan.json is not a plan: {field}: Field required"):
        read_plan(tmp_path)


def test_arrays_are_read_back_equal(tmp_path: Path) -> None:
    """By name, with dtype and shape, and nothing else lies beside them."""
    arrays = {"predicted/numpy": np.arange(6, dtype=np.uint8).reshape(2, 3), "probabilities": np.eye(3, dtype="f4")}
    write_events(tmp_path, EVENTS)
    write_arrays(tmp_path, BLOCK, arrays)
    found = read_arrays(tmp_path, BLOCK)
    assert sorted(found) == sorted(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert sorted(path.name for path in (tmp_path / "blocks").iterdir()) == [f"{BLOCK.id}.jsonl", f"{BLOCK.id}.npz"]


def test_arrays_are_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    """A write that fails half-way leaves the former arrays; the next one that succeeds takes their place."""
    write_events(tmp_path, EVENTS)
    write_arrays(tmp_path, BLOCK, {"a": np.zeros(3)})
    with pytest.raises(ValueError, match="allow_pickle"):
        write_arrays(tmp_path, BLOCK, {"a": np.ones(3), "b": np.array([object()])})
    with np.load(block_path(tmp_path, BLOCK, "npz")) as found:
        assert found["a"].tolist() == [0, 0, 0]
    write_arrays(tmp_path, BLOCK, {"a": np.ones(3)})
    with np.load(block_path(tmp_path, BLOCK, "npz")) as found:
        assert found["a"].tolist() == [1, 1, 1]


def test_arrays_that_are_removed_are_gone(tmp_path: Path) -> None:
    """And to remove none is nothing; where there are none, none are read."""
    write_events(tmp_path, EVENTS)
    write_arrays(tmp_path, BLOCK, {"a": np.ones(3)})
    for _ in range(2):
        remove_arrays(tmp_path, BLOCK)
        assert [path.name for path in (tmp_path / "blocks").iterdir()] == [f"{BLOCK.id}.jsonl"]
    assert read_arrays(tmp_path, BLOCK) == {}


def test_arrays_that_cannot_be_put_into_place_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """With the file's name; nothing half-written stays."""
    path = block_path(tmp_path, BLOCK, "npz")
    path.mkdir(parents=True)
    with pytest.raises(LockstepError, match=rf"^{path} cannot be written: Is a directory; make room, then go on with"):
        write_arrays(tmp_path, BLOCK, {"a": np.ones(3)})
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_archive_with_something_else_in_it_is_refused_by_its_name(tmp_path: Path) -> None:
    """NumPy would hand over a member that is no array as it is."""
    write_events(tmp_path, EVENTS)
    with zipfile.ZipFile(block_path(tmp_path, BLOCK, "npz"), "w") as archive:
        archive.writestr("note", "text")
    with pytest.raises(LockstepError, match=rf"^{BLOCK.id}\.npz cannot be read: note is no array; restore the file$"):
        read_arrays(tmp_path, BLOCK)


def test_too_little_memory_for_arrays_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is as good as before."""

    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    write_events(tmp_path, EVENTS)
    write_arrays(tmp_path, BLOCK, {"a": np.ones(3)})
    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(MemoryError):
        read_arrays(tmp_path, BLOCK)


@pytest.mark.parametrize(("status", "retried"), [("ok", False), ("skipped", False), ("killed", True)])
def test_blocks_are_left_that_did_not_come_to_their_end(tmp_path: Path, status: Status, retried: bool) -> None:
    """And, where that is asked for, those in which a backend failed."""
    blocks = [BLOCK, *(BLOCK.model_copy(update={"id": name}) for name in ("begun", "not-begun"))]
    plan = PLAN.model_copy(update={"blocks": blocks})
    whole = [EVENTS[0], EndEvent(backend="numpy", status=status), EndEvent(backend=None, status="ok")]
    for block, written in ((blocks[0], whole), (blocks[1], whole[:-1])):
        with BlockFile(tmp_path, block) as file:
            for event in written:
                file.append(event)
    assert blocks_left(tmp_path, plan) == blocks[1:]
    assert blocks_left(tmp_path, plan, retry_failed=True) == (blocks if retried else blocks[1:])


def test_seeds_of_a_block_are_those_up_to_the_next() -> None:
    """The last one has what is left."""
    starts = [Block(id=f"seeds-{seed}", seed=seed, threads=1) for seed in (0, 3, 6)]
    fields = {**{name: getattr(PLAN, name) for name in Plan.model_fields}, "blocks": starts}
    plan = SeedsPlan(**fields, count=8, together=3, checked=["seeds-3"])
    assert [plan.seeds(block) for block in plan.blocks] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    wrong: dict[str, dict[str, Any]] = {
        "do not begin at every so many seeds": {"count": 9, "together": 2},
        "a block is checked that is not in it": {"checked": ["seeds-1"]},
        "must be two backends": {"backends": PLAN.backends[:1]},
    }
    for reason, change in wrong.items():
        with pytest.raises(ValidationError, match=reason):
            SeedsPlan(**{**fields, "count": 8, "together": 3, "checked": [], **change})
