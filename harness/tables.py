"""The derived tables: a pure function of the raw records, with a row for every planned run, whatever became of it.

The same raw files give the same tables, byte for byte. Only runs with status `ok` are averaged, ranked or compared.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple, TypeVar

import pandas as pd
from pandas import DataFrame, Series

from lockstep_bench.harness import records
from lockstep_bench.harness.records import EvaluationEvent, Event, Plan, PlannedBackend, TurnEvent

CONDITIONS: Final = ("machine", "dataset", "threads", "device", "profile")
TARGET: Final = ("epochs_to_target", "train_seconds_to_target")
COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "runs": (
        *("backend", "style", "seed", "status", *CONDITIONS, "block", "reason", "epochs_done", "versions"),
        *("test_error_percent", "test_loss", "train_seconds", "microseconds_per_step", "disagreements"),
        *("start_seconds", "build_seconds", *TARGET, "own_seconds_to_target"),
    ),
    "epochs": (
        *("backend", "style", "seed", "epoch", "status", *CONDITIONS, "block", "train_seconds", "train_loss"),
        *("train_error_percent", "test_loss", "test_error_percent", "disagreements", "predict_seconds"),
    ),
    "turns": (
        *("backend", "style", "seed", "epoch", "status", *CONDITIONS, "block", "round", "start", "stop", "steps"),
        *("at_seconds", "train_seconds", "microseconds_per_step", "train_loss"),
    ),
    "summary": (
        *("backend", "style", "status", *CONDITIONS, "runs", "runs_ok", "microseconds_per_step", "ratio_to_reference"),
        *("train_seconds", "test_error_percent", "disagreements", "target_reached", *TARGET),
    ),
}
DECIMALS: Final = {
    **dict.fromkeys(("train_loss", "test_loss", "train_seconds", "predict_seconds"), 6),
    **dict.fromkeys(("train_error_percent", "test_error_percent", "ratio_to_reference"), 4),
    **dict.fromkeys(("start_seconds", "build_seconds", "at_seconds"), 3),
    **dict.fromkeys(("train_seconds_to_target", "own_seconds_to_target"), 3),
    **dict.fromkeys(("microseconds_per_step", "epochs_to_target"), 1),
}
"""Decimals that a column is rounded to in CSV files: every column of measured numbers has an entry."""
WHOLE: Final = (
    *("seed", "epoch", "threads", "round", "start", "stop", "steps"),
    *("runs", "runs_ok", "epochs_done", "disagreements"),
)
"""Columns of whole numbers, some of them missing; a column in neither set holds text."""

Some = TypeVar("Some", bound=Event)


class Results(NamedTuple):
    """A results folder as tables, unrounded; `results/README.md` says what every column means."""

    plan: Plan
    runs: DataFrame
    epochs: DataFrame
    turns: DataFrame
    summary: DataFrame


def load(folder: Path | str) -> Results:
    """Derive all tables from the raw records of a results folder.

    Raises:
        LockstepError: the folder holds no plan, or a raw file is damaged; the message says which and where.
    """
    plan = records.read_plan(Path(folder))
    recorded = [(block, records.read_events(Path(folder), block)) for block in plan.blocks]
    each_run = [run for block, events in recorded for run in _runs(plan, block, events)]
    runs = _table("runs", (_run_row(run, plan.target_error_percent) for run in each_run))
    epochs = _table("epochs", (row for run in each_run for row in _epoch_rows(run)))
    turns = _table("turns", (row for run in each_run for row in _turn_rows(run)))
    return Results(plan, runs, epochs, turns, _summary(plan, runs, turns))


def write_tables(folder: Path) -> Results:
    """Write runs.csv, epochs.csv, turns.csv and summary.csv into a results folder.

    Raises:
        LockstepError: as `load`; then nothing is written.
    """
    results = load(folder)
    for name in COLUMNS:
        table: DataFrame = getattr(results, name)
        table.round(DECIMALS).to_csv(folder / f"{name}.csv", index=False, lineterminator="\n", encoding="utf-8")
    return results


def title(results: Results) -> tuple[str, str]:
    """Dataset and machine: every page and picture of results has to name them."""
    name = results.plan.dataset.name
    return "MNIST" if name == "mnist" else f"{name} (not MNIST)", each(results.runs["machine"])


class _Run(NamedTuple):
    """One backend in one block: the columns that identify it, its plan, why it ended, its events."""

    identity: Mapping[str, object]
    planned: PlannedBackend
    reason: str
    events: Sequence[Event]

    def every(self, kind: type[Some]) -> list[Some]:
        """Its events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


