"""The command line, `lockstep`: a file for each command.

A command's file is imported when the command is called. It imports what it needs when it runs: a list of the backends
must not wait for pandas and matplotlib, nor the help for rich.
"""

import os
import sys
from collections.abc import Mapping
from errno import EIO, EPIPE
from importlib import import_module
from typing import Any, Final, NamedTuple, NoReturn

import typer
from typer.core import TyperGroup

from lockstep_bench.harness.errors import LockstepError


class Place(NamedTuple):
    """A command: its module of this package, the function in it, and a sentence for the list of commands."""

    module: str
    function: str
    summary: str


COMMANDS: Final[Mapping[str, Place]] = {
    "data": Place("data", "data", "Find, check and cache the dataset, and say what it is."),
    "backends": Place("backends", "backends", "List the backends, and what to install for those that are missing."),
    "new-backend": Place(
        "backends",
        "new_backend",
        "Write a backend to start from into this folder: complete, and commented where to replace what.",
    ),
    "machine": Place(
        "machine",
        "machine",
        "Is this machine fit, and how small a difference can it show? The reference beside itself, within a minute.",
    ),
    "verify": Place(
        "verify",
        "verify",
        "The acceptance test of backends: the contract, identity with the float64 oracle, a short run in lockstep.",
    ),
    "run": Place("run", "run", "Train the backends in lockstep and report on them."),
    "seeds": Place(
        "seeds", "seeds", "Train one network from many seeds, and say how its test error spreads over them."
    ),
    "sweep": Place(
        "sweep", "sweep", "How does cost grow? A grid of Problems, each in lockstep for a fixed number of steps."
    ),
    "report": Place(
        "report",
        "report",
        "Make the tables, the charts and the page of results folders, or of sweeps, again from their raw files.",
    ),
    "open": Place(
        "report", "open_page", "Show the page of a results folder in the browser; it is made first where there is none."
    ),
    "compare": Place("compare", "compare", "Say what got faster or slower from one result to another."),
}
"""The commands in the order of the help, each with the first paragraph of its own help."""


class Commands(TyperGroup):
    """Lists the commands without importing any, and imports one when it is called.

    The list is plain text: the import of rich, to draw it in colour, would take longer than all the rest.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options that come before a command."""
        _set_flags(self, ctx)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name of the command, the command and its arguments."""
        name, found, rest = super().resolve_command(ctx, args)
        if name:
            found = _imported(name)
            _set_flags(found, ctx)
        return name, found, rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help as click formats it; typer's rich one is printed from here too, past the formatter."""
        plain = ctx.make_formatter()
        super(TyperGroup, self).format_help(ctx, plain)
        typer.echo(plain.getvalue(), nl=False)


def _set_flags(command: Any, ctx: Any) -> None:
    """Set flags such as `--help` to False where they have no value: for none, typer imports pydantic to convert it."""
    for option in command.get_params(ctx):
        if not option.expose_value and option.default is None:
            option.default = False


def _imported(name: str) -> Any:
    """Import a command, with its arguments, options and help."""
    place = COMMANDS[name]
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    alone.command(name)(getattr(import_module(f"{__name__}.{place.module}"), place.function))
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=Commands,
    help="One network, every framework, in lockstep.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command, (_, _, summary) in COMMANDS.items():
    app.command(command, short_help=summary)(lambda: None)


def main() -> None:
    """Run the command line; an error that a user can cause is one sentence and an exit code."""
    try:
        app()
    except LockstepError as error:
        fail(str(error), error.exit_code)
    except OSError as error:  # a full disk, a folder that may not be written, a terminal that is gone
        if error.filename is None and error.errno in (EPIPE, EIO):
            os._exit(1)  # nobody is left to tell, and Python would try to at its end
        where = error.filename or "the output"
        fail(f"{where}: {error.strerror}; give another path, or make room or permission there", 1)
    except MemoryError:
        fail("this machine has too little memory for that: take fewer images or backends, or end other programs", 1)
    except KeyboardInterrupt:
        fail("interrupted", 1)


def fail(message: str, exit_code: int) -> NoReturn:
    """End with a sentence."""
    from lockstep_bench.harness.cli.terminal import PLAIN, errors

    errors.print(f"lockstep: {message}", style="bold red", **PLAIN)
    sys.exit(exit_code)
