"""Several results in one place: their tables together, and each backend's ratio to the reference side by side.

Nothing is compared across results: a ratio stands beside others, and each was measured within its own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.records.whole_files import write_whole
from lockstep_bench.harness.report.charts import write_ratios
from lockstep_bench.harness.report.summary import answer, ratio_cell
from lockstep_bench.harness.tables.results import COLUMNS, Results, parts, title, write_table


def write_side_by_side(out: Path, each: Mapping[Path, Results]) -> None:
    """Write the tables of all results, with a column `results` that says of which, summary.md, and a chart.

    Raises:
        UsageError: `out` holds results of its own, or two of the folders have one name.
    """
    names = [folder.resolve().name for folder in each]
    if (out / "plan.json").exists():
        raise UsageError(f"{out} holds results of its own: give another --out, nothing was overwritten")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two of the folders are called {twice}: rename one, since the tables tell them apart by name")
    named = dict(zip(names, each.values(), strict=True))
    out.mkdir(parents=True, exist_ok=True)
    for table in COLUMNS:
        own = [getattr(results, table).assign(results=name) for name, results in named.items()]
        write_table(out, table, pd.concat(own)[["results", *COLUMNS[table]]])
    write_whole(out / "summary.md", _page(named))
    write_ratios(out, _columns(named))


def _columns(named: Mapping[str, Results]) -> dict[str, Results]:
    """A column for each part of each of the results, called what tells it from the others."""
    found = {}
    for name, results in named.items():
        for part in parts(results):
            found[", ".join(filter(None, (name, part.name)))] = part.results
    return found


def _page(named: Mapping[str, Results]) -> str:
    columns = _columns(named)
    texts = ["# " + ", ".join(named) + ": side by side"]
    texts.append("\n".join(f"- {name}: {' on '.join(title(results))}" for name, results in columns.items()))
    texts.append("Time per step over the reference's, each within its own results, with 95 % intervals:")
    texts.append("\n".join(f"| {' | '.join(cells)} |" for cells in _cells(columns)))
    for name, results in named.items():
        texts += [f"# {name}: {' on '.join(title(results))}", answer(results)]
    return "\n\n".join(texts) + "\n"


def _cells(columns: Mapping[str, Results]) -> Iterator[list[str]]:
    """A row for each backend, a column for each of the results; a failure has its status there."""
    summaries = [results.summary.set_index("backend") for results in columns.values()]
    yield ["backend", *columns]
    yield ["---", *("---:" for _ in columns)]
    for backend in dict.fromkeys(name for summary in summaries for name in summary.index):
        yield [backend, *(_cell(summary, backend) for summary in summaries)]


def _cell(summary: pd.DataFrame, backend: str) -> str:
    if backend not in summary.index:
        return ""
    [(_, row)] = summary.loc[[backend]].iterrows()
    return ratio_cell(row, "ratio_to_reference") or str(row["status"])
