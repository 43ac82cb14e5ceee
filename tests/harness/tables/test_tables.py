"""The tables must say what the raw records say: every number here is computed by hand from hand-made events."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.problem import Defaults, Problem
from lockstep_bench.harness.records.format import (
    Block,
    BuildEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    ExtraEvent,
    FloorEvent,
    MachineEvent,
    Plan,
    PlannedBackend,
    PlannedDataset,
    StartEvent,
    Status,
    TurnEvent,
)
from lockstep_bench.harness.records.raw_files import BlockFile, block_path, write_plan
from lockstep_bench.harness.report.summary import answer, write_into, write_latex, write_summary
from lockstep_bench.harness.tables import results
from lockstep_bench.harness.tables.results import DECIMALS, Results, load, write_tables

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
        blocks=[Block(id=f"seed-{seed}", seed=seed, threads=2) for seed in seeds],
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
        StartEvent(
            backend=backend, start_seconds=start, import_seconds=1.0, versions=versions, memory_bytes=40_000_000
        ),
        BuildEvent(
            backend=backend,
            build_seconds=build,
            weights_sha256="w",
            memory_bytes=50_000_000,
            pools=[],
            variables={},
        ),
    ]


def turn(
    backend: str,
    epoch: int,
    number: int,
    seconds: float,
    loss: float = 1.0,
    *,
    steal: float | None = None,
    load: float = 1.0,
    waiting: dict[str, float] | None = None,
) -> TurnEvent:
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
        cpu_seconds=1.5 * seconds,
        involuntary_switches=7,
        steal_percent=steal,
        load_average=load,
        waiting_seconds=waiting or {},
    )


def evaluation(backend: str, epoch: int, error: float, disagreements: int | None = 0) -> EvaluationEvent:
    """An evaluation that took 3 seconds."""
    return EvaluationEvent(
        backend=backend,
        epoch=epoch,
        weights_seconds=(0.3, 0.1),
        predict_seconds=1.0,
        evaluate_seconds=3.0,
        train_error_percent=error - 1,
        test_loss=error / 10,
        test_error_percent=error,
        order_sha256="o",
        threads_used=2,
        affinity=[0, 1],
        peak_bytes=100_000_000 + epoch,
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
        assert set(own) >= {"backend", "machine", "dataset", "threads", "device", "profile"}
    row = pd.read_csv(folder / "turns.csv", dtype=str).iloc[0]
    assert row[["train_seconds", "microseconds_per_step"]].tolist() == ["0.333333", "166666.7"]


def test_every_column_of_measured_numbers_has_digits(pair: Results) -> None:
    """A float that is not rounded would differ in its last digits from one machine to the next."""
    for table in pair.tables:
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
        "ended at 5.50 to 5.52 % test error. Fastest: keras. Time per step relative to it: numpy 2.00. "
        "The notebook reports 7.21 %: 1 of 1 seed ended at or below it.\n"
    ) in page
    assert (
        "| numpy | idiomatic | ok | 1 | 1,500,000 | 1.00 | 2.00 |  | 0.00 | 10 | 10 | 1 of 1 | 5.50 | 0 | 95 |" in page
    )
    assert "commit c0ffee\n" in page
    assert "NOT MNIST" not in page


def test_the_page_of_the_native_profile_says_what_each_trained_with(tmp_path: Path) -> None:
    """First that the networks are not identical; then defaults, errors by epoch and times, and nothing of a gate."""
    plan = make_plan("numpy", "torch", "keras").model_copy(update={"profile": "native"})
    own = Defaults("fan-in-uniform", epsilon=1e-8, epsilon_placement="corrected", l2=1e-4)._asdict()
    torch = [
        event.model_copy(update=own) if isinstance(event, BuildEvent) else event
        for event in whole_run("torch", 2, 0.5, 2, 0.5, errors=(6.0, 4.5))
    ]
    events = [*whole_run("numpy", 4, 1, 4, 1), *torch, end("keras", "error", "it broke")]
    blind = [
        event.model_copy(update={"disagreements": None}) if isinstance(event, EvaluationEvent) else event
        for event in events
    ]
    results = write_all(write(tmp_path, plan, blind))
    page = (tmp_path / "summary.md").read_text()
    assert page.startswith("# lockstep, native defaults, networks not identical: MNIST on this machine\n")
    assert answer(results).startswith("**The networks are not identical: each backend has its framework's own initial ")
    assert "2 of 3 backends came through: they ended at 4.50 to 5.50 % test error. Fastest: torch." in page
    assert (
        "| backend | style | status | initial weights | epsilon | added to | L2 | test error after epoch 1 (%) "
        "| test error after epoch 2 (%) | time per step (µs) | ratio to numpy |" in page
    )
    assert "| numpy | idiomatic | ok | glorot-uniform | 1e-07 | √v | 0 | 9.00 | 5.50 | 1,500,000 | 1.00 |" in page
    assert "| fan-in-uniform | 1e-08 | √(v / (1 - β₂ᵗ)) | 0.0001 | 6.00 | 4.50 | 750,000 | 0.50 |" in page
    assert "| keras | idiomatic | error |  |  |  |  |  |  |  |  |" in page
    for phrase in ("same network", "identically", "disagree", "predicted differently", "notebook"):
        assert phrase not in page
    assert (tmp_path / "runs.csv").read_text().count("fan-in-uniform,1e-08,corrected,0.0001") == 1


def test_records_from_before_the_native_profile_trained_with_the_problem_s_own(tmp_path: Path) -> None:
    """A build event without the fields is read, and its row says what all trained with then."""
    folder = write(tmp_path, make_plan("numpy"), whole_run("numpy", 4, 1, 4, 1))
    file = block_path(folder, make_plan("numpy").blocks[0], "jsonl")
    own = ',"initializer":"glorot-uniform","epsilon":1e-7,"epsilon_placement":"uncorrected","l2":0.0'
    assert file.read_text().count(own) == 1
    file.write_text(file.read_text().replace(own, ""))
    row = run_of(load(folder), "numpy")
    assert row[list(Defaults._fields)].to_dict() == Defaults()._asdict()


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


def floor(number: int, flops: float, bytes_: float = 1e15) -> FloorEvent:
    """What the machine can do in a round; with so much bandwidth, the operations decide."""
    return FloorEvent(round=number, at_seconds=0.0, flops_per_second=flops, bytes_per_second=bytes_)


def long_run(backend: str, *seconds: float, error: float = 5.5, **conditions: Any) -> list[Event]:
    """A run of one epoch whose turns, of 2 steps each, take these times."""
    turns = [turn(backend, 1, 2 * place + 1, each, **conditions) for place, each in enumerate(seconds)]
    return [*begin(backend), *turns, evaluation(backend, 1, error), end(backend)]


STEADY = (1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99)


def times(factor: float) -> list[float]:
    """Steady times, so many times as long."""
    return [factor * each for each in STEADY]


def test_phases_are_told_apart(tmp_path: Path) -> None:
    """Start 2 s, of which import 1; build 0.5; a first slice of 5 s where the later ones take 1: 4 s of start-up."""
    run = run_of(load(write(tmp_path, make_plan("numpy"), long_run("numpy", 5, 1, 0.9, 1.1))), "numpy")
    assert run[["start_seconds", "import_seconds", "build_seconds"]].tolist() == [2.0, 1.0, 0.5]
    assert run[["first_slice_seconds", "median_slice_seconds", "startup_seconds"]].tolist() == [5.0, 1.0, 4.0]
    assert run["train_seconds"] == 8.0
    assert run[["evaluation_seconds", "own_seconds"]].tolist() == [3.0, 13.5]  # 2 + 0.5 + 8 + 3
    assert run["microseconds_per_step"] == pytest.approx(1.05e6 / 2)
    assert run["images_per_second"] == pytest.approx((30 / 1 + 30 / 1.1) / 2)
    assert run[["weights_seconds", "weights_again_seconds", "predict_images_per_second"]].tolist() == [0.3, 0.1, 1e4]
    assert run[["memory_import_bytes", "memory_build_bytes"]].tolist() == [40_000_000, 50_000_000]
    assert run[["memory_peak_bytes", "cpus_used", "threads_used"]].tolist() == [100_000_001, 2, 2]


def test_single_predictions_and_calls_have_their_columns(tmp_path: Path) -> None:
    """200 calls of 1 ms to 200 ms: median 100.5, 99th percentile 198.01; a call of 50 ms is 5 % of a slice of 1 s."""
    latency = [place / 1000 for place in range(1, 201)]
    events = long_run("numpy", *times(1))
    events[-1:-1] = [ExtraEvent(backend="numpy", latency_seconds=latency, call_seconds=0.05)]
    run = run_of(load(write(tmp_path / "all", make_plan("numpy"), events)), "numpy")
    assert run["latency_milliseconds"] == pytest.approx(100.5)
    assert run["latency_p99_milliseconds"] == pytest.approx(198.01)
    assert run[["call_milliseconds", "call_percent"]].tolist() == pytest.approx([50, 5])
    events[-2] = ExtraEvent(backend="numpy", latency_seconds=latency[:199], call_seconds=None)
    run = run_of(load(write(tmp_path / "fewer", make_plan("numpy"), events)), "numpy")
    assert run["latency_milliseconds"] == pytest.approx(100.0)
    assert run[["latency_p99_milliseconds", "call_milliseconds", "call_percent"]].isna().all()


def test_the_floor_of_a_round_is_held_against_its_turns(tmp_path: Path) -> None:
    """37.6 million operations at 1e9 a second are a floor of 37.6 milliseconds; a round without one counts not."""
    operations = 4 * 15 * 784 * 784 + 6 * 15 * 784 * 10
    events = [
        floor(1, 1e9),
        floor(3, 5e8),
        *long_run("numpy", *(operations * 2e-9 * times for times in (10, 30, 99))),
    ]
    results = load(write(tmp_path, make_plan("numpy"), events))
    assert results.turns["floor_microseconds_per_step"].tolist()[:2] == pytest.approx([37584.9, 75169.9], rel=1e-4)
    assert results.turns["floor_microseconds_per_step"].isna().tolist() == [False, False, True]
    assert run_of(results, "numpy")["floor_multiple"] == pytest.approx((10 + 15) / 2)
    assert summary_of(results, "numpy")["floor_multiple"] == pytest.approx((10 + 15) / 2)


def test_conditions_of_a_turn_are_in_its_row(tmp_path: Path) -> None:
    """1.5 CPUs busy, and what the two who waited used; each has its own share of the turns it waited in."""
    waiting = {"keras": 0.01, "_floor": 0.02}
    events = [*long_run("numpy", *times(1), steal=0.5, load=2.5, waiting=waiting), *long_run("keras", *times(2))]
    results = load(write(tmp_path, make_plan("numpy", "keras"), events))
    row = results.turns[results.turns["backend"] == "numpy"].iloc[0]
    assert row[["cpu_per_second", "involuntary_switches", "steal_percent", "load_average"]].tolist() == [
        1.5,
        7,
        0.5,
        2.5,
    ]
    assert row["waiting_seconds"] == pytest.approx(0.03)
    assert run_of(results, "keras")["waiting_percent"] == pytest.approx(100 * 0.08 / sum(STEADY))
    assert math.isnan(run_of(results, "numpy")["waiting_percent"])


def test_outliers_are_marked_and_stay(tmp_path: Path) -> None:
    """One turn of 50 s among steady ones: marked, counted, and in the total."""
    results = load(write(tmp_path, make_plan("numpy"), long_run("numpy", *STEADY, 50)))
    assert results.turns["outlier"].tolist() == [""] * 8 + ["yes"]
    assert summary_of(results, "numpy")["outliers"] == 1
    assert run_of(results, "numpy")["train_seconds"] == pytest.approx(58.0)


def test_every_pair_is_compared_and_the_fastest_is_first(tmp_path: Path) -> None:
    """Keras takes half of numpy's time, torch three times as long; nobody is faster than keras, one than numpy."""
    events = [*long_run("numpy", *times(1)), *long_run("keras", *times(0.5)), *long_run("torch", *times(3))]
    results = load(write(tmp_path, make_plan("numpy", "keras", "torch"), events))
    assert results.summary["backend"].tolist() == ["keras", "numpy", "torch"]
    assert results.summary["rank"].tolist() == [1, 2, 3]
    assert results.summary["ratio_to_reference"].tolist() == pytest.approx([0.5, 1, 3])
    assert results.summary["ratio_to_fastest"].tolist() == pytest.approx([1, 2, 6])
    assert results.summary["ratio_to_fastest_low"].isna().tolist() == [True, False, False]
    assert len(results.ratios) == 6
    pair = results.ratios[(results.ratios["backend"] == "torch") & (results.ratios["other"] == "keras")].iloc[0]
    assert pair[["rounds", "verdict"]].tolist() == [8, "slower"]
    assert pair["ratio"] == pytest.approx(6)


