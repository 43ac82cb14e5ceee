"""What one backend did in one block: the rows that a run gives to runs.csv, epochs.csv and turns.csv."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lockstep_bench.harness.machine.conditions import blas
from lockstep_bench.harness.machine.floor import Rates, floor_seconds
from lockstep_bench.harness.machine.identity import described
from lockstep_bench.harness.machine.variables import SET_BY_IMPORT, THREAD_VARIABLES, decides
from lockstep_bench.harness.problem import Defaults
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
    StartEvent,
    TurnEvent,
)
from lockstep_bench.harness.statistics import outliers
from lockstep_bench.harness.wording import counted

Some = TypeVar("Some", bound=Event)
Row = dict[str, Any]

LEAST_FLOOR_MULTIPLE = 0.5
"""Below it the steps cannot have been made; even arithmetic that leaves out the pixels that are 0 comes to 1.6."""
NOTHING_SECONDS = 0.02
"""A first call of `weights()` may cost this much more than a second one without any work that was put off."""
FEWEST_FOR_P99 = 200
"""Calls below which a 99th percentile would be little more than the slowest call."""


class Run(NamedTuple):
    """One backend in one block.

    Attributes:
        plan: what the run is part of.
        identity: the columns that identify it.
        planned: the backend as it was planned.
        reason: why it ended, if not well.
        python: the version of Python on that machine.
        nodes: how many nodes of a cluster shared that machine.
        threads: how many it was given.
        machine_cpus: how many CPUs the whole machine has; as many as threads where that was not recorded.
        hardware: the identity and the caches of that machine, by column; empty where they were not recorded.
        variables: what it inherited and what was removed of the deciding environment variables, by column.
        events: its own, in order.
        floors: by round, the dense floor of a step in microseconds; of the CPU, and so none for who trains elsewhere.
        waited: CPU seconds that its worker used in turns of others, and the seconds that these turns took.
    """

    plan: Plan
    identity: Mapping[str, object]
    planned: PlannedBackend
    reason: str
    python: str
    nodes: int
    threads: int
    machine_cpus: int
    hardware: Mapping[str, str]
    variables: Mapping[str, str]
    events: Sequence[Event]
    floors: Mapping[int, float]
    waited: tuple[float, float]

    def every(self, kind: type[Some]) -> list[Some]:
        """Its events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


def runs_of(plan: Plan, block: Block, events: Sequence[Event], damage: str = "") -> Iterator[Run]:
    """A block's runs in the plan's order; a block that was run elsewhere names that machine.

    `damage` says why there are no events of a block that was run.
    """
    began = next((event for event in events if isinstance(event, MachineEvent)), None)
    machine, python, nodes = plan.machine, "", 1
    if began:
        machine, python, nodes = began.machine, str(began.details.get("python", "")), began.nodes
    if nodes > 1:  # their times are those of no other machine
        machine = f"{machine}, shared by {nodes} nodes"
    floors = {
        event.round: 1e6 * floor_seconds(plan.problem, Rates(event.flops_per_second, event.bytes_per_second))
        for event in events
        if isinstance(event, FloorEvent)
    }
    turns = [event for event in events if isinstance(event, TurnEvent)]
    for planned in plan.backends:
        own = [event for event in events if getattr(event, "backend", None) == planned.name]
        device = planned.device or plan.device
        own_floors = floors if device == "cpu" else {}
        status, reason = ("error", damage) if damage else _outcome(planned, events, own)
        if status == "ok" and nodes == 1 and (unfair := _unfair(own, own_floors, block.threads)):
            status, reason = "not-identical", unfair
        who = {"backend": planned.name, "style": planned.style, "seed": block.seed, "replicate": block.replicate}
        where = {"machine": machine, "dataset": plan.dataset.name, "threads": block.threads, "device": device}
        identity = {**who, "status": status, **where, "profile": plan.profile, "block": block.id}
        waited = [turn for turn in turns if planned.name in turn.waiting_seconds]
        yield Run(
            plan,
            identity,
            planned,
            _printable(reason),  # an exception's text may have lines and control characters, a row may not
            python,
            nodes,
            block.threads,
            _machine_cpus(began, block.threads),
            _hardware(began),
            _variables(began),
            own,
            own_floors,
            (
                sum(turn.waiting_seconds[planned.name] for turn in waited),
                sum(turn.train_seconds for turn in waited),
            ),
        )


def _machine_cpus(began: MachineEvent | None, threads: int) -> int:
    recorded = began.details.get("hardware_threads") if began else None
    return recorded if isinstance(recorded, int) and recorded > 0 else threads


