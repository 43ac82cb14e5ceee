"""What all charts have in common: the style, the heading, the way they are drawn, and curves of a backend."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any, Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.style import context
from matplotlib.ticker import MaxNLocator
from pandas import Series

from lockstep_bench.harness.data.cache import Say
from lockstep_bench.harness.records.whole_files import write_whole
from lockstep_bench.harness.report.looks import Look, looks
from lockstep_bench.harness.report.processes import Processes
from lockstep_bench.harness.tables.results import NOT_IDENTICAL, Results, title
from lockstep_bench.harness.wording import counted

STYLE: Final[Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "0.9",
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text, as it does in SVG
    "svg.fonttype": "none",
    "svg.hashsalt": "lockstep",
    "text.parse_math": False,  # a dollar sign in a machine's name or in a reason is just that
}
WIDTH: Final = 8.0
"""Inches: shown 800 pixels wide, as a README does, an inch has 100 pixels and 10 points are legible."""
CHARACTERS: Final = 118
BOLD_CHARACTERS: Final = 84
"""In a line of small text, and in one of the heading."""
LINE: Final = 0.19
"""Inches from one line of the heading to the next."""
DATELESS: Final[Any] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""By format what matplotlib is to leave out, so that the same tables give the same bytes."""


Named = tuple[str, Callable[[], Figure]]
"""A chart's name, and what makes its figure."""


class Chart(NamedTuple):
    """A chart that is still to be drawn: its path without a suffix, and what makes its figure."""

    path: Path
    figure: Callable[[], Figure]


def draw(
    charts: Sequence[Chart],
    formats: Sequence[str],
    processes: Processes | None = None,
    say: Say = lambda _: None,
) -> list[Path]:
    """Draw charts in every format, as many at a time as there are CPUs; write the files and return their paths.

    No file is written before all charts are drawn.
    """
    with context(["default", STYLE]), Processes() as own:  # not the user's own settings: the same bytes everywhere
        contents = (processes or own).map(
            [partial(_drawn, chart, formats) for chart in charts],
            begin=lambda number: say(f"charts: {number + 1} of {len(charts)}"),
        )
    paths = []
    for chart, by_format in zip(charts, contents, strict=True):
        chart.path.parent.mkdir(parents=True, exist_ok=True)
        for suffix, content in zip(formats, by_format, strict=True):
            paths.append(chart.path.with_name(f"{chart.path.name}.{suffix}"))
            write_whole(paths[-1], content)
    return paths


def _drawn(chart: Chart, formats: Sequence[str]) -> list[bytes]:
    """Return a chart's files without a date. The layout, half of the work, is found once for all formats."""
    figure = chart.figure()
    if layout := figure.get_layout_engine():
        layout.execute(figure)
        figure.set_layout_engine(None)  # with "none" each format would be drawn once more, for a layout that it has
    for axes in figure.axes:  # the last bits of a layout are the CPU's, and an SVG names its clip paths by all of them
        left, bottom, width, height = (round(edge, 6) for edge in axes.get_position(original=True).bounds)
        axes.set_position((left, bottom, width, height), which="original")
    contents = []
    for suffix in formats:
        file = BytesIO()
        figure.savefig(file, dpi=200, metadata=DATELESS[suffix], format=suffix)
        contents.append(file.getvalue())
    return contents


def new_figure(results: Results, what: str, height: float, note: str = "") -> Figure:
    """An empty figure under a heading of as many lines as it takes; `height` in inches is without the heading."""
    plan = results.plan
    seeds = list(dict.fromkeys(block.seed for block in plan.blocks))
    of = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    of = of if len(plan.blocks) == 1 else f"mean of {len(plan.blocks)} runs, {of} (each of them thin or a dot)"
    threads = counted(plan.threads[0], "thread")
    detail = f"{plan.dataset.train_images:,} training images, batch size {plan.problem.batch_size}, {threads}, {of}"
    dataset, machine = title(results)
    if plan.profile == "native":
        what, note = f"{what}, native defaults", f"{NOT_IDENTICAL} {note}"
    return headed([f"{what}: {dataset}", f"on {machine}"], [detail, note, *_failures(results)], height)


