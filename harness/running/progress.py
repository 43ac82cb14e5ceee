"""The live table of a run, and the lines of a sweep and of many seeds.

It is drawn between turns, and now and then in a turn that lasts: a display that refreshes itself all the time would use
the workers' CPU.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from statistics import median
from time import monotonic
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lockstep_bench.harness.checks.equivalence import gate
from lockstep_bench.harness.records.format import (
    Block,
    EndEvent,
    EvaluationEvent,
    Event,
    ExtraEvent,
    MachineEvent,
    Plan,
    StartEvent,
    TurnEvent,
)
from lockstep_bench.harness.running.forecast import PHASES, Forecast, Phase, Stopwatch, clock_time

SHOWN_BLOCKS = 4
"""Of the blocks that run at the same time, so many have their rows in the table: those that were heard of last."""


NEXT_SECONDS, REDRAWN_SECONDS, SILENT_SECONDS = 0.25, 3.5, 25.0
"""After an event a terminal is drawn anew where the first has passed since it was drawn: a table takes 7 ms.

If only heartbeats come, a terminal is drawn anew after the second, and a log gets a line after the third.
"""
TABLE_WIDTH = 70
"""A terminal of fewer characters shows a line in place of the table."""
TURNS: Final[dict[str, Phase]] = {
    **dict.fromkeys(("start", "build", "build_seeds"), "starting"),
    **dict.fromkeys(("train", "train_seeds", "floor"), "training"),
    **dict.fromkeys(("evaluate", "evaluate_seeds"), "evaluating"),
    **dict.fromkeys(("save", "latency", "call"), "measuring"),
    "close": "ending",
}
"""The phase that a kind of turn belongs to."""


def is_redrawn(console: Console) -> bool:
    """Return whether a console can be drawn anew: a log cannot, nor can a terminal that knows no cursor."""
    return console.is_terminal and not console.is_dumb_terminal


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
    """Follows the events of a plan's blocks, those that are run; a table on a terminal, plain lines elsewhere.

    Args:
        plan: what is run.
        console: where to show it.
        stopwatch: counts the time of each phase; one that begins now if none.

    Attributes:
        last_work: the phase of the last turn, those apart in which workers are let go.
    """

    def __init__(self, plan: Plan, console: Console, stopwatch: Stopwatch | None = None) -> None:
        self.plan, self.console = plan, console
        self.stopwatch = stopwatch or Stopwatch()
        self.forecast = Forecast(plan, self.stopwatch.clock)
        self.live = Live(console=console, auto_refresh=False) if is_redrawn(console) else None
        self.running: dict[str, dict[str, Row]] = {}
        self.titles: dict[str, str] = {}
        self.finished: set[str] = set()
        self.is_seen = True
        self.phase: Phase = "starting"
        self.last_work: Phase = "starting"
        self.turn = ""
        self.shown_at = self.stopwatch.clock()

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.live:
            with suppress(OSError):
                self._draw()
            self.live.stop()

    def observe(self, block: Block, event: Event) -> None:
        """Take in one event of a block and show what has changed, as long as there is somewhere to show it."""
        self.forecast.observe(block, event)
        self.phase = PHASES[type(event)]
        self.stopwatch.spend(self.phase)  # the time since the event before
        self._show(lambda: self._observe(block, event))

    def heartbeat(self, block: Block, backend: str, do: str) -> None:
        """Show that a turn has begun or is still going on, where nothing else has been shown for long.

        Called before the turn's clock starts, and every few seconds while it lasts.
        """
        self.phase = TURNS[do]
        if self.phase != "ending":
            self.last_work = self.phase
        self.turn = f"{self.phase}: {backend.removeprefix('_')}"
        self.beat()

    def beat(self) -> None:
        """Show how it stands where nothing has been shown for long."""
        self._show(self._beat)

    def _show(self, show: Callable[[], None]) -> None:
        if self.is_seen:
            try:
                show()
            except OSError:  # the terminal was closed, or the pipe's reader has gone: the run goes on
                self.is_seen = False

    def _beat(self) -> None:
        since = self.stopwatch.clock() - self.shown_at
        if self.live and since >= REDRAWN_SECONDS:
            self._draw()
        elif not self.live and since >= SILENT_SECONDS:
            self._say(f"{self.turn}, {self.time_left()} left")

    def _draw(self) -> None:
        if self.live and self.running:
            shown = self.table() if self.console.width >= TABLE_WIDTH else Text(self.line())
            self.live.update(shown, refresh=True)
            self.shown_at = self.stopwatch.clock()

    def _observe(self, block: Block, event: Event) -> None:
        if isinstance(event, MachineEvent):
            self.titles[block.id] = f"{describe(block, self.plan)} on {event.machine}"
            self.running = {name: rows for name, rows in self.running.items() if name not in self.finished}
            rows = {backend.name: Row() for backend in self.plan.backends}
        else:
            rows = self.running.pop(block.id)
        self.running[block.id] = rows  # at the end: that was heard of last
        match event:
            case MachineEvent():
                self._say(self.titles[block.id])
            case StartEvent():
                rows[event.backend].status = "ready"
                self._say(f"{event.backend}: started in {event.start_seconds:.1f} s", block)
            case TurnEvent():
                self._turn(block, event)
            case EvaluationEvent():
                self._evaluation(block, event)
            case ExtraEvent():
                rows[event.backend].status = "measured"
                self._say(f"{event.backend}: measured single predictions and calls", block)
            case EndEvent(backend=str(name)):
                rows[name].status = event.status
                self._say(f"{name}: {event.status}" + (f", {event.reason}" if event.reason else ""), block)
            case EndEvent():  # its rows stay until another block begins
                self.finished.add(block.id)
        if self.stopwatch.clock() - self.shown_at >= NEXT_SECONDS:
            self._draw()

    def _turn(self, block: Block, event: TurnEvent) -> None:
        row = self.running[block.id][event.backend]
        row.epoch, row.train_loss = event.epoch, event.train_loss
        row.status = "not-identical" if row.failed_gate else "training"
        row.microseconds.append(1e6 * event.train_seconds / event.steps)

    def _evaluation(self, block: Block, event: EvaluationEvent) -> None:
        row = self.running[block.id][event.backend]
        row.test_error_percent = event.test_error_percent
        differ, apart = event.disagreements, event.weights_difference
        if differ is not None and apart is not None:
            found = gate(differ, apart, self.plan.dataset.test_images, self.plan.reference.name)
            row.failed_gate |= bool(found)
            if found:
                self._say(f"{event.backend}: not-identical, {found}", block)
        self._say(
            f"epoch {event.epoch}/{self.plan.problem.epochs}  {event.backend}: loss {row.train_loss:.4f}, "
            f"test error {event.test_error_percent:.2f} %, "
            f"{median(row.microseconds):,.0f} microseconds per step, {self.time_left()} left",
            block,
        )

    def _say(self, line: str, block: Block | None = None) -> None:
        """A plain line, where there is no table; it names its block where others run at the same time."""
        if not self.live:
            which = f"{describe(block, self.plan)}: " if block and len(self.running) > 1 else ""
            self.console.print(which + line, highlight=False, markup=False, soft_wrap=True)
            self.shown_at = self.stopwatch.clock()

    def time_left(self) -> str:
        """Hours, minutes and seconds to the end of the command; a question mark while too little is known."""
        seconds = self.forecast.seconds_left()
        return "?" if seconds is None else clock_time(seconds)

    def line(self) -> str:
        """One short text in place of a table, for a terminal that is too narrow for it."""
        epochs = (row.epoch for rows in self.running.values() for row in rows.values())
        return f"{self.turn or self.phase}, epoch {max(epochs)}/{self.plan.problem.epochs}, {self.time_left()} left"

    def table(self) -> Table:
        """The table as it stands: the blocks that were heard of last, each under its own heading if there are more."""
        several = len(self.running) > 1
        shown = sorted(list(self.running)[-SHOWN_BLOCKS:])
        title = f"{len(self.running)} blocks at the same time" if several else self.titles[shown[0]]
        caption = f"dataset {self.plan.dataset.name}; {self.turn or self.phase}"
        table = Table("backend", title=f"{title}, {self.time_left()} left", caption=caption)
        for heading in ("epoch", "train loss", "test error %", "microseconds per step"):
            table.add_column(heading, justify="right")
        table.add_column("status")
        for block in shown:
            if several:
                table.add_section()
                table.add_row(self.titles[block], style="bold")
            for name, row in self.running[block].items():
                table.add_row(name, *self._cells(row))
        return table

    def _cells(self, row: Row) -> list[str]:
        return [
            f"{row.epoch}/{self.plan.problem.epochs}",
            "" if row.train_loss is None else f"{row.train_loss:.4f}",
            "" if row.test_error_percent is None else f"{row.test_error_percent:.2f}",
            f"{median(row.microseconds):,.0f}" if row.microseconds else "",
            row.status,
        ]


def describe(block: Block, plan: Plan) -> str:
    """What sets a block apart from the plan's others."""
    threads = f", threads {block.threads}" if len(plan.threads) > 1 else ""
    replicate = f", replicate {block.replicate}" if max(other.replicate for other in plan.blocks) > 1 else ""
    profile = ", native profile" if plan.profile == "native" else ""
    return f"seed {block.seed}{threads}{replicate}{profile}"


