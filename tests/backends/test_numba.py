"""What the Numba backends have of their own: an exponential, and a network cut into parts."""

from dataclasses import replace

import numpy as np
import pytest

from lockstep_bench.backends.base import Problem, Split
from lockstep_bench.backends.numba import Numba, NumbaSparse, _exponential
from lockstep_bench.backends.numpy import NumPy
from lockstep_bench.harness.problem import Dtype, initial_weights

pytestmark = pytest.mark.frameworks
PROBLEM = Problem(inputs=6, hidden=20, classes=3, batch_size=4)
ORDER = np.arange(11)


@pytest.mark.parametrize(
    ("backend", "dtype", "threads"),
    [(Numba(), "float32", 2), (Numba(), "float64", 5), (NumbaSparse(), "float32", 5)],
    ids=["numba in 2", "numba in 5", "numba-sparse in 5"],
)
def test_parts_are_one_network(backend: Numba, dtype: Dtype, threads: int) -> None:
    """However many there are, most of them nothing but padding."""
    problem = replace(PROBLEM, dtype=dtype)
    random = np.random.default_rng(0)
    images = random.uniform(0, 1, (len(ORDER), problem.inputs)) * (random.uniform(size=problem.inputs) < 0.7)
    train = Split(images.astype(np.float32), (ORDER % problem.classes).astype(np.uint8))
    weights = initial_weights(problem, seed=0)
    reference = NumPy()
    reference.build(problem, weights, train, device="cpu", threads=1)
    backend.build(problem, weights, train, device="cpu", threads=threads)
    close = 1e-12 if dtype == "float64" else 2e-6
    for _ in range(3):
        assert backend.train(ORDER) == pytest.approx(reference.train(ORDER), rel=close)
    for found, expected in zip(backend.weights(), reference.weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=close)


@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 3e-7), (np.float64, 1e-15)])
def test_the_exponential_is_as_exact_as_its_type(dtype: type[np.floating], close: float) -> None:
    """From 0 down to where float32 has no normal number left; below there it is 0, or next to it."""
    x = np.linspace(-87, 0, 10_001).astype(dtype)
    found = x.copy()
    _exponential(len(x), dtype)(found, np.empty_like(x))
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=close)
    below = np.full(len(x), -1000, dtype)
    _exponential(len(x), dtype)(below, np.empty_like(x))
    assert (abs(below) < 2.0**-126).all()
