"""`lockstep data`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lockstep_bench.harness.cli.terminal import DataOption, DatasetOption, console, say


def data(
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    figures: Annotated[Path | None, typer.Option(help="Draw the images and their principal components here.")] = None,
) -> None:
    """Find, check and cache the dataset, and say what it is.

    Example: `lockstep data --figures figures`
    """
    from lockstep_bench.harness.data.figures import describe, draw
    from lockstep_bench.harness.data.find import find_dataset

    found = find_dataset(dataset, data, say)
    table = Table(show_header=False, box=None)
    for name, text in describe(found):
        table.add_row(name, text)
    console.print(table)
    if figures is not None:
        for path in draw(found, figures):
            console.print(f"wrote {path}", highlight=False)
