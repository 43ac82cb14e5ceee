"""Whether two networks are the same: the gate of a run, and the checks of `lockstep verify`."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.problem import Dtype, FloatArray, Weights

GATE_FRACTION: Final = 0.0005
"""Of the test images, how many may be predicted differently from the reference after an epoch.

Honest reorderings of float32 sums give none; skipping one gradient in 100 gives 37 of 10,000 and more.
"""


class Tolerance(NamedTuple):
    """How far from the oracle a network may be.

    Probabilities absolutely, losses relatively, weights relative to the way that the oracle went.
    """

    probabilities: float
    losses: float
    weights: float


# Measured on MNIST and on digits, the largest of the four core backends: probabilities 2.6e-8, losses 7.5e-7, weights
# 7.4e-6 (Keras, which takes the powers of its betas in float32; the others 1.1e-6), and in float64 5.6e-17, 4.4e-16 and
# 2.4e-15. The nearest of tests/broken is a product rounded as TF32 rounds it: weights 5.4e-5.
TOLERANCES: Final[dict[Dtype, Tolerance]] = {
    "float32": Tolerance(probabilities=2e-7, losses=2e-6, weights=2e-5),
    "float64": Tolerance(probabilities=1e-12, losses=1e-9, weights=1e-9),
}


def allowed_disagreements(test_images: int) -> int:
    """How many predictions may differ before a backend is not the same network any more: 0.05 %, and at least 1."""
    return max(1, int(test_images * GATE_FRACTION))


def disagreements(digits: NDArray[np.uint8], reference: NDArray[np.uint8]) -> int:
    """How many of the predicted digits, uint8 (n,), are not the reference's."""
    return int(np.count_nonzero(digits != reference))


class State(NamedTuple):
    """What of a network is compared.

    Probabilities (n, classes) before the first step, the losses that `train` returned, and the weights at the end.
    """

    probabilities: FloatArray
    losses: FloatArray
    weights: Weights


class Check(NamedTuple):
    """One comparison with the oracle: how far apart, and how far they may be."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is a number within the tolerance."""
        return self.difference <= self.tolerance


def compare(state: State, oracle: State, start: Weights, tolerance: Tolerance) -> list[Check]:
    """Hold a network against the float64 oracle that started from the same weights, `start`.

    Weights are compared relative to how far the oracle moved: ||w - oracle|| / ||oracle - start|| in the L2 norm, over
    all parameters and for each array, so that neither large initial weights nor few steps can hide a difference.
    """
    checks = [
        Check("first probabilities", _largest(state.probabilities - oracle.probabilities), tolerance.probabilities),
        Check("losses", _largest(state.losses / oracle.losses - 1), tolerance.losses),
        Check("all weights", _relative(state.weights.flat(), oracle.weights.flat(), start.flat()), tolerance.weights),
    ]
    for name, *arrays in zip(Weights._fields, state.weights, oracle.weights, start, strict=True):
        checks.append(Check(name.replace("_", " "), _relative(*arrays), tolerance.weights))
    return checks


def _largest(difference: FloatArray) -> float:
    return float(np.abs(difference).max())


def _relative(found: FloatArray, oracle: FloatArray, start: FloatArray) -> float:
    if found.shape != oracle.shape:
        return float("inf")
    exact = oracle.astype(np.float64)
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact - start))
