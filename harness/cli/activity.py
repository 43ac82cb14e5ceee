"""The sign of life of a command while nothing is timed: a moving line on a terminal, else a line now and then."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from time import monotonic

from lockstep_bench.harness.cli.terminal import PLAIN, console

REPEAT_SECONDS = 25.0
"""How long a log may be silent."""
REFRESHES_PER_SECOND = 2.0


@contextmanager
def activity(what: str) -> Iterator[Callable[[str], None]]:
    """Show within the block that something is being done; the function that it gives names the stage.

    The work goes on where the terminal is gone, or the reader of the output.

    Args:
        what: what is being done, such as `writing the report`.
    """
    show = _moving_line if console.is_terminal and not console.is_dumb_terminal else _lines
    with show(what) as stage:
        yield stage


@contextmanager
def _moving_line(what: str) -> Iterator[Callable[[str], None]]:
    status = console.status(what, refresh_per_second=REFRESHES_PER_SECOND)
    with suppress(OSError):
        status.start()
    try:
        yield lambda stage: status.update(f"{what}: {stage}")
    finally:
        with suppress(OSError):
            status.stop()


@contextmanager
def _lines(what: str) -> Iterator[Callable[[str], None]]:
    stages, ended, began = [what], Event(), monotonic()

    def say(line: str) -> None:
        with suppress(OSError):
            console.print(line, **PLAIN)

    def repeat() -> None:
        while not ended.wait(REPEAT_SECONDS):
            say(f"{stages[-1]}, {monotonic() - began:.0f} s so far")

    say(what)
    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield lambda stage: stages.append(f"{what}: {stage}")
    finally:
        ended.set()
        thread.join()
