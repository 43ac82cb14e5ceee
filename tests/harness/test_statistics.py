"""The intervals must cover what they claim to cover: on simulated runs as noisy as real machines, and by hand."""

from functools import cache
from math import ceil, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter

from lockstep_bench.harness.statistics import (
    RUN_TO_RUN,
    Comparison,
    _p_value,
    _stretch,
    change,
    compare_all,
    estimate,
    holm,
    interval,
    mean_interval,
    outliers,
    plausible_medians,
    resampled_medians,
    robust_deviation,
)

Times = NDArray[np.float64]

SEEDS, RUNS, ROUNDS, RESAMPLES = 5, 2000, 40, 1000
NOISE = 0.08
"""Of the logarithm of one backend's time, so 0.11 of a ratio's: as the reference against itself, from 0.09 to 0.13."""


def noise(random: np.random.Generator, autocorrelation: float, has_outliers: bool) -> Times:
    """AR(1) noise of `RUNS` runs, (runs, rounds); every 20th turn takes about twice as long if it has outliers."""
    fresh = random.standard_normal((RUNS, ROUNDS + 100))
    values = lfilter([(1 - autocorrelation**2) ** 0.5], [1, -autocorrelation], fresh)[:, 100:]
    slow = random.exponential(0.7, (RUNS, ROUNDS)) * (random.random((RUNS, ROUNDS)) < 0.05)
    return np.asarray(NOISE * values + has_outliers * slow)


def drift(random: np.random.Generator) -> Times:
    """What slows both backends alike: a wave through each run, from 1 to 2 and back, that begins anywhere."""
    phase = random.uniform(0, 2 * np.pi, (RUNS, 1))
    return np.asarray(log(2) * (1 + np.sin(np.linspace(0, 3 * np.pi, ROUNDS) + phase)) / 2)


@cache
def simulated(seed: int, ratio: float, autocorrelation: float, has_outliers: bool) -> tuple[Times, Times]:
    """The times of two backends in `RUNS` runs, the second's `ratio` times the first's but for noise."""
    random = np.random.default_rng(seed)
    common = drift(random)
    first, second = (np.exp(common + noise(random, autocorrelation, has_outliers)) for _ in range(2))
    return first, ratio * second


def count(seed: int, autocorrelation: float, has_outliers: bool) -> tuple[int, int]:
    """In how many of `RUNS` runs of equals the interval covers the true ratio, 1, and a difference is claimed."""
    covered = claimed = 0
    for first, second in zip(*simulated(seed, 1.0, autocorrelation, has_outliers), strict=True):
        found = compare_all({"first": first, "second": second}, RESAMPLES)[1]
        assert (found.backend, found.other, found.rounds) == ("second", "first", ROUNDS)
        covered += found.ratio_low <= 1 <= found.ratio_high
        claimed += found.verdict != "no difference shown" or found.p_holm < 0.05
    return covered, claimed


@pytest.mark.parametrize("autocorrelation", [0.0, 0.5])
@pytest.mark.parametrize("has_outliers", [False, True])
def test_the_interval_covers_the_true_ratio(autocorrelation: float, has_outliers: bool) -> None:
    """In 92 to 97 % of 10,000 runs from five seeds; equal backends are called different in at most 7 %."""
    counts = [count(seed, autocorrelation, has_outliers) for seed in range(SEEDS)]
    covered, claimed = map(sum, zip(*counts, strict=True))
    assert 0.92 <= covered / (SEEDS * RUNS) <= 0.97
    assert claimed / (SEEDS * RUNS) <= 0.07