def headed(title: Sequence[str], texts: Sequence[str], height: float) -> Figure:
    """An empty figure under a title, in one line if it fits, and texts below it; `height` in inches is without them."""
    whole = " ".join(title)
    fits = len(whole) <= BOLD_CHARACTERS
    heading = [whole] if fits else [line for part in title for line in wrap(part, BOLD_CHARACTERS)]
    small = [line for text in texts for line in wrap(text, CHARACTERS)]
    top = LINE * (len(heading) + len(small)) + 0.2
    figure = Figure(figsize=(WIDTH, height + top))
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - top / (height + top)))
    left, first, second = 0.1 / WIDTH, 1 - 0.1 / (height + top), 1 - (0.1 + LINE * len(heading)) / (height + top)
    figure.text(left, first, "\n".join(heading), va="top", fontsize=11, fontweight="bold")
    figure.text(left, second, "\n".join(small), va="top", fontsize=9, linespacing=1.4, color="0.3")
    return figure


def _failures(results: Results) -> Iterator[str]:
    """A line for each backend that failed, with its first reason."""
    runs = results.runs[results.runs["status"] != "ok"]
    for backend, failed in runs.groupby("backend", sort=False):
        first = failed.iloc[0]
        ended = f"{first['status']} after {first['epochs_done']} of {counted(results.plan.problem.epochs, 'epoch')}"
        yield shorten(f"{backend}: {ended}: {first['reason']}", CHARACTERS, placeholder=" ...")


def legend(figure: Figure, results: Results) -> None:
    """Name every backend below the panels."""
    handles = [
        Line2D([], [], color=look.colour, label=look.label, marker=look.marker, markerfacecolor="white")
        for look in looks(results)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=2.5)


def name_rows(axes: Axes, backends: Sequence[Look]) -> None:
    """A row per backend, with its name."""
    axes.set_ylim(-0.5, len(backends) - 0.5)
    axes.set_yticks(range(len(backends)), [look.name for look in backends])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def beside(axes: Axes, end: float, place: int, text: str, style: str = "normal") -> None:
    """Write a value, or a status, where a row's bar or mark ends."""
    axes.annotate(text, (end, place), (6, 0), textcoords="offset points", va="center", fontsize=9, style=style)


def curves(
    axes: Axes,
    results: Results,
    look: Look,
    columns: tuple[str, str],
    linestyle: Any = "-",
    markerfacecolor: str | None = None,
    markevery: tuple[int, int] = (0, 1),
    linewidth: float = 1.8,
    markersize: float = 5,
) -> None:
    """The mean over the runs that are ok, thick; runs that failed, and each of several, thin. Markers lie on top."""
    own = results.epochs[results.epochs["backend"] == look.name]
    ok = own[own["status"] == "ok"]
    mean = ok.groupby("epoch")[list(columns)].mean()
    points = [mean[column] for column in columns]
    axes.plot(*points, color=look.colour, linestyle=linestyle, linewidth=linewidth)
    marks: Any = {"markersize": markersize, "markerfacecolor": markerfacecolor, "markevery": markevery, "zorder": 3}
    axes.plot(*points, color=look.colour, linestyle="", marker=look.marker, markeredgewidth=1.5, **marks)
    for (_, status), run in own.groupby(["block", "status"], sort=False):
        points = [run[column] for column in columns]
        if status != "ok" or ok["block"].nunique() > 1:
            axes.plot(*points, color=look.colour, linestyle=linestyle, linewidth=0.8, alpha=0.7)
        if status != "ok":
            last = [point.iloc[-1:] for point in points]
            axes.plot(*last, "x", color=look.colour, markersize=8, markeredgewidth=2, zorder=4)


def note_if_empty(axes: Axes, shown: "Series[bool]", what: str = "no epoch was finished") -> None:
    """Say so where there is nothing to show, and put no numbers on an axis where there is none at all."""
    if not shown.any():
        axes.text(0.5, 0.5, what, transform=axes.transAxes, ha="center", va="center", color="0.3")
    if shown.empty:
        axes.tick_params(labelbottom=False, labelleft=False)


def epoch_ticks(axes: Axes, results: Results) -> None:
    """Whole epochs."""
    axes.set_xlim(0.5, results.plan.problem.epochs + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def from_zero(axes: Axes) -> None:
    """Have the vertical axis begin at 0, with room above the highest point."""
    axes.update_datalim([(0, 0)], updatex=False)
    axes.autoscale_view(scalex=False)
    axes.set_ylim(bottom=0)
