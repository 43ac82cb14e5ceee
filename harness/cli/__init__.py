"""The command line, `lockstep`: a file for each command.

Each command imports what it needs when it is called: listing the backends must not wait for pandas and matplotlib.
"""

import os
import sys
from errno import EIO, EPIPE
from typing import NoReturn

import typer

from lockstep_bench.harness.cli.backends import backends, new_backend
from lockstep_bench.harness.cli.compare import compare
from lockstep_bench.harness.cli.data import data
from lockstep_bench.harness.cli.report import open_page, report
from lockstep_bench.harness.cli.run import run
from lockstep_bench.harness.cli.seeds import seeds
from lockstep_bench.harness.cli.sweep import sweep
from lockstep_bench.harness.cli.terminal import PLAIN, errors
from lockstep_bench.harness.cli.verify import verify
from lockstep_bench.harness.errors import LockstepError

app = typer.Typer(
    help="One network, every framework, in lockstep.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (data, backends, new_backend, verify, run, seeds, sweep, report):
    app.command()(command)
app.command("open")(open_page)
app.command()(compare)


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
    errors.print(f"lockstep: {message}", style="bold red", **PLAIN)
    sys.exit(exit_code)
