"""Loss and error of predicted probabilities: the harness's, so that they mean the same for every backend."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.problem import FloatArray

SUM_TOLERANCE = 1e-3
"""How far from 1 an image's probabilities may add up to: float32 sums are within 1e-6, float16 ones within 1e-3."""


class DivergedError(ArithmeticError):
    """A loss or a probability is not a finite number."""


class Score(NamedTuple):
    """Mean cross-entropy in nats, wrong predictions in percent, and the predicted digits, uint8 (n,)."""

    loss: float
    error_percent: float
    digits: NDArray[np.uint8]


def score(probabilities: FloatArray, labels: NDArray[np.uint8], classes: int) -> Score:
    """Score class probabilities (n, classes) against labels (n,).

    A probability of 0 for the true class counts as the smallest normal float32, so the loss stays finite.

    Raises:
        DivergedError: a probability is not finite.
        ValueError: they are not probabilities of that many images and classes.
    """
    if probabilities.shape != (len(labels), classes):
        raise ValueError(
            f"predict returned an array of shape {probabilities.shape} for {len(labels)} images of {classes} classes"
        )
    if not np.isfinite(probabilities).all():
        raise DivergedError("predicted probabilities are not finite")
    if probabilities.min() < 0:
        raise ValueError(f"predict must return probabilities, and returned {probabilities.min():.3g}")
    furthest = np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1).max()
    if furthest > SUM_TOLERANCE:
        raise ValueError(f"predict must return probabilities: a row adds up to 1 only within {furthest:.3g}")
    digits = probabilities.argmax(axis=1).astype(np.uint8)
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss = -np.log(np.maximum(of_truth, np.finfo(np.float32).tiny)).mean()
    return Score(float(loss), 100 * float(np.mean(digits != labels)), digits)
