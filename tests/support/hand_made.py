"""Results folders of hand-made events, with numbers that one can check by hand."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

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

SHORT: Final[dict[str, Any]] = {"start": 30, "stop": 35, "steps": 1}
"""What a turn trains that is the last of an epoch of 35 images."""


def make_plan(
    *backends: str,
    seeds: Iterable[int] = (0,),
    dataset: str | PlannedDataset = "mnist",
    skip: str | None = None,
    **fields: Any,
) -> Plan:
    """A plan of two epochs, or with these fields; `skip` says why the last backend is not to be run."""
    if isinstance(dataset, str):
        dataset = PlannedDataset(name=dataset, sha256="5ha", train_images=35, test_images=10_000)
    planned = [PlannedBackend(name=name, style="idiomatic", spec=name, versions={name: "0"}) for name in backends]
    if skip:
        planned[-1] = planned[-1].model_copy(update={"skip": skip})
    plain: dict[str, Any] = {
        "lockstep": "0.1.0",
        "commit": "c0ffee",
        "commit_clean": True,
        "command": "lockstep run",
        "preset": None,
        "problem": Problem(epochs=2),
        "dataset": dataset,
        "backends": planned,
        "blocks": [Block(id=f"seed-{seed}", seed=seed, threads=2) for seed in seeds],
        "device": "cpu",
        "slice_steps": 2,
        "turn_timeout_seconds": 300.0,
        "target_error_percent": 7.21,
        "machine": "planned machine",
    }
    return Plan(**(plain | fields))


def machine(
    name: str = "this machine", python: str = "3.14", nodes: int = 1, details: dict[str, Any] | None = None
) -> MachineEvent:
    """The first event of a block; the machine's identity is its name, unless `details` has it or another or none."""
    known = {"python": python, "identity": {"brand": name, "cpus": 2, "memory_gibibytes": 24.0}, **(details or {})}
    return MachineEvent(machine=name, started="2026-01-01T00:00:00+00:00", details=known, nodes=nodes)


def begin(
    backend: str,
    versions: dict[str, str] | None = None,
    *,
    source: str | None = None,
    pools: Sequence[dict[str, Any]] = (),
) -> list[Event]:
    """A worker that started within 2 seconds and built within half a one."""
    return [
        StartEvent(
            backend=backend,
            start_seconds=2.0,
            import_seconds=1.0,
            versions=versions or {backend: "1.0", "a-library": "2.0"},
            source_sha256=source,
            memory_bytes=40_000_000,
        ),
        BuildEvent(
            backend=backend,
            build_seconds=0.5,
            weights_sha256="w",
            memory_bytes=50_000_000,
            pools=list(pools),
            variables={},
        ),
    ]


def turn(backend: str, epoch: int, number: int, seconds: float, loss: float = 1.0, **fields: Any) -> TurnEvent:
    """A turn of a round, of 2 steps on 30 images, or with these fields."""
    plain: dict[str, Any] = {
        "start": 0,
        "stop": 30,
        "steps": 2,
        "at_seconds": 10.0 * number,
        "cpu_seconds": 1.5 * seconds,
        "involuntary_switches": 7,
        "steal_percent": None,
        "load_average": 1.0,
        "waiting_seconds": {},
    }
    return TurnEvent(
        backend=backend, epoch=epoch, round=number, train_seconds=seconds, train_loss=loss, **(plain | fields)
    )


def evaluation(backend: str, epoch: int, error: float, disagreements: int | None = 0, **fields: Any) -> EvaluationEvent:
    """An evaluation that took 3 seconds, or with these fields."""
    plain: dict[str, Any] = {
        "weights_seconds": (0.3, 0.1),
        "predict_seconds": 1.0,
        "evaluate_seconds": 3.0,
        "train_error_percent": error / 2,
        "test_loss": error / 10,
        "order_sha256": "o",
        "threads_used": 2,
        "affinity": [0],
        "peak_bytes": 100_000_000 + epoch,
    }
    return EvaluationEvent(
        backend=backend, epoch=epoch, test_error_percent=error, disagreements=disagreements, **(plain | fields)
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
        turn(backend, 1, 2, two, **SHORT),
        evaluation(backend, 1, errors[0]),
        turn(backend, 2, 3, three),
        turn(backend, 2, 4, four, **SHORT),
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
    turns = [turn(backend, 1, number, each, **conditions) for number, each in enumerate(seconds, start=1)]
    return [*begin(backend), *turns, evaluation(backend, 1, error), end(backend)]


def write(
    folder: Path,
    plan: Plan,
    *blocks: list[Event],
    on: str = "this machine",
    python: str = "3.14",
    nodes: int = 1,
    details: dict[str, Any] | None = None,
) -> Path:
    """A results folder with these blocks' events, each after the machine's; further planned blocks were not begun."""
    write_plan(folder, plan)
    for block, events in zip(plan.blocks, blocks, strict=False):
        with BlockFile(folder, block) as file:
            for event in [machine(on, python, nodes, details), *events]:
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
