"""`lockstep report` and `lockstep open`; and what a run, a sweep and many seeds show of their report at their end."""

import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from lockstep_bench.harness.cli.activity import activity
from lockstep_bench.harness.cli.terminal import PLAIN, console, say
from lockstep_bench.harness.errors import LockstepError, UsageError

if TYPE_CHECKING:
    from lockstep_bench.harness.tables.results import Results
    from lockstep_bench.harness.tables.seeds_tables import SeedsResults
    from lockstep_bench.harness.tables.sweep_tables import SweepResults

WIDE: Final = 100
ANY_WIDTH: Final = 1000
NOT_IF_NARROW: Final = ("times the floor", "training (s)", "initial weights", "added to")
"""A terminal of fewer characters shows tables without these columns."""


class Format(StrEnum):
    """What charts are drawn as beside PNG and SVG."""

    PDF = "pdf"


def report(
    folders: Annotated[list[Path], typer.Argument(help="Results folders.")],
    into: Annotated[
        Path | None, typer.Option(help="A document that gets the answer and the table, between its marker lines.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A folder that gets all of them side by side.")] = None,
    also: Annotated[
        Format | None, typer.Option("--format", help="Draw the charts as this too, for papers, beside PNG and SVG.")
    ] = None,
) -> None:
    """Make the tables, the charts and the page of results folders, or of sweeps, again from their raw files.

    Example: `lockstep report results/standard --into README.md`

    Several, and side by side: `lockstep report results/laptop results/server --out results/both`
    """
    from lockstep_bench.harness.records.sweep_grid import FILE
    from lockstep_bench.harness.report.seeds_summary import answer as answer_of_seeds
    from lockstep_bench.harness.report.side_by_side import write_side_by_side
    from lockstep_bench.harness.report.summary import put_into, write_into
    from lockstep_bench.harness.tables.seeds_tables import is_seeds

    sweeps = [folder for folder in folders if (folder / FILE).is_file()]
    if sweeps and (into is not None or out is not None):
        raise UsageError(f"{sweeps[0]} is a sweep, whose tables fit no other's: leave out --into and --out")
    if into is not None and len(folders) > 1:
        raise UsageError("--into takes the results of one folder: give one")
    each: dict[Path, Results] = {}
    swept: dict[Path, SweepResults] = {}
    bad: list[str] = []
    for folder in folders:
        try:
            if is_seeds(folder):
                of_seeds = report_seeds(folder)
                bad += [f"{folder} has damaged files, which were left out"] if of_seeds.is_damaged else []
                if into is not None:
                    put_into(into, answer_of_seeds(of_seeds))
            elif folder in sweeps:
                swept[folder] = report_sweep(folder, [also] if also else [])
            else:
                each[folder] = report_run(folder, [also] if also else [])
        except LockstepError as error:
            bad.append(str(error))
    if into is not None and (results := each.get(folders[0])):
        write_into(into, results)
    if out is not None and each:
        write_side_by_side(out, each)
        console.print(f"Side by side, they are in {out}", highlight=False)
    bad += [
        f"{folder} has damaged files, which were left out"
        for folder, found in (each | swept).items()
        if found.is_damaged
    ]
    if bad:
        raise LockstepError("; ".join(bad))


def report_run(folder: Path, formats: Sequence[str] = ()) -> "Results":
    """Write a folder's report, and show what it says."""
    from lockstep_bench.harness.report import summary
    from lockstep_bench.harness.report.charts import FORMATS
    from lockstep_bench.harness.report.write import write_report
    from lockstep_bench.harness.tables.results import parts, title

    with activity("writing the report") as stage:
        results = write_report(folder, [*FORMATS, *formats], stage)
    console.print(" on ".join(title(results)), style="bold", **PLAIN)
    for part in parts(results):
        show_table(part.name, list(summary.narrow_cells(part.results)), summary.TEXT_COLUMNS)
        for sentence in summary.sentences(part.results):
            console.print(sentence.replace("**", ""), **PLAIN)
        for line in summary.remarks(part):
            console.print(f"- {line}", **PLAIN)
    for backends, status, rest in summary.failures(results):
        console.print(f"- {backends}: {status}, {rest}", **PLAIN)
    opens = shlex.join(["lockstep", "open", str(folder)])
    console.print(f"Tables and charts are in {folder}, the page is {folder / 'report.html'}: {opens}", **PLAIN)
    for sentence in results.cut:
        say(sentence)
    return results


def show_table(name: str, cells: list[list[str]], text_columns: Sequence[str]) -> None:
    """Print a table, or a list where the terminal is too narrow for the table.

    Args:
        name: its heading; empty for none.
        cells: a header and a row per backend.
        text_columns: the columns that are set to the left.
    """
    columns = list(zip(*cells, strict=True))
    if console.width < WIDE:
        columns = [column for column in columns if column[0] not in NOT_IF_NARROW]
    table = Table(title=name or None, box=None, padding=(0, 1, 0, 0))
    for header, *texts in columns:
        justify: Any = "left" if header in text_columns else "right"
        table.add_column(fill(header, max(map(len, (*texts, *header.split())))), justify=justify, no_wrap=True)
    headers, *rows = zip(*columns, strict=True)
    for row in rows:
        table.add_row(*map(escape, row))
    if Measurement.get(console, console.options.update(max_width=ANY_WIDTH), table).maximum <= console.width:
        console.print(table)
        return
    for backend, *texts in rows:  # rich would leave out the last columns, which are the errors
        console.print(backend, style="bold", **PLAIN)
        for header, text in zip(headers[1:], texts, strict=True):
            console.print(f"  {header}: {text}", **PLAIN)


def report_sweep(folder: Path, formats: Sequence[str] = ()) -> "SweepResults":
    """Write a sweep's report, and show what it says."""
    from lockstep_bench.harness.report import sweep_summary
    from lockstep_bench.harness.report.charts import FORMATS
    from lockstep_bench.harness.report.write import write_sweep_report

    with activity("writing the report") as stage:
        results = write_sweep_report(folder, [*FORMATS, *formats], stage)
    console.print(sweep_summary.title(results), style="bold", **PLAIN)
    for sentence in (*sweep_summary.failures(results), *sweep_summary.sentences(results)):
        console.print(f"- {sentence}", **PLAIN)
    console.print(f"Tables and charts are in {folder}, the page is {folder / 'sweep.md'}", **PLAIN)
    for sentence in results.cut:
        say(sentence)
    return results


def report_seeds(folder: Path) -> "SeedsResults":
    """Write the report of a folder of many seeds, and show what it says."""
    from lockstep_bench.harness.report.seeds_summary import sentences
    from lockstep_bench.harness.report.write import write_seeds_report

    with activity("writing the report") as stage:
        results = write_seeds_report(folder, stage)
    for sentence in sentences(results):
        console.print(f"- {sentence}", **PLAIN)
    console.print(f"The table, the answer and the charts are in {folder}", **PLAIN)
    for sentence in results.cut:
        say(sentence)
    return results


def open_page(folder: Annotated[Path, typer.Argument(help="A results folder.")]) -> None:
    """Show the page of a results folder in the browser; it is made first where there is none.

    Example: `lockstep open results/standard`
    """
    import webbrowser

    from lockstep_bench.harness.report.write import write_report

    page = folder / "report.html"
    if not page.is_file():
        write_report(folder)
    if not webbrowser.open(page.resolve().as_uri()):
        raise LockstepError(f"no browser was found: open {page} in one")
