"""The terminal: what is said there and how, options that several commands have, and the command as it was given."""

import os
import shlex
import sys
from collections.abc import Collection
from errno import EPIPE
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from lockstep_bench.harness.errors import UsageError

PLAIN: Final[Any] = {"highlight": False, "markup": False, "soft_wrap": True}
"""For text that is not ours: names, paths and reasons are printed as they are."""

BackendsArgument = Annotated[
    list[str] | None, typer.Argument(help="Names, or files such as ./mine.py; all that are installed if none.")
]
DatasetOption = Annotated[
    str,
    typer.Option(help="auto (MNIST, or digits where none can be had), mnist, digits, or a folder of four IDX files."),
]
DataOption = Annotated[
    Path | None,
    typer.Option(help="The folder that holds MNIST: its four IDX files, or mnist.npz; LOCKSTEP_MNIST if not given."),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="An environment variable that workers inherit though it decides speed."),
]
OF_NO_PLAN: Final = {"out", "data", "dataset", "resume", "retry_failed", "cluster", "allow_mixed", "report"}
"""Options that go with --resume and leave the recorded plan as it is."""


class Terminal(Console):
    """A console that leaves it to its caller what to do when nobody reads it any more: a run goes on."""

    def on_broken_pipe(self) -> None:
        """Rich would end the process."""
        raise BrokenPipeError(EPIPE, os.strerror(EPIPE))


console = Terminal()
errors = Terminal(stderr=True)


def say(message: str) -> None:
    """Tell the user something that must not be overlooked."""
    errors.print(f"lockstep: {message}", style="bold yellow", **PLAIN)


def say_refused(backends: list[str] | None) -> None:
    """Where all backends are meant, say which are left out because they cannot even be loaded."""
    from lockstep_bench.backends import refused

    for reason in () if backends else refused().values():
        say(f"left out: {reason}")


def say_variables(keep: Collection[str] = ()) -> None:
    """Say which of the environment variables that decide how fast a backend computes workers lack, and which not."""
    from lockstep_bench.harness.machine.variables import inherited, recordable

    variables = inherited(os.environ, keep)
    removed, kept = ([f"{name}={value}" for name, value in recordable(part).items()] for part in variables)
    if removed:
        say(f"workers start without {', '.join(removed)}; --keep NAME keeps one")
    if kept:
        say(f"workers inherit {', '.join(kept)}")


def numbers(option: str, text: str | None) -> list[int] | None:
    """Whole numbers separated by commas; none where the option was not given.

    Raises:
        UsageError: it is something else.
    """
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} takes whole numbers separated by commas, such as 1,2, not {text}") from None


def asks_for_a_plan(context: typer.Context) -> bool:
    """Whether options were given that make a plan; with --resume, that which is recorded is meant if there are none."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return bool({name for name, source in sources.items() if source and source.name == "COMMANDLINE"} - OF_NO_PLAN)


def command_line() -> str:
    """The command as it was given, for the record."""
    return shlex.join(["lockstep", *sys.argv[1:]])
