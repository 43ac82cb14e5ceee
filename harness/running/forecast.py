"""The time that a run has taken, by phase, and the time that is left."""

from collections import Counter
from collections.abc import Callable, Iterator
from math import ceil
from statistics import fmean
from time import monotonic
from typing import Final, Literal, get_args

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
    SeedsEvent,
    StartEvent,
    TurnEvent,
)

Phase = Literal["starting", "training", "evaluating", "measuring", "ending", "writing the report"]
PHASES: Final[dict[type[Event], Phase]] = {
    MachineEvent: "starting",
    StartEvent: "starting",
    BuildEvent: "starting",
    TurnEvent: "training",
    FloorEvent: "training",
    SeedsEvent: "training",
    EvaluationEvent: "evaluating",
    ExtraEvent: "measuring",
    EndEvent: "ending",
}
"""The phase of what an event concludes."""
REPORT_SECONDS: Final = 10.0
"""What a report takes, before it is known: on two cores, that of a run of all backends."""
KINDS: Final = (StartEvent, BuildEvent, TurnEvent, EvaluationEvent, ExtraEvent)
"""Of these every backend has events of its own, whose number is known beforehand."""


class Stopwatch:
    """Counts the seconds since it was made, by phase.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self.since = self.began = clock()
        self.spent: dict[Phase, float] = {}

    def spend(self, phase: Phase) -> None:
        """Count the time since the last call as that of a phase."""
        now = self.clock()
        self.spent[phase] = self.spent.get(phase, 0.0) + now - self.since
        self.since = now

    def __str__(self) -> str:
        """`2:41: starting 0:52, training 1:20, ...`."""
        spent = ((phase, self.spent[phase]) for phase in get_args(Phase) if phase in self.spent)
        parts = ", ".join(f"{phase} {clock_time(seconds)}" for phase, seconds in spent)
        return f"{clock_time(self.since - self.began)}: {parts}"


class Forecast:
    """The time left of a plan's blocks and of the report after them, from how long the events so far took.

    An event took the time since the one before it in its block, the floor's turns left out. What is left of a backend
    takes the mean of its events of that kind, else of all backends'. Blocks that run at the same time share the rest.
    """

    def __init__(self, plan: Plan, clock: Callable[[], float] = monotonic) -> None:
        self.plan, self.clock = plan, clock
        self.names = [backend.name for backend in plan.backends if backend.skip is None]
        rounds = ceil(plan.epoch_images / (plan.slice_steps * plan.problem.batch_size))
        epochs = plan.problem.epochs
        self.expected = {
            StartEvent: 1,
            BuildEvent: 1,
            TurnEvent: rounds * epochs,
            EvaluationEvent: epochs,
            ExtraEvent: 1,
        }
        self.done: dict[str, Counter[tuple[type[Event], str]]] = {}
        self.last: dict[str, float] = {}
        self.ended: set[str] = set()
        self.gone: dict[str, set[str]] = {}
        self.seconds: dict[tuple[type[Event], str], list[float]] = {}

    def observe(self, block: Block, event: Event) -> None:
        """Take in an event that has just come."""
        now = self.clock()
        if isinstance(event, MachineEvent):  # of an attempt before, nothing counts
            self.done[block.id], self.gone[block.id] = Counter(), set()
        elif isinstance(event, EndEvent) and event.backend is None:
            self.ended.add(block.id)
        elif isinstance(event, EndEvent):
            self.gone[block.id].add(str(event.backend))
        elif isinstance(event, KINDS):
            key = type(event), event.backend
            self.done[block.id][key] += 1
            self.seconds.setdefault(key, []).append(now - self.last[block.id])
        if not isinstance(event, FloorEvent):  # its time goes to the backend that is next: in the mean that is right
            self.last[block.id] = now

    def seconds_left(self) -> float | None:
        """Seconds until the report is written; none until some backend has trained twice."""
        if not any(kind is TurnEvent and len(seconds) > 1 for (kind, _), seconds in self.seconds.items()):
            return None
        at_once = max(1, len(self.done) - len(self.ended))
        return sum(self._left()) / at_once + REPORT_SECONDS

    def _left(self) -> Iterator[float]:
        typical = {key: self._typical(*key) for key in ((kind, name) for kind in KINDS for name in self.names)}
        for block in self.plan.blocks:
            if block.id not in self.ended:
                done, gone = self.done.get(block.id, Counter()), self.gone.get(block.id, set())
                for (kind, name), seconds in typical.items():
                    yield 0.0 if name in gone else max(0, self.expected[kind] - done[kind, name]) * seconds

    def _typical(self, kind: type[Event], name: str) -> float:
        """Seconds of one event; the first turn of a backend, which may compile, only where there is no other."""
        measured = self.seconds.get((kind, name), [])
        if measured:
            return fmean(measured[1:] or measured)
        others = [fmean(seconds[1:] or seconds) for (other, _), seconds in self.seconds.items() if other is kind]
        return fmean(others) if others else 0.0


def clock_time(seconds: float) -> str:
    """`0:07`, `12:41`, `1:00:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
