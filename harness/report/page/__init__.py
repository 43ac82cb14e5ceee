"""report.html: one page with the answer, the charts, the network and how it was measured; it needs no network.

Everything on it comes from the derived tables, the raw arrays and the dataset. Records may come from strangers: the
template escapes every text, and the page's own policy lets a browser load nothing and run no script but the three whose
hashes it names.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lockstep_bench.harness.data import figures
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.records.whole_files import write_whole
from lockstep_bench.harness.report import summary
from lockstep_bench.harness.report.looks import INK, looks
from lockstep_bench.harness.report.page.frame import MUTED
from lockstep_bench.harness.report.page.pictures import Picture, of_dataset, of_digit, of_units
from lockstep_bench.harness.report.page.plots import Plot, plots
from lockstep_bench.harness.report.processes import Ahead
from lockstep_bench.harness.tables.comparisons import RULES
from lockstep_bench.harness.tables.learnt import Learnt
from lockstep_bench.harness.tables.results import COLUMNS, Results, parts, title

GLYPHS: Final = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "p": "⬟"}
"""Matplotlib's markers as text."""
LOG_LINES: Final = 30
"""Of a failed run's log the last so many are shown."""
GROUPS: Final = {
    "Outcome": ("status", "reason", "epochs_done", "test_error_percent", "disagreements"),
    "Versions": ("versions", "python", "blas"),
    "Machine": ("machine_identity", "caches"),
    "Environment": ("variables_kept", "variables_removed"),
    "Threads": ("threads", "threads_used", "cpus_used"),
    "Phases": (
        *("start_seconds", "import_seconds", "build_seconds", "startup_seconds", "train_seconds"),
        *("evaluation_seconds", "own_seconds"),
    ),
    "Speed": (
        *("microseconds_per_step", "images_per_second", "floor_multiple", "predict_images_per_second"),
        *("latency_milliseconds", "latency_p99_milliseconds", "call_milliseconds"),
    ),
    "Memory": ("memory_import_bytes", "memory_build_bytes", "memory_peak_bytes"),
    "Training": ("initializer", "epsilon", "epsilon_placement", "l2"),
}
"""Columns of runs.csv that a row's details show."""
CONDITIONS: Final = (
    *("outliers", "spread_percent", "steal_percent", "throttled_percent", "foreign_load", "waiting_percent"),
    "unstable",
)
"""Columns of summary.csv that go with them."""


Groups = list[tuple[str, list[tuple[str, str]]]]


class Row(NamedTuple):
    """A backend in the table: how it looks, its cells, what is found behind it, the logs of runs that failed."""

    glyph: str
    colour: str
    style: str
    cells: list[str]
    conditions: list[tuple[str, str]]
    runs: list[tuple[str, Groups]]
    logs: list[tuple[str, str]]


class Section(NamedTuple):
    """What the page says of one machine and number of threads."""

    number: int
    name: str
    sentences: list[str]
    header: list[str]
    rows: list[Row]
    legend: list[tuple[str, str, str, str]]
    plots: list[Plot]