def _hardware(began: MachineEvent | None) -> dict[str, str]:
    """What was recorded of the machine, in words."""
    details = began.details if began else {}
    identity, caches = details.get("identity"), details.get("caches")
    return {
        "machine_identity": _printable(described(identity) if isinstance(identity, dict) else ""),
        "caches": _printable(", ".join(f"{name} {size}" for name, size in caches.items()))
        if isinstance(caches, dict)
        else "",
    }


def _variables(began: MachineEvent | None) -> dict[str, str]:
    """The deciding variables that workers inherited, and those that were removed, as a shell would write them.

    Records of before have those that the conductor had: its workers inherited all of them but the thread counts. What
    an import had set there is not among them.
    """
    kept = began.variables_kept if began else {}
    removed = began.variables_removed if began else {}
    if began and kept is None:
        recorded = began.details.get("variables")
        kept = {name: str(value) for name, value in recorded.items()} if isinstance(recorded, dict) else {}
        kept = {name: kept[name] for name in kept if decides(name) and name not in (*THREAD_VARIABLES, *SET_BY_IMPORT)}
    return {"variables_kept": _as_in_a_shell(kept or {}), "variables_removed": _as_in_a_shell(removed or {})}


def _as_in_a_shell(variables: Mapping[str, str]) -> str:
    return shlex.join(_printable(f"{name}={value}") for name, value in sorted(variables.items()))


def _printable(text: str) -> str:
    """A text of one line."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _outcome(planned: PlannedBackend, events: Sequence[Event], own: Sequence[Event]) -> tuple[str, str]:
    """Status and reason: as they were recorded, else what the silence of the records means."""
    for end in own:
        if isinstance(end, EndEvent):
            return end.status, end.reason or ""
    if planned.skip:
        return "skipped", planned.skip
    if not events:
        return "skipped", "the run ended before this block"
    ends = [event.reason for event in events if isinstance(event, EndEvent) and event.backend is None]
    return "interrupted", next(filter(None, ends), "the records stop before its end")


def _unfair(own: Sequence[Event], floors: Mapping[int, float], threads: int) -> str:
    """Why its times do not count: not all of the training was timed, or it took more CPUs; empty if they do."""
    turns = [event for event in own if isinstance(event, TurnEvent)]
    multiples = [_step(turn) / floors[turn.round] for turn in turns if turn.round in floors]
    if multiples and median(multiples) < LEAST_FLOOR_MULTIPLE:
        return (
            f"its steps took {median(multiples):.2g} times the dense floor, the least that they can take: they were "
            "not made, or not on the clock"
        )
    trained: dict[int, float] = {}
    for turn in turns:
        trained[turn.epoch] = trained.get(turn.epoch, 0.0) + turn.train_seconds
    late = [
        (event.weights_seconds[0] - event.weights_seconds[1], trained[event.epoch])
        for event in own
        if isinstance(event, EvaluationEvent) and event.epoch in trained
    ]
    if late and all(waited > max(training, NOTHING_SECONDS) for waited, training in late):
        waited, training = (median(seconds) for seconds in zip(*late, strict=True))
        return (
            f"its first `weights()` took {waited / training:.2g} times as long as the training before: that was put off"
        )
    allowed = {len(event.affinity) for event in own if isinstance(event, EvaluationEvent)}
    if allowed and max(allowed) > threads:
        return f"it ran on {max(allowed)} CPUs, and was given {counted(threads, 'CPU')}: it changed its own affinity"
    return ""


def turn_rows(run: Run) -> Iterator[Row]:
    """A row per turn, with its conditions."""
    turns = run.every(TurnEvent)
    for turn, outlier in zip(turns, outliers(np.array([_step(turn) for turn in turns])), strict=True):
        yield {
            **run.identity,
            **turn.model_dump(exclude={"backend"}),
            "microseconds_per_step": _step(turn),
            "outlier": "yes" if outlier else "",
            "floor_microseconds_per_step": run.floors.get(turn.round),
            "cpu_per_second": turn.cpu_seconds / turn.train_seconds,
            "waiting_seconds": sum(turn.waiting_seconds.values()),
            "foreign_load": (turn.load_average - run.threads) / run.machine_cpus,
        }


def _step(turn: TurnEvent) -> float:
    """The mean time of a turn's steps, in microseconds."""
    return 1e6 * turn.train_seconds / turn.steps


def epoch_rows(run: Run) -> Iterator[Row]:
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


