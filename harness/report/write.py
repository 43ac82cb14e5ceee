"""What is derived from the raw files of a run, of a sweep, of many seeds: from the same files the same bytes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lockstep_bench.harness.data.cache import Dataset, Say
from lockstep_bench.harness.data.find import at_hand
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.records.raw_files import read_plan
from lockstep_bench.harness.report.charts import FORMATS, write_charts
from lockstep_bench.harness.report.charts.seeds import write_seeds_charts
from lockstep_bench.harness.report.charts.sweep import write_sweep_charts
from lockstep_bench.harness.report.page import write_page
from lockstep_bench.harness.report.page.pictures import of_dataset
from lockstep_bench.harness.report.processes import Processes
from lockstep_bench.harness.report.seeds_summary import write_seeds_summary
from lockstep_bench.harness.report.summary import write_latex, write_summary
from lockstep_bench.harness.report.sweep_summary import write_sweep_summary
from lockstep_bench.harness.tables.learnt import read_learnt
from lockstep_bench.harness.tables.results import Results, no_link, write_table, write_tables
from lockstep_bench.harness.tables.seeds_tables import SeedsResults, load_seeds
from lockstep_bench.harness.tables.sweep_tables import SweepResults, write_sweep_tables


def write_report(folder: Path, formats: Sequence[str] = FORMATS, say: Say = lambda _: None) -> Results:
    """Write the tables, the summary, the charts and the page of a results folder again; return the tables.

    What shows the dataset is made where it is at hand. Arrays that are damaged are named in `Results.cut`, and what
    needs them is left out.

    Args:
        folder: of the results.
        formats: of the charts.
        say: is given a few words as each stage begins.

    Raises:
        LockstepError: the folder holds no results, or a link.
    """
    no_link(folder)
    say("tables")
    with Processes() as processes:
        dataset = _dataset(folder)
        pictures = processes.start(partial(of_dataset, dataset)) if dataset else None
        results = write_tables(folder)
        try:
            learnt = read_learnt(folder, results.plan, dataset)
        except LockstepError as error:
            learnt, results = None, results._replace(cut=(*results.cut, str(error)), is_damaged=True)
        write_summary(folder, results)
        write_latex(folder, results)
        write_charts(folder, results, learnt, formats, processes, say)
        say("page")
        write_page(folder, results, dataset, learnt, pictures)
    return results


def _dataset(folder: Path) -> Dataset | None:
    """The dataset of a results folder, if it is at hand: it is only shown."""
    planned = read_plan(folder).dataset
    try:
        return at_hand(planned.name, planned.sha256)
    except LockstepError:  # whoever trains with it is told what is wrong
        return None


def write_sweep_report(folder: Path, formats: Sequence[str] = FORMATS, say: Say = lambda _: None) -> SweepResults:
    """Write the tables, the page and the charts of a sweep again; return the tables.

    The results folders of its Problems are left as they are: `lockstep report` makes the report of each.

    Raises:
        LockstepError: the folder holds no sweep, or a link.
    """
    no_link(folder)
    say("tables")
    results = write_sweep_tables(folder)
    write_sweep_summary(folder, results)
    write_sweep_charts(folder, results, formats, say)
    return results


def write_seeds_report(folder: Path, say: Say = lambda _: None) -> SeedsResults:
    """Write the table, the page and the charts of many seeds again; return the table.

    Raises:
        LockstepError: the folder holds no results of `lockstep seeds`, or a link.
    """
    no_link(folder)
    say("tables")
    results = load_seeds(folder)
    write_table(folder, "seeds", results.table)
    write_seeds_summary(folder, results)
    write_seeds_charts(folder, results, say)
    return results
