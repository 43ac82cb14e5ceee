"""What single predictions and calls cost: how often they are made, and what is said where time was short."""

from collections.abc import Callable

import numpy as np
import pytest

from lockstep_bench.harness.worker import extras
from lockstep_bench.harness.worker.extras import ENOUGH, MOST, WARM_UP, call_cost, interval_width, latency

Take = Callable[[int], None]


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], Take]:
    """Make a call that takes as many seconds as a function of its number says, on a clock that nothing else moves."""
    clock = [0.0]
    monkeypatch.setattr(extras, "perf_counter", lambda: clock[0])

    def make(seconds: Callable[[int], float]) -> Take:
        def take(number: int) -> None:
            clock[0] += seconds(number)

        return take

    return make


Takes = Callable[[Callable[[int], float]], Take]


def test_slow_predictions_end_as_soon_as_their_interval_is_narrow(takes: Takes) -> None:
    """Of predictions of 50 ms no more than 20 are counted."""
    timings = latency(takes(lambda _: 0.05), limit=60)
    assert timings.seconds == pytest.approx([0.05] * ENOUGH)
    assert timings.reason is None


def test_what_compiles_is_not_counted(takes: Takes) -> None:
    """The first calls take a second, the others 50 ms."""
    timings = latency(takes(lambda number: 1.0 if number < WARM_UP else 0.05), limit=60)
    assert max(timings.seconds) == pytest.approx(0.05)


def test_fast_predictions_are_all_made(takes: Takes) -> None:
    """200 of them, for a 99th percentile, which together take no time that anybody notices."""
    assert len(latency(takes(lambda _: 1e-4), limit=60).seconds) == MOST


def test_noisy_predictions_go_on(takes: Takes) -> None:
    """Where every other call takes three times as long, the interval stays wide, and all of them are made."""
    timings = latency(takes(lambda number: 0.05 if number % 2 else 0.15), limit=60)
    assert (len(timings.seconds), timings.reason) == (MOST, None)


def test_the_limit_ends_predictions_and_says_so(takes: Takes) -> None:
    """What was timed until then is kept, where it is enough for a median."""
    timings = latency(takes(lambda _: 0.05), limit=0.32)
    assert timings.seconds == pytest.approx([0.05] * 5)
    assert timings.reason == "7 calls took the 0.32 s that there were for it"


def test_too_few_predictions_are_no_measurement(takes: Takes) -> None:
    """The value is empty, and the reason says why."""
    timings = latency(takes(lambda _: 1.0), limit=0.5)
    assert timings.seconds == []
    assert timings.reason == "1 call took the 0.5 s that there were for it"


@pytest.mark.parametrize("cost", [0.0, 0.03])
def test_the_cost_of_a_call_is_what_its_steps_do_not_take(takes: Takes, cost: float) -> None:
    """From slices of 100 steps of 2 ms, and calls of one step."""
    call = call_cost(takes(lambda _: cost + 0.002), limit=60, slice_steps=100, slice_seconds=cost + 0.2)
    assert call.seconds == pytest.approx(cost, abs=1e-12)
    assert call.reason is None


def test_no_more_calls_than_the_slices_need(takes: Takes) -> None:
    """Calls vary by 2 ms, which is nothing to a slice of two seconds."""
    numbers: list[int] = []

    def seconds(number: int) -> float:
        numbers.append(number)
        return 0.002 + 0.002 * (number % 2)

    call_cost(takes(seconds), limit=60, slice_steps=500, slice_seconds=2.0)
    assert len(numbers) == WARM_UP + extras.ENOUGH_CALLS


def test_a_call_that_takes_too_long_has_no_cost(takes: Takes) -> None:
    """The value is empty, and the reason says why."""
    call = call_cost(takes(lambda _: 1.0), limit=0.5, slice_steps=100, slice_seconds=1.0)
    assert (call.seconds, call.reason) == (None, "1 call took the 0.5 s that there were for it")


@pytest.mark.parametrize("count", [6, 20, 200])
def test_the_interval_of_a_median_covers_it(count: int) -> None:
    """Of 2,000 samples of a skewed distribution, 93 % at least have the true median within their interval."""
    random = np.random.default_rng(0)
    samples = random.exponential(size=(2000, count))
    covered = [covers(sample.tolist(), float(np.log(2))) for sample in samples]
    assert 0.93 <= np.mean(covered) <= 0.99


def covers(sample: list[float], median: float) -> bool:
    """Whether the median is in the interval that `interval_width` measures."""
    low, high = extras.interval(sample)
    assert interval_width(sample) == high - low
    return low <= median <= high
