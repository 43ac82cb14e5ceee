"""How the test error spreads over seeds: the final one's distribution, and all of them by epoch."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lockstep_bench.harness.data.cache import Say
from lockstep_bench.harness.problem import NOTEBOOK_ERROR_PERCENT
from lockstep_bench.harness.report.charts.frame import Chart, Named, draw, from_zero, headed
from lockstep_bench.harness.report.looks import COLOURS
from lockstep_bench.harness.tables.results import dataset_title
from lockstep_bench.harness.tables.seeds_tables import SeedsResults
from lockstep_bench.harness.wording import counted

FORMATS = ("png", "svg")
COLOUR = COLOURS[0]


def write_seeds_charts(folder: Path, results: SeedsResults, say: Say = lambda _: None) -> list[Path]:
    """Draw both charts into `charts/` of a results folder and return the paths."""
    return draw([Chart(folder / "charts" / name, figure) for name, figure in figures(results)], FORMATS, say=say)


def figures(results: SeedsResults) -> Iterator[Named]:
    """Every chart of this file, with its file's name."""
    yield "final_error", partial(_final_error, results)
    yield "error_by_epoch", partial(_error_by_epoch, results)


def _figure(results: SeedsResults, what: str, reading: str) -> Figure:
    plan = results.plan
    seeds = results.ok["seed"].nunique()
    detail = (
        f"{counted(seeds, 'seed')}, {counted(plan.problem.epochs, 'epoch')} of {plan.dataset.train_images:,} "
        f"training images, batch size {plan.problem.batch_size}, {plan.dataset.test_images:,} test images"
    )
    return headed([f"{what}: {dataset_title(plan)}"], [detail, reading], 3.6)


def _final_error(results: SeedsResults) -> Figure:
    """Which share of the seeds ended at or below an error, each of them a dot, with the notebook's error."""
    reading = "Line: the share of the seeds that ended with this error or a smaller one. Dots below: each seed."
    figure = _figure(results, "Final test error over seeds", reading)
    axes = figure.subplots()
    errors = results.errors(results.plan.problem.epochs)
    if len(errors):
        axes.ecdf(errors, color=COLOUR, linewidth=1.8)
        axes.plot(errors, [-0.06] * len(errors), "o", color=COLOUR, markerfacecolor="none", markersize=6)
    else:
        axes.text(0.5, 0.5, "no seed came through", transform=axes.transAxes, ha="center", color="0.3")
    if results.plan.dataset.name == "mnist":
        axes.axvline(NOTEBOOK_ERROR_PERCENT, color="0.4", linestyle=":", zorder=1)
        note, top = f"notebook {NOTEBOOK_ERROR_PERCENT} %", axes.get_xaxis_transform()
        axes.text(NOTEBOOK_ERROR_PERCENT, 1.01, note, transform=top, ha="center", fontsize=9, color="0.3")
    axes.set(xlabel="test error (%)", ylabel="share of the seeds", ylim=(-0.12, 1.02))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.margins(x=0.05)
    return figure


def _error_by_epoch(results: SeedsResults) -> Figure:
    """The middle half and the whole range of the seeds after every epoch."""
    reading = "Line: the median over seeds. Dark: the middle half. Pale: from the least to the most."
    figure = _figure(results, "Test error by epoch over seeds", reading)
    axes = figure.subplots()
    epochs = sorted(results.ok["epoch"].unique())
    if epochs:
        errors = np.array([results.errors(int(epoch)) for epoch in epochs])
        least, low, middle, high, most = np.percentile(errors, [0, 25, 50, 75, 100], axis=1)
        axes.fill_between(epochs, least, most, color=COLOUR, alpha=0.18, linewidth=0)
        axes.fill_between(epochs, low, high, color=COLOUR, alpha=0.35, linewidth=0)
        axes.plot(epochs, middle, color=COLOUR, marker="o", markerfacecolor="white")
    if results.plan.dataset.name == "mnist":
        axes.axhline(NOTEBOOK_ERROR_PERCENT, color="0.4", linestyle=":", zorder=1)
        right, note = axes.get_yaxis_transform(), f"notebook\n{NOTEBOOK_ERROR_PERCENT} %"
        axes.text(1.01, NOTEBOOK_ERROR_PERCENT, note, transform=right, va="center", fontsize=9, color="0.3")
    axes.set(xlabel="epoch", ylabel="test error (%)", xlim=(0.5, results.plan.problem.epochs + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    from_zero(axes)
    return figure