def run_row(run: Run) -> Row:
    """One run; what was not recorded is missing."""
    versions = run.planned.versions
    row: Row = {
        **run.identity,
        "reason": run.reason,
        "python": run.python,
        "nodes": run.nodes,
        **run.hardware,
        **run.variables,
    }
    for start in run.every(StartEvent):
        versions = start.versions
        row |= start.model_dump(include={"start_seconds", "import_seconds"})
        row |= {"memory_import_bytes": start.memory_bytes, "source_sha256": start.source_sha256 or ""}
    for build in run.every(BuildEvent):
        row |= {
            "build_seconds": build.build_seconds,
            "memory_build_bytes": build.memory_bytes,
            "blas": blas(build.pools),
        }
        row |= build.model_dump(include=set(Defaults._fields))
    row |= _training(run)
    for extra in run.every(ExtraEvent):
        row |= _extra(extra, row.get("median_slice_seconds"))
    cpu_seconds, seconds = run.waited
    return {
        **row,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        **_evaluations(run),
        **_to_target(run),
        "waiting_percent": 100 * cpu_seconds / seconds if seconds else None,
    }


def _training(run: Run) -> Row:
    """Speed: its medians are not moved by the first slice, whose surplus over the median slice is the start-up cost."""
    turns = run.every(TurnEvent)
    if not turns:
        return {}
    row: Row = {
        "train_seconds": sum(turn.train_seconds for turn in turns),
        "microseconds_per_step": median(map(_step, turns)),
        "images_per_second": median((turn.stop - turn.start) / turn.train_seconds for turn in turns),
        "first_slice_seconds": turns[0].train_seconds,
    }
    if multiples := [_step(turn) / run.floors[turn.round] for turn in turns if turn.round in run.floors]:
        row["floor_multiple"] = median(multiples)
    if alike := [turn.train_seconds for turn in turns[1:] if turn.steps == turns[0].steps]:
        row["median_slice_seconds"] = median(alike)
        row["startup_seconds"] = turns[0].train_seconds - median(alike)
    return row


def _evaluations(run: Run) -> Row:
    evaluations = run.every(EvaluationEvent)
    differ = [event.disagreements for event in evaluations if event.disagreements is not None]
    row: Row = {"epochs_done": len(evaluations), "disagreements": max(differ, default=None)}
    if not evaluations:
        return row
    first, again = zip(*(event.weights_seconds for event in evaluations), strict=True)
    last = evaluations[-1]
    return row | {
        "test_error_percent": last.test_error_percent,
        "test_loss": last.test_loss,
        "evaluation_seconds": sum(event.evaluate_seconds for event in evaluations),
        "own_seconds": _own_seconds(run, last.epoch),
        "weights_seconds": median(first),
        "weights_again_seconds": median(again),
        "predict_images_per_second": median(
            run.plan.dataset.test_images / event.predict_seconds for event in evaluations
        ),
        "threads_used": max(event.threads_used for event in evaluations),
        "cpus_used": len(last.affinity) or None,
        "memory_peak_bytes": last.peak_bytes,
        "device_memory_peak_bytes": last.device_peak_bytes,
    }


def _own_seconds(run: Run, epoch: int) -> float:
    """A run up to the end of an epoch as its user would wait for it, had it the machine for itself."""
    parts = [event.start_seconds for event in run.every(StartEvent)]
    parts += [event.build_seconds for event in run.every(BuildEvent)]
    parts += [turn.train_seconds for turn in run.every(TurnEvent) if turn.epoch <= epoch]
    parts += [event.evaluate_seconds for event in run.every(EvaluationEvent) if event.epoch <= epoch]
    return sum(parts)


def _extra(extra: ExtraEvent, median_slice_seconds: float | None) -> Row:
    row: Row = {}
    if extra.call_seconds is not None:
        row["call_milliseconds"] = 1e3 * extra.call_seconds
        row["call_percent"] = 100 * extra.call_seconds / median_slice_seconds if median_slice_seconds else None
    if extra.latency_seconds:
        row["latency_milliseconds"] = 1e3 * median(extra.latency_seconds)
    if len(extra.latency_seconds) >= FEWEST_FOR_P99:
        row["latency_p99_milliseconds"] = 1e3 * float(np.quantile(extra.latency_seconds, 0.99))
    return row


def _to_target(run: Run) -> Row:
    """Epochs and seconds to the end of the first epoch at or below the target; nothing where there is none."""
    target = run.plan.target_error_percent
    reached = (event.epoch for event in run.every(EvaluationEvent) if event.test_error_percent <= target)
    epoch = next(reached, None)
    if epoch is None:
        return {}
    training = sum(turn.train_seconds for turn in run.every(TurnEvent) if turn.epoch <= epoch)
    return {
        "epochs_to_target": epoch,
        "train_seconds_to_target": training,
        "own_seconds_to_target": _own_seconds(run, epoch),
    }
