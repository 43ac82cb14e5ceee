"""What the timings show and what they do not: intervals of paired ratios, corrected verdicts, outliers.

Pure functions on arrays. A sample is the log ratio of two backends' times in one round, seconds apart on the same slice
(Randomized Multiple Interleaved Trials: Abedi and Brecht, ICPE 2017; duet benchmarking: Bulej et al., ICPE 2020), so
that what slows both of them cancels. Its centre is the median, as pyperf advises for timings. What is left is noise
that lasts for longer than a round: neighbouring samples are alike, and an interval that takes them for independent is
too narrow.
"""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special  # not scipy.stats: its import takes longer than all that is computed here

Floats = NDArray[np.floating[Any]]

LEVEL = 0.95
"""Of every interval."""
FEWEST = 6
"""Samples below which there is no interval: 5 of one sign are a chance of 1 in 16."""
RESAMPLES = 10_000
AUTOCORRELATION = 0.45
"""Between neighbouring samples: what the interval allows for. See `_stretch`.

Simulated runs of 40 rounds are covered in 96.4 % without autocorrelation and in 93.5 % with 0.5.
"""
RUN_TO_RUN = 0.031
"""Deviation of a ratio's logarithm from one run to the next of the same, whatever their rounds show.

That of five backends together in tests/benchmarks/run_to_run.py; the noise of its 40 rounds is in it.
"""
REFERENCE_RUN_TO_RUN = 0.015
"""The same of the reference beside itself, in the same runs."""
OUTLIER = 3.5
"""The modified z-score beyond which a timing is marked (Iglewicz and Hoaglin, 1993; hyperfine warns by the same)."""


class Estimate(NamedTuple):
    """A median with its interval, and the p-value of its being 0; not a number where there are too few samples.

    `spread` is the samples' robust standard deviation. `order_low` and `order_high` are the interval from the samples'
    order alone, which holds for few samples too, but takes them for independent.
    """

    samples: int
    spread: float
    median: float
    low: float
    high: float
    order_low: float
    order_high: float
    p_value: float


