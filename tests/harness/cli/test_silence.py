"""Nothing is silent: a run shows what it does and how long it will take, from its start to the end of its report."""

from collections.abc import Callable
from io import StringIO
from itertools import pairwise
from pathlib import Path
from threading import Event as Signal
from typing import Any

import pytest
from rich.console import Console

from lockstep_bench.harness.cli import activity as activity_module
from lockstep_bench.harness.cli.activity import activity
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.records.format import EvaluationEvent, Event, Plan
from lockstep_bench.harness.running import progress as progress_module
from lockstep_bench.harness.running import worker_process
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.running.forecast import Stopwatch
from lockstep_bench.harness.running.plan import make_plan
from lockstep_bench.harness.running.progress import Progress, Pulse, SweepProgress
from lockstep_bench.harness.running.sweep import conduct_sweep, make_sweep
from lockstep_bench.harness.running.worker_process import WorkerProcess
from lockstep_bench.harness.statistics import FEWEST

BEAT, BEATS = worker_process.HEARTBEAT_SECONDS, 10
LOG_SECONDS, TERMINAL_SECONDS = 30, 5
WAITS = """
import atexit, time
from pathlib import Path

from lockstep_bench.backends.numpy import NumPy


def wait(name):
    while not (Path(__file__).parent / name).exists():
        time.sleep(0.01)


class Waits(NumPy):
    name = "waits"

    def predict(self, images):
        if len(images) == 1:
            wait("measuring")
        return super().predict(images)

    def build(self, *arguments):
        wait("starting")
        atexit.register(wait, "ending")
        super().build(*arguments)

    def train(self, order):
        wait("training")
        return super().train(order)

    def weights(self):
        wait("evaluating")
        return super().weights()
"""


class Clock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


class Log(StringIO):
    """Text that calls a function with each piece that is written."""

    def __init__(self, written: Callable[[str], None]) -> None:
        super().__init__()
        self.written = written

    def write(self, text: str) -> int:
        """Write, and call."""
        self.written(text)
        return super().write(text)


def small(digits: Dataset, *backends: str) -> Plan:
    """A plan of two epochs of two rounds."""
    return make_plan(digits, backends, epochs=2, train_images=120, slice_steps=4, threads=1, turn_timeout=60.0)


