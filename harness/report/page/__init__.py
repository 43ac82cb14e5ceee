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
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.style import context
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from lockstep_bench.harness.data import figures
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.report import summary
from lockstep_bench.harness.report.looks import INK, looks
from lockstep_bench.harness.report.page.frame import MUTED
from lockstep_bench.harness.report.page.plots import Plot, plots
from lockstep_bench.harness.tables.comparisons import RULES
from lockstep_bench.harness.tables.learnt import Learnt, tiled
from lockstep_bench.harness.tables.results import COLUMNS, Results, parts, title

GLYPHS: Final = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "p": "⬟"}
"""Matplotlib's markers as text."""
LOG_LINES: Final = 30
"""Of a failed run's log the last so many are shown."""
GROUPS: Final = {
    "Outcome": ("status", "reason", "epochs_done", "test_error_percent", "disagreements"),
    "Versions": ("versions", "python", "blas"),
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
CONDITIONS: Final = ("outliers", "spread_percent", "steal_percent", "foreign_load", "waiting_percent", "unstable")
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


class Picture(NamedTuple):
    """An image in the page itself: what it is, and as a data URL."""

    alt: str
    url: str


def write_page(folder: Path, results: Results, dataset: Dataset | None = None, learnt: Learnt | None = None) -> Path:
    """Write report.html into a results folder."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"inline": inline, "interval": interval, "island": island}
    native = ", native defaults, networks not identical" if results.plan.profile == "native" else ""
    scripts = {
        "first": _own("first.js"),
        "plotly": get_plotlyjs().replace("</script", "<\\/script"),
        "own": f"const THEMED = {json.dumps({'ink': INK, 'muted': MUTED})};\n{_own('report.js')}",
    }
    text = environment.get_template("report.html.jinja").render(
        title=" on ".join(title(results)) + native,
        dataset=title(results)[0],
        results=results,
        failures=list(summary.failures(results)),
        sections=[_section(folder, number, part.name, part.results) for number, part in enumerate(parts(results), 1)],
        data_pictures=_data_pictures(dataset) if dataset else [],
        counts=[figures.counts(split) for split in (dataset.train, dataset.test)] if dataset else [],
        learnt=learnt,
        mistakes=[(mistake, _gray(mistake.image)) for mistake in learnt.mistakes] if learnt else [],
        units=_units(learnt) if learnt else None,
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
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _own(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


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


def _data_pictures(dataset: Dataset) -> list[Picture]:
    alts = {
        "first-images": "The first four training images with their labels",
        "grid": "The first nine training images with their labels",
        "components": "All training images as points on their first two principal components, coloured by label",
    }
    with context("default"):
        return [Picture(alt, _webp(figures.FIGURES[name](dataset))) for name, alt in alts.items()]


def _webp(figure: Figure) -> str:
    """As WebP, a quarter of the bytes that PNG takes for sixty thousand points."""
    file = BytesIO()
    figure.savefig(file, dpi=120, format="webp", pil_kwargs={"quality": 80})
    return _url(file, "webp")


def _gray(image: NDArray[np.float32]) -> str:
    """An image in black on white, a dot per pixel."""
    file = BytesIO()
    imsave(file, image, cmap="gray_r", vmin=0, vmax=1, format="png")
    return _url(file)


def _units(learnt: Learnt) -> str:
    """All units' images in one."""
    file, limit = BytesIO(), learnt.units_limit
    colours = colormaps["RdBu_r"].with_extremes(bad="0.5")
    imsave(file, tiled(list(learnt.units)), cmap=colours, vmin=-limit, vmax=limit, format="png")
    return _url(file)


def _url(file: BytesIO, kind: str = "png") -> str:
    return f"data:image/{kind};base64," + b64encode(file.getvalue()).decode()
