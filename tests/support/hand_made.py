"""Results folders of hand-made events, with numbers that one can check by hand."""

from pathlib import Path
from typing import Any

import pandas as pd

from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.records.format import (
    Block,
    BuildEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    FloorEvent,
    MachineEvent,
    Plan,
    PlannedBackend,
    PlannedDataset,
    StartEvent,
    Status,
    TurnEvent,
)
from lockstep_bench.harness.records.raw_files import BlockFile, write_plan
from lockstep_bench.harness.report.summary import write_summary
from lockstep_bench.harness.tables.results import Results, write_tables


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


def floor(number: int, flops: float, bytes_: float = 1e15) -> FloorEvent:
    """What the machine can do in a round; with so much bandwidth, the operations decide."""
    return FloorEvent(round=number, at_seconds=0.0, flops_per_second=flops, bytes_per_second=bytes_)


STEADY = (1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99)


def times(factor: float) -> list[float]:
    """Steady times, so many times as long."""
    return [factor * each for each in STEADY]


def long_run(backend: str, *seconds: float, error: float = 5.5, **conditions: Any) -> list[Event]:
    """A run of one epoch whose turns, of 2 steps each, take these times."""
    turns = [turn(backend, 1, 2 * place + 1, each, **conditions) for place, each in enumerate(seconds)]
    return [*begin(backend), *turns, evaluation(backend, 1, error), end(backend)]


def write(folder: Path, plan: Plan, *blocks: list[Event]) -> Path:
    """A results folder with these blocks' events, each after the machine's; further planned blocks were not begun."""
    write_plan(folder, plan)
    for block, events in zip(plan.blocks, blocks, strict=False):
        with BlockFile(folder, block) as file:
            for event in [machine(), *events]:
                file.append(event)
    return folder


def write_all(folder: Path) -> Results:
    """Write the tables and the page."""
    results = write_tables(folder)
    write_summary(folder, results)
    return results


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
