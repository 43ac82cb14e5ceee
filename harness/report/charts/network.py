"""What the reference's network has learnt: confusion, mistakes, hidden units.

Those of the data are the same for all results on it: `lockstep data --figures` draws them.
"""

from collections.abc import Iterator
from functools import partial

from matplotlib.figure import Figure

from lockstep_bench.harness.data.figures import CLASSES
from lockstep_bench.harness.report.charts.frame import Named, headed
from lockstep_bench.harness.tables.learnt import IN_A_ROW, SIDE, Learnt, tiled
from lockstep_bench.harness.tables.results import NOT_IDENTICAL, Results, title

GAP = 16
"""Pixels between mistakes, where the words are."""


def figures(results: Results, learnt: Learnt) -> Iterator[Named]:
    """Every chart of this file that there is something for, with its file's name."""
    yield "hidden_units", partial(_hidden_units, results, learnt)
    if learnt.mistakes:
        yield "mistakes", partial(_mistakes, results, learnt)
    if learnt.confusion is not None:
        yield "confusion", partial(_confusion, results, learnt)


def _headed(results: Results, what: str, reading: str, height: float) -> Figure:
    """An empty figure that names dataset and machine, and says of the native profile what has to be said."""
    dataset, machine = title(results)
    native = results.plan.profile == "native"
    heading = [f"{what}{', native defaults' if native else ''}: {dataset}", f"on {machine}"]
    return headed(heading, [NOT_IDENTICAL, reading] if native else [reading], height)


def _confusion(results: Results, learnt: Learnt) -> Figure:
    """Counts in a grid; the diagonal, which is right, is left white, so that the mistakes are what one sees."""
    figure = _headed(results, "What is taken for what", learnt.confusion_reading, 5.6)
    axes = figure.subplots()
    confusion, wrong = learnt.confusion, learnt.wrong
    assert confusion is not None
    axes.imshow(wrong, cmap="Oranges", vmin=0)
    for true in range(CLASSES):
        for predicted in range(CLASSES):
            weight = "bold" if true == predicted else "normal"
            dark = wrong[true, predicted] > 0.6 * wrong.max()
            colour = "white" if dark else "black"
            count = f"{confusion[true, predicted]:,}"
            axes.text(predicted, true, count, ha="center", va="center", fontsize=9, weight=weight, color=colour)
    axes.set(xlabel="predicted digit", ylabel="true digit", xticks=range(CLASSES), yticks=range(CLASSES))
    axes.grid(visible=False)
    return figure


def _mistakes(results: Results, learnt: Learnt) -> Figure:
    """The test images that were misclassified most confidently, each with what it is and what it was taken for."""
    figure = _headed(results, "Misclassified most confidently", learnt.mistakes_reading, 3.2)
    axes = figure.subplots()
    axes.imshow(tiled([mistake.image for mistake in learnt.mistakes], gap=GAP), cmap="gray_r", vmin=0, vmax=1)
    for place, mistake in enumerate(learnt.mistakes):
        row, column = divmod(place, IN_A_ROW)
        text = f"{mistake.true} taken for {mistake.predicted}\n{mistake.probability:.1%}"
        x, y = column * (SIDE + GAP) + GAP + SIDE / 2, row * (SIDE + GAP) + GAP - 1
        axes.text(x, y, text, ha="center", va="bottom", fontsize=8)
    axes.set_axis_off()
    return figure


def _hidden_units(results: Results, learnt: Learnt) -> Figure:
    """What each unit looks for: its incoming weights as an image, white for 0."""
    figure = _headed(results, "Weights of hidden units", learnt.units_reading, 7.4)
    axes = figure.subplots()
    axes.imshow(tiled(list(learnt.units)), cmap="RdBu_r", vmin=-learnt.units_limit, vmax=learnt.units_limit)
    axes.set_axis_off()
    return figure