def _runs(plan: Plan, block: records.Block, events: Sequence[Event]) -> Iterator[_Run]:
    """A block's runs in the plan's order; a block that was run elsewhere names that machine."""
    machine = next((event.machine for event in events if isinstance(event, records.MachineEvent)), plan.machine)
    for planned in plan.backends:
        own = [event for event in events if getattr(event, "backend", None) == planned.name]
        status, reason = _outcome(planned, events, own)
        who = {"backend": planned.name, "style": planned.style, "seed": block.seed, "status": status}
        where = {"machine": machine, "dataset": plan.dataset.name, "threads": plan.threads, "device": plan.device}
        identity = {**who, **where, "profile": plan.profile, "block": block.id}
        # An exception's text may have lines and control characters; a row, a list item and a heading may not.
        reason = "".join(sign if sign.isprintable() else " " for sign in reason)
        yield _Run(identity, planned, " ".join(reason.split()), own)


def _outcome(planned: PlannedBackend, events: Sequence[Event], own: Sequence[Event]) -> tuple[str, str]:
    """Status and reason: as they were recorded, else what the silence of the records means."""
    for end in own:
        if isinstance(end, records.EndEvent):
            return end.status, end.reason or ""
    if planned.skip:
        return "skipped", planned.skip
    if not events:
        return "skipped", "the run ended before this block"
    ends = [event.reason for event in events if isinstance(event, records.EndEvent) and event.backend is None]
    return "interrupted", next(filter(None, ends), "the records stop before its end")


def _turn_rows(run: _Run) -> Iterator[dict[str, object]]:
    for turn in run.every(TurnEvent):
        yield {**run.identity, **turn.model_dump(exclude={"backend"}), "microseconds_per_step": _step(turn)}


def _step(turn: TurnEvent) -> float:
    """The mean time of a turn's steps, in microseconds."""
    return 1e6 * turn.train_seconds / turn.steps


def _epoch_rows(run: _Run) -> Iterator[dict[str, object]]:
    """A row per evaluation; its training loss is the mean over the epoch's images, each as it was when trained on."""
    for evaluation in run.every(EvaluationEvent):
        turns = [turn for turn in run.every(TurnEvent) if turn.epoch == evaluation.epoch]
        images = sum(turn.stop - turn.start for turn in turns)
        loss = sum(turn.train_loss * (turn.stop - turn.start) for turn in turns) / images if images else None
        seconds = sum(turn.train_seconds for turn in turns)
        yield {
            **run.identity,
            **evaluation.model_dump(exclude={"backend"}),
            "train_seconds": seconds,
            "train_loss": loss,
        }


def _run_row(run: _Run, target_error_percent: float) -> dict[str, object]:
    """One run; what was not recorded is missing."""
    versions = run.planned.versions
    row = {**run.identity, "reason": run.reason}
    for start in run.every(records.StartEvent):
        versions, row["start_seconds"] = start.versions, start.start_seconds
    for build in run.every(records.BuildEvent):
        row["build_seconds"] = build.build_seconds
    if turns := run.every(TurnEvent):
        row["train_seconds"] = sum(turn.train_seconds for turn in turns)
        row["microseconds_per_step"] = median(map(_step, turns))
    evaluations = run.every(EvaluationEvent)
    for last in evaluations[-1:]:
        row |= {"test_error_percent": last.test_error_percent, "test_loss": last.test_loss}
    row["epochs_done"] = len(evaluations)
    row["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    row["disagreements"] = max(
        (event.disagreements for event in evaluations if event.disagreements is not None), default=None
    )
    return row | _to_target(run, target_error_percent)