def make_turns_last(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every turn last for 40 s more by this clock."""

    def slow_ask(worker: WorkerProcess, do: str, **arguments: Any) -> dict[str, Any]:
        for _ in range(BEATS):
            clock.now += BEAT
            worker.heartbeat(do)
        return ask(worker, do, **arguments)

    ask = WorkerProcess.ask
    monkeypatch.setattr(WorkerProcess, "ask", slow_ask)


def test_a_turn_that_lasts_is_shown_while_it_lasts(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that waits in each phase until the log names it comes through; in silence it would wait for ever."""
    monkeypatch.setattr(worker_process, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(progress_module, "SILENT_SECONDS", 0.0)
    adapter = tmp_path / "waits.py"
    adapter.write_text(WAITS)

    def written(text: str) -> None:
        if text.startswith(("starting", "training", "evaluating", "measuring", "ending")) and ": waits" in text:
            (tmp_path / text.partition(":")[0]).touch()

    plan, ends = small(digits, str(adapter)), []
    with Progress(plan, Console(file=Log(written), width=120)) as progress:

        def observe(block: Any, event: Event) -> None:
            progress.observe(block, event)
            if event.event == "end":
                ends.append((event.backend, event.status, event.reason))

        conduct(plan, digits.folder, tmp_path / "out", observe, heartbeat=progress.heartbeat)
    assert ("waits", "ok", None) in ends


@pytest.mark.parametrize(("is_terminal", "most"), [(False, LOG_SECONDS), (True, TERMINAL_SECONDS)])
def test_nothing_is_silent_for_long(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_terminal: bool, most: float
) -> None:
    """Where every turn lasts for 40 s, no two writes are further apart than is promised, and all time has a phase."""
    clock, writes, last_epoch = Clock(), [0.0], [0.0]
    make_turns_last(clock, monkeypatch)
    console = Console(file=Log(lambda _: writes.append(clock.now)), force_terminal=is_terminal, width=120)
    stopwatch, plan = Stopwatch(clock), small(digits, "numpy")
    with Progress(plan, console, stopwatch) as progress:

        def observe(block: Any, event: Event) -> None:
            if isinstance(event, EvaluationEvent):
                last_epoch[0] = clock.now
            progress.observe(block, event)

        conduct(plan, digits.folder, tmp_path / "out", observe, heartbeat=progress.heartbeat)
    writes.append(clock.now)
    assert max(after - before for before, after in pairwise(writes)) <= most
    assert sum(stopwatch.spent.values()) == clock.now
    assert stopwatch.spent["measuring"] + stopwatch.spent["ending"] == clock.now - last_epoch[0]
    assert stopwatch.spent["measuring"] > 0


@pytest.mark.parametrize(("is_terminal", "most"), [(False, LOG_SECONDS), (True, TERMINAL_SECONDS)])
def test_a_sweep_is_not_silent(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_terminal: bool, most: float
) -> None:
    """Its lines are one for a block: in between it says whose turn it is."""
    clock, writes = Clock(), [0.0]
    make_turns_last(clock, monkeypatch)
    console = Console(file=Log(lambda _: writes.append(clock.now)), force_terminal=is_terminal, width=120)
    swept = make_sweep(digits, ["numpy"], batch_size=[60], hidden=[10], train_images=[120], threads=[1], rounds=FEWEST)
    with Pulse(console, clock) as pulse:
        conduct_sweep(swept, digits, tmp_path / "out", SweepProgress(1, pulse), heartbeat=pulse.heartbeat)
    writes.append(clock.now)
    assert clock.now > LOG_SECONDS
    assert max(after - before for before, after in pairwise(writes)) <= most


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_report_is_not_silent(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    """Whatever takes long in it is named, again and again."""
    monkeypatch.setattr(activity_module, "REPEAT_SECONDS", 0.01)
    seen = [0]
    often = Signal()

    def written(text: str) -> None:
        seen[0] += text.count("charts: 1 of 28")
        if seen[0] >= 3:
            often.set()

    console = Console(file=Log(written), force_terminal=is_terminal, width=120)
    monkeypatch.setattr(activity_module, "console", console)
    with activity("writing the report") as stage:
        stage("charts: 1 of 28")
        assert often.wait(timeout=60)


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"COLUMNS": "20"}])
def test_any_terminal_is_readable(digits: Dataset, tmp_path: Path, variables: dict[str, str]) -> None:
    """A dumb one gets lines; one without colours no colour; a narrow one a line that fits in place of a table."""
    console = Console(file=StringIO(), force_terminal=True, _environ={"TERM": "xterm", **variables})
    plan = small(digits, "numpy")
    with Progress(plan, console) as progress:
        conduct(plan, digits.folder, tmp_path / "out", progress.observe, heartbeat=progress.heartbeat, extras=False)
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    if "TERM" in variables:
        assert "numpy: started in" in text
        assert "\x1b" not in text
    elif "NO_COLOR" in variables:
        assert "microseconds per step" in text
        assert "\x1b[3" not in text.replace("\x1b[3m", "")  # italics are no colour
    else:
        assert "microseconds" not in text
        assert "epoch 2/2" in " ".join(text.split())


def test_the_time_left_is_that_of_the_whole_command(digits: Dataset, tmp_path: Path) -> None:
    """Unknown at first; at the end of the run what is left is the report."""
    plan, left = small(digits, "numpy"), []
    console = Console(file=StringIO(), width=120)
    with Progress(plan, console) as progress:

        def observe(block: Any, event: Event) -> None:
            progress.observe(block, event)
            left.append(progress.time_left())

        conduct(plan, digits.folder, tmp_path / "out", observe, heartbeat=progress.heartbeat)
    assert left[0] == "?"
    assert left[-1] == "0:10"
