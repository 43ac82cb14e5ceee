"""Everything that is derived from a run's raw files, made in one go; the same raw files give the same bytes."""

from pathlib import Path

from lockstep_bench.harness.charts import write_charts
from lockstep_bench.harness.summary import write_summary
from lockstep_bench.harness.tables import Results, write_tables


def write_report(folder: Path) -> Results:
    """Write the tables, the summary and the charts of a results folder again; return the tables.

    Raises:
        LockstepError: the folder holds no results, or a raw file is damaged.
    """
    results = write_tables(folder)
    write_summary(folder, results)
    write_charts(folder, results)
    return results
