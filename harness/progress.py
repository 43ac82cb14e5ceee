"""The live table of a run.

It is drawn between turns only: a display that refreshes itself would use the workers' CPU.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from statistics import median
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lockstep_bench.harness.equivalence import allowed_disagreements
from lockstep_bench.harness.records import (
    Block,
    EndEvent,
    EvaluationEvent,
    Event,
    MachineEvent,
    Plan,
    StartEvent,
    TurnEvent,
)
from lockstep_bench.harness.schedule import steps


@dataclass
class Row:
    """What the table shows of one backend."""

    epoch: int = 0
    train_loss: float | None = None
    test_error_percent: float | None = None
    microseconds: list[float] = field(default_factory=list)
    status: str = "waiting"
    failed_gate: bool = False


class Progress(AbstractContextManager["Progress"]):
    """Follows the events of a plan's blocks, those that are run; a table on a terminal, plain lines elsewhere."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan, self.console = plan, console
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        running = sum(backend.skip is None for backend in plan.backends)
        epoch_steps = steps(plan.epoch_images, plan.problem.batch_size)
        self.all_steps = len(plan.blocks) * plan.problem.epochs * epoch_steps * running
        self.done_steps = 0
        self.blocks = iter(plan.blocks)
        self.is_seen = True
        self.training_since: float | None = None

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def observe(self, event: Event) -> None:
        """Take in one event and show what has changed, as long as there is somewhere to show it."""
        if self.is_seen:
            try:
                self._observe(event)
            except OSError:  # the terminal was closed, or who read the output has gone: the run goes on
                self.is_seen = False

    def _observe(self, event: Event) -> None:
        match event:
            case MachineEvent():
                self.block = describe(next(self.blocks), self.plan)
                self.rows = {backend.name: Row() for backend in self.plan.backends}
                self._say(f"{self.block} on {event.machine}")
            case StartEvent():
                self.rows[event.backend].status = "ready"
                self._say(f"{event.backend}: started in {event.start_seconds:.1f} s")
            case TurnEvent():
                self._turn(event)
            case EvaluationEvent():
                row = self.rows[event.backend]
                row.test_error_percent = event.test_error_percent
                if (event.disagreements or 0) > allowed_disagreements(self.plan.dataset.test_images):
                    row.failed_gate = True
                    self._say(
                        f"{event.backend}: not-identical, {event.disagreements:,} test images predicted differently"
                    )
                self._say(
                    f"epoch {event.epoch}/{self.plan.problem.epochs}  {event.backend}: loss {row.train_loss:.4f}, "
                    f"test error {event.test_error_percent:.2f} %, "
                    f"{median(row.microseconds):,.0f} microseconds per step, {self.time_left()} left"
                )
            case EndEvent(backend=str(name)):
                self.rows[name].status = event.status
                self._say(f"{name}: {event.status}" + (f", {event.reason}" if event.reason else ""))
            case _:
                return
        if self.live:
            self.live.update(self.table(), refresh=True)

    def _turn(self, event: TurnEvent) -> None:
        row = self.rows[event.backend]
        row.epoch, row.train_loss = event.epoch, event.train_loss
        row.status = "not-identical" if row.failed_gate else "training"
        row.microseconds.append(1e6 * event.train_seconds / event.steps)
        if self.training_since is None:
            self.training_since = monotonic() - event.train_seconds
        self.done_steps += event.steps

    def _say(self, line: str) -> None:
        """A plain line, where there is no table."""
        if not self.live:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def time_left(self) -> str:
        """Hours, minutes and seconds, if the rest goes as the steps so far did."""
        if self.training_since is None:
            return "?"
        seconds = (monotonic() - self.training_since) * (self.all_steps / self.done_steps - 1)
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

    def table(self) -> Table:
        """The table as it stands."""
        title = f"{self.block}, {self.time_left()} left"
        table = Table("backend", title=title, caption=f"{self.plan.dataset.name} on {self.plan.machine}")
        for heading in ("epoch", "train loss", "test error %", "microseconds per step"):
            table.add_column(heading, justify="right")
        table.add_column("status")
        for name, row in self.rows.items():
            table.add_row(
                name,
                f"{row.epoch}/{self.plan.problem.epochs}",
                "" if row.train_loss is None else f"{row.train_loss:.4f}",
                "" if row.test_error_percent is None else f"{row.test_error_percent:.2f}",
                f"{median(row.microseconds):,.0f}" if row.microseconds else "",
                row.status,
            )
        return table


def describe(block: Block, plan: Plan) -> str:
    """What sets a block apart from the plan's others."""
    threads = f", threads {block.threads}" if len(plan.threads) > 1 else ""
    replicate = f", replicate {block.replicate}" if max(other.replicate for other in plan.blocks) > 1 else ""
    profile = ", native profile" if plan.profile == "native" else ""
    return f"seed {block.seed}{threads}{replicate}{profile}"


class SweepProgress:
    """Says a line for every block of a sweep that came to its end: who took how long, and when the sweep may end."""

    def __init__(self, blocks: int, console: Console) -> None:
        self.blocks, self.console = blocks, console
        self.done = 0
        self.since = monotonic()

    def __call__(self, plan: Plan) -> Callable[[Event], None]:
        """What follows the events of one Problem's plan."""
        microseconds: dict[str, list[float]] = {}
        ends: dict[str, str] = {}
        blocks = iter(plan.blocks)

        def observe(event: Event) -> None:
            if isinstance(event, MachineEvent):
                microseconds.clear()
                ends.clear()
            elif isinstance(event, TurnEvent):
                microseconds.setdefault(event.backend, []).append(1e6 * event.train_seconds / event.steps)
            elif isinstance(event, EndEvent) and event.backend:
                ends[event.backend] = event.status
            elif isinstance(event, EndEvent):
                texts = (
                    f"{name} {median(microseconds[name]):,.0f}" if status == "ok" else f"{name} {status}"
                    for name, status in ends.items()
                )
                self._say(plan, next(blocks), ", ".join(texts))

        return observe

    def _say(self, plan: Plan, block: Block, times: str) -> None:
        """A line; blocks come in a shuffled order, so those left take as long as those that were done, on average."""
        self.done += 1
        left = max(0, self.blocks - self.done) * (monotonic() - self.since) / self.done / 60
        problem = plan.problem
        where = f"batch size {problem.batch_size}, width {problem.hidden}, {plan.dataset.train_images:,} images"
        line = f"{self.done}/{self.blocks}  {where}, threads {block.threads}: µs per step {times}; {left:.0f} min left"
        with suppress(OSError):  # nobody may be there to read it: the sweep goes on
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
