"""The charts, drawn from the tables alone: the same tables give the same bytes, as PNG and as SVG.

Readable in grey and by the colour-blind: a backend has a colour of Okabe and Ito's palette and a marker of its own, the
same in every chart. A run that failed is drawn thin up to its last epoch, which is crossed out.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any, Final, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.style import context
from matplotlib.ticker import LogLocator, MaxNLocator
from pandas import Series

from lockstep_bench.harness.equivalence import allowed_disagreements
from lockstep_bench.harness.tables import NOT_IDENTICAL, Results, parts, title

STYLE: Final[Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "0.9",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lockstep",
    "text.parse_math": False,  # a dollar sign in a machine's name or in a reason is just that
}
WIDTH: Final = 8.0
"""Inches: shown 800 pixels wide, as a README does, an inch has 100 pixels and 10 points are legible."""
LINE: Final = 0.19
"""Inches from one line of the heading to the next."""
COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
"""Okabe and Ito's (2008); their black is the reference's, their yellow is too pale for lines on white."""
MARKERS: Final = ("s", "^", "D", "v", "P", "X", "p")
"""One more than there are colours, so that a pair of both returns only after 42 backends."""
SPLITS: Final[Any] = {
    "train": {"linestyle": "-"},
    "test": {"linestyle": "--", "markerfacecolor": "white"},
}


class Look(NamedTuple):
    """How a backend is drawn and called; a label names the status of one that failed."""

    name: str
    label: str
    colour: str
    marker: str
    status: str


def looks(results: Results) -> list[Look]:
    """One per backend, by its place in the plan: a further backend at the plan's end changes no other's.

    The reference's twin is left out: it would only hide the reference.
    """
    names = [planned.name for planned in results.plan.backends if planned != results.plan.twin]
    status = [str(results.summary.set_index("backend")["status"][name]) for name in names]
    labels = [name if how == "ok" else f"{name} ({how})" for name, how in zip(names, status, strict=True)]
    colours = ["black", *(COLOURS[place % len(COLOURS)] for place in range(len(names) - 1))]
    markers = ["o", *(MARKERS[place % len(MARKERS)] for place in range(len(names) - 1))]
    return list(map(Look, names, labels, colours, markers, status))


def write_charts(folder: Path, results: Results) -> list[Path]:
    """Draw every chart into `charts/` of a results folder, as PNG and as SVG, and return the paths.

    With several machines or numbers of threads, into a folder for each, numbered as by `parts`:
    `charts/1-2-threads`.
    """
    paths: list[Path] = []
    with context(["default", STYLE]):  # not the user's own settings: the same tables give the same bytes
        several = parts(results)
        for number, part in enumerate(several, start=1):
            own = re.sub("[^a-z0-9]+", "-", f"{number} {part.name}".lower())
            target = folder / "charts" / (own if len(several) > 1 else "")
            target.mkdir(parents=True, exist_ok=True)
            for name, figure in _figures(part.results):
                paths += _save(figure, target, name)
    return paths


def write_ratios(folder: Path, columns: Mapping[str, Results]) -> list[Path]:
    """Draw `charts/ratios` into a folder: every backend's ratio to the reference in each of several results."""
    target = folder / "charts"
    target.mkdir(parents=True, exist_ok=True)
    with context(["default", STYLE]):
        return list(_save(_ratios(columns), target, "ratios"))


def _ratios(columns: Mapping[str, Results]) -> Figure:
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
    figure = _headed([heading], ["95 % intervals; the reference is the dotted line"], height)
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
            beside = axes.get_yaxis_transform()
            axes.text(0.01, place, status, transform=beside, va="center", fontsize=8, style="italic", color=colour)
    axes.axvline(1, color="0.4", linestyle=":", zorder=1)
    axes.set(xscale="log", xlabel="time per step / the reference's")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_yticks([place + 0.5 for place in range(len(rows) - 1)], minor=True)
    axes.grid(visible=False, axis="y")
    axes.grid(which="minor", axis="y")
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(which="both", axis="y", length=0)
    figure.legend(loc="outside lower left")
    return figure


def _save(figure: Figure, folder: Path, name: str) -> Iterator[Path]:
    """As PNG and as SVG, without a date."""
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        figure.savefig(folder / f"{name}.{suffix}", dpi=200, metadata=metadata)
        yield folder / f"{name}.{suffix}"


