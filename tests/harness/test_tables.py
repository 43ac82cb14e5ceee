"""The tables must say what the raw records say: every number here is computed by hand from hand-made events."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep_bench.harness import tables
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.records import (
    Block,
    BlockFile,
    BuildEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    MachineEvent,
    Plan,
    PlannedBackend,
    PlannedDataset,
    StartEvent,
    Status,
    TurnEvent,
    block_path,
    write_plan,
)
from lockstep_bench.harness.summary import write_summary
from lockstep_bench.harness.tables import DECIMALS, Results, load, write_tables

FILES = ("runs.csv", "epochs.csv", "turns.csv", "summary.csv", "summary.md")
IDENTITY = ["backend", "style", "seed", "epoch", "status", "machine", "dataset", "threads", "device", "profile"]


def make_plan(*backends: str, seeds: tuple[int, ...] = (0,), dataset: str = "mnist", skip: str | None = None) -> Plan:
    """A plan of two epochs with a target of 7.21 %; `skip` says why the last backend is not to be run."""
    planned = [PlannedBackend(name=name, style="idiomatic", spec=name, versions={name: "0"}) for name in backends]
    if skip:
        planned[-1] = planned[-1].model_copy(update={"skip": skip})
    return Plan(
        lockstep="0.1.0",
        commit="c0ffee",
        commit_clean=True,
        command="lockstep run",
        preset=None,
        problem=Problem(epochs=2),
        dataset=PlannedDataset(name=dataset, sha256="5ha", train_images=35, test_images=10_000),
        backends=planned,
        blocks=[Block(id=f"seed-{seed}", seed=seed) for seed in seeds],
        threads=2,
        device="cpu",
        slice_steps=2,
        turn_timeout_seconds=300.0,
        target_error_percent=7.21,
        machine="planned machine",
    )


def machine() -> MachineEvent:
    """The first event of a block."""
    return MachineEvent(machine="this machine", started="2026-01-01T00:00:00+00:00", details={})


def begin(backend: str, start: float = 2.0, build: float = 0.5) -> list[Event]:
    """A worker that started and built."""
    versions = {"keras": "3.15.1", "tensorflow": "2.21.0"} if backend == "keras" else {backend: "1.0"}
    return [
        StartEvent(backend=backend, start_seconds=start, import_seconds=1.0, versions=versions),
        BuildEvent(backend=backend, build_seconds=build, weights_sha256="w"),
    ]


def turn(backend: str, epoch: int, number: int, seconds: float, loss: float = 1.0) -> TurnEvent:
    """The first (30 images, 2 steps) or second slice (5 images, 1 step) of an epoch, by the number of its round."""
    start, stop, steps = (0, 30, 2) if number % 2 else (30, 35, 1)
    return TurnEvent(
        backend=backend,
        epoch=epoch,
        round=number,
        start=start,
        stop=stop,
        steps=steps,
        at_seconds=10.0 * number,
        train_seconds=seconds,
        train_loss=loss,
    )


def evaluation(backend: str, epoch: int, error: float, disagreements: int | None = 0) -> EvaluationEvent:
    """An evaluation that took 3 seconds."""
    return EvaluationEvent(
        backend=backend,
        epoch=epoch,
        predict_seconds=1.0,
        evaluate_seconds=3.0,
        train_error_percent=error - 1,
        test_loss=error / 10,
        test_error_percent=error,
        order_sha256="o",
        disagreements=disagreements,
    )


def end(backend: str | None, status: Status = "ok", reason: str | None = None) -> EndEvent:
    """What became of a backend, or of the block."""
    return EndEvent(backend=backend, status=status, reason=reason)


def whole_run(backend: str, *seconds: float, errors: tuple[float, float] = (9.0, 5.5)) -> list[Event]:
    """A run that is ok: two epochs of two turns each, which take these four times."""
    one, two, three, four = seconds
    return [
        *begin(backend),
        turn(backend, 1, 1, one),
        turn(backend, 1, 2, two),
        evaluation(backend, 1, errors[0]),
        turn(backend, 2, 3, three),
        turn(backend, 2, 4, four),
        evaluation(backend, 2, errors[1]),
        end(backend),
    ]


def write(folder: Path, plan: Plan, *blocks: list[Event]) -> Path:
    """A results folder with these blocks' events, each after the machine's; further planned blocks were not begun."""
    write_plan(folder, plan)
    for block, events in zip(plan.blocks, blocks, strict=False):
        with BlockFile(folder, block) as file:
            for event in [machine(), *events]:
                file.append(event)
    return folder


def run_of(results: Results, backend: str, seed: int = 0) -> pd.Series:
    """The one row of a run."""
    runs = results.runs
    (index,) = runs.index[(runs["backend"] == backend) & (runs["seed"] == seed)]
    row: pd.Series = runs.loc[index]
    return row


def summary_of(results: Results, backend: str) -> pd.Series:
    """A backend's row in the summary."""
    row = results.summary.set_index("backend").loc[backend]
    assert isinstance(row, pd.Series)
    return row


