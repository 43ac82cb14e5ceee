"""The floor must be what its docstrings derive, and its rates measured."""

import numpy as np
import pytest

from lockstep_bench.harness.machine.floor import Floor, Rates, bytes_per_step, floor_seconds, flops_per_step, parameters
from lockstep_bench.harness.problem import Problem, initial_weights


def test_parameters_are_those_of_the_weights() -> None:
    """All four arrays."""
    assert parameters(Problem()) == len(initial_weights(Problem(), 0).flat()) == 623_290


def test_counts_of_a_small_network_by_hand() -> None:
    """2 images, 3 inputs, 4 hidden units, 5 classes.

    Products take 2 * 2 * 3 * 4 = 48 operations twice and 2 * 2 * 4 * 5 = 80 three times; 3 * 4 + 4 + 4 * 5 + 5 = 41
    parameters move 6 times and 6 pixels once, 4 bytes each.
    """
    small = Problem(batch_size=2, inputs=3, hidden=4, classes=5)
    assert flops_per_step(small) == 2 * 48 + 3 * 80
    assert bytes_per_step(small) == 4 * (6 * 41 + 6)


@pytest.mark.parametrize(("rates", "seconds"), [((1e9, 1e12), 336e-9), ((1e12, 1e9), 1008e-9)])
def test_the_floor_is_the_larger_of_two_times(rates: tuple[float, float], seconds: float) -> None:
    """Bound by arithmetic, and bound by memory."""
    small = Problem(batch_size=2, inputs=3, hidden=4, classes=5)
    assert floor_seconds(small, Rates(*rates)) == pytest.approx(seconds)


def test_rates_are_measured_on_all_of_the_arrays() -> None:
    """Every part of every array is passed over (an odd count of passes would change its sign), at a rate a CPU has."""
    floor = Floor(Problem(), threads=2)
    rates = floor.measure()
    assert 1e8 < rates.flops_per_second < 1e14
    assert 1e8 < rates.bytes_per_second < 1e13
    np.testing.assert_allclose(floor.product, floor.left @ floor.right, rtol=1e-5, atol=1e-3)
    assert [part.shape for part in floor.parts] == [(4, 311_645)] * 2
    assert floor.bytes == 2 * 8 * 4 * 4 * 623_290