@pytest.mark.parametrize(("processes", "rounds"), [(3, 2), (6, 1), (3, 5), (5, 4), (2, 20)])
def test_the_interval_of_several_processes_covers_the_true_ratio_too(processes: int, rounds: int) -> None:
    """In 92 to 98 % of 1,000 runs, however few rounds each process has: `--replicates`, several seeds."""
    first, second = simulated(0, 1.0, 0.5, False)
    logs = np.log(second / first)[:, :rounds]
    runs = np.hstack([logs[100 * process :][: RUNS // 2] for process in range(processes)])
    found = [estimate(run, RESAMPLES) for run in runs]
    assert 0.92 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.98


@given(st.floats(0.01, 100), st.integers(0, RUNS - 1))
def test_another_ratio_has_the_same_interval_times_that(ratio: float, run: int) -> None:
    """So what covers the ratio of equals covers every ratio as often."""
    first, second = (times[run] for times in simulated(0, 1.0, 0.5, True))
    equal, other = (compare_all({"first": first, "second": factor * second}, RESAMPLES)[1] for factor in (1, ratio))
    for end in ("ratio", "ratio_low", "ratio_high", "order_low", "order_high"):
        assert getattr(other, end) == pytest.approx(ratio * getattr(equal, end), rel=1e-9)


@pytest.mark.parametrize("autocorrelation", [0.0, 0.5])
@pytest.mark.parametrize("has_outliers", [False, True])
def test_without_pairing_the_interval_would_be_wider(autocorrelation: float, has_outliers: bool) -> None:
    """Nearly always, and by half at least in the middle: the same bootstrap of either backend's own times."""
    wider = []
    for first, second in zip(*(times[:500] for times in simulated(0, 1.3, autocorrelation, has_outliers)), strict=True):
        paired = np.subtract(*interval(resampled_medians(np.log(second / first), 4, RESAMPLES, 0))[::-1])
        apart = resampled_medians(np.log(second), 4, RESAMPLES, 1) - resampled_medians(np.log(first), 4, RESAMPLES, 2)
        wider.append(np.subtract(*interval(apart)[::-1]) / paired)
    assert np.mean(np.array(wider) > 1) > 0.95
    assert np.median(wider) > 1.5


def test_fewer_than_six_samples_have_a_median_and_no_interval() -> None:
    """Five do not suffice, six do: their order-statistic interval is from the least to the most."""
    values = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    found = estimate(values)
    assert (found.samples, found.median) == (5, 3.0)
    assert np.isnan(found[3:]).all()
    found = estimate(np.append(values, 6.0))
    assert (found.order_low, found.order_high) == (1.0, 6.0)
    assert found.low < 3.5 < found.high
    assert estimate(np.empty(0)).samples == 0


def test_equal_samples_have_an_interval_without_width() -> None:
    """What never varies is known: no value is lost to a division by zero."""
    assert estimate(np.zeros(40))[1:] == (0, 0, 0, 0, 0, 0, 1.0)


def test_the_same_samples_give_the_same_interval() -> None:
    """Resampling is seeded; another seed moves it a little."""
    values = np.random.default_rng(0).normal(size=50)
    assert estimate(values) == estimate(values)
    assert estimate(values, seed=1).p_value != estimate(values).p_value


def test_a_block_is_a_run_of_neighbours() -> None:
    """A block as long as the series can only be the series; blocks of 2 of alternating signs cancel in every one.

    Of four neighbours among five values at most one is the first or the last, and a fifth value is one more.
    """
    assert set(resampled_medians(np.arange(7.0), 7, 50, 0)) == {3.0}
    assert set(resampled_medians(np.array([-1.0, 1.0] * 4), 2, 500, 0)) == {0.0}
    assert set(resampled_medians(np.array([0.0, 9.0, 9.0, 9.0, 0.0]), 4, 500, 0)) == {9.0}


@pytest.mark.parametrize("samples", [6, 7, 20, 41, 255, 256, 300])
def test_resampled_medians_are_those_of_samples_laid_out(samples: int) -> None:
    """As many values of each block as the sample has room for; some values are equal, and their order says nothing."""
    sample = np.random.default_rng(samples).normal(size=samples).round(1)
    length, resamples = ceil(samples ** (1 / 3)), 200
    starts = np.random.default_rng(3).integers(0, samples - length + 1, (resamples, -(-samples // length), 1))
    laid_out = sample[(starts + np.arange(length)).reshape(resamples, -1)[:, :samples]]
    assert np.array_equal(resampled_medians(sample, length, resamples, seed=3), np.median(laid_out, axis=1))


@pytest.mark.parametrize("samples", [6, 7, 20, 41, 160, 800, 2999])
def test_the_interval_from_the_order_alone_is_scipys(samples: int) -> None:
    """Of the values 0, 1, ... each is its own place."""
    ends = stats.quantile_test(np.arange(samples)).confidence_interval(0.95)
    found = estimate(np.arange(float(samples)), resamples=10)
    assert (found.order_low, found.order_high) == (ends.low, ends.high)


def test_robust_deviation_is_scipys() -> None:
    """The median absolute deviation in units of a normal distribution's."""
    sample = np.random.default_rng(0).normal(size=41)
    assert robust_deviation(sample) == stats.median_abs_deviation(sample, scale="normal")


def test_both_directions_of_a_pair_agree() -> None:
    """The ratio of b to a is one over that of a to b, and so are the ends of its intervals."""
    random = np.random.default_rng(0)
    times = {name: np.exp(random.normal(mean, 0.1, 30)) for name, mean in (("a", 0), ("b", 0.3))}
    forth, back = compare_all(times)
    assert (forth.backend, forth.other, back.backend, back.other) == ("a", "b", "b", "a")
    assert back.ratio == pytest.approx(1 / forth.ratio)
    assert (back.ratio_low, back.ratio_high) == pytest.approx((1 / forth.ratio_high, 1 / forth.ratio_low))
    assert (back.order_low, back.order_high) == pytest.approx((1 / forth.order_high, 1 / forth.order_low))
    assert (back.p_value, back.p_holm) == (forth.p_value, forth.p_holm)
    found = estimate(np.log(times["a"]) - np.log(times["b"]))
    assert (forth.p_value, forth.spread_percent) == pytest.approx((found.p_value, 100 * found.spread))
    assert (forth.verdict, back.verdict) == ("faster", "slower")


def test_pairs_come_in_the_order_of_their_names() -> None:
    """Each with every other, as the backends were given; one that has too few rounds has its places too."""
    times = {"b": np.full(9, 2.0), "c": np.full(9, np.nan), "a": np.full(9, 1.0)}
    assert ["".join((found.backend, found.other)) for found in compare_all(times)] == [
        "bc",
        "ba",
        "cb",
        "ca",
        "ab",
        "ac",
    ]


def test_rounds_that_one_of_a_pair_lacks_are_left_out() -> None:
    """Here 10 of one block, and none of a block that one of the two did not come through."""
    one = np.full(12 + 9, 2.0)
    other = np.r_[np.full(10, 1.0), np.nan, np.nan, np.full(9, np.nan)]
    found = compare_all({"one": one, "other": other})[0]
    assert found.rounds == 10
    assert found.ratio == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.9, 1.1, "no difference shown"),
        (1.0, 1.1, "no difference shown"),
        (0.8, 0.99, "faster"),
        (1.01, 1.2, "slower"),
        (np.nan, np.nan, "fewer than 6 rounds"),
    ],
)
def test_a_verdict_is_the_intervals(low: float, high: float, verdict: str) -> None:
    """An interval that contains 1 shows nothing."""
    found = Comparison("a", "b", 40, 10, 1.0, low, high, low, high, 0.5, 0.5)
    assert found.verdict == verdict


def test_holm_multiplies_by_how_many_are_left() -> None:
    """0.01 * 3, 0.03 * 2, and 0.04 * 1, which must not be less than the one before."""
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_many_backends_can_still_be_told_apart() -> None:
    """With 300 pairs, Holm's correction of the least p-value that 10,000 resamples allow would show nothing."""
    random = np.random.default_rng(0)
    times = {str(place): np.exp(random.normal(place, 0.01, 12)) for place in range(25)}
    assert max(found.p_holm for found in compare_all(times)) < 0.05


def test_outliers_are_far_off_in_robust_deviations() -> None:
    """Logarithms 0, +/-1, +/-2 have the median absolute deviation 1: the limit is 3.5 * 1.4826 = 5.19."""
    values = np.exp([-2.0, -1.0, 0.0, 1.0, 2.0, -1.0, 1.0, 5.1, 5.3])
    assert robust_deviation(np.log(values[:7])) == pytest.approx(1.4826, rel=1e-4)
    assert outliers(values[:7]).tolist() == [False] * 7
    logs = np.log(values)
    expected = np.abs(0.6745 * (logs - np.median(logs)) / stats.median_abs_deviation(logs)) > 3.5
    assert outliers(values).tolist() == expected.tolist()
    assert outliers(np.array([1.0] * 9 + [50.0])).tolist() == [False] * 9 + [True]
    assert outliers(np.array([])).tolist() == []
    assert robust_deviation(np.array([])) == 0


def test_the_mean_has_students_interval() -> None:
    """As scipy's own test has it, of two values on; a single value has none."""
    values = np.array([6.0, 6.3, 5.9, 6.1, 6.4])
    for count in (2, 5):
        expected = stats.ttest_1samp(values[:count], 0).confidence_interval(0.95)
        assert mean_interval(values[:count]) == pytest.approx((expected.low, expected.high))
    assert np.isnan(mean_interval(values[:1])).all()


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("ratio", [1.0, 1.2])
def test_the_interval_of_a_change_covers_the_true_one(ratio: float, processes: int) -> None:
    """In 92 to 98 % of 1,000 pairs of runs that differ as runs do, each drifting for itself."""
    covered = claimed = 0
    first, second = simulated(0, 1.0, 0.5, True)
    samples = np.log(second) - np.log(first)
    between = RUN_TO_RUN * np.random.default_rng(1).standard_normal(RUNS)
    series = np.array_split(samples + between[:, None], RUNS // (2 * processes))
    for pair in series:
        found = change(list(pair[:processes]), list(pair[processes:] + log(ratio)), RESAMPLES)
        covered += found.ratio_low <= ratio <= found.ratio_high
        claimed += found.p_value < 0.05
    assert 0.92 <= covered / len(series) <= 0.98
    assert claimed / len(series) < 0.08 if ratio == 1 else claimed / len(series) > 0.5


def test_a_change_without_allowance_for_runs_claims_too_much() -> None:
    """Runs that differ by 2 % and rounds that hardly do: without it every second change of none is claimed."""
    random = np.random.default_rng(0)
    claimed = [0, 0]
    for _ in range(200):
        old, new = (0.02 * random.standard_normal() + 0.01 * random.standard_normal(40) for _ in range(2))
        for place, between in enumerate((0.0, 0.02)):
            claimed[place] += change([old], [new], RESAMPLES, between).p_value < 0.05
    assert claimed[0] > 100
    assert claimed[1] < 20


def test_a_result_is_not_changed_against_itself() -> None:
    """The ratio is 1 exactly, and lies in its interval: that is of two runs, each resampled by draws of its own."""
    samples = np.random.default_rng(0).normal(0.5, 0.1, 40)
    found = change([samples], [samples], between=0)
    assert found.ratio == 1
    assert found.p_value > 0.5
    one = estimate(samples)
    assert log(found.ratio_high / found.ratio_low) == pytest.approx(2**0.5 * (one.high - one.low), rel=0.1)
    assert found.ratio_low < 1 < found.ratio_high


def test_stretch_is_what_its_three_reasons_make() -> None:
    """Of 40 samples in blocks of 4, step by step: 1.38, as the docstring says."""
    student = stats.t(9).ppf(0.975) / stats.norm.ppf(0.975)
    signs = [2 / np.pi * np.arcsin(0.45**lag) for lag in range(1, 100)]
    within = 1 + 2 * (0.75 * signs[0] + 0.5 * signs[1] + 0.25 * signs[2])
    expected = student * (10 / 9 * (1 + 2 * sum(signs)) / within) ** 0.5
    assert _stretch(40, 4) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(1.38, abs=0.005)
    # One block and a half: its degrees of freedom are not less than one.
    assert _stretch(6, 4) / _stretch(8, 4) == pytest.approx((1.5 / 1 / 2) ** 0.5, rel=1e-12)


def test_what_a_median_might_have_been_is_stretched_about_it() -> None:
    """Blocks of as many neighbours as the cube root of the samples, rounded up: 4 of 40."""
    sample = np.random.default_rng(0).standard_normal(40)
    middle = float(np.median(sample))
    drawn = plausible_medians(sample, 500, seed=3)
    resampled = resampled_medians(sample, 4, 500, seed=3)
    np.testing.assert_allclose(drawn, middle + _stretch(40, 4) * (resampled - middle), rtol=1e-12)
    assert plausible_medians(sample).shape == (10_000,)
    np.testing.assert_array_equal(plausible_medians(sample, 500), plausible_medians(sample, 500, seed=0))


def test_p_value_is_twice_the_smaller_share_and_never_zero() -> None:
    """With the sample itself counted among the resamples, by hand."""
    beyond = np.array([-1.0, 0.0, *np.ones(97)])
    assert _p_value(beyond) == pytest.approx(2 * 3 / 100)
    assert _p_value(-beyond) == pytest.approx(2 * 3 / 100)
    assert _p_value(np.ones(99)) == pytest.approx(2 / 100)
    assert _p_value(np.zeros(99)) == 1


def test_change_of_runs_without_noise_is_that_of_their_medians() -> None:
    """Its interval is then made by what lies between runs alone: less of it, the more series there are."""
    old, new = [np.full(8, 1.0)], [np.full(8, 1.5)] * 4
    found = change(old, new, resamples=200_000, between=0.1)
    assert found.ratio == pytest.approx(np.exp(0.5))
    for end, side in ((found.ratio_low, -1), (found.ratio_high, 1)):
        assert np.log(end) - 0.5 == pytest.approx(side * 1.96 * 0.1 * (1 + 1 / 4) ** 0.5, rel=0.02)
    other = change(new, old, resamples=200_000, between=0.1)
    assert np.log(other.ratio_high) + 0.5 == pytest.approx(1.96 * 0.1 * (1 + 1 / 4) ** 0.5, rel=0.02)
    assert found == change(old, new, resamples=200_000, between=0.1, seed=0)
    assert found != change(old, new, resamples=200_000, between=0.1, seed=1)


def test_change_says_the_same_of_the_same_samples_every_time() -> None:
    """Resamples are drawn from the seed alone."""
    old, new = ([np.random.default_rng(seed).standard_normal(40)] for seed in (1, 2))
    assert change(old, new, 100) == change(old, new, 100)