def _figures(results: Results) -> Iterator[tuple[str, Figure]]:
    epochs = results.epochs.astype({"epoch": "float64"})
    epochs["train_accuracy_percent"] = 100 - epochs["train_error_percent"]
    epochs["test_accuracy_percent"] = 100 - epochs["test_error_percent"]
    epochs["seconds"] = epochs.groupby(["backend", "block"])["train_seconds"].cumsum()
    results = results._replace(epochs=epochs)
    yield "loss", _small_multiples(results, "loss", "cross-entropy (nats)", "Loss by epoch")
    yield "accuracy", _small_multiples(results, "accuracy_percent", "accuracy (%)", "Accuracy by epoch")
    yield "error_by_epoch", _error_by_epoch(results)
    yield "error_by_seconds", _error_by_seconds(results)
    yield "time_and_error", _time_and_error(results)


def _small_multiples(results: Results, quantity: str, unit: str, what: str) -> Figure:
    """Training and test, a panel per backend: in one panel the backends would hide each other."""
    backends = looks(results)
    columns = 1 if len(backends) == 1 else 2 if len(backends) <= 4 else 3
    rows = -(-len(backends) // columns)
    figure = _figure(results, what, 2 * rows + 1.2)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for place, (axes, look) in enumerate(zip(panels, backends, strict=False)):
        axes.set_title(look.label, loc="left", fontsize=10, fontweight="bold")
        for split, style in SPLITS.items():
            _curves(axes, results, look, ("epoch", f"{split}_{quantity}"), markersize=4, **style)
        is_last = place + columns >= len(backends)  # of its column
        axes.tick_params(labelbottom=is_last)
        axes.set(xlabel="epoch" if is_last else "", ylabel="" if place % columns else unit)
        _epoch_ticks(axes, results)
        _note_if_empty(axes, results.epochs["backend"] == look.name)
    for axes in panels[len(backends) :]:
        axes.remove()
    if quantity == "loss":
        _from_zero(panels[0])
    lines = [Line2D([], [], color="0.3", marker="o", label=split, **style) for split, style in SPLITS.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, handlelength=3)
    return figure


def _error_by_epoch(results: Results) -> Figure:
    """The backends are meant to coincide: each is thinner than those below it, and their markers take turns."""
    backends = looks(results)
    figure, axes = _panel(results, "Test error by epoch", "epoch", _coincidence(results))
    enough = results.epochs["epoch"].nunique() >= len(backends)
    for place, look in enumerate(backends):
        extra = 5 - 5 * (place + 1) / len(backends)
        turns = (place, len(backends)) if enough else (0, 1)
        widths = {"linewidth": 1.5 + extra, "markersize": 5 + extra}
        _curves(axes, results, look, ("epoch", "test_error_percent"), "-", "white", turns, **widths)
    _epoch_ticks(axes, results)
    _from_zero(axes)
    return figure


def _error_by_seconds(results: Results) -> Figure:
    """What a user waits for: test error against the training time spent, with the target that counts."""
    target = results.plan.target_error_percent
    figure, axes = _panel(results, "Test error by training time", "training time (s)")
    for look in looks(results):
        _curves(axes, results, look, ("seconds", "test_error_percent"), markerfacecolor="white")
    axes.axhline(target, color="0.4", linestyle=":", zorder=1)
    beside = axes.get_yaxis_transform()
    axes.text(1.01, target, f"target\n{target:g} %", transform=beside, va="center", fontsize=9, color="0.3")
    axes.set_xlim(left=0)
    _from_zero(axes)
    return figure


def _panel(results: Results, what: str, label: str, note: str = "") -> tuple[Figure, Axes]:
    """A figure with one panel for the test error of all backends, and their legend."""
    figure = _figure(results, what, 4.4, note)
    axes = figure.subplots()
    axes.set(xlabel=label, ylabel="test error (%)")
    _note_if_empty(axes, results.epochs["backend"] != "")
    handles = [
        Line2D([], [], color=look.colour, label=look.label, marker=look.marker, markerfacecolor="white")
        for look in looks(results)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=2.5)
    return figure, axes


def _time_and_error(results: Results) -> Figure:
    """Two bars per backend, the fastest on top; what failed has its status where a bar would begin."""
    rank = list(results.summary["backend"])
    backends = sorted(looks(results), key=lambda look: rank.index(look.name), reverse=True)
    figure = _figure(results, "Training time and final test error", 0.36 * len(backends) + 0.9)
    panels = zip(figure.subplots(1, 2, sharey=True), ("train_seconds", "test_error_percent"), strict=True)
    for axes, column in panels:
        for place, look in enumerate(backends):
            runs = results.runs[results.runs["backend"] == look.name][column]
            _bar(axes, place, look, runs, digits=1 if column == "train_seconds" else 2)
        room = 1.25 * axes.dataLim.x1 if axes.patches else 1  # for the values at the bars' ends
        label = "training time (s)" if column == "train_seconds" else "final test error (%)"
        axes.set(xlabel=label, xlim=(0, room), ylim=(-0.5, len(backends) - 0.5))
        axes.set_yticks(range(len(backends)), [look.name for look in backends])
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelbottom=bool(axes.patches))
        axes.grid(visible=False, axis="y")
    return figure


