"""What the raw records of `lockstep seeds` say, as a table and as the few numbers that answer how luck spreads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from pandas import DataFrame

from lockstep_bench.harness.checks.equivalence import gate
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.records import raw_files
from lockstep_bench.harness.records.format import Block, EndEvent, Event, MachineEvent, SeedScore, SeedsEvent, SeedsPlan
from lockstep_bench.harness.statistics import LEVEL, Floats, mean_interval

COLUMNS: Final = (
    *("backend", "seed", "epoch", "status", "reason", "machine", "dataset", "threads", "block", "train_loss"),
    *("test_loss", "test_error_percent", "disagreements", "weights_difference"),
)
QUANTILES: Final = (5, 25, 50, 75, 95)
"""Percent of the seeds that lie at or below, linearly between neighbours."""


class SeedsResults(NamedTuple):
    """A plan and what came of it.

    Attributes:
        plan: what was asked for.
        table: a row per seed and epoch of every block that came to its end, and one without an epoch for each seed of
            a block that failed; the columns are `COLUMNS`.
        cut: what of the raw files is missing or damaged, in sentences.
        is_damaged: whether one of them cannot be read.
        seconds: of training, per seed and step, of each block that came to its end.
    """

    plan: SeedsPlan
    table: DataFrame
    cut: tuple[str, ...]
    is_damaged: bool
    seconds: Floats

    @property
    def ok(self) -> DataFrame:
        """The rows that count."""
        return self.table[self.table["status"] == "ok"]

    def errors(self, epoch: int) -> Floats:
        """The test errors after an epoch, in percent, (seeds that count,), by seed."""
        return self.ok[self.ok["epoch"] == epoch]["test_error_percent"].to_numpy(np.float64)


def is_seeds(folder: Path) -> bool:
    """Whether a results folder is one of `lockstep seeds`."""
    return raw_files.plan_path(folder, SeedsPlan).is_file()


def load_seeds(folder: Path) -> SeedsResults:
    """Derive the table from the raw records of a results folder; a block's last attempt counts, if it came to its end.

    Raises:
        LockstepError: the folder holds no plan of `lockstep seeds`.
    """
    plan = raw_files.read_plan_of(folder, SeedsPlan)
    rows: list[dict[str, Any]] = []
    cut: list[str] = []
    seconds: list[float] = []
    is_damaged = False
    for block in plan.blocks:
        try:
            recorded = raw_files.read_block(folder, block)
        except LockstepError as error:  # the others are as good as before
            is_damaged = True
            damage = str(error).replace(f"{folder}/", "")
            cut.append(damage)
            rows += _failed_rows(plan, block, plan.machine, "error", damage)
            continue
        cut += filter(None, [recorded.cut])
        if recorded.complete:
            rows += _rows(plan, block, recorded.events)
            seconds += _step_seconds(plan, block, recorded.events)
    table = DataFrame(rows, columns=list(COLUMNS))
    whole = dict.fromkeys(("seed", "epoch", "threads", "disagreements"), "Int64")
    texts = dict.fromkeys(("backend", "status", "reason", "machine", "dataset", "block"), "object")
    table = table.astype({**texts, **whole, "test_error_percent": "float64", "weights_difference": "float64"})
    return SeedsResults(plan, table, tuple(cut), is_damaged, np.array(seconds))


def _rows(plan: SeedsPlan, block: Block, events: list[Event]) -> Iterator[dict[str, Any]]:
    """A row per seed and epoch of a block that came to its end; a seed keeps to what its check says of all epochs."""
    machine = next((event.machine for event in events if isinstance(event, MachineEvent)), plan.machine)
    epochs = [event for event in events if isinstance(event, SeedsEvent)]
    end = next((event for event in events if isinstance(event, EndEvent) and event.backend), None)
    status, reason = (end.status, end.reason or "") if end else ("error", "its records do not say how it ended")
    seeds, last = plan.seeds(block), plan.problem.epochs
    told = [([score.seed for score in event.scores], event.epoch) for event in epochs]
    if status == "ok" and told != [(seeds, epoch) for epoch in range(1, last + 1)]:
        status, reason = "error", "its records are not of every epoch and seed"
    if status != "ok":
        yield from _failed_rows(plan, block, machine, status, reason)
        return
    for place, seed in enumerate(seeds):
        scores = {event.epoch: event.scores[place] for event in epochs}
        why = _failed_gate(plan, block, scores)
        for epoch, score in scores.items():
            yield {
                **_who(plan, block, machine, seed, "not-identical" if why else "ok", why),
                "epoch": epoch,
                **score.model_dump(),
            }


def _failed_gate(plan: SeedsPlan, block: Block, scores: dict[int, SeedScore]) -> str:
    """Why a seed is not the reference's network, at the first epoch where it is not; empty if it is, or is not checked.

    Of a checked block the first seed must have been held against the reference after every epoch.
    """
    for epoch, score in scores.items():
        if score.disagreements is not None and score.weights_difference is not None:
            images, reference = plan.dataset.test_images, plan.reference.name
            if found := gate(score.disagreements, score.weights_difference, images, reference):
                return f"after epoch {epoch} {found}"
        elif block.id in plan.checked and score.seed == block.seed:
            return f"after epoch {epoch} it was not checked, which was planned"
    return ""


def _who(plan: SeedsPlan, block: Block, machine: str, seed: int, status: str, reason: str) -> dict[str, Any]:
    reason = " ".join("".join(sign if sign.isprintable() else " " for sign in reason).split())
    of_block = {"machine": machine, "dataset": plan.dataset.name, "threads": block.threads, "block": block.id}
    return {"backend": plan.backends[1].name, "seed": seed, "status": status, "reason": reason, **of_block}


def _failed_rows(plan: SeedsPlan, block: Block, machine: str, status: str, reason: str) -> list[dict[str, Any]]:
    return [_who(plan, block, machine, seed, status, reason) for seed in plan.seeds(block)]


def _step_seconds(plan: SeedsPlan, block: Block, events: list[Event]) -> list[float]:
    """Seconds of training per seed and step: none where no epoch was trained."""
    epochs = [event.train_seconds for event in events if isinstance(event, SeedsEvent)]
    return [float(np.mean(epochs)) / len(plan.seeds(block)) / plan.slice_steps] if epochs else []


class Spread(NamedTuple):
    """How the final test errors of seeds spread, in percent, and where an error `target` lies among them.

    `low` and `high` are the mean's 95 % interval; `reached` of the seeds ended at or below the target, whose share in
    percent has the exact interval of Clopper and Pearson (1934); `distance` is how many standard deviations the target
    lies above the mean. `half_reached` is the first epoch by whose end half of the seeds had been at or below the
    target, `nearest` the epoch whose median error is nearest to it, `first` and `last` those between which it lies
    within the range of the seeds' errors; none where there are none.
    """

    seeds: int
    mean: float
    low: float
    high: float
    deviation: float
    least: float
    most: float
    quantiles: tuple[float, ...]
    reached: int
    share: float
    share_low: float
    share_high: float
    distance: float
    half_reached: int | None
    nearest: int
    nearest_median: float
    first: int | None
    last: int | None


def spread(results: SeedsResults, target: float) -> Spread | None:
    """Of the seeds that count; none where there are none."""
    from scipy import stats  # which takes longer to import than most tables to make

    epochs = range(1, results.plan.problem.epochs + 1)
    by_epoch = np.array([results.errors(epoch) for epoch in epochs])
    if not by_epoch.size:
        return None
    final = by_epoch[-1]
    reached = int(np.count_nonzero(final <= target))
    exact = stats.binomtest(reached, len(final)).proportion_ci(LEVEL, method="exact")
    deviation = float(np.std(final, ddof=1)) if len(final) > 1 else np.nan
    ever = np.mean(np.minimum.accumulate(by_epoch) <= target, axis=1)
    medians = np.median(by_epoch, axis=1)
    nearest = int(np.abs(medians - target).argmin())
    within = [epoch for epoch, own in zip(epochs, by_epoch, strict=True) if own.min() <= target <= own.max()]
    mean, (low, high) = float(final.mean()), mean_interval(final)
    return Spread(
        *(len(final), mean, low, high, deviation, float(final.min()), float(final.max())),
        quantiles=tuple(np.percentile(final, QUANTILES).tolist()),
        reached=reached,
        share=100 * reached / len(final),
        share_low=100 * float(exact.low),
        share_high=100 * float(exact.high),
        distance=(target - mean) / deviation if deviation > 0 else np.nan,
        half_reached=next((epoch for epoch, share in zip(epochs, ever, strict=True) if share >= 0.5), None),
        nearest=nearest + 1,
        nearest_median=float(medians[nearest]),
        first=within[0] if within else None,
        last=within[-1] if within else None,
    )


def checks(results: SeedsResults) -> DataFrame:
    """The rows that were held against the reference."""
    return results.table[pd.notna(results.table["disagreements"])]
