"""All tables of a folder: complete, of stated columns, the same bytes each time, whatever became of the records."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep_bench.harness.records.format import EndEvent, Event, TurnEvent
from lockstep_bench.harness.records.raw_files import block_path
from lockstep_bench.harness.tables import results
from lockstep_bench.harness.tables.results import DECIMALS, Results, load
from support.hand_made import (
    begin,
    end,
    evaluation,
    machine,
    make_plan,
    run_of,
    summary_of,
    turn,
    whole_run,
    write,
    write_all,
)

FILES = ("runs.csv", "epochs.csv", "turns.csv", "summary.csv", "ratios.csv", "summary.md")


IDENTITY = [
    "backend",
    "other",
    "style",
    "seed",
    "epoch",
    "status",
    "machine",
    "dataset",
    "threads",
    "device",
    "profile",
]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(1e-4, 1e4, allow_subnormal=False)] * 2), min_size=1, max_size=8),
    st.integers(0, 8),
)
def test_rows_account_for_all_that_was_recorded(times: list[tuple[float, float]], stop: int) -> None:
    """However a run is cut short: a row per turn and planned run, totals that add up, a ratio between its extremes."""
    turns: list[Event] = []
    for number, (numpy, keras) in enumerate(times, start=1):
        turns += [turn("numpy", 1, number, numpy), turn("keras", 1, number, keras)]
    ends: list[Event] = [end("numpy"), end("keras")] if stop >= len(times) else []
    kept = turns[: 2 * stop]
    with TemporaryDirectory() as folder:
        results = load(write(Path(folder) / "run", make_plan("numpy", "keras"), [*kept, *ends]))
    assert len(results.turns) == len(kept)
    assert len(results.runs) == 2
    total = sum(event.train_seconds for event in kept if isinstance(event, TurnEvent))
    assert results.runs["train_seconds"].sum() == pytest.approx(total)
    if ends:
        ratios = [keras / numpy for numpy, keras in times]
        ratio = summary_of(results, "keras")["ratio_to_reference"]
        assert min(ratios) * (1 - 1e-9) <= ratio <= max(ratios) * (1 + 1e-9)
    else:
        assert set(results.runs["status"]) == {"interrupted"}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_tables_of_a_file_cut_anywhere_are_those_of_what_was_complete(data: st.DataObject) -> None:
    """No run ends as ok that had not, no turn is lost that was written, and the cut is said on the page."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        events = [*whole_run("numpy", 1, 2, 3, 4), *whole_run("keras", 2, 4, 6, 8), end(None)]
        plan = make_plan("numpy", "keras")
        write(folder, plan, events)
        path = block_path(folder, plan.blocks[0], "jsonl")
        content = path.read_bytes()
        stop = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:stop])
        complete = [machine(), *events][: content[:stop].count(b"\n")]
        results = write_all(folder)
        assert len(results.turns) == sum(isinstance(event, TurnEvent) for event in complete)
        ended = {event.backend for event in complete if isinstance(event, EndEvent)}
        assert set(results.runs.loc[results.runs["status"] == "ok", "backend"]) == ended
        assert [f"- **{sentence}.**" in (folder / "summary.md").read_text() for sentence in results.cut] == [True]


def test_an_unfinished_last_line_is_left_out(tmp_path: Path) -> None:
    """A crash in mid-write costs one event."""
    plan = make_plan("numpy")
    folder = write(tmp_path, plan, [*begin("numpy"), turn("numpy", 1, 1, 4)])
    with block_path(folder, plan.blocks[0], "jsonl").open("a") as file:
        file.write(turn("numpy", 1, 2, 1).model_dump_json()[:-5])
    results = load(folder)
    assert len(results.turns) == 1
    assert run_of(results, "numpy")["status"] == "interrupted"


def test_a_damaged_file_is_left_out_and_its_runs_say_so(tmp_path: Path) -> None:
    """The message names file and line; the tables are written."""
    plan = make_plan("numpy")
    folder = write(tmp_path, plan, begin("numpy"))
    with block_path(folder, plan.blocks[0], "jsonl").open("a") as file:
        file.write("{}\n")
    results = write_all(folder)
    assert results.is_damaged
    assert run_of(results, "numpy")["status"] == "error"
    assert run_of(results, "numpy")["reason"].startswith("blocks/seed-0.jsonl, line 4, is not an event")
    assert all((folder / name).exists() for name in FILES)


def test_nothing_at_all_has_tables_too(tmp_path: Path) -> None:
    """No events: typed tables without rows, a run and a summary row per backend."""
    results = write_all(write(tmp_path, make_plan("numpy", "keras")))
    assert (len(results.runs), len(results.summary), len(results.epochs), len(results.turns)) == (2, 2, 0, 0)
    assert str(results.turns["train_seconds"].dtype) == "float64"
    assert "No backend came through" in (tmp_path / "summary.md").read_text()


def test_disagreements_are_whole_numbers_and_may_be_missing(tmp_path: Path) -> None:
    """The largest counts; where nothing was checked there is none."""
    events = [*begin("numpy"), *begin("keras"), evaluation("numpy", 1, 9.0, 3), evaluation("numpy", 2, 9.0, 2)]
    results = load(write(tmp_path, make_plan("numpy", "keras"), [*events, evaluation("keras", 1, 9.0, None)]))
    assert run_of(results, "numpy")["disagreements"] == 3
    assert results.epochs["disagreements"].isna().tolist() == [False, False, True]
    assert str(results.epochs["disagreements"].dtype) == str(results.summary["disagreements"].dtype) == "Int64"


def test_files_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Derived files depend on raw ones alone; lines end as on Unix."""
    folder = write(tmp_path, make_plan("numpy", "keras"), [*whole_run("numpy", 4, 1, 1 / 3, 1), *begin("keras")])
    write_all(folder)
    first = {name: (folder / name).read_bytes() for name in FILES}
    write_all(folder)
    assert {name: (folder / name).read_bytes() for name in FILES} == first
    assert not any(b"\r" in content or not content.endswith(b"\n") for content in first.values())


def test_columns_are_in_the_stated_order_and_rounded(tmp_path: Path) -> None:
    """Identifying columns come first; 1/3 s is 0.333333 s and 166,666.7 microseconds for each of 2 steps."""
    folder = write(tmp_path, make_plan("numpy"), whole_run("numpy", 1 / 3, 1, 4, 1))
    write_all(folder)
    for name in FILES[:-1]:
        columns = pd.read_csv(folder / name).columns.tolist()
        own = [column for column in IDENTITY if column in columns]
        assert columns[: len(own)] == own
        assert set(own) >= {"backend", "machine", "dataset", "threads", "device", "profile"}
    row = pd.read_csv(folder / "turns.csv", dtype=str).iloc[0]
    assert row[["train_seconds", "microseconds_per_step"]].tolist() == ["0.333333", "166666.7"]


def test_every_column_of_measured_numbers_has_digits(pair: Results) -> None:
    """A float that is not rounded would differ in its last digits from one machine to the next."""
    for table in pair.tables:
        assert set(table.select_dtypes("float64").columns) <= set(DECIMALS)
        assert not table.select_dtypes(exclude="number").map(lambda value: isinstance(value, float)).to_numpy().any()


def test_tables_know_no_framework() -> None:
    """The module names none."""
    source = Path(results.__file__).read_text()
    assert not [name for name in ("keras", "torch", "sklearn", "tensorflow") if name in source.lower()]