def test_backends_that_cannot_be_told_apart_share_a_rank(tmp_path: Path) -> None:
    """Keras is as often faster as slower, by up to 30 %: both are first, though one has the lower median."""
    mixed = [each * factor for each, factor in zip(STEADY, (1.3, 0.7, 1.2, 0.8, 1.1, 0.9, 1.25, 0.8), strict=True)]
    results = load(
        write(tmp_path, make_plan("numpy", "keras"), [*long_run("numpy", *STEADY), *long_run("keras", *mixed)])
    )
    assert results.summary["rank"].tolist() == [1, 1]
    assert set(results.ratios["verdict"]) == {"no difference shown"}


def test_the_references_twin_shows_the_noise_and_is_not_ranked(tmp_path: Path) -> None:
    """It has a row and a ratio, no rank, and is never the fastest."""
    plan = make_plan("numpy", "keras")
    plan = plan.model_copy(
        update={"backends": [*plan.backends, plan.reference.model_copy(update={"name": "numpy-aa"})]}
    )
    events = [*long_run("numpy", *times(1)), *long_run("keras", *times(3)), *long_run("numpy-aa", *times(0.9))]
    results = write_all(write(tmp_path, plan, events))
    assert results.summary["backend"].tolist() == ["numpy-aa", "numpy", "keras"]
    assert results.summary["rank"].isna().tolist() == [True, False, False]
    assert results.summary["rank"].tolist()[1:] == [1, 2]
    assert summary_of(results, "keras")["ratio_to_fastest"] == pytest.approx(3)
    page = (tmp_path / "summary.md").read_text()
    assert "All 2 backends" in page
    assert "Fastest: numpy." in page
    assert "ratio to numpy" in page
    assert "ratio to the fastest" not in page  # the same twice
    assert "The reference against itself (numpy-aa) came to 0.900 (0.900 to 0.900): one process is not" in page
    assert "differences of up to 11 % as noise" in page


