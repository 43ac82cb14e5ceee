"""The backend whose contract is checked, and a few trainings of a small network, made once and shared by the checks."""

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.backends.base import Backend, Dtype, FloatArray, IntArray, Problem, Split, Weights
from lockstep_bench.harness.problem import epoch_order, initial_weights

TRAIN_IMAGES = 90


class Tolerance(NamedTuple):
    """How far apart losses may be, relatively, and weights, relative to the way that they went."""

    losses: float
    weights: float


# Measured on MNIST and on digits, the largest of the four core backends: losses 1.2e-7; weights 0, for it is the same
# arithmetic once more. tests/broken/contract has losses that are 1e-3 away, and weights that are 0.1 and more.
TOLERANCES: Final[dict[Dtype, Tolerance]] = {
    "float32": Tolerance(losses=1e-5, weights=1e-4),
    "float64": Tolerance(losses=1e-9, weights=1e-9),
}


class Untrained(NamedTuple):
    """What a backend says right after `build`: weights, probabilities of images, and of the first of them by itself."""

    weights: Weights
    together: FloatArray
    alone: FloatArray


class Loss(NamedTuple):
    """The loss that `train` returned of a batch, and the mean cross-entropies of `predict` before and after."""

    images: int
    returned: float
    before: float
    after: float


class Training(NamedTuple):
    """The losses of one or more calls of `train`, and the weights before the first and after each."""

    losses: list[float]
    weights: list[Weights]

    @property
    def end(self) -> Weights:
        """The weights after all of it."""
        return self.weights[-1]


class Subject:
    """The backend to check, with what it trains on.

    Args:
        backend: not yet built.
        problem: the network; a small one is made of it.
        train: training images and labels.
        test: other images and labels.
        device: where to train.
        threads: how many CPU threads to use.
    """

    def __init__(
        self, backend: Backend, problem: Problem, train: Split, test: Split, device: str, threads: int
    ) -> None:
        self.backend, self.problem, self.device, self.threads = backend, problem, device, threads
        self.tolerance = TOLERANCES[problem.dtype]
        self.split = train.first(TRAIN_IMAGES)
        size = problem.batch_size
        self.images = test.images[:size]
        self.order = epoch_order(seed=0, epoch=1, images=TRAIN_IMAGES)[: 2 * size + 1]
        self.batches = [self.order[:size], self.order[size : 2 * size], self.order[2 * size :]]
        self.builds = 0
        self.printed: dict[str, str] = {}

    def given(self) -> Weights:
        """The weights to start from, made anew."""
        return initial_weights(self.problem, seed=0)

    def build(self, given: Weights | None = None) -> None:
        """Have it start afresh."""
        self.builds += 1
        self.backend.build(self.problem, given or self.given(), self.split, self.device, self.threads)
        self.backend.synchronize()

    def train(self, order: IntArray) -> float:
        """Have it train, and wait for it."""
        with self._listening("train"):
            loss = self.backend.train(order)
        with self._listening("synchronize"):
            self.backend.synchronize()
        return loss

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """Have it predict."""
        with self._listening("predict"):
            return self.backend.predict(images)

    def weights(self) -> Weights:
        """Ask for its weights."""
        with self._listening("weights"):
            return self.backend.weights()

    def trained(self, orders: list[IntArray]) -> Training:
        """Build it and train these orders one after another."""
        self.build()
        losses, weights = [], [copies(self.weights())]
        for order in orders:
            losses.append(self.train(order))
            weights.append(copies(self.weights()))
        return Training(losses, weights)

    @cached_property
    def whole(self) -> Training:
        """The first build: two batches and a short one of a single image in one call, and this one again in another."""
        training = self.trained([self.order, self.batches[-1]])
        self.predict(self.images)
        return training

    @cached_property
    def in_parts(self) -> Training:
        """The same batches, each in a call of its own."""
        return self.trained(self.batches)

    @cached_property
    def untrained(self) -> Untrained:
        """It stands at step 0."""
        self.build()
        return Untrained(self.weights(), self.predict(self.images), self.predict(self.images[:1]))

    @cached_property
    def interrupted(self) -> tuple[list[Loss], Weights]:
        """The same batches with predictions before and after each; and the weights at the end."""
        self.build()
        losses = []
        for batch in self.batches:
            before, loss = self._cross_entropy(batch), self.train(batch)
            losses.append(Loss(len(batch), loss, before, self._cross_entropy(batch)))
        return losses, copies(self.weights())

    def _cross_entropy(self, batch: IntArray) -> float:
        """The mean over a batch of minus the logarithm of the true class's predicted probability."""
        probabilities = self.predict(self.split.images[batch])[np.arange(len(batch)), self.split.labels[batch]]
        return float(-np.log(probabilities.astype(np.float64)).mean())

    @contextmanager
    def _listening(self, method: str) -> Iterator[None]:
        """Note what is printed meanwhile, from Python or below it.

        Of the first build alone: a run has no other, and TensorFlow warns of being built often.
        """
        if self.builds > 1:
            yield
            return
        with tempfile.TemporaryFile() as file:
            with _redirected(file.fileno()):
                yield
            file.seek(0)
            if text := file.read().decode(errors="backslashreplace").strip():
                self.printed.setdefault(method, text)


def copies(weights: Iterable[FloatArray]) -> Weights:
    """Arrays of one's own, with the same values."""
    return Weights(*(np.array(array) for array in weights))


@contextmanager
def _redirected(file: int) -> Iterator[None]:
    """Standard output and error go into a file, also what C libraries write into them."""
    _flush()
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    for stream, _ in kept:
        os.dup2(file, stream)
    try:
        yield
    finally:
        _flush()
        for stream, copy in kept:
            os.dup2(copy, stream)
            os.close(copy)


def _flush() -> None:
    """Write out what Python and the C library hold back."""
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
