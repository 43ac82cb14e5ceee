"""How a time grows along an axis: exponents, the batch size at which work outweighs overhead, crossing points.

Pure functions on arrays. What a time might have been is told by resamples of the rounds of its cell
(`statistics.plausible_medians`); a fit is made again for each of them, and its interval is their middle 95 %. It speaks
of the noise of rounds and of the luck of processes. That a formula is only nearly true is not in it, nor that a machine
may be slow for longer than a cell lasts.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.statistics import LEVEL, RESAMPLES, RUN_TO_RUN, Floats, interval, plausible_medians

FEWEST_CELLS = 3
"""Values of an axis below which nothing is fitted: through two any line goes."""


def plausible_logs(series: Sequence[Floats], seed: int, resamples: int = RESAMPLES) -> Floats:
    """What the logarithm of a time might have been, (resamples,).

    As in `statistics.change`, to the resampled median comes normal noise for what no process can know of itself.

    Args:
        series: logarithms of the times of its rounds, FEWEST in all at least, an array per process.
        seed: of the resamples; cells with different seeds are independent.
        resamples: how many.
    """
    luck = np.random.default_rng([seed, 1]).standard_normal(resamples)
    logs: Floats = plausible_medians(np.concatenate(series), resamples, seed) + RUN_TO_RUN / np.sqrt(len(series)) * luck
    return logs


class Exponent(NamedTuple):
    """A time grows as a quantity to this power; with its 95 % interval."""

    exponent: float
    low: float
    high: float


def exponent(values: Floats, groups: NDArray[np.integer[Any]], logs: Floats, drawn: Floats) -> Exponent:
    """Fit `time = c * value**a` by least squares on logarithms; c is each group's own, a is all groups'.

    That is the slope of the logarithms about their groups' means, the within estimator (Wooldridge, 2010, section
    10.5): with one group it is the ordinary regression of log time on log value.

    Args:
        values: of the axis, (n,), not all of them the same within every group.
        groups: which cells differ along this axis alone, (n,).
        logs: of the times, (n,).
        drawn: what they might have been, (n, resamples).
    """
    logs_of_values = np.log(values)
    means = {group: logs_of_values[groups == group].mean() for group in np.unique(groups)}
    distance = logs_of_values - np.array([means[group] for group in groups])
    weights = distance / np.sum(distance**2)
    return Exponent(float(weights @ logs), *interval(weights @ drawn))


class Overhead(NamedTuple):
    """A step takes `overhead + work * batch size`, in the unit of the times.

    Attributes:
        overhead: whatever the batch size: dispatch, and Adam's pass over all parameters.
        work: per image.
        half: the batch size at which the two are equal, overhead / work: below it a step is bound by its overhead.
            Hockney's n_1/2, at which half of the greatest rate is reached. 0 where there is no overhead to be seen,
            infinite where there is no growth.
        low: of the 95 % interval of `half`.
        high: of it.
    """

    overhead: float
    work: float
    half: float
    low: float
    high: float


def overhead(batch_sizes: Floats, logs: Floats, drawn: Floats) -> Overhead:
    """Fit a step's time as a line over the batch size (Hockney and Jesshope, Parallel Computers 2, 1988).

    Least squares of relative deviations, sum of ((overhead + work * batch) / time - 1)**2, since noise is relative;
    with neither of the two below 0.

    Args:
        batch_sizes: (n,), FEWEST_CELLS different ones at least.
        logs: of the times of a step, (n,).
        drawn: what they might have been, (n, resamples).
    """
    base, work = _line(batch_sizes, logs[:, None])
    with np.errstate(divide="ignore"):
        half = float((base / work)[0])
        base_drawn, work_drawn = _line(batch_sizes, drawn)
        halves = base_drawn / work_drawn
    # Some may be infinite, and between two of them nothing can be interpolated.
    low = float(np.quantile(halves, (1 - LEVEL) / 2, method="lower"))
    high = float(np.quantile(halves, (1 + LEVEL) / 2, method="higher"))
    return Overhead(float(base[0]), float(work[0]), half, low, high)


def _line(batch_sizes: Floats, logs: Floats) -> tuple[Floats, Floats]:
    """Overhead and work of each column of logarithms (n, m): (m,) and (m,)."""
    ones = np.exp(-logs)  # the model over the time: overhead * ones + work * sizes, which should be 1
    sizes = batch_sizes[:, None] * ones
    aa, ab, bb = (ones**2).sum(axis=0), (ones * sizes).sum(axis=0), (sizes**2).sum(axis=0)
    a, b = ones.sum(axis=0), sizes.sum(axis=0)
    determinant = aa * bb - ab**2
    base, work = (bb * a - ab * b) / determinant, (aa * b - ab * a) / determinant
    # Where one would be below 0, the best that is not has it at 0, and the other fitted alone.
    base, work = np.where(base < 0, 0, base), np.where(base < 0, b / bb, work)
    return np.where(work < 0, a / aa, base), np.where(work < 0, 0, work)


class Crossing(NamedTuple):
    """Between `below` and `above` it changes who is faster: at about `at`; `first_is_faster` says whether below it."""

    below: float
    above: float
    at: float
    first_is_faster: bool


def crossings(values: Floats, log_ratios: Floats, shown: NDArray[np.integer[Any]]) -> Iterator[Crossing]:
    """Where the ratio of two times is shown to go from one side of 1 to the other.

    It is shown by two values with differences of opposite sign, and none between them that shows any: there the noise
    may hide which is faster, as close to a crossing it must. The point itself is where the logarithm of the ratio,
    taken as linear between the logarithms of neighbouring values, first comes to 0.

    Args:
        values: of the axis, (n,), rising.
        log_ratios: of the first time to the second, (n,), each the median over rounds.
        shown: what its interval shows: -1 that the first is faster, 1 that it is slower, 0 neither.
    """
    places = np.flatnonzero(shown)
    for start, stop in pairwise(places):
        if shown[start] == shown[stop]:
            continue
        side = np.sign(log_ratios[start : stop + 1])
        left = start + int(np.flatnonzero(side != side[0])[0]) - 1
        before, after = log_ratios[left], log_ratios[left + 1]
        part = before / (before - after)
        at = values[left] * (values[left + 1] / values[left]) ** part
        yield Crossing(float(values[start]), float(values[stop]), float(at), bool(shown[start] < 0))
