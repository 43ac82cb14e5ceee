"""What the harness's tests share: results made up of events, real in all but the training."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.records.format import (
    Block,
    BuildEvent,
    EndEvent,
    EvaluationEvent,
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
from lockstep_bench.harness.tables.results import Results, load

MACHINE = "A Machine, 2 CPUs"


@pytest.fixture(scope="session", name="make_results")
def make_results_fixture() -> Callable[..., Results]:
    """`make_results` below."""
    return make_results


def make_plan(backends: Iterable[str], epochs: int, seeds: int, dataset: str, machine: str) -> Plan:
    """A plan with nothing remarkable in it."""
    return Plan(
        lockstep="0.1.0",
        commit=None,
        commit_clean=None,
        command="lockstep run",
        preset=None,
        problem=Problem(epochs=epochs),
        dataset=PlannedDataset(name=dataset, sha256="5ha", train_images=30, test_images=10_000),
        backends=[PlannedBackend(name=name, style="idiomatic", spec=name, versions={}) for name in backends],
        blocks=[Block(id=f"seed-{seed}", seed=seed, threads=2) for seed in range(seeds)],
        device="cpu",
        slice_steps=2,
        turn_timeout_seconds=300.0,
        target_error_percent=7.21,
        machine=machine,
    )


def make_results(
    folder: Path,
    backends: Iterable[str] = ("numpy", "keras", "pytorch"),
    *,
    epochs: int = 3,
    seeds: int = 1,
    rounds: int = 1,
    dataset: str = "mnist",
    machine: str = MACHINE,
    failed: tuple[str, Status, str, int] | None = None,
    apart: float = 0.0,
    begun: bool = True,
    version: str = "1.0",
) -> Results:
    """Results of backends with the same errors, up to `apart`; `failed`: who, how, why, after how many epochs.

    Each epoch is trained in `rounds` turns, of a second for the first backend, two for the next.
    """
    plan = make_plan(backends, epochs, seeds, dataset, machine)
    write_plan(folder, plan)
    for block in plan.blocks if begun else []:
        with BlockFile(folder, block) as file:
            file.append(MachineEvent(machine=machine, started="2026-01-01T00:00:00+00:00", details={"python": "3.14"}))
            for number in range(1, epochs * rounds + 1):
                file.append(FloorEvent(round=number, at_seconds=0.0, flops_per_second=1e9, bytes_per_second=1e10))
            for place, backend in enumerate(plan.backends):
                status: Status
                _, status, reason, done = failed if failed and failed[0] == backend.name else ("", "ok", None, epochs)
                if failed and failed[0] == plan.reference.name != backend.name:  # as the conductor ends the others
                    status, reason = "error", f"from epoch {failed[3] + 1} on not checked: the reference has ended"
                for event in start_and_build(backend.name, version):
                    file.append(event)
                for epoch in range(1, done + 1):
                    for number in range((epoch - 1) * rounds + 1, epoch * rounds + 1):
                        file.append(make_turn(backend.name, epoch, number, seconds=(1.0 + place) / rounds))
                    error = 20 / epoch + block.seed / 10 + place * apart
                    checked = not failed or failed[0] != plan.reference.name or epoch <= failed[3]
                    file.append(make_evaluation(backend.name, epoch, error, checked))
                file.append(EndEvent(backend=backend.name, status=status, reason=reason))
            file.append(EndEvent(backend=None, status="ok"))
    return load(folder)


def start_and_build(backend: str, version: str) -> tuple[StartEvent, BuildEvent]:
    """A worker that stands at step 0, some tenths of a second after it was started."""
    start = StartEvent(
        backend=backend,
        start_seconds=0.5,
        import_seconds=0.25,
        versions={"framework": version},
        source_sha256="50",
        memory_bytes=50_000_000,
    )
    build = BuildEvent(
        backend=backend, build_seconds=0.125, weights_sha256="w", memory_bytes=70_000_000, pools=[], variables={}
    )
    return start, build


def make_turn(backend: str, epoch: int, number: int, seconds: float) -> TurnEvent:
    """A round's slice."""
    return TurnEvent(
        backend=backend,
        epoch=epoch,
        round=number,
        start=0,
        stop=30,
        steps=2,
        at_seconds=0.0,
        train_seconds=seconds,
        train_loss=1 / epoch,
        cpu_seconds=seconds,
        involuntary_switches=0,
        steal_percent=None,
        load_average=1.0,
        waiting_seconds={},
    )


def make_evaluation(backend: str, epoch: int, error: float, checked: bool) -> EvaluationEvent:
    """An evaluation with this test error, held against the reference or not."""
    return EvaluationEvent(
        backend=backend,
        epoch=epoch,
        weights_seconds=(0.01, 0.01),
        predict_seconds=0.1,
        evaluate_seconds=0.2,
        train_error_percent=error / 2,
        test_loss=error / 10,
        test_error_percent=error,
        order_sha256="o",
        threads_used=2,
        affinity=[0, 1],
        peak_bytes=100_000_000,
        disagreements=0 if checked else None,
    )