def estimate(sample: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The median of samples in the order of time, (n,), those of several processes one process after the other.

    The interval is a percentile bootstrap over moving blocks (Kuensch, 1989; Liu and Singh, 1992): runs of L
    neighbours are drawn with replacement, until a resample is as long as the sample. L is the cube root of the number
    of samples, rounded up. With few blocks, that alone covers the truth too seldom, so the resampled medians are
    stretched about the sample's: see `_stretch`.

    Blocks are drawn from all processes alike, so what differs between these is in the interval; drawn from each by
    itself, they would leave no choice where a process has few rounds. A few span the seam of two processes.

    The p-value is that of the same resamples: twice the share of those on the other side of 0.
    """
    middle = float(np.median(sample)) if len(sample) else np.nan
    spread = robust_deviation(sample)
    if len(sample) < FEWEST:
        return Estimate(len(sample), spread, middle, *[np.nan] * 5)
    drawn = plausible_medians(sample, resamples, seed)
    low, high = interval(drawn)
    order_low, order_high = np.sort(sample)[list(_order_places(len(sample)))].tolist()
    return Estimate(len(sample), spread, middle, low, high, order_low, order_high, _p_value(drawn))


class Change(NamedTuple):
    """How long something takes now relative to before, with its interval, and the p-value of there being no change."""

    ratio: float
    ratio_low: float
    ratio_high: float
    p_value: float


def change(
    old: Sequence[Floats], new: Sequence[Floats], resamples: int = RESAMPLES, between: float = RUN_TO_RUN, seed: int = 0
) -> Change:
    """The change of a median from one run to another, of log ratios that come in series, each of one process.

    The two runs are resampled each by itself, as in `estimate`. To the difference of the resampled medians comes normal
    noise with the deviation `between`, for each run divided by the root of the number of its series: that is what no
    single run can know of itself.

    Args:
        old: of the run before, (n,) each; FEWEST samples in all, at least.
        new: of the run after, as `old`.
        resamples: how many.
        between: the deviation from one series to the next of the same.
        seed: of the resamples.
    """
    samples = [np.concatenate(series) for series in (old, new)]
    before, after = (plausible_medians(sample, resamples, 2 * seed + place) for place, sample in enumerate(samples))
    deviation = between * np.sqrt(1 / len(old) + 1 / len(new))
    drawn = after - before + deviation * np.random.default_rng(seed).standard_normal(resamples)
    ratio, low, high = np.exp([np.median(samples[1]) - np.median(samples[0]), *interval(drawn)]).tolist()
    return Change(ratio, low, high, _p_value(drawn))


def plausible_medians(sample: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """What the median of samples, FEWEST at least, might have been, by the bootstrap of `estimate`: (resamples,)."""
    middle, length = np.median(sample), ceil(len(sample) ** (1 / 3))
    medians: Floats = middle + _stretch(len(sample), length) * (
        resampled_medians(sample, length, resamples, seed) - middle
    )
    return medians


@cache
def _order_places(samples: int) -> tuple[int, int]:
    """Return the places, in sorted samples, of the ends of their median's interval from the order alone.

    The number of samples below the median is binomial; `scipy.stats.quantile_test` gives the same ends.
    """
    at_most = special.bdtr(np.arange(samples), samples, 0.5)
    low = int(np.searchsorted(at_most, (1 - LEVEL) / 2))
    return low - 1, samples - low


def _p_value(drawn: Floats) -> float:
    """Twice the share of resamples on the other side of 0."""
    beyond = 1 + min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return min(1.0, 2 * beyond / (len(drawn) + 1))


def interval(values: Floats) -> tuple[float, float]:
    """The middle 95 % of some values."""
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def resampled_medians(sample: Floats, length: int, resamples: int, seed: int) -> Floats:
    """Medians, (resamples,), of samples drawn in blocks of `length` neighbours; the same draws for the same seed.

    No resample is laid out or sorted. The sample's values are taken in ascending order, and for each resample its
    values up to the current one are counted. Where the count reaches the middle is the median.
    """
    count, order = len(sample), np.argsort(sample)
    drawn = _times_drawn(count, length, resamples, seed)
    at_most = np.zeros(resamples, drawn.dtype)
    low, high = np.zeros(resamples, np.intp), np.zeros(resamples, np.intp)  # places of the middle one or two, in order
    for place in order:
        at_most += drawn[place]
        low += at_most <= (count - 1) // 2
        high += at_most <= count // 2
    ordered = sample[order]
    medians: Floats = (ordered[low] + ordered[high]) / 2
    return medians


@lru_cache(maxsize=1)  # all pairs of backends have the same draws, if all came through
def _times_drawn(samples: int, length: int, resamples: int, seed: int) -> NDArray[np.unsignedinteger[Any]]:
    """Count how often each sample is in each resample: (samples, resamples)."""
    generator = np.random.default_rng(seed)
    starts = generator.integers(0, samples - length + 1, (resamples, -(-samples // length)))
    drawn = np.zeros((samples, resamples), np.min_scalar_type(samples))
    for place in range(samples):  # of a resample; its last block may be cut short
        drawn[starts[:, place // length] + place % length, np.arange(resamples)] += 1
    return drawn


@cache
def _stretch(samples: int, length: int) -> float:
    """By how much the spread of resampled medians understates that of the sample's median; 1.38 for 40 samples.

    Three reasons, with k = samples / length blocks:

    * k blocks about their own mean vary by (k - 1) / k of what they vary by about the true one;
    * the spread is itself an estimate, of k - 1 degrees of freedom: Student's quantile belongs where the normal is;
    * neighbours in different blocks of a resample are strangers, so autocorrelation beyond a block is lost. Around its
      median, a sample counts by its sign alone, and signs of AR(1) noise with coefficient phi correlate by
      2 / pi * arcsin(phi**h) over h rounds. Their long-run variance against that within blocks of L is what is lost.
    """
    blocks = samples / length
    student = special.stdtrit(max(blocks - 1, 1), (1 + LEVEL) / 2) / special.ndtri((1 + LEVEL) / 2)
    lags = np.arange(1, 100)
    correlation = 2 / np.pi * np.arcsin(AUTOCORRELATION**lags)
    kept = 1 + 2 * np.sum(np.maximum(1 - lags / length, 0) * correlation)
    lost = (1 + 2 * np.sum(correlation)) / kept
    return float(student * np.sqrt(blocks / max(blocks - 1, 1) * lost))


def holm(p_values: Sequence[float]) -> Floats:
    """p-values corrected for being many (Holm, 1979): (n,), in the order given."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


class Comparison(NamedTuple):
    """How long `backend` takes relative to `other`; `p_holm` is corrected for all pairs that were compared."""

    backend: str
    other: str
    rounds: int
    spread_percent: float
    ratio: float
    ratio_low: float
    ratio_high: float
    order_low: float
    order_high: float
    p_value: float
    p_holm: float

    @property
    def verdict(self) -> str:
        """What may be said of the two."""
        if np.isnan(self.ratio_low):
            return f"fewer than {FEWEST} rounds"
        if self.ratio_low <= 1 <= self.ratio_high:
            return "no difference shown"
        return "faster" if self.ratio_high < 1 else "slower"


def compare_all(seconds: Mapping[str, Floats], resamples: int = RESAMPLES) -> list[Comparison]:
    """Compare every backend with every other.

    Args:
        seconds: of each backend its times by round, (rounds,), block after block; a round that a backend has no time
            for is not a number, as is every round of a block that it did not come through.
        resamples: how many at least; more where there are so many pairs that Holm's correction would undo any p-value.
    """
    names = list(seconds)
    pairs = [(one, other) for place, one in enumerate(names) for other in names[place + 1 :]]
    resamples = max(resamples, 80 * len(pairs))
    estimates = [estimate(_paired(seconds[one], seconds[other]), resamples) for one, other in pairs]
    has_p = [not np.isnan(found.p_value) for found in estimates]
    p_holm = np.full(len(pairs), np.nan)
    p_holm[has_p] = holm([found.p_value for found in estimates if not np.isnan(found.p_value)])
    compared = []
    for (one, other), found, p in zip(pairs, estimates, p_holm.tolist(), strict=True):
        compared += [_comparison(one, other, found, p), _comparison(other, one, _negative(found), p)]
    return sorted(compared, key=lambda found: (names.index(found.backend), names.index(found.other)))


def _paired(one: Floats, other: Floats) -> Floats:
    """The log ratios of two backends, without rounds that either has not."""
    logs: Floats = np.log(one) - np.log(other)
    return logs[np.isfinite(logs)]


def _negative(found: Estimate) -> Estimate:
    """The same pair, looked at from the other side."""
    samples, spread, median, low, high, order_low, order_high, p_value = found
    return Estimate(samples, spread, -median, -high, -low, -order_high, -order_low, p_value)


def _comparison(backend: str, other: str, found: Estimate, p_holm: float) -> Comparison:
    ratio, low, high, order_low, order_high = np.exp(found[2:7]).tolist()
    return Comparison(
        backend=backend,
        other=other,
        rounds=found.samples,
        spread_percent=100 * found.spread,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        order_low=order_low,
        order_high=order_high,
        p_value=found.p_value,
        p_holm=p_holm,
    )


def outliers(values: Floats) -> NDArray[np.bool_]:
    """Which of some times, (n,), lie far off: modified z-scores of their logarithms beyond 3.5."""
    logs = np.log(values)
    distance = np.abs(logs - np.median(logs)) if len(logs) else logs
    return distance > OUTLIER * robust_deviation(logs)


def robust_deviation(values: Floats) -> float:
    """The standard deviation that normal values with this median absolute deviation have; 0 for none."""
    if not len(values):
        return 0.0
    return float(np.median(np.abs(values - np.median(values))) / special.ndtri(0.75))


def mean_interval(values: Floats) -> tuple[float, float]:
    """Student's 95 % interval for the mean of independent values, (n,); not a number for fewer than two."""
    if len(values) < 2:
        return np.nan, np.nan
    error = np.std(values, ddof=1) / len(values) ** 0.5
    half = special.stdtrit(len(values) - 1, (1 + LEVEL) / 2) * error
    return float(np.mean(values) - half), float(np.mean(values) + half)
