"""What the harness's tests share: results made up of events, real in all but the training."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.records.format import Event, Status
from lockstep_bench.harness.report import write as report_writing
from lockstep_bench.harness.tables.results import Results, load
from support.hand_made import begin, end, evaluation, floor, make_plan, turn, write

MACHINE = "A Machine, 2 CPUs"


@pytest.fixture(scope="session", name="make_results")
def make_results_fixture() -> Callable[..., Results]:
    """`make_results` below."""
    return make_results


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have no charts, which take most of a report's time: for tests that look at none."""
    monkeypatch.setattr(report_writing, "write_charts", lambda *_, **__: [])


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
    plan = make_plan(*backends, seeds=range(seeds), dataset=dataset, machine=machine, problem=Problem(epochs=epochs))
    blocks = []
    for block in plan.blocks if begun else []:
        events: list[Event] = [floor(number, 1e9, 1e10) for number in range(1, epochs * rounds + 1)]
        for place, name in enumerate(backend.name for backend in plan.backends):
            done, ended = epochs, end(name)
            if failed and name == failed[0]:
                done, ended = failed[3], end(*failed[:3])
            elif failed and failed[0] == plan.reference.name:  # as the conductor ends the others
                ended = end(name, "error", f"from epoch {failed[3] + 1} on not checked: the reference has ended")
            events += begin(name, {"framework": version})
            for epoch in range(1, done + 1):
                first = (epoch - 1) * rounds + 1
                events += [
                    turn(name, epoch, number, (1.0 + place) / rounds, 1 / epoch)
                    for number in range(first, first + rounds)
                ]
                checked = not failed or failed[0] != plan.reference.name or epoch <= failed[3]
                error = 20 / epoch + block.seed / 10 + place * apart
                events.append(evaluation(name, epoch, error, 0 if checked else None))
            events.append(ended)
        blocks.append([*events, end(None)])
    return load(write(folder, plan, *blocks, on=machine))