def test_replicates_are_pooled_as_series_of_their_own(tmp_path: Path) -> None:
    """Two blocks of 8 rounds, ratios of 2 and 8: half of 16 rounds each; both runs end at the same error: one seed."""
    plan = make_plan("numpy", "keras")
    blocks = [Block(id=f"seed-0-{place}", seed=0, threads=2, replicate=place) for place in (1, 2)]
    plan = plan.model_copy(update={"blocks": blocks})
    first = [*long_run("numpy", *times(1)), *long_run("keras", *times(2))]
    second = [*long_run("numpy", *times(1)), *long_run("keras", *times(8))]
    results = load(write(tmp_path, plan, first, second))
    assert results.runs["replicate"].tolist() == [1, 1, 2, 2]
    keras = summary_of(results, "keras")
    assert keras[["runs", "seeds", "notebook_reached"]].tolist() == [2, 1, "1 of 1"]
    assert keras["ratio_to_reference"] == pytest.approx(4)
    assert results.ratios["rounds"].tolist() == [16, 16]


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


def test_numbers_of_threads_are_tables_of_their_own(tmp_path: Path) -> None:
    """With one thread keras takes twice as long, with two four times: no ratio crosses."""
    plan = make_plan("numpy", "keras")
    blocks = [Block(id=f"threads-{count}", seed=0, threads=count) for count in (1, 2)]
    plan = plan.model_copy(update={"blocks": blocks})
    first = [*long_run("numpy", *times(2)), *long_run("keras", *times(4))]
    second = [*long_run("numpy", *times(1)), *long_run("keras", *times(4))]
    results = write_all(write(tmp_path, plan, first, second))
    assert results.summary[["threads", "backend"]].to_numpy().tolist() == [
        [1, "numpy"],
        [1, "keras"],
        [2, "numpy"],
        [2, "keras"],
    ]
    assert results.summary["ratio_to_reference"].tolist() == pytest.approx([1, 2, 1, 4])
    assert results.ratios["threads"].tolist() == [1, 1, 2, 2]
    page = (tmp_path / "summary.md").read_text()
    assert (
        page.index("## 1 thread\n") < page.index("keras 2.00") < page.index("## 2 threads") < page.index("keras 4.00")
    )


