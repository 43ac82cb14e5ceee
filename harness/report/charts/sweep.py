"""The charts of a sweep: time per image along each axis, in small multiples over the others, the floor drawn."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator
from pandas import DataFrame

from lockstep_bench.harness.data.cache import Say
from lockstep_bench.harness.report.charts.frame import Chart, Named, draw, headed
from lockstep_bench.harness.report.looks import Look, named
from lockstep_bench.harness.report.sweep_summary import AXIS_NAMES, failures, title
from lockstep_bench.harness.tables import views
from lockstep_bench.harness.tables.sweep_tables import SweepResults

CHARTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "time_by_batch_size": ("batch_size", "hidden", "threads"),
    "time_by_width": ("hidden", "batch_size", "threads"),
    "time_by_threads": ("threads", "batch_size", "hidden"),
}
"""Of every chart its horizontal axis, the axis of its columns, and that of its rows."""
PANEL: Final = 2.1
"""Inches of a panel's height."""
DASHES: Final[tuple[Any, ...]] = ("-", (0, (4, 2)), (0, (1.5, 1.5)), (0, (4, 1.5, 1, 1.5)))
"""Lines of the largest number of training images, of the next, ..."""


def write_sweep_charts(
    folder: Path, results: SweepResults, formats: Sequence[str], say: Say = lambda _: None
) -> list[Path]:
    """Draw every chart of a sweep into `charts/` of its folder and return the paths."""
    return draw([Chart(folder / "charts" / name, figure) for name, figure in figures(results)], formats, say=say)


def figures(results: SweepResults) -> Iterator[Named]:
    """Each chart whose axis has more than one value, with its file's name."""
    for name, (along, columns, rows) in CHARTS.items():
        if len(getattr(results.sweep, along)) > 1:
            yield name, partial(_time_along, results, along, columns, rows)


def looks_of(results: SweepResults) -> list[Look]:
    """One per backend; a label names the first status that is not ok."""
    statuses = {}
    for backend in results.sweep.backends:
        own = results.cells[results.cells["backend"] == backend.name]["status"]
        statuses[backend.name] = next((str(status) for status in own if status != "ok"), "ok")
    return named(statuses)


def _time_along(results: SweepResults, along: str, columns: str, rows: str) -> Figure:
    """A panel for each pair of values of two axes, all on the same scales."""
    sweep = results.sweep
    across, down = getattr(sweep, columns), getattr(sweep, rows)
    heading = f"Time per image against {AXIS_NAMES[along]}"
    figure = headed([f"{heading}: {title(results)}"], _texts(results), PANEL * len(down) + 1.0)
    grid = figure.subplots(len(down), len(across), sharex=True, sharey=True, squeeze=False)
    for number, row in enumerate(down):
        for place, column in enumerate(across):
            axes = grid[number][place]
            inside = results.cells[(results.cells[columns] == column) & (results.cells[rows] == row)]
            _panel(axes, results, inside, along)
            axes.set_title(f"{_value(columns, column)}, {_value(rows, row)}", fontsize=9)
            axes.set(xlabel=AXIS_NAMES[along], ylabel="µs per image")
            axes.label_outer()
    times = [*results.cells["microseconds_per_image"].dropna(), *results.cells["floor_microseconds_per_image"].dropna()]
    corner = grid[0][0]
    corner.set(xscale="log", yscale="log")
    values = getattr(sweep, along)
    corner.set_xlim(values[0] / 1.25, values[-1] * 1.25)
    for axis, ticks in ((corner.xaxis, values), (corner.yaxis, views.log_ticks(times))):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(FixedLocator([]))
        axis.set_major_formatter("{x:,g}")
    for axes in grid.flat:
        axes.tick_params(labelsize=9)
    _legend(figure, results)
    return figure


def _value(axis: str, value: int) -> str:
    return f"{value:,} thread{'' if value == 1 else 's'}" if axis == "threads" else f"{AXIS_NAMES[axis]} {value:,}"


def _texts(results: SweepResults) -> list[str]:
    """What stands below the heading: how to read it, and what failed."""
    images = results.sweep.train_images
    which = f"{images[0]:,} training images" if len(images) == 1 else "lines by number of training images"
    return [f"Medians with 95 % intervals, lower is faster; both scales logarithmic; {which}", *failures(results)]


def _panel(axes: Axes, results: SweepResults, cells: DataFrame, along: str) -> None:
    """A line per backend and number of training images; what failed is a cross at the bottom."""
    images = results.sweep.train_images
    dashes = [DASHES[place % len(DASHES)] for place in reversed(range(len(images)))]
    for look in looks_of(results):
        own = cells[cells["backend"] == look.name].sort_values(along)
        for dash, count in zip(dashes, images, strict=True):  # the largest last, on top
            line = own[own["train_images"] == count]
            ok = line[line["status"] == "ok"]
            times = ok["microseconds_per_image"]
            is_largest = count == images[-1]
            marks: Any = {"marker": look.marker, "markersize": 4, "markerfacecolor": look.colour if is_largest else "w"}
            stroke: Any = {"linestyle": dash, "linewidth": 1.4 if is_largest else 1.0}
            axes.plot(ok[along].astype(float), times, color=look.colour, **stroke, **marks)
            ends = (ok["microseconds_per_image_low"], ok["microseconds_per_image_high"])
            axes.vlines(ok[along].astype(float), *ends, color=look.colour, linewidth=1.0)
            failed = line[line["status"] != "ok"][along].astype(float)
            cross: Any = {"color": look.colour, "markersize": 7, "markeredgewidth": 2}
            axes.plot(failed, [0.05] * len(failed), "x", transform=axes.get_xaxis_transform(), **cross)
    floor = cells.groupby(along)["floor_microseconds_per_image"].median().dropna()
    axes.plot(floor.index.astype(float), floor, color="0.4", linestyle=":", linewidth=1.5)


def _legend(figure: Figure, results: SweepResults) -> None:
    """Name every backend, the floor, and the numbers of training images below the panels."""
    handles = [Line2D([], [], color=look.colour, marker=look.marker, label=look.label) for look in looks_of(results)]
    handles.append(Line2D([], [], color="0.4", linestyle=":", label="dense floor"))
    images = list(reversed(results.sweep.train_images))
    for place, count in enumerate(images) if len(images) > 1 else ():
        dash = DASHES[place % len(DASHES)]
        handles.append(Line2D([], [], color="0.4", linestyle=dash, label=f"{count:,} images"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=2.5, fontsize=9)
