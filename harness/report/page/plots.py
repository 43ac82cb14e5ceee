"""The page's interactive charts, each a figure of the derived tables for plotly.js."""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import pandas as pd
from pandas import DataFrame, Series

from lockstep_bench.harness.checks.equivalence import allowed_disagreements
from lockstep_bench.harness.problem import NOTEBOOK_ERROR_PERCENT
from lockstep_bench.harness.report.looks import FILLS, INK, looks, ranked
from lockstep_bench.harness.report.page.frame import (
    MUTED,
    Figure,
    by_epoch,
    curve,
    name_axes,
    name_rows,
    numbers,
    rule,
    status_at,
    text,
)
from lockstep_bench.harness.report.readings import READINGS
from lockstep_bench.harness.tables import views
from lockstep_bench.harness.tables.results import Results

PATTERNS: Final = {"": "", "////": "/", "\\\\\\\\": "\\", "....": "."}
"""Plotly's names of matplotlib's hatching."""


class Plot(NamedTuple):
    """A chart of the page.

    Attributes:
        name: of the chart, as of its files in `charts/`.
        title: what it shows.
        reading: one sentence, what it shows of these results.
        figure: for plotly.js, as JSON.
        legend: whether backends are told apart by colour, so that there has to be a legend.
        log: the axis that can be switched to a logarithmic one: "x", "y" or none; it begins as `figure` says.
    """

    name: str
    title: str
    reading: str
    figure: str
    legend: bool
    log: str


def plots(results: Results) -> Iterator[Plot]:
    """All charts of one part of the results."""
    for draw, title, legend, log in CHARTS:
        figure = draw(results)
        figure.layout |= {
            "margin": {"l": 8, "r": 8, "t": 26, "b": 8},
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "hovermode": "closest",
            "hoverlabel": {"align": "left"},
        }
        axes: Any = {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False, "automargin": True, "linecolor": MUTED}
        figure.set_axes("x", **axes)
        figure.set_axes("y", **axes)
        yield Plot(draw.__name__, title, READINGS[draw.__name__](results), figure.to_json(), legend, log)


def _curves(figure: Figure, results: Results, columns: tuple[str, str], what: str, dash: str = "solid") -> None:
    """The mean over runs that are ok; thin, each of several, and each that failed up to a cross.

    By epoch the backends are meant to coincide: there each is thinner than those below it.
    """
    backends = looks(results)
    for place, look in enumerate(backends):
        extra = 8 * (1 - (place + 1) / len(backends)) if columns[0] == "epoch" else 0
        own = results.epochs[results.epochs["backend"] == look.name]
        ok = own[own["status"] == "ok"]
        mean = ok.groupby("epoch")[list(columns)].mean() if len(ok) else DataFrame(columns=list(columns))
        if len(mean):
            line = {"dash": dash, "width": 2 + extra}
            curve(figure, look, mean[columns[0]], mean[columns[1]], what, line=line, size=7 + extra)
        for (_, status), run in own.groupby(["block", "status"], sort=False):
            seed = run["seed"].iloc[0]
            if status != "ok" or ok["block"].nunique() > 1:
                hint = f"{what}<br>seed {seed}" + ("" if status == "ok" else f", {status}")
                curve(figure, look, run[columns[0]], run[columns[1]], hint, bold=False, line={"dash": dash})
            if status != "ok":
                last = run.iloc[-1:]
                cross = curve(figure, look, last[columns[0]], last[columns[1]], f"{what}<br>{status} after this epoch")
                cross["marker"] |= {"symbol": "x-thin", "size": 10, "line": {"width": 2, "color": look.colour}}


def error_by_seconds(results: Results) -> Figure:
    """Test error against training time."""
    figure = Figure()
    _curves(figure, views.with_curves(results), ("seconds", "test_error_percent"), "%{y:.2f} % after %{x:.1f} s")
    target = results.plan.target_error_percent
    ends = [0, max((max(trace["x"]) for trace in figure.traces if trace["x"]), default=1)]
    rule(figure, ends, [target, target], f"target {target:g} %")
    figure.set_axes("x", rangemode="tozero")
    return name_axes(figure, "training time (s)", "test error (%)")