@pytest.mark.parametrize(
    ("conditions", "column"),
    [
        ({"steal": 2.5}, "steal_percent"),
        ({"load": 3.5}, "foreign_load"),
        ({"waiting": {"keras": 0.02}}, "waiting_percent"),
    ],
)
def test_times_under_bad_conditions_are_called_unstable(
    tmp_path: Path, conditions: dict[str, Any], column: str
) -> None:
    """2.5 % steal, a load of 3.5 with 2 threads, 2 % used while waiting: each by name, and only where it was."""
    quick = [event.model_copy(update={"weights_seconds": (0.1, 0.1)}) for event in [evaluation("numpy", 1, 5.5)]]
    numpy = [*long_run("numpy", *times(1), **conditions)[:-2], *quick, end("numpy")]
    keras = [*long_run("keras", *times(2))[:-2], quick[0].model_copy(update={"backend": "keras"}), end("keras")]
    results = write_all(write(tmp_path, make_plan("numpy", "keras"), [*numpy, *keras]))
    guilty, other = ("keras", "numpy") if column == "waiting_percent" else ("numpy", "keras")
    assert summary_of(results, guilty)["unstable"].startswith(f"{column} ")
    assert summary_of(results, other)["unstable"] == ""
    page = (tmp_path / "summary.md").read_text()
    assert f"- {guilty} is unstable: " in page
    assert f"| {guilty} | idiomatic | ok, unstable |" in page