def _bar(axes: Axes, place: int, look: Look, runs: "Series[float]", digits: int) -> None:
    """The mean over runs as a bar with its value; each of several runs is a dot."""
    end, text, style = 0.0, look.status, "italic"
    if look.status == "ok":
        axes.barh(place, runs.mean(), height=0.6, color=look.colour)
        end, text, style = runs.max(), f"{runs.mean():,.{digits}f}", "normal"
        if len(runs) > 1:
            axes.plot(runs, [place] * len(runs), "o", color="white", markeredgecolor="black", markersize=3.5)
    axes.annotate(text, (end, place), (5, 0), textcoords="offset points", va="center", style=style)


def _curves(
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


def _note_if_empty(axes: Axes, shown: "Series[bool]") -> None:
    """Say so where there is no epoch to show, and put no numbers on an axis where there is none at all."""
    if not shown.any():
        axes.text(0.5, 0.5, "no epoch was finished", transform=axes.transAxes, ha="center", va="center", color="0.3")
    if shown.empty:
        axes.tick_params(labelbottom=False, labelleft=False)


def _epoch_ticks(axes: Axes, results: Results) -> None:
    axes.set_xlim(0.5, results.plan.problem.epochs + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def _from_zero(axes: Axes) -> None:
    """Have the vertical axis begin at 0, with room above the highest point."""
    axes.update_datalim([(0, 0)], updatex=False)
    axes.autoscale_view(scalex=False)
    axes.set_ylim(bottom=0)


def _figure(results: Results, what: str, height: float, note: str = "") -> Figure:
    """An empty figure under a heading of as many lines as it takes; `height` in inches is without the heading."""
    plan = results.plan
    seeds = list(dict.fromkeys(block.seed for block in plan.blocks))
    of = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    of = of if len(plan.blocks) == 1 else f"mean of {len(plan.blocks)} runs, {of} (each of them thin or a dot)"
    threads = f"{plan.threads[0]} thread{'s' if plan.threads[0] > 1 else ''}"
    detail = f"{plan.dataset.train_images:,} training images, batch size {plan.problem.batch_size}, {threads}, {of}"
    dataset, machine = title(results)
    if plan.profile == "native":
        what, note = f"{what}, native defaults", NOT_IDENTICAL
    heading = [f"{what}: {dataset} on {machine}"]
    if len(heading[0]) > 84:
        heading = [f"{what}: {dataset}", *wrap(f"on {machine}", 84)]
    small = [line for text in (detail, note, *_failures(results)) for line in wrap(text, 118)]
    return _headed(heading, small, height)


def _headed(heading: list[str], small: list[str], height: float) -> Figure:
    """An empty figure under these lines; `height` in inches is without them."""
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
        ended = f"{first['status']} after {first['epochs_done']} of {results.plan.problem.epochs} epochs"
        yield shorten(f"{backend}: {ended}: {first['reason']}", 118, placeholder=" ...")


def _coincidence(results: Results) -> str:
    """How far apart the backends are at most; it is said that they coincide only where the gate allows no more."""
    ok = results.epochs[results.epochs["status"] == "ok"]
    if ok["backend"].nunique() < 2:
        return ""
    errors = ok.groupby(["block", "epoch"])["test_error_percent"]
    apart = (errors.max() - errors.min()).max()
    images = results.plan.dataset.test_images
    same = apart <= 2 * 100 * allowed_disagreements(images) / images  # either may differ from the reference that much
    coincide = "Curves coincide: lockstep. " if same else ""
    return f"{coincide}At no epoch are two backends more than {apart:.2f} percentage points apart."
