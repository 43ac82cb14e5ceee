"""How the networks learn: loss, accuracy and error by epoch and by training time, seeds, and the lockstep check."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lockstep_bench.harness.checks.equivalence import allowed_disagreements
from lockstep_bench.harness.problem import NOTEBOOK_ERROR_PERCENT
from lockstep_bench.harness.report.charts.frame import (
    Named,
    curves,
    epoch_ticks,
    from_zero,
    legend,
    name_rows,
    new_figure,
    note_if_empty,
)
from lockstep_bench.harness.report.looks import looks, ranked
from lockstep_bench.harness.report.readings import READINGS
from lockstep_bench.harness.tables.results import Results
from lockstep_bench.harness.tables.views import with_curves

SPLITS: Final[Any] = {
    "train": {"linestyle": "-"},
    "test": {"linestyle": "--", "markerfacecolor": "white"},
}


def figures(results: Results) -> Iterator[Named]:
    """Every chart of this file, with its file's name."""
    results = with_curves(results)
    yield "loss", partial(_small_multiples, results, "loss", "cross-entropy (nats)", "Loss by epoch")
    yield "accuracy", partial(_small_multiples, results, "accuracy_percent", "accuracy (%)", "Accuracy by epoch")
    yield "error_by_epoch", partial(_error_by_epoch, results)
    yield "error_by_seconds", partial(_error_by_seconds, results)
    yield "error_by_seed", partial(_error_by_seed, results)
    yield "disagreements", partial(_disagreements, results)