def test_wide_spread_and_work_put_off_are_called_unstable(tmp_path: Path) -> None:
    """Ratios that swing by half; a first `weights()` that takes 0.2 s more than the second, of slices of 1 s."""
    swing = [each * factor for each, factor in zip(STEADY, (1.5, 0.7) * 4, strict=True)]
    results = load(
        write(tmp_path, make_plan("numpy", "keras"), [*long_run("numpy", *STEADY), *long_run("keras", *swing)])
    )
    assert summary_of(results, "numpy")["unstable"] == "put_off_percent 20"
    assert summary_of(results, "keras")["unstable"].startswith("spread_percent ")
    assert summary_of(results, "keras")["put_off_percent"] == pytest.approx(100 * 0.2 / 0.8, rel=0.2)


def test_over_seeds_there_is_a_mean_with_its_interval_and_range(tmp_path: Path) -> None:
    """Errors of 6, 7 and 8 %: mean 7, Student's interval 7 +/- 4.303 / sqrt(3); two are at or below 7.21 %."""
    blocks = [long_run("numpy", *times(1), error=error) for error in (6.0, 7.0, 8.0)]
    results = write_all(write(tmp_path, make_plan("numpy", seeds=(0, 1, 2)), *blocks))
    row = summary_of(results, "numpy")
    assert row[["test_error_percent", "test_error_min", "test_error_max", "seeds"]].tolist() == [7, 6, 8, 3]
    assert row[["test_error_low", "test_error_high"]].tolist() == pytest.approx([4.516, 9.484], abs=1e-3)
    assert row["notebook_reached"] == "2 of 3"
    assert (
        "The notebook reports 7.21 %: 2 of 3 seeds ended at or below it, between 6.00 and 8.00 %, 7.00 % on average "
        "(95 % interval 4.52 to 9.48)."
    ) in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(("errors", "epochs"), [((7.0, 8.0, 7.1), 1.0), ((7.0, 8.0), None), ((7.0, 8.0, 9.0), None)])
def test_runs_that_never_reach_the_target_count_as_infinitely_late(
    tmp_path: Path, errors: tuple[float, ...], epochs: float | None
) -> None:
    """The median over runs is there while more than half get there; how many did is said in any case."""
    blocks = [long_run("numpy", *times(1), error=error) for error in errors]
    row = summary_of(load(write(tmp_path, make_plan("numpy", seeds=tuple(range(len(errors)))), *blocks)), "numpy")
    assert row["target_reached"] == f"{sum(error <= 7.21 for error in errors)} of {len(errors)}"
    assert row["epochs_to_target"] == epochs if epochs else math.isnan(row["epochs_to_target"])


def test_the_answer_is_put_into_a_document(tmp_path: Path) -> None:
    """Between the two lines, again and again, and nothing else is touched; without them it is refused."""
    results = write_all(write(tmp_path / "run", make_plan("numpy", "keras"), [*whole_run("numpy", 4, 1, 4, 1)]))
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- lockstep report: begin -->\nold\n<!-- lockstep report: end -->\nafter\n")
    write_into(document, results)
    text = document.read_text()
    assert text.startswith(
        "before\n<!-- lockstep report: begin -->\nnumpy ended at 5.50 % test error; there is no other"
    )
    assert "old" not in text
    assert text.endswith("<!-- lockstep report: end -->\nafter\n")
    write_into(document, results)
    assert document.read_text() == text
    document.write_text("no place")
    with pytest.raises(UsageError, match="put the lines"):
        write_into(document, results)
    assert document.read_text() == "no place"


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
    source = Path(results.__file__).read_text()
    assert not [name for name in ("keras", "torch", "sklearn", "tensorflow") if name in source.lower()]


def test_latex_takes_every_sign_for_text(tmp_path: Path) -> None:
    """In names, units and formulas; of the native profile the caption says that networks are not identical."""
    results = load(Path(__file__).parents[3] / "results" / "native")
    named = results.summary.replace({"keras": r"my_&%$#{}~^\backend"})
    write_latex(tmp_path, results._replace(summary=named))
    text = (tmp_path / "summary.tex").read_text()
    assert text.isascii()
    assert r"time per step (\textmu{}s)" in text
    assert r"$\surd$(v / (1 - $\beta$$_2$$^t$))" in text
    assert r"my\_\&\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}backend" in text
    assert "The networks are not identical" in text
