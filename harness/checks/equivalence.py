"""Whether two networks are the same: the gate of a run, and the checks of `lockstep verify`."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.problem import Dtype, FloatArray, Weights

GATE_FRACTION: Final = 0.0005
"""Of the test images, how many may be predicted differently from the reference after an epoch.

Honest reorderings of float32 sums give none at first, and 0 to 5 of 10,000 after 20 epochs (results/standard*);
skipping one gradient in 100 gives 37 and more.
"""
GATE_WEIGHTS: Final = 0.1
"""After an epoch, how far the weights may be from the reference's, relative to how far those moved.

Honest backends are up to 2.3e-3 apart after 20 epochs (results/standard*, results/full), by then 1.4 to 18 times as
far as after 10.
"""
PRECISION: Final = 3e-4
"""Where every failure is smaller than this it is rounding: a TF32 product is 6e-5 off, a wrong recipe 1e-3 and more."""


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


CUDA_TOLERANCE: Final = Tolerance(probabilities=4e-7, losses=4e-6, weights=4e-5)
"""On a GPU, in float32: sums are made in another order there, of more parts. TF32 would still be seen."""


def tolerance(dtype: Dtype, device: str) -> Tolerance:
    """What is allowed in this arithmetic on this device."""
    return CUDA_TOLERANCE if (device, dtype) == ("cuda", "float32") else TOLERANCES[dtype]


def allowed_disagreements(test_images: int) -> int:
    """How many predictions may differ before a backend is not the same network any more: 0.05 %, and at least 1."""
    return max(1, int(test_images * GATE_FRACTION))


def disagreements(digits: NDArray[np.uint8], reference: NDArray[np.uint8]) -> int:
    """How many of the predicted digits, uint8 (n,), are not the reference's."""
    return int(np.count_nonzero(digits != reference))


def gate(differ: int, apart: float, test_images: int, reference: str) -> str:
    """Why a network is not the reference's after an epoch; empty if it is.

    Args:
        differ: how many of the test images it predicts differently.
        apart: how far its weights are from the reference's, relative to how far those moved.
        test_images: how many there are.
        reference: what the reference is called.
    """
    allowed = allowed_disagreements(test_images)
    if differ > allowed:
        return (
            f"it predicted {differ} of {test_images:,} test images differently from {reference}; {allowed} are allowed"
        )
    if not apart <= GATE_WEIGHTS:
        return f"its weights were {apart:.2g} of {reference}'s way from {reference}'s; {GATE_WEIGHTS:g} is allowed"
    return ""


CAUSES: Final = {
    "precision": "lower precision: TF32, bfloat16 or float16 products, float32 where float64 was asked for",
    "first probabilities": (
        "before any step: a transposed kernel, biases not as given, a softmax missing or applied twice in `predict`"
    ),
    "first loss": (
        "in the loss: probabilities taken for logits (softmax applied twice), label smoothing, an L2 penalty in it, "
        "a sum over the batch for its mean, the loss after the step"
    ),
    "steps": (
        "in the steps: Adam's epsilon, its value or where it is added, its bias correction; an L2 penalty or weight "
        "decay; label smoothing; a sum over the batch for its mean; a shuffled order, a short batch dropped, a step "
        "skipped; a wrong derivative"
    ),
}
"""What a check that failed usually comes from: of the first that fails, in the order in which things happen."""


class State(NamedTuple):
    """What of a network is compared.

    Probabilities (n, classes) before the first step, the losses that `train` returned, of the first batch by itself and
    then of the others, and the weights at the end.
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
    losses = state.losses / oracle.losses - 1
    checks = [
        Check("first probabilities", _largest(state.probabilities - oracle.probabilities), tolerance.probabilities),
        Check("first loss", _largest(losses[:1]), tolerance.losses),
        Check("losses", _largest(losses), tolerance.losses),
        Check("all weights", relative(state.weights.flat(), oracle.weights.flat(), start.flat()), tolerance.weights),
    ]
    for name, *arrays in zip(Weights._fields, state.weights, oracle.weights, start, strict=True):
        checks.append(Check(name.replace("_", " "), relative(*arrays), tolerance.weights))
    return checks


def failure(check: Check, checks: Sequence[Check]) -> str:
    """What was expected of one of these checks, what came, and what that usually comes from; nothing if it passed."""
    if check.passed:
        return ""
    came = f"expected at most {check.tolerance:.0e} from the oracle; came {check.difference:.1e}"
    first, *_ = failed = [other for other in checks if not other.passed]
    if check is not first:  # the checks are in the order in which things happen
        return f"{came}; usual causes: those of {first.name}"
    precise = max(other.difference for other in failed) < PRECISION
    return (
        f"{came}; usual causes: {CAUSES['precision' if precise else check.name if check.name in CAUSES else 'steps']}"
    )


def _largest(difference: FloatArray) -> float:
    return float(np.abs(difference).max())


def relative(found: FloatArray, oracle: FloatArray, start: FloatArray) -> float:
    """How far from each other parameters are, relative to the way from `start`, in the L2 norm; any shape, the same."""
    if found.shape != oracle.shape:
        return float("inf")
    exact = oracle.astype(np.float64)
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact - start))
