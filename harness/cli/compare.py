"""`lockstep compare`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lockstep_bench.harness.cli.terminal import PLAIN, console


def compare(
    old: Annotated[Path, typer.Argument(help="A results folder, or a JSON file of pytest-benchmark.")],
    new: Annotated[Path, typer.Argument(help="Another, measured later.")],
    csv: Annotated[Path | None, typer.Option(help="A file for the table as CSV.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="A file for the table in Markdown, for a pull request.")] = None,
    fail_on_slower: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="Exit with 1 if a backend is shown to be slower by more.")
    ] = None,
) -> None:
    """Say what got faster or slower from one result to another.

    Example: `lockstep compare results/before results/after --fail-on-slower 5`
    """
    from lockstep_bench.harness.report import changes

    found = changes.compare(old, new)
    header, *rows = changes.cells(found)
    table = Table(*header)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(changes.answer(found), **PLAIN)
    console.print(table)
    for note in changes.notes(found):
        console.print(f"- {note}", **PLAIN)
    if csv is not None:
        changes.write_csv(csv, found)
    if markdown is not None:
        markdown.write_text(changes.page(found, str(old), str(new)), encoding="utf-8", newline="\n")
    if fail_on_slower is not None:
        changes.fail_on_slower(found, fail_on_slower)
