"""`lockstep backends` and `lockstep new-backend`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lockstep_bench.harness.cli.terminal import PLAIN, console


def backends() -> None:
    """List the backends, and what to install for those that are missing.

    Example: `lockstep backends`
    """
    from lockstep_bench.backends import listed, why_not

    known, refused = listed()
    table = Table("backend", "style", "devices", "here")
    for name, backend in known.items():
        installed = ", ".join(f"{package} {number}" for package, number in backend.versions().items())
        table.add_row(name, backend.style, ", ".join(backend.devices), escape(why_not(backend) or installed))
    for name, reason in refused.items():
        table.add_row(escape(name), "", "", escape(f"refused: {reason}"))
    console.print(table)


def new_backend(
    name: Annotated[str, typer.Argument(help="What the command line and the tables are to call it.")],
) -> None:
    """Write a backend to start from into this folder: complete, and commented where to replace what.

    Example: `lockstep new-backend my-framework`
    """
    from lockstep_bench.harness.new_backend import next_steps, write_backend

    path = write_backend(name, Path())
    console.print(
        f"wrote {path}, a backend in NumPy: replace in it what says REPLACE. Next:", highlight=False, soft_wrap=True
    )
    for line in next_steps(name, path):
        console.print(f"  {line}", **PLAIN)