def error_by_epoch(results: Results) -> Figure:
    """Test error against epochs."""
    figure = Figure()
    _curves(figure, views.with_curves(results), ("epoch", "test_error_percent"), "%{y:.2f} % after epoch %{x}")
    return by_epoch(figure, results, "test error (%)")


def loss(results: Results) -> Figure:
    """Training and test loss."""
    figure = Figure()
    _curves(figure, views.with_curves(results), ("epoch", "train_loss"), "training loss %{y:.4f} in epoch %{x}")
    _curves(figure, views.with_curves(results), ("epoch", "test_loss"), "test loss %{y:.4f} after epoch %{x}", "dash")
    return by_epoch(figure, results, "cross-entropy (nats)")


def accuracy(results: Results) -> Figure:
    """Training and test accuracy."""
    figure = Figure()
    for split, dash in (("train", "solid"), ("test", "dash")):
        word = "training" if split == "train" else "test"
        what = f"{word} accuracy %{{y:.2f}} % after epoch %{{x}}"
        _curves(figure, views.with_curves(results), ("epoch", f"{split}_accuracy_percent"), what, dash)
    return by_epoch(figure, results, "accuracy (%)")


def step_time(results: Results) -> Figure:
    """Median time per step with its interval, and the dense floor."""
    figure = Figure()
    summary, backends = results.summary.set_index("backend"), ranked(results)
    for place, look in enumerate(backends):
        row = summary.loc[look.name]
        time, low, high = (row[f"microseconds_per_step{end}"] for end in ("", "_low", "_high"))
        if look.status != "ok" or pd.isna(time):
            status_at(figure, place, look)
            continue
        interval = "" if pd.isna(low) else f" ({low:,.0f} to {high:,.0f})"
        mark = curve(figure, look, [time], [place], f"{time:,.0f} µs per step{interval}", size=10)
        mark["mode"] = "markers"
        if pd.notna(low):
            bar = {"type": "data", "array": [high - time], "arrayminus": [time - low], "color": look.colour}
            mark["error_x"] = bar
    floor, name = views.dense_floor(results)
    if pd.notna(floor):
        rule(figure, [floor, floor], [len(backends) - 0.5, 0], f"{name} {floor:,.0f} µs", "middle right")
    times = results.summary["microseconds_per_step"].dropna()
    ticks = views.log_ticks([*times, *([] if pd.isna(floor) else [floor])])
    figure.set_axes("x", type="log", tickvals=ticks, tickformat=",")
    return name_rows(name_axes(figure, "µs per step", ""), backends)


def phases(results: Results) -> Figure:
    """What a whole run is made of."""
    return _stacked(results, views.phases(results), "seconds", ",.2f")


def memory(results: Results) -> Figure:
    """What the peak of memory is made of."""
    return _stacked(results, views.memory(results), "MiB", ",.0f")


def _stacked(results: Results, table: DataFrame, unit: str, form: str) -> Figure:
    order = list(reversed(table.index))
    backends = sorted(looks(results), key=lambda look: order.index(look.name) if look.name in order else -1)
    places = {look.name: place for place, look in enumerate(backends)}
    figure = Figure()
    for piece in map(str, table):
        colour, hatch = FILLS[piece]
        fill = {"color": colour, "line": {"color": MUTED, "width": 0.5}}
        if hatch:
            ground = {} if colour == "#FFFFFF" else {"bgcolor": colour}  # else the page's own
            fill["pattern"] = {"shape": PATTERNS[hatch], "fgcolor": MUTED, "solidity": 0.3, **ground}
        hints = [f"{text(name)}<br>{piece}: %{{x:{form}}} {unit}<extra></extra>" for name in table.index]
        figure.traces.append(
            {
                "type": "bar",
                "y": [places[name] for name in table.index],
                "x": numbers(table[piece]),
                "orientation": "h",
                "name": piece,
                "marker": fill,
                "hovertemplate": hints,
            }
        )
    for place, look in enumerate(backends):
        if look.name not in order:
            status_at(figure, place, look)
    figure.layout |= {"barmode": "stack", "bargap": 0.35}
    figure.layout["legend"] = {"orientation": "h", "y": 1, "yanchor": "bottom", "traceorder": "normal"}
    return name_rows(name_axes(figure, unit, ""), backends)