def write_all(folder: Path) -> Results:
    """Write the tables and the page."""
    results = write_tables(folder)
    write_summary(folder, results)
    return results


@pytest.fixture
def pair(tmp_path: Path) -> Results:
    """Two backends that are ok: numpy in 4, 1, 4, 1 s and keras in 8, 1, 12, 4 s."""
    events = [*whole_run("numpy", 4, 1, 4, 1), *whole_run("keras", 8, 1, 12, 4), end(None)]
    return load(write(tmp_path, make_plan("numpy", "keras"), events))


def test_a_turn_is_a_row_with_its_time_per_step(pair: Results) -> None:
    """8 s for 2 steps are 4,000,000 microseconds per step."""
    row = pair.turns[pair.turns["backend"] == "keras"].iloc[0]
    assert row[["epoch", "round", "start", "stop", "steps"]].tolist() == [1, 1, 0, 30, 2]
    assert row[["at_seconds", "train_seconds", "microseconds_per_step"]].tolist() == [10.0, 8.0, 4e6]


def test_an_epochs_loss_is_the_mean_over_its_images(tmp_path: Path) -> None:
    """30 images at 2.0 and 5 at 0.25 have the mean (60 + 1.25) / 35 = 1.75."""
    events = [*begin("numpy"), turn("numpy", 1, 1, 4, 2.0), turn("numpy", 1, 2, 1, 0.25), evaluation("numpy", 1, 9.0)]
    epoch = load(write(tmp_path, make_plan("numpy"), events)).epochs.iloc[0]
    assert epoch["train_loss"] == 1.75
    assert epoch["train_seconds"] == 5.0
    assert epoch[["train_error_percent", "test_loss", "test_error_percent"]].tolist() == [8.0, 0.9, 9.0]
    assert epoch[["disagreements", "predict_seconds"]].tolist() == [0, 1.0]


def test_a_run_sums_its_turns_and_ends_on_its_last_evaluation(pair: Results) -> None:
    """keras: 8 + 1 + 12 + 4 s; steps of 4, 1, 6 and 4 s have the median 4 s."""
    keras = run_of(pair, "keras")
    assert keras[["train_seconds", "microseconds_per_step"]].tolist() == [25.0, 4e6]
    assert keras[["test_error_percent", "test_loss", "epochs_done", "disagreements"]].tolist() == [5.5, 0.55, 2, 0]
    assert keras["versions"] == "keras 3.15.1, tensorflow 2.21.0"
    assert keras[["machine", "status", "reason"]].tolist() == ["this machine", "ok", ""]


def test_the_target_is_reached_at_the_end_of_an_epoch(pair: Results) -> None:
    """In epoch 2: 25 s of training, and of its own 2 s start, 0.5 s build and twice 3 s evaluation as well."""
    keras = run_of(pair, "keras")
    assert keras["epochs_to_target"] == 2
    assert keras["train_seconds_to_target"] == 25.0
    assert keras["own_seconds_to_target"] == 33.5


def test_the_first_epoch_on_the_target_counts_and_nothing_after_it(tmp_path: Path) -> None:
    """Exactly 7.21 % after epoch 1 is on the target: 4 + 1 s, and 2 + 0.5 + 3 s of its own."""
    events = whole_run("numpy", 4, 1, 4, 1, errors=(7.21, 7.5))
    run = run_of(load(write(tmp_path, make_plan("numpy"), events)), "numpy")
    assert run[["epochs_to_target", "train_seconds_to_target", "own_seconds_to_target"]].tolist() == [1, 5.0, 10.5]