class Pulse(AbstractContextManager["Pulse"]):
    """Lines that stay, and between them a sign of life: a line in place on a terminal, one more now and then in a log.

    Goes on where nobody is there to read any more.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = monotonic) -> None:
        self.console, self.clock = console, clock
        self.live = Live(console=console, auto_refresh=False, transient=True) if is_redrawn(console) else None
        self.shown_at = clock()

    def __enter__(self) -> Self:
        if self.live:
            with suppress(OSError):
                self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            with suppress(OSError):
                self.live.stop()

    def say(self, line: str) -> None:
        """Show a line that stays."""
        with suppress(OSError):
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self.shown_at = self.clock()

    def heartbeat(self, _: Block, backend: str, do: str) -> None:
        """Show whose turn it is where nothing has been shown for long; the arguments are those of `Heartbeat`."""
        line = f"{TURNS[do]}: {backend.removeprefix('_')}"
        since = self.clock() - self.shown_at
        if self.live and since >= REDRAWN_SECONDS:
            with suppress(OSError):
                self.live.update(Text(line), refresh=True)
            self.shown_at = self.clock()
        elif not self.live and since >= SILENT_SECONDS:
            self.say(line)


class SweepProgress:
    """Says a line for every block of a sweep that came to its end: who took how long, and when the sweep may end."""

    def __init__(self, blocks: int, pulse: Pulse) -> None:
        self.blocks, self.pulse = blocks, pulse
        self.done = 0
        self.since = monotonic()

    def __call__(self, plan: Plan) -> Callable[[Block, Event], None]:
        """What follows the events of one Problem's plan."""
        microseconds: dict[str, list[float]] = {}
        ends: dict[str, str] = {}

        def observe(block: Block, event: Event) -> None:
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
                self._say(plan, block, ", ".join(texts))

        return observe

    def _say(self, plan: Plan, block: Block, times: str) -> None:
        """A line; blocks come in a shuffled order, so those left take as long as those that were done, on average."""
        self.done += 1
        left = max(0, self.blocks - self.done) * (monotonic() - self.since) / self.done / 60
        problem = plan.problem
        where = f"batch size {problem.batch_size}, width {problem.hidden}, {plan.dataset.train_images:,} images"
        line = f"{self.done}/{self.blocks}  {where}, threads {block.threads}: µs per step {times}; {left:.0f} min left"
        self.pulse.say(line)