def _to_target(run: _Run, target_error_percent: float) -> dict[str, object]:
    """Epochs and seconds to the end of the first epoch at or below the target; nothing where there is none.

    `own_seconds_to_target` counts from the start of the backend's process, evaluations included, but not the time in
    which it waited for the turns of others.
    """
    evaluations = run.every(EvaluationEvent)
    epoch = next((event.epoch for event in evaluations if event.test_error_percent <= target_error_percent), None)
    if epoch is None:
        return {}
    training = sum(turn.train_seconds for turn in run.every(TurnEvent) if turn.epoch <= epoch)
    own = training + sum(event.evaluate_seconds for event in evaluations if event.epoch <= epoch)
    own += sum(event.start_seconds for event in run.every(records.StartEvent))
    own += sum(event.build_seconds for event in run.every(records.BuildEvent))
    return {"epochs_to_target": epoch, "train_seconds_to_target": training, "own_seconds_to_target": own}


def _summary(plan: Plan, runs: DataFrame, turns: DataFrame) -> DataFrame:
    """A row per backend over all seeds, the fastest first, those that failed last."""
    turns = turns[turns["status"] == "ok"]
    every, ok = (table.groupby("backend", sort=False) for table in (runs, runs[runs["status"] == "ok"]))
    counts = DataFrame({"runs": every.size(), "runs_ok": ok.size(), "reached": ok["epochs_to_target"].count()}).fillna(
        0
    )
    parts = [
        every[["style", "dataset", "threads", "device", "profile"]].first(),
        every["machine"].agg(each),
        every["status"].agg(lambda status: next((one for one in status if one != "ok"), "ok")),
        every["disagreements"].max(),
        counts.astype("int64"),
        ok[["train_seconds", "test_error_percent", *TARGET]].mean(),
        turns.groupby("backend")["microseconds_per_step"].median(),
        _ratios(turns, plan.reference.name),
    ]
    table = pd.concat(parts, axis="columns").rename_axis("backend").reset_index()
    table["target_reached"] = table["reached"].astype(str) + " of " + table["runs_ok"].astype(str)
    rank = table.assign(failed=table["status"] != "ok").sort_values(["failed", "microseconds_per_step"], kind="stable")
    return rank[list(COLUMNS["summary"])].astype(_types("summary")).reset_index(drop=True)


def each(values: "Series[str]") -> str:
    """The different values, in order, without the empty ones."""
    return "; ".join(filter(None, values.unique()))


def _ratios(turns: DataFrame, reference: str) -> "Series[float]":
    """By backend, the median over rounds of its training time over the reference's; none if the reference failed."""
    seconds = turns.pivot(index=["block", "round"], columns="backend", values="train_seconds")
    logs = seconds.reindex(columns=seconds.columns.union([reference])).map(math.log)
    return logs.sub(logs[reference], axis="index").median().map(math.exp).rename("ratio_to_reference")


def _table(name: str, rows: Iterable[dict[str, object]]) -> DataFrame:
    """Rows as a table of exactly its columns, of the same types even where there are no rows."""
    return DataFrame(list(rows), columns=list(COLUMNS[name])).astype(_types(name))


def _types(name: str) -> dict[str, str]:
    kinds = dict.fromkeys(DECIMALS, "float64") | dict.fromkeys(WHOLE, "Int64")
    if name == "runs":  # of one run, not a mean of several
        kinds["epochs_to_target"] = "Int64"
    return {column: kinds.get(column, "object") for column in COLUMNS[name]}