def test_a_target_that_is_never_reached_is_empty(tmp_path: Path) -> None:
    """No number stands in for it, and the summary says 0 of 1."""
    results = load(write(tmp_path, make_plan("numpy"), whole_run("numpy", 4, 1, 4, 1, errors=(9.0, 7.22))))
    run = run_of(results, "numpy")
    assert run[["epochs_to_target", "train_seconds_to_target", "own_seconds_to_target"]].isna().all()
    assert summary_of(results, "numpy")["target_reached"] == "0 of 1"
    assert math.isnan(summary_of(results, "numpy")["train_seconds_to_target"])


def test_the_ratio_is_paired_by_round(pair: Results) -> None:
    """Rounds of 8/4, 1/1, 12/4, 4/1: the median logarithm lies between those of 2 and 3; totals would give 2.5."""
    assert summary_of(pair, "keras")["ratio_to_reference"] == pytest.approx(math.sqrt(2 * 3), rel=1e-12)
    assert summary_of(pair, "numpy")["ratio_to_reference"] == 1.0


def test_seeds_are_paired_within_their_block_and_averaged(tmp_path: Path) -> None:
    """Both blocks have rounds 1 to 4, with ratios of 2 in one and 8 in the other: half way, in logarithms, is 4."""
    first = [*whole_run("numpy", 4, 1, 4, 1), *whole_run("keras", 8, 2, 8, 2)]
    second = [*whole_run("numpy", 4, 1, 4, 1, errors=(9.0, 5.0)), *whole_run("keras", 32, 8, 32, 8, errors=(7.0, 5.0))]
    results = load(write(tmp_path, make_plan("numpy", "keras", seeds=(0, 1)), first, second))
    keras = summary_of(results, "keras")
    assert keras["ratio_to_reference"] == pytest.approx(4.0, rel=1e-12)
    assert keras[["train_seconds", "test_error_percent"]].tolist() == [50.0, 5.25]
    assert keras[["epochs_to_target", "train_seconds_to_target"]].tolist() == [1.5, 30.0]  # 2 and 1; 20 s and 40 s
    assert keras[["runs", "runs_ok", "target_reached"]].tolist() == [2, 2, "2 of 2"]
    assert results.epochs["seed"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("status", [status for status in get_args(Status) if status != "ok"])
def test_a_run_that_is_not_ok_is_shown_and_not_compared(tmp_path: Path, status: Status) -> None:
    """Its rows are there with status and reason; in the summary it is last and has no time and no error."""
    keras = [*whole_run("keras", 1, 1, 1, 1)[:-1], end("keras", status, "as it\n  \x1bwere")]
    results = load(write(tmp_path, make_plan("keras", "numpy"), [*keras, *whole_run("numpy", 4, 1, 4, 1)]))
    assert run_of(results, "keras")[["status", "reason"]].tolist() == [status, "as it were"]
    assert set(results.turns.loc[results.turns["backend"] == "keras", "status"]) == {status}
    assert len(results.epochs) == 4
    assert results.summary["backend"].tolist() == ["numpy", "keras"]
    last = results.summary.iloc[1]
    assert last[["status", "runs", "runs_ok", "target_reached"]].tolist() == [status, 1, 0, "0 of 0"]
    assert last[["microseconds_per_step", "ratio_to_reference", "train_seconds", "test_error_percent"]].isna().all()
    assert math.isnan(summary_of(results, "numpy")["ratio_to_reference"])  # the reference failed


def test_one_failed_seed_makes_a_backend_failed_and_leaves_its_other_seed(tmp_path: Path) -> None:
    """The status is that of the failed run, the numbers are of the one that is ok; it comes last, though fastest."""
    plan = make_plan("numpy", "keras", seeds=(0, 1))
    first = [*whole_run("numpy", 4, 1, 4, 1), *begin("keras"), turn("keras", 1, 1, 99), end("keras", "killed")]
    second = [*whole_run("numpy", 4, 1, 4, 1), *whole_run("keras", 2, 0.5, 2, 0.5)]
    results = load(write(tmp_path, plan, first, second))
    keras = summary_of(results, "keras")
    assert keras[["status", "runs", "runs_ok", "train_seconds"]].tolist() == ["killed", 2, 1, 5.0]
    assert keras["ratio_to_reference"] == pytest.approx(0.5, rel=1e-12)
    assert results.summary["backend"].tolist() == ["numpy", "keras"]


def test_an_epoch_sums_its_own_turns_only(pair: Results) -> None:
    """Numpy: 4 + 1 and 4 + 1 s; keras: 8 + 1 and 12 + 4 s."""
    assert pair.epochs["train_seconds"].tolist() == [5.0, 5.0, 9.0, 16.0]


def test_an_epoch_without_evaluation_keeps_its_turns(tmp_path: Path) -> None:
    """A crash in epoch 2: one epoch, three turns, all of which the run's training time counts."""
    results = load(
        write(tmp_path, make_plan("numpy"), [*whole_run("numpy", 4, 1, 4, 1)[:6], end("numpy", "error", "oh")])
    )
    assert (len(results.epochs), len(results.turns)) == (1, 3)
    assert run_of(results, "numpy")[["epochs_done", "train_seconds"]].tolist() == [1, 9.0]


def test_a_block_that_was_not_begun_is_skipped(tmp_path: Path) -> None:
    """Every planned run has a row: of an unbegun block it is planned values and a reason."""
    results = load(write(tmp_path, make_plan("numpy", "keras", seeds=(0, 1)), whole_run("numpy", 4, 1, 4, 1)))
    assert len(results.runs) == 4
    run = run_of(results, "keras", seed=1)
    assert run[["status", "reason"]].tolist() == ["skipped", "the run ended before this block"]
    assert run[["machine", "versions", "epochs_done"]].tolist() == ["planned machine", "keras 0", 0]
    assert run[["train_seconds", "start_seconds", "test_error_percent", "disagreements"]].isna().all()


def test_a_backend_without_an_end_is_interrupted(tmp_path: Path) -> None:
    """The block was begun: what stopped it is the block's last line, where there is one."""
    plan = make_plan("numpy", "keras", seeds=(0, 1))
    first = [*whole_run("numpy", 4, 1, 4, 1), *begin("keras"), end(None, "interrupted", "Ctrl-C")]
    results = load(write(tmp_path, plan, first, begin("numpy")))
    assert run_of(results, "numpy")["status"] == "ok"
    assert run_of(results, "keras")[["status", "reason"]].tolist() == ["interrupted", "Ctrl-C"]
    assert run_of(results, "numpy", 1)[["status", "reason"]].tolist() == [
        "interrupted",
        "the records stop before its end",
    ]


@pytest.mark.parametrize("recorded", [True, False])
def test_a_backend_planned_as_skipped_says_why(tmp_path: Path, recorded: bool) -> None:
    """Also where its block was not begun."""
    folder = write(tmp_path, make_plan("numpy", "keras", skip="keras is missing"), *([[]] if recorded else []))
    assert run_of(load(folder), "keras")[["status", "reason"]].tolist() == ["skipped", "keras is missing"]


def test_an_unfinished_last_line_is_left_out(tmp_path: Path) -> None:
    """A crash in mid-write costs one event."""
    plan = make_plan("numpy")
    folder = write(tmp_path, plan, [*begin("numpy"), turn("numpy", 1, 1, 4)])
    with block_path(folder, plan.blocks[0], "jsonl").open("a") as file:
        file.write(turn("numpy", 1, 2, 1).model_dump_json()[:-5])
    results = load(folder)
    assert len(results.turns) == 1
    assert run_of(results, "numpy")["status"] == "interrupted"


def test_a_damaged_line_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    """The message names file and line."""
    plan = make_plan("numpy")
    folder = write(tmp_path, plan, begin("numpy"))
    with block_path(folder, plan.blocks[0], "jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(LockstepError, match=r"seed-0\.jsonl, line 4"):
        write_all(folder)
    assert not [name for name in FILES if (folder / name).exists()]


def test_disagreements_are_whole_numbers_and_may_be_missing(tmp_path: Path) -> None:
    """The largest counts; where nothing was checked there is none."""
    events = [*begin("numpy"), *begin("keras"), evaluation("numpy", 1, 9.0, 3), evaluation("numpy", 2, 9.0, 2)]
    results = load(write(tmp_path, make_plan("numpy", "keras"), [*events, evaluation("keras", 1, 9.0, None)]))
    assert run_of(results, "numpy")["disagreements"] == 3
    assert results.epochs["disagreements"].isna().tolist() == [False, False, True]
    assert str(results.epochs["disagreements"].dtype) == str(results.summary["disagreements"].dtype) == "Int64"


def test_nothing_at_all_has_tables_too(tmp_path: Path) -> None:
    """No events: typed tables without rows, a run and a summary row per backend."""
    results = write_all(write(tmp_path, make_plan("numpy", "keras")))
    assert (len(results.runs), len(results.summary), len(results.epochs), len(results.turns)) == (2, 2, 0, 0)
    assert str(results.turns["train_seconds"].dtype) == "float64"
    assert "No backend came through" in (tmp_path / "summary.md").read_text()


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
        assert set(own) >= {"backend", "style", "status", "machine", "dataset", "threads", "device", "profile"}
    row = pd.read_csv(folder / "turns.csv", dtype=str).iloc[0]
    assert row[["train_seconds", "microseconds_per_step"]].tolist() == ["0.333333", "166666.7"]


def test_every_column_of_measured_numbers_has_digits(pair: Results) -> None:
    """A float that is not rounded would differ in its last digits from one machine to the next."""
    for table in pair[1:]:
        assert set(table.select_dtypes("float64").columns) <= set(DECIMALS)
        assert not table.select_dtypes("object").map(lambda value: isinstance(value, float)).to_numpy().any()


def test_the_page_says_what_the_data_say(tmp_path: Path) -> None:
    """Same network, error, and time per step, in two sentences; keras takes half of numpy's time."""
    *keras, end_of_keras = whole_run("keras", 2, 0.5, 2, 0.5)
    keras = [event for event in keras if not isinstance(event, EvaluationEvent)]
    keras += [evaluation("keras", 2, 5.52, 4), end_of_keras]
    write_all(write(tmp_path, make_plan("numpy", "keras"), [*whole_run("numpy", 4, 1, 4, 1), *keras]))
    page = (tmp_path / "summary.md").read_text()
    assert page.startswith("# lockstep: MNIST on this machine\n")
    assert (
        "All 2 backends stayed the same network (at most 4 of 10,000 test images predicted differently, 5 allowed) and "
        "ended at 5.50 to 5.52 % test error. Time per step relative to numpy: keras 0.50."
    ) in page
    assert "no interval yet" in page
    assert "| keras | ok | 750,000 | 0.50 | 5.0 | 5.52 | 4 | 1 of 1 | 2 | 5.0 |" in page
    assert "commit c0ffee\n" in page
    assert "NOT MNIST" not in page


def test_the_page_says_what_failed_and_warns_of_other_data(tmp_path: Path) -> None:
    """A failure has its reason, other data a loud warning, a dirty checkout its mention."""
    plan = make_plan("numpy", "keras", dataset="digits").model_copy(update={"commit_clean": False})
    events = [*whole_run("numpy", 4, 1, 4, 1), *begin("keras"), end("keras", "timeout", "a turn took over 300 s")]
    write_all(write(tmp_path, plan, events))
    page = (tmp_path / "summary.md").read_text()
    assert "**THESE ARE NOT MNIST NUMBERS:**" in page
    assert "# lockstep: digits (not MNIST) on" in page
    assert "- **keras: timeout** after 0 of 2 epochs, seed 0: a turn took over 300 s" in page
    assert "All" not in page.split("##")[0]
    assert "with uncommitted changes" in page


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


def test_tables_know_no_framework() -> None:
    """The module names none."""
    source = Path(tables.__file__).read_text()
    assert not [name for name in ("keras", "torch", "sklearn", "tensorflow") if name in source.lower()]