def _small_multiples(results: Results, quantity: str, unit: str, what: str) -> Figure:
    """Training and test, a panel per backend: in one panel the backends would hide each other."""
    backends = looks(results)
    columns = 1 if len(backends) == 1 else 2 if len(backends) <= 4 else 3
    rows = -(-len(backends) // columns)
    figure = new_figure(results, what, 2 * rows + 1.2, READINGS[quantity.removesuffix("_percent")](results))
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for place, (axes, look) in enumerate(zip(panels, backends, strict=False)):
        axes.set_title(look.label, loc="left", fontsize=10, fontweight="bold")
        for split, style in SPLITS.items():
            curves(axes, results, look, ("epoch", f"{split}_{quantity}"), markersize=4, **style)
        is_last = place + columns >= len(backends)  # of its column
        axes.tick_params(labelbottom=is_last)
        axes.set(xlabel="epoch" if is_last else "", ylabel="" if place % columns else unit)
        epoch_ticks(axes, results)
        note_if_empty(axes, results.epochs["backend"] == look.name)
    for axes in panels[len(backends) :]:
        axes.remove()
    if quantity == "loss":
        from_zero(panels[0])
    lines = [Line2D([], [], color="0.3", marker="o", label=split, **style) for split, style in SPLITS.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, handlelength=3)
    return figure


def _error_by_epoch(results: Results) -> Figure:
    """The backends are meant to coincide: each is thinner than those below it, and their markers take turns."""
    backends = looks(results)
    figure, axes = _panel(results, "error_by_epoch", "Test error by epoch", "epoch")
    enough = results.epochs["epoch"].nunique() >= len(backends)
    for place, look in enumerate(backends):
        extra = 5 - 5 * (place + 1) / len(backends)
        turns = (place, len(backends)) if enough else (0, 1)
        widths = {"linewidth": 1.5 + extra, "markersize": 5 + extra}
        curves(axes, results, look, ("epoch", "test_error_percent"), "-", "white", turns, **widths)
    epoch_ticks(axes, results)
    from_zero(axes)
    return figure


def _error_by_seconds(results: Results) -> Figure:
    """What a user waits for: test error against the training time spent, with the target that counts."""
    figure, axes = _panel(results, "error_by_seconds", "Test error by training time", "training time (s)")
    for look in looks(results):
        curves(axes, results, look, ("seconds", "test_error_percent"), markerfacecolor="white")
    _line(axes, results.plan.target_error_percent, "target")
    axes.set_xlim(left=0)
    from_zero(axes)
    return figure


def _line(axes: Axes, error: float, name: str) -> None:
    """A test error to hold the curves against."""
    axes.axhline(error, color="0.4", linestyle=":", zorder=1)
    right = axes.get_yaxis_transform()
    axes.text(1.01, error, f"{name}\n{error:g} %", transform=right, va="center", fontsize=9, color="0.3")


def _panel(results: Results, name: str, what: str, label: str) -> tuple[Figure, Axes]:
    """A figure with one panel for the test error of all backends, and their legend."""
    figure = new_figure(results, what, 4.4, READINGS[name](results))
    axes = figure.subplots()
    axes.set(xlabel=label, ylabel="test error (%)")
    note_if_empty(axes, results.epochs["backend"] != "")
    legend(figure, results)
    return figure, axes


def _error_by_seed(results: Results) -> Figure:
    """A dot per run at its final test error, the mean with its interval as a bar, the notebook's error as a line."""
    backends = ranked(results)
    what = "Final test error by seed"
    figure = new_figure(results, what, 0.36 * len(backends) + 0.9, READINGS["error_by_seed"](results))
    axes = figure.subplots()
    for place, look in enumerate(backends):
        if look.status != "ok":
            continue
        errors = results.runs[results.runs["backend"] == look.name]["test_error_percent"]
        row = results.summary.set_index("backend").loc[look.name]
        low, high = row["test_error_low"], row["test_error_high"]
        if low == low:  # with one seed there is no interval
            axes.plot([low, high], [place, place], color=look.colour, linewidth=8, alpha=0.3, solid_capstyle="butt")
        axes.plot(errors, [place] * len(errors), look.marker, color=look.colour, markerfacecolor="white", markersize=6)
    if results.plan.dataset.name == "mnist":
        axes.axvline(NOTEBOOK_ERROR_PERCENT, color="0.4", linestyle=":", zorder=1)
        top = axes.get_xaxis_transform()
        note = f"notebook {NOTEBOOK_ERROR_PERCENT} %"
        axes.text(NOTEBOOK_ERROR_PERCENT, 1.01, note, transform=top, ha="center", fontsize=9, color="0.3")
    name_rows(axes, backends)
    axes.margins(x=0.15)
    axes.set(xlabel="final test error (%)")
    left = axes.get_yaxis_transform()
    for place, look in enumerate(backends):
        if look.status != "ok":
            axes.text(0.01, place, look.status, transform=left, va="center", fontsize=9, style="italic")
    return figure


def _disagreements(results: Results) -> Figure:
    """Test images predicted differently from the reference, the most of any run, with what the gate allows."""
    what = "Predicted differently from the reference"
    figure = new_figure(results, what, 3.4, READINGS["disagreements"](results))
    axes = figure.subplots()
    checked = results.epochs.dropna(subset="disagreements")
    for look in looks(results):
        own = checked[checked["backend"] == look.name]
        most = own.groupby("epoch")["disagreements"].max()
        axes.plot(most.index, most, color=look.colour, marker=look.marker, markerfacecolor="white", linewidth=1.2)
    allowed = allowed_disagreements(results.plan.dataset.test_images)
    axes.axhline(allowed, color="0.4", linestyle=":")
    right = axes.get_yaxis_transform()
    axes.text(1.01, allowed, f"allowed:\n{allowed}", transform=right, va="center", fontsize=9, color="0.3")
    axes.set(xlabel="epoch", ylabel="test images")
    if len(checked) and checked["disagreements"].max() > 20 * allowed:
        axes.set_yscale("symlog", linthresh=allowed)
    note_if_empty(axes, checked["backend"] != "", "nothing was held against a reference")
    epoch_ticks(axes, results)
    from_zero(axes)
    legend(figure, results)
    return figure
