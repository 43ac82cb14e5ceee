"""The cost of one prediction and of one call of `train`, measured after the last epoch in a limited time."""

from collections.abc import Callable, Sequence
from math import ceil, floor, sqrt
from statistics import median
from time import perf_counter
from typing import NamedTuple

from lockstep_bench.harness.wording import counted

FEWEST, MOST = 3, 200
"""Calls below which nothing is reported, and after which it ends."""
ENOUGH, ENOUGH_CALLS = 20, 6
"""Predictions, and calls of one step, from which on a narrow interval is enough; six are the fewest that make one."""
WARM_UP = 2
"""Calls that are not counted: the first may compile, the second finds caches cold."""
NARROW = 0.1
"""An interval of the median is narrow where its width is at most this part of the median."""
NARROW_OF_SLICE = 0.002
"""The cost of a call is known well enough where its interval is at most this part of a slice."""
CHEAP_SECONDS = 0.2
"""Within it the interval is not looked at: all MOST predictions of a fast backend are made, for a 99th percentile."""


class Timings(NamedTuple):
    """Seconds of repeated calls, none or FEWEST at least, and why there are no more if they are not enough."""

    seconds: list[float]
    reason: str | None


def repeat(do: Callable[[int], object], limit: float, is_enough: Callable[[Sequence[float]], bool]) -> Timings:
    """Time `do(0)`, `do(1)`, ... until they are enough, MOST were counted, or `limit` seconds have passed.

    To stop as soon as an interval is narrow makes intervals a little too narrow, and leaves the median as it is.
    """
    begin = perf_counter()
    seconds: list[float] = []
    while len(seconds) < WARM_UP + MOST:
        timed = seconds[WARM_UP:]
        if timed and is_enough(timed):
            break
        first = perf_counter()
        if first - begin > limit:
            reason = f"{counted(len(seconds), 'call')} took the {limit:.2g} s that there were for it"
            return Timings(timed if len(timed) >= FEWEST else [], reason)
        do(len(seconds))
        seconds.append(perf_counter() - first)
    return Timings(seconds[WARM_UP:], None)


def interval(seconds: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median of n samples: those of rank n/2 - 0.98 sqrt(n) and 1 + n/2 + 0.98 sqrt(n).

    Source: Conover, Practical Nonparametric Statistics, 1999, section 3.2, by the normal approximation.
    """
    ordered, middle, half = sorted(seconds), len(seconds) / 2, 0.98 * sqrt(len(seconds))
    return ordered[max(0, floor(middle - half) - 1)], ordered[min(len(ordered) - 1, ceil(middle + half))]


def interval_width(seconds: Sequence[float]) -> float:
    """The width of the median's interval, in seconds."""
    low, high = interval(seconds)
    return high - low


def latency(predict: Callable[[int], object], limit: float) -> Timings:
    """Seconds of single predictions; `predict` makes the one with that number."""

    def is_enough(seconds: Sequence[float]) -> bool:
        if len(seconds) < ENOUGH or sum(seconds) < CHEAP_SECONDS:
            return False
        return interval_width(seconds) <= NARROW * median(seconds)

    return repeat(predict, limit, is_enough)


class CallCost(NamedTuple):
    """The seconds that a call costs beyond its steps, or none and the reason why they are not known."""

    seconds: float | None
    reason: str | None


def call_cost(step: Callable[[int], object], limit: float, slice_steps: int, slice_seconds: float) -> CallCost:
    """Measure the cost of a call of `train` beyond its steps, from calls of one step and from the run's own slices.

    A call of k steps takes c + k s. The run has measured that for k = `slice_steps`, so only calls of one step are
    left to be made: no other length has to be compiled.

    Args:
        step: trains one batch, the one with that number, in a call of its own.
        limit: seconds after which no further call is made.
        slice_steps: the steps of a slice, 2 or more.
        slice_seconds: the median time of the run's slices of so many steps.
    """

    def is_enough(seconds: Sequence[float]) -> bool:
        width = max(NARROW_OF_SLICE * slice_seconds, NARROW * median(seconds))
        return len(seconds) >= ENOUGH_CALLS and interval_width(seconds) <= width

    calls = repeat(step, limit, is_enough)
    if not calls.seconds:
        return CallCost(None, calls.reason)
    return CallCost((slice_steps * median(calls.seconds) - slice_seconds) / (slice_steps - 1), calls.reason)