def ratio_by_round(results: Results) -> Figure:
    """Every backend over the reference round by round, and below what the reference took."""
    figure = Figure(rows=2)
    table, reference = views.rounds(results), results.plan.reference.name
    own = table[reference] if reference in table else Series(dtype="float64")
    for look in looks(results):
        if look.name in table and len(own):
            above = look.name != reference
            y = table[look.name] / own if above else own
            what = "%{y:.3g} in round %{x}" if above else "%{y:,.0f} µs per step in round %{x}"
            curve(figure, look, y.index, y.round(4), what, panel=1 if above else 2, line={"width": 1}, size=4)
    if len(own):
        rule(figure, [own.index[0], own.index[-1]], [1, 1], "")
    ticks = views.log_ticks(table.div(own, axis=0).to_numpy().ravel()) if len(own) else []
    figure.set_axes("y1", type="log", tickvals=ticks, title={"text": f"time / {text(reference)}'s"})
    figure.set_axes("y2", rangemode="tozero", title={"text": "µs per step"})
    figure.set_axes("x2", title={"text": "round"})
    figure.layout["height"] = 520
    return figure


def error_by_seed(results: Results) -> Figure:
    """The final test error of every run, its mean's interval, and the notebook's."""
    figure = Figure()
    summary, backends = results.summary.set_index("backend"), ranked(results)
    for place, look in enumerate(backends):
        runs = results.runs[(results.runs["backend"] == look.name) & (results.runs["status"] == "ok")]
        if look.status != "ok" or runs.empty:
            status_at(figure, place, look)
            continue
        row = summary.loc[look.name]
        low, high = row["test_error_low"], row["test_error_high"]
        if pd.notna(low):
            what = f"mean {row['test_error_percent']:.2f} % ({low:.2f} to {high:.2f})"
            curve(figure, look, [low, high], [place, place], what, bold=False, line={"width": 4})
        hints = [f"%{{x:.2f}} %, seed {seed}" for seed in runs["seed"]]
        marks = curve(figure, look, runs["test_error_percent"], [place] * len(runs), "")
        templates = [f"{text(look.label)}<br>{hint}<extra></extra>" for hint in hints]
        marks |= {"mode": "markers", "hovertemplate": templates}
    if results.plan.dataset.name == "mnist":
        ends = [len(backends) - 0.5, 0]
        rule(figure, [NOTEBOOK_ERROR_PERCENT] * 2, ends, f"notebook {NOTEBOOK_ERROR_PERCENT} %", "middle left")
    return name_rows(name_axes(figure, "final test error (%)", ""), backends)


def disagreements(results: Results) -> Figure:
    """Test images predicted differently from the reference after every epoch, the most of any run."""
    figure = Figure()
    checked = results.epochs.dropna(subset="disagreements")
    for look in looks(results):
        most = checked[checked["backend"] == look.name].groupby("epoch")["disagreements"].max()
        if len(most):
            curve(figure, look, most.index, most, "%{y} images after epoch %{x}")
    allowed = allowed_disagreements(results.plan.dataset.test_images)
    rule(figure, [1, results.plan.problem.epochs], [allowed, allowed], f"allowed: {allowed}")
    highest = max([allowed, *map(int, checked["disagreements"])])
    figure.set_axes("y", rangemode="tozero", tick0=0, dtick=views.whole_step(highest))
    return by_epoch(figure, results, "images predicted differently")


CHARTS: Final[tuple[tuple[Callable[[Results], Figure], str, bool, str], ...]] = (
    (error_by_seconds, "Test error by training time", True, "y"),
    (error_by_epoch, "Test error by epoch", True, "y"),
    (loss, "Loss: training solid, test dashed", True, "y"),
    (accuracy, "Accuracy: training solid, test dashed", True, ""),
    (step_time, "Time per step", False, "x"),
    (phases, "A whole run by phases", False, ""),
    (memory, "Memory", False, ""),
    (ratio_by_round, "Ratio to the reference, round by round", True, ""),
    (error_by_seed, "Final test error by seed", False, ""),
    (disagreements, "Lockstep check: predicted differently from the reference", True, ""),
)
"""In the page's order: what draws it, its title, whether it has a legend, the axis that can be switched."""
