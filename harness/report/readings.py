"""One sentence under each chart: what it shows of these results, in numbers that the tables have."""

from collections.abc import Callable, Mapping
from typing import Final

import pandas as pd

from lockstep_bench.harness.checks.equivalence import allowed_disagreements
from lockstep_bench.harness.problem import NOTEBOOK_ERROR_PERCENT
from lockstep_bench.harness.tables import views
from lockstep_bench.harness.tables.results import Results
from lockstep_bench.harness.tables.views import came_through

NOTHING: Final = "No backend came through, so there is nothing to read off."


def _ends(results: Results, column: str) -> tuple[float, float] | None:
    """Training and test value of the reference after its last epoch, the mean over runs."""
    own = results.epochs[results.epochs["backend"] == results.plan.reference.name]
    last = own[(own["status"] == "ok") & (own["epoch"] == results.plan.problem.epochs)]
    return None if last.empty else (float(last[f"train_{column}"].mean()), float(last[f"test_{column}"].mean()))


def loss(results: Results) -> str:
    """How far test is from training."""
    if (ends := _ends(results, "loss")) is None:
        return "The reference did not come through, so its losses have no end to compare."
    return (
        f"At the end the reference's loss is {ends[0]:.3f} on the images it trained on, as they came in the last "
        f"epoch, and {ends[1]:.3f} on the test images."
    )


def accuracy(results: Results) -> str:
    """The same of what was predicted rightly."""
    if (ends := _ends(results, "error_percent")) is None:
        return "The reference did not come through, so its accuracies have no end to compare."
    train, test = (100 - error for error in ends)
    return f"At the end the reference's accuracy is {train:.2f} % on its training and {test:.2f} % on the test images."


def error_by_epoch(results: Results) -> str:
    """How far apart the backends are at most; it is said that they coincide only where the gate allows no more."""
    ok = results.epochs[results.epochs["status"] == "ok"]
    if ok["backend"].nunique() < 2:
        return "There are no two backends to compare." if len(ok) else NOTHING
    errors = ok.groupby(["block", "epoch"])["test_error_percent"]
    apart = (errors.max() - errors.min()).max()
    images = results.plan.dataset.test_images
    same = apart <= 2 * 100 * allowed_disagreements(images) / images  # either may differ from the reference that much
    coincide = "Curves coincide: lockstep. " if same and results.plan.profile == "identical" else ""
    return f"{coincide}At no epoch are two backends more than {apart:.2f} percentage points apart."


def error_by_seconds(results: Results) -> str:
    """Who reached the target first, and who last."""
    target = f"{results.plan.target_error_percent:g} %"
    ok = came_through(results)
    reached = ok.dropna(subset="train_seconds_to_target").sort_values("train_seconds_to_target", kind="stable")
    if ok.empty:
        return NOTHING
    several = " in more than half of its runs" if ok["runs"].max() > 1 else ""
    if reached.empty:
        return f"No backend reached {target} test error{several}."
    first, last = reached.iloc[0], reached.iloc[-1]
    sentence = (
        f"{first['backend']} reached {target} first, after {_seconds(first['train_seconds_to_target'])} of training"
    )
    if len(reached) > 1:
        sentence += f", {last['backend']} last, after {_seconds(last['train_seconds_to_target'])}"
    if len(reached) < len(ok):
        sentence += f"; {len(ok) - len(reached)} of {len(ok)} backends did not reach it{several}"
    return sentence + "."


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def error_by_seed(results: Results) -> str:
    """Where they end, and what the notebook reports."""
    ok = came_through(results)
    if ok.empty:
        return NOTHING
    low, high = ok["test_error_min"].min(), ok["test_error_max"].max()
    span = f"{low:.2f} %" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f} %"
    sentence = f"Final test errors are {span} over all seeds of the backends that came through"
    if results.plan.dataset.name == "mnist":
        sentence += f"; the notebook reports {NOTEBOOK_ERROR_PERCENT} %"
    return sentence + "."


def disagreements(results: Results) -> str:
    """The most, and what is allowed."""
    if results.plan.profile == "native":
        return "Each backend has its own defaults, so none is held against the reference."
    checked = results.epochs.dropna(subset="disagreements")
    images = results.plan.dataset.test_images
    if checked.empty:
        return "No epoch was held against the reference."
    some = len(checked) < len(results.epochs)
    worst = checked.iloc[int(checked["disagreements"].astype("int64").argmax())]
    allowed = allowed_disagreements(images)
    if worst["disagreements"] == 0:
        when = f"every epoch that was checked, up to {checked['epoch'].max():g}," if some else "every epoch"
        return f"After {when} all backends predicted all {images:,} test images alike; {allowed} may differ."
    unchecked = " Not every epoch was checked." if some else ""
    return (
        f"At most {worst['disagreements']} of {images:,} test images were predicted differently "
        f"({worst['backend']}, epoch {worst['epoch']:g}); {allowed} are allowed.{unchecked}"
    )


def time_and_error(results: Results) -> str:
    """Who was fastest at what error."""
    ok = came_through(results)
    if ok.empty:
        return NOTHING
    first = ok.iloc[0]
    seconds, error = first["train_seconds"], first["test_error_percent"]
    return f"{first['backend']} trained in {seconds:,.1f} s and ended at {error:.2f} % test error."


def step_time(results: Results) -> str:
    """From the fastest to the slowest, and how near the floor."""
    ok = came_through(results).dropna(subset="microseconds_per_step")
    if ok.empty:
        return NOTHING
    first, last = ok.iloc[0], ok.iloc[-1]
    sentence = f"A step takes {first['backend']} {first['microseconds_per_step']:,.0f} µs"
    if pd.notna(first["floor_multiple"]):
        sentence += f", {first['floor_multiple']:.1f} times the dense floor"
    if len(ok) > 1:
        sentence += f", and {last['backend']} {last['microseconds_per_step']:,.0f} µs"
    return sentence + "."


def phases(results: Results) -> str:
    """Where the time goes that is not training."""
    table = views.phases(results)
    if table.empty:
        return NOTHING
    before = table[["process start", "import", "build", "start-up"]].sum(axis=1)
    return (
        f"{table.index[0]} is through first, in {table.iloc[0].sum():,.1f} s in all; the longest way to steady "
        f"training is {before.idxmax()}'s, {before.max():,.1f} s."
    )


def memory(results: Results) -> str:
    """From the least to the most."""
    table = views.memory(results)
    if table.empty:
        return "No memory was recorded of a run that came through."
    peaks = table.sum(axis=1)
    sentence = f"At its peak {peaks.index[0]} held {peaks.iloc[0]:,.0f} MiB"
    if len(peaks) > 1:
        sentence += f" and {peaks.index[-1]} {peaks.iloc[-1]:,.0f} MiB"
    return sentence + ", pages of the dataset that it read among them."


def ratio_by_round(results: Results) -> str:
    """What the machine did meanwhile."""
    table = views.rounds(results)
    reference = results.plan.reference.name
    if reference not in table:
        return "There is no reference to divide by."
    own = table[reference]
    return (
        f"Below, the machine's drift: {reference} itself took {own.min():,.0f} to {own.max():,.0f} µs per step. Above, "
        "it is divided out round by round."
    )


READINGS: Final[Mapping[str, Callable[[Results], str]]] = {
    reading.__name__: reading
    for reading in (
        *(error_by_seconds, error_by_epoch, loss, accuracy, step_time, phases, memory, ratio_by_round),
        *(error_by_seed, disagreements, time_and_error),
    )
}
"""By the chart's name."""
