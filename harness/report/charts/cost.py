"""What training costs: time per step, ratios, the phases of a run, memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from pandas import DataFrame, Series

from lockstep_bench.harness.report.charts.frame import (
    LINE,
    Named,
    beside,
    headed,
    legend,
    name_rows,
    new_figure,
    note_if_empty,
)
from lockstep_bench.harness.report.looks import COLOURS, FILLS, MARKERS, Look, looks, ranked
from lockstep_bench.harness.report.readings import READINGS
from lockstep_bench.harness.tables import views
from lockstep_bench.harness.tables.results import Results, title

View = Callable[[Results], DataFrame]
ROW = 0.36
"""Inches of a row."""


def figures(results: Results) -> Iterator[Named]:
    """Every chart of this file about one folder's results, with its file's name."""
    yield "time_and_error", partial(_time_and_error, results)
    yield "step_time", partial(_step_time, results)
    whole_run = "A whole run, had it the machine for itself"
    yield "phases", partial(_stacked, results, "phases", whole_run, "seconds", views.phases)
    yield "memory", partial(_stacked, results, "memory", "Resident memory at its peak", "MiB", views.memory)
    yield "ratio_by_round", partial(_ratio_by_round, results)


def _rows(results: Results, name: str, what: str) -> tuple[Figure, list[Look]]:
    backends = ranked(results)
    return new_figure(results, what, ROW * len(backends) + 0.9, READINGS[name](results)), backends


def _time_and_error(results: Results) -> Figure:
    """Two bars per backend, the fastest on top; what failed has its status where a bar would begin."""
    figure, backends = _rows(results, "time_and_error", "Training time and final test error")
    panels = zip(figure.subplots(1, 2, sharey=True), ("train_seconds", "test_error_percent"), strict=True)
    for axes, column in panels:
        for place, look in enumerate(backends):
            runs = results.runs[results.runs["backend"] == look.name][column]
            _bar(axes, place, look, runs, digits=1 if column == "train_seconds" else 2)
        room = 1.25 * axes.dataLim.x1 if axes.patches else 1  # for the values at the bars' ends
        label = "training time (s)" if column == "train_seconds" else "final test error (%)"
        axes.set(xlabel=label, xlim=(0, room))
        axes.tick_params(axis="x", labelbottom=bool(axes.patches))
        name_rows(axes, backends)
    return figure


def _bar(axes: Axes, place: int, look: Look, runs: "Series[float]", digits: int) -> None:
    """The mean over runs as a bar with its value; each of several runs is a dot."""
    if look.status != "ok":
        beside(axes, 0, place, look.status, "italic")
        return
    axes.barh(place, runs.mean(), height=0.6, color=look.colour)
    beside(axes, runs.max(), place, f"{runs.mean():,.{digits}f}")
    if len(runs) > 1:
        axes.plot(runs, [place] * len(runs), "o", color="white", markeredgecolor="black", markersize=3.5)


def _step_time(results: Results) -> Figure:
    """A mark per backend with its interval, on a logarithmic axis; the floor is a line."""
    figure, backends = _rows(results, "step_time", "Time per training step, with 95 % intervals")
    axes = figure.subplots()
    summary = results.summary.set_index("backend")
    for place, look in enumerate(backends):
        row = summary.loc[look.name]
        time, low, high = (row[f"microseconds_per_step{end}"] for end in ("", "_low", "_high"))
        if look.status != "ok":
            axes.text(0.01, place, look.status, transform=axes.get_yaxis_transform(), va="center", style="italic")
            continue
        if pd.notna(low):
            axes.plot([low, high], [place, place], color=look.colour, linewidth=2)
        axes.plot(time, place, look.marker, color=look.colour, markersize=6)
        beside(axes, time if pd.isna(high) else high, place, f"{time:,.0f}")
    floor, name = views.dense_floor(results)
    if pd.notna(floor):
        axes.axvline(floor, color="0.4", linestyle=":")
        top = axes.get_xaxis_transform()
        axes.text(floor, 1.01, f"{name} {floor:,.0f}", transform=top, ha="center", fontsize=9, color="0.3")
    axes.set(xscale="log", xlabel="µs per step")
    _plain_log(axes.xaxis, [*summary["microseconds_per_step"], floor])
    axes.margins(x=0.15)
    name_rows(axes, backends)
    note_if_empty(axes, results.summary["status"] == "ok", "no backend came through")
    return figure


def _plain_log(axis: Axis, values: Iterable[float]) -> None:
    """Numbers as one says them on a logarithmic axis."""
    axis.set_major_locator(FixedLocator(views.log_ticks(values)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter("")


def _stacked(results: Results, name: str, what: str, unit: str, view: View) -> Figure:
    """A bar per backend, in pieces; the least in all on top."""
    table = view(results)
    failed = [look for look in looks(results) if look.name not in table.index]
    names = [*(look.name for look in failed), *reversed(table.index)]
    figure = new_figure(results, what, ROW * len(names) + 1.2, READINGS[name](results))
    axes = figure.subplots()
    left = Series(0.0, index=table.index)
    places = [names.index(backend) for backend in table.index]
    for piece in table:
        colour, hatch = FILLS[str(piece)]
        fill: Any = {"color": colour, "hatch": hatch, "edgecolor": "0.2", "linewidth": 0.5}
        axes.barh(places, table[piece], 0.6, left, label=str(piece), **fill)
        left = left + table[piece]
    for place, whole in zip(places, left, strict=True):
        beside(axes, whole, place, f"{whole:,.1f}" if unit == "seconds" else f"{whole:,.0f}")
    for place, look in enumerate(failed):
        beside(axes, 0, place, look.status, "italic")
    axes.set(xlabel=unit, xlim=(0, 1.12 * left.max() if len(left) else 1), ylim=(-0.5, len(names) - 0.5))
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    if len(table):
        figure.legend(loc="outside lower center", ncols=6)
    return figure


def _ratio_by_round(results: Results) -> Figure:
    """Every backend over the reference, round by round; below, what the reference itself took."""
    figure = new_figure(results, "Ratio to the reference, round by round", 5.4, READINGS["ratio_by_round"](results))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    table = views.rounds(results)
    reference = results.plan.reference.name
    own = table[reference] if reference in table else Series(dtype="float64")
    for look in looks(results):
        if look.name in table and len(own) and look.name != reference:
            ratio = table[look.name] / own
            mark = len(ratio) // 12 + 1
            above.plot(
                ratio.index, ratio, color=look.colour, marker=look.marker, linewidth=1, markersize=4, markevery=mark
            )
    above.axhline(1, color="0.4", linestyle=":")
    above.set(yscale="log", ylabel=f"time / {reference}'s")
    _plain_log(above.yaxis, table.div(own, axis=0).to_numpy().ravel() if len(own) else [])
    note_if_empty(above, Series([True] * (len(own) > 0)), "there is no reference to divide by")
    below.plot(own.index, own, color="black", linewidth=1)
    below.set(xlabel="round", ylabel="µs per step", ylim=(0, None))
    legend(figure, results)
    return figure


def ratios(columns: Mapping[str, Results]) -> Figure:
    """A row per backend, the fastest on top, in it a mark with its interval for each of the results.

    The reference is the line at 1; what failed has its status where a mark would be looked for first.
    """
    summaries = {name: results.summary.set_index("backend") for name, results in columns.items()}
    all_rows = pd.concat(summaries).reset_index(names=["results", "backend"])
    medians = all_rows.groupby("backend")["ratio_to_reference"].median()
    order = medians.sort_values(kind="stable", ascending=False, na_position="first").index
    rows = {backend: place for place, backend in enumerate(order)}
    heading = "Time per step over the reference's, each within its own results"
    height = 0.24 * len(rows) * max(2, len(columns)) / 2 + 1.2 + LINE * len(columns)
    figure = headed([heading], ["95 % intervals; the reference is the dotted line"], height)
    axes = figure.subplots()
    for number, (name, summary) in enumerate(summaries.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = summary.index.map(rows) + 0.5 - (number + 1) / (len(columns) + 1)
        ratio, low, high = (summary[f"ratio_to_reference{end}"] for end in ("", "_low", "_high"))
        axes.errorbar(
            ratio,
            places,
            xerr=[(ratio - low).fillna(0), (high - ratio).fillna(0)],
            fmt=MARKERS[number % len(MARKERS)],
            color=colour,
            markersize=5,
            capsize=3,
            label=f"{name}: {title(columns[name])[1]}",
        )
        for place, status in zip(places[ratio.isna()], summary["status"][ratio.isna()], strict=True):
            left = axes.get_yaxis_transform()
            axes.text(0.01, place, status, transform=left, va="center", fontsize=8, style="italic", color=colour)
    axes.axvline(1, color="0.4", linestyle=":", zorder=1)
    axes.set(xscale="log", xlabel="time per step / the reference's")
    _plain_log(axes.xaxis, all_rows["ratio_to_reference"])
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_yticks([place + 0.5 for place in range(len(rows) - 1)], minor=True)
    axes.grid(visible=False, axis="y")
    axes.grid(which="minor", axis="y")
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(which="both", axis="y", length=0)
    figure.legend(loc="outside lower left")
    return figure