def write_page(
    folder: Path,
    results: Results,
    dataset: Dataset | None = None,
    learnt: Learnt | None = None,
    pictures: Ahead[list[Picture]] | None = None,
) -> Path:
    """Write report.html into a results folder; `pictures` are those of the dataset, where they are being drawn."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"inline": inline, "interval": interval, "island": island}
    shown: list[Picture] = []
    if dataset:
        shown = pictures.result() if pictures else of_dataset(dataset)
    native = ", native defaults, networks not identical" if results.plan.profile == "native" else ""
    scripts = {
        "first": _own("first.js"),
        "plotly": _plotly().replace("</script", "<\\/script"),
        "own": f"const THEMED = {json.dumps({'ink': INK, 'muted': MUTED})};\n{_own('report.js')}",
    }
    text = environment.get_template("report.html.jinja").render(
        title=" on ".join(title(results)) + native,
        dataset=title(results)[0],
        results=results,
        failures=list(summary.failures(results)),
        sections=[_section(folder, number, part.name, part.results) for number, part in enumerate(parts(results), 1)],
        data_pictures=shown,
        counts=[figures.counts(split) for split in (dataset.train, dataset.test)] if dataset else [],
        learnt=learnt,
        mistakes=[(mistake, of_digit(mistake.image)) for mistake in learnt.mistakes] if learnt else [],
        units=of_units(learnt) if learnt else None,
        method=summary.METHOD,
        rules=[rule.meaning for rule in RULES],
        conditions=list(summary.conditions(results)),
        remarks=[line for part in parts(results) for line in summary.remarks(part)],
        files=list(_files(folder, results)),
        style=Markup(_own("report.css")),  # noqa: S704 - a file of ours
        scripts={name: Markup(script) for name, script in scripts.items()},  # noqa: S704 - files of ours, and plotly
        policy=" ".join(map(_hash, scripts.values())),
    )
    path = folder / "report.html"
    write_whole(path, text)
    return path


def _own(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """plotly.js, as the package plotly brings it; read as a file, since the package's import takes a while."""
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """A script as a content security policy names it."""
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def inline(text: str) -> Markup:
    """The marks of our own sentences: **strong** at the beginning, `a_column`, the `command`. All else is text."""
    safe = str(escape(text))
    safe = re.sub(r"^\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)
    safe = re.sub(r"^command: `(.+)`$", r"command: <code>\1</code>", safe)
    return Markup(re.sub(r"`([a-z_]+(?:\(\))?)`", r"<code>\1</code>", safe))  # noqa: S704 - escaped above


def interval(cell: str) -> Markup:
    """A cell's interval, where it has one, below its number."""
    found = re.fullmatch(r"(\S+) \((\S+ to \S+)\)", cell)
    return Markup("{}<small>({})</small>").format(*found.groups()) if found else escape(cell)


def island(json_text: str) -> Markup:
    """JSON inside a script element, which nothing in it can end."""
    safe = json_text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
    return Markup(safe)  # noqa: S704 - no sign is left in it that ends anything


def _section(folder: Path, number: int, name: str, results: Results) -> Section:
    drawn = {look.name: look for look in looks(results)}
    header, _, *cells = summary.cells(results)
    summaries = {row["backend"]: row for _, row in results.summary.iterrows()}
    rows = []
    for own in cells:
        look, runs = drawn.get(own[0]), results.runs[results.runs["backend"] == own[0]]
        rows.append(
            Row(
                GLYPHS[look.marker] if look else "○",
                look.colour if look else INK,
                str(summaries[own[0]]["style"]),
                own,
                list(_facts(summaries[own[0]], CONDITIONS)),
                [_details(run) for _, run in runs.iterrows()],
                list(_logs(folder, runs)),
            )
        )
    legend = [(look.name, look.label, GLYPHS[look.marker], look.colour) for look in drawn.values()]
    return Section(number, name, list(summary.sentences(results)), header, rows, legend, list(plots(results)))


def _details(run: "pd.Series[Any]") -> tuple[str, Groups]:
    groups = [(group, list(_facts(run, columns))) for group, columns in GROUPS.items()]
    return _run_name(run), [(group, facts) for group, facts in groups if facts]


def _run_name(run: "pd.Series[Any]") -> str:
    return f"seed {run['seed']}" + (f", replicate {run['replicate']}" if run["replicate"] > 1 else "")


def _facts(row: "pd.Series[Any]", columns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """What there is of these columns, with their units as one writes them."""
    for column in columns:
        value = row[column]
        if pd.isna(value) or value == "":
            continue
        name, unit = column, ""
        for suffix, mark in UNITS.items():
            if column.endswith(suffix):
                name, unit = column.removesuffix(suffix), mark
        if column.endswith("_bytes"):
            value = float(value) / 2**20
        shown = str(value) if isinstance(value, str) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        yield name.replace("_", " "), f"{shown} {unit}".strip()


UNITS: Final = {"_seconds": "s", "_milliseconds": "ms", "_percent": "%", "_bytes": "MiB", "_per_second": "per second"}
"""By the end of a column's name."""


def _logs(folder: Path, runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """The end of the log of each run that failed, where it is still there; a stranger's names lead nowhere else."""
    logs = folder.resolve() / "logs"
    for _, run in runs[runs["status"] != "ok"].iterrows():
        name = f"{run['backend']}.log"
        if "\0" in name + run["block"]:
            continue
        path = (logs / run["block"] / name).resolve()
        if path.is_relative_to(logs) and path.is_file() and path.stat().st_size:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
            yield _run_name(run), "\n".join(lines)


def _files(folder: Path, results: Results) -> Iterator[tuple[str, str]]:
    """What lies beside the page: how it is called, and its address from there."""
    names = [*(f"{table}.csv" for table in COLUMNS), "summary.md", "summary.tex", "plan.json"]
    names += [f"blocks/{block.id}.{suffix}" for block in results.plan.blocks for suffix in ("jsonl", "npz")]
    for name in names:
        if (folder / name).is_file():
            yield name, quote(name)
