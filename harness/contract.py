"""Whether a backend keeps to the contract of `backends/base.py`: the first part of `lockstep verify`.

It runs in the backend's own worker, in its own environment. The checks share a few builds of one small network and have
orders of three lengths, since a framework that compiles does so for every build, shape and length. Whether the network
is the right one is not asked here: that is the oracle's to say, see `equivalence.py`.
"""

import ctypes
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from inspect import getfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.backends.base import Backend, Dtype, FloatArray, IntArray, Problem, Split, Weights
from lockstep_bench.harness.equivalence import relative
from lockstep_bench.harness.problem import digest, epoch_order, initial_weights

HIDDEN = 32
"""Hidden units: not as many as inputs, so that a transposed kernel has another shape."""
TRAIN_IMAGES = 90
PROBABILITIES: Final = 1e-5
"""Absolute tolerance of probabilities and of their sums: float32 is within 1e-6, half precision is 1e-3 off."""
PRINTED_CHARACTERS = 200
"""How much of what was printed is quoted."""


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


class Finding(NamedTuple):
    """A check by its name, and how it failed; none where it passed."""

    check: str
    failure: str | None


class Broken(Exception):  # noqa: N818 - a finding, not an error of the harness
    """A check failed: what was expected, what came, and what that usually comes from."""

    def __init__(self, expected: str, came: str, causes: str) -> None:
        super().__init__(f"expected {expected}; came {came}; usual causes: {causes}")


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


def prints_nothing(subject: Subject) -> None:
    """`train`, `predict`, `weights` and `synchronize` are silent, also below Python, and warn of nothing."""
    _ = subject.whole
    for method, text in subject.printed.items():
        causes = "a progress bar (`verbose=0`), a warning of the framework, logging (see `environment`)"
        raise Broken(f"`{method}` to print nothing", repr(text[:PRINTED_CHARACTERS]), causes)


def weights_have_their_shapes_and_dtype(subject: Subject) -> None:
    """`weights()` returns `Weights` of four NumPy arrays, as they were given."""
    expected, came = (f"{type(w).__name__} of {_described(w)}" for w in (subject.given(), subject.untrained.weights))
    if came != expected:
        causes = (
            "a kernel kept as (out, in), as PyTorch keeps it; a framework that computes in another dtype by default"
        )
        raise Broken(expected, came, causes)


def starts_from_exactly_the_given_weights(subject: Subject) -> None:
    """Every bit of them, before any step."""
    _expect_given(subject, subject.whole.weights[0])


def copies_the_given_weights(subject: Subject) -> None:
    """Training leaves the given arrays alone, and writing into them afterwards changes nothing."""
    given = subject.given()
    subject.build(given)
    subject.train(subject.batches[0])
    causes = "arrays kept or shared (`torch.from_numpy`, `jnp.asarray`) where they must be copied in `build`"
    if not _same(given, subject.given()):
        raise Broken("`train` to leave the arrays given to `build` as they were", "other values in them", causes)
    before = copies(subject.weights())
    _overwrite(given)
    if not _same(subject.weights(), before):
        raise Broken("`weights()` to stay as they are", "others, once the given arrays were written into", causes)


def hands_out_copies_of_its_weights(subject: Subject) -> None:
    """They stay as they were while training goes on, and writing into them changes nothing."""
    subject.build()
    subject.train(subject.batches[0])
    taken = subject.weights()
    before = copies(taken)
    causes = "views of the parameters in `weights()` where `np.array(...)` makes copies"
    subject.train(subject.batches[1])
    if not _same(taken, before):
        raise Broken("weights taken from `weights()` to stay as they were", "others after a step", causes)
    before, taken = copies(subject.weights()), subject.weights()
    if not all(array.flags.writeable for array in taken):
        raise Broken("arrays of the caller's own from `weights()`", "read-only ones", causes)
    _overwrite(taken)
    if not _same(subject.weights(), before):
        raise Broken("`weights()` to stay as they are", "others, once those taken were written into", causes)


def builds_afresh(subject: Subject) -> None:
    """A second `build` forgets weights, moments and step of the first."""
    first = subject.whole
    again = subject.trained([subject.order, subject.batches[-1]])
    _expect_given(subject, again.weights[0])
    causes = "Adam's moments or step count kept from before; a model or optimizer not made anew in `build`"
    _expect_weights(subject, again.end, first.end, "those of the same training after the first `build`", causes)


def trains_batch_by_batch_as_in_one_call(subject: Subject) -> None:
    """An order cut between batches ends in the same weights, a short last batch of one image included."""
    causes = (
        "Adam's moments or step count lost between calls, a short last batch dropped or padded, batches that are not "
        "those of the order, one after another"
    )
    _expect_weights(
        subject, subject.in_parts.end, subject.whole.weights[1], "those of training the same images in one call", causes
    )


def trains_a_batch_of_one_image(subject: Subject) -> None:
    """It takes a step, and its loss is that image's."""
    before, after = subject.in_parts.weights[-2:]
    if _same(before, after):
        causes = (
            "batches shorter than the batch size dropped (`drop_last`, `drop_remainder`, `len(order) // batch_size`)"
        )
        raise Broken("a step on an order of one image", "the weights of before", causes)


def loss_is_a_float(subject: Subject) -> None:
    """Python's own: nothing that is still being computed, or that holds on to the device."""
    loss = subject.whole.losses[0]
    if type(loss) is not float:
        causes = "a tensor, or NumPy's scalar: return `float(loss)`"
        raise Broken("a Python float from `train`", f"{type(loss).__module__}.{type(loss).__qualname__}", causes)


def loss_is_that_before_the_step(subject: Subject) -> None:
    """The mean cross-entropy of what `predict` says of the batch before its step, not after."""
    tolerance = subject.tolerance.losses
    losses, _ = subject.interrupted
    for images, loss, before, after in losses:
        if _near(loss, before, tolerance):
            continue
        causes = "a sum where the mean over the images belongs, a moving average, a penalty or label smoothing added"
        if _near(loss, after, tolerance):
            causes = "a loss computed after the step"
        raise Broken(f"{before:.8g} as the loss of {images} images, by `predict` before", f"{loss:.8g}", causes)


def loss_is_the_mean_over_the_images(subject: Subject) -> None:
    """Of an order with a short batch, every image counts the same."""
    parts = subject.in_parts.losses
    mean = sum(loss * len(batch) for loss, batch in zip(parts, subject.batches, strict=True)) / len(subject.order)
    loss = subject.whole.losses[0]
    if not _near(loss, mean, subject.tolerance.losses):
        causes = (
            "the mean of the batches' means, in which a short batch's images count more; the last batch's loss alone"
        )
        raise Broken(f"{mean:.8g} as the mean loss of {len(subject.order)} images", f"{loss:.8g}", causes)


def predicts_probabilities(subject: Subject) -> None:
    """One row per image, floating, none below 0, that adds up to 1."""
    found, shape = subject.untrained.together, (len(subject.images), subject.problem.classes)
    if not (isinstance(found, np.ndarray) and np.issubdtype(found.dtype, np.floating) and found.shape == shape):
        causes = "a tensor not made an array, the digits in place of the probabilities, a transposed result"
        raise Broken(f"a floating NumPy array {shape}", _described([found]), causes)
    sums = found.sum(axis=1, dtype=np.float64)
    furthest = sums[np.abs(sums - 1).argmax()]
    if not (found.min() >= 0 and abs(furthest - 1) <= PROBABILITIES):
        causes = "logits or logarithms, a softmax missing in `predict`; half precision"
        came = f"one of sum {furthest:.7g}, and {found.min():.3g} as the least of all"
        raise Broken("rows of probabilities that add up to 1", came, causes)


def predicts_an_image_alone_as_among_others(subject: Subject) -> None:
    """What else is predicted makes no difference."""
    among, alone = subject.untrained.together[:1], subject.untrained.alone
    apart = np.abs(among - alone).max() if among.shape == alone.shape else np.inf
    if not apart <= PROBABILITIES:
        causes = "a softmax along the wrong axis, something computed over the batch, padding that is not cut off again"
        raise Broken("the same of an image by itself as among others", f"probabilities {apart:.1e} apart", causes)


def predicting_trains_nothing(subject: Subject) -> None:
    """Predictions between the batches leave weights, moments and step alone."""
    _, end = subject.interrupted
    causes = "state that `predict` shares with `train`: a step count, gradients that add up, a training mode"
    _expect_weights(subject, end, subject.in_parts.end, "those of training without predictions in between", causes)


def takes_read_only_arrays(subject: Subject) -> None:
    """Images, labels, order and weights may all be read-only, and stay what they are."""
    given = subject.given()
    for array in given:
        array.flags.writeable = False
    arrays: list[NDArray[Any]] = [*subject.split, subject.images, subject.order, *given]
    before = digest(arrays)
    subject.build(given)
    subject.train(subject.order)
    subject.predict(subject.images)
    if digest(arrays) != before:
        raise Broken("read-only arrays to be left alone", "others", "writing into shared memory, past NumPy's flags")


CHECKS: Final[tuple[Callable[[Subject], None], ...]] = (
    prints_nothing,  # is about the first build
    weights_have_their_shapes_and_dtype,
    starts_from_exactly_the_given_weights,
    copies_the_given_weights,
    hands_out_copies_of_its_weights,
    builds_afresh,
    trains_batch_by_batch_as_in_one_call,
    trains_a_batch_of_one_image,
    loss_is_a_float,
    loss_is_that_before_the_step,
    loss_is_the_mean_over_the_images,
    predicts_probabilities,
    predicts_an_image_alone_as_among_others,
    predicting_trains_nothing,
    takes_read_only_arrays,
)


def check_contract(
    backend: Backend, problem: Problem, train: Split, test: Split, device: str, threads: int
) -> list[Finding]:
    """Make every check; one that raises has failed, and the others are made all the same.

    Args:
        backend: not yet built.
        problem: the network; its hidden layer is made small.
        train: training images and labels.
        test: other images and labels.
        device: where to train.
        threads: how many CPU threads to use.
    """
    subject = Subject(backend, replace(problem, hidden=HIDDEN), train, test, device, threads)
    return [Finding(check.__name__.replace("_", " "), _failure(check, subject)) for check in CHECKS]


def _failure(check: Callable[[Subject], None], subject: Subject) -> str | None:
    """How a check failed; none if it passed."""
    try:
        check(subject)
    except Broken as broken:
        return str(broken)
    except Exception as error:  # whatever an adapter or its framework raises
        causes = (
            "; usual causes: writing into the harness's arrays, which are to be copied"
            if "read-only" in str(error)
            else ""
        )
        return f"raised {type(error).__name__}: {error}{_place(error, getfile(type(subject.backend)))}{causes}"
    return None


def _place(error: Exception, file: str) -> str:
    """Where in the adapter's file an exception came up; nothing if it did not."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" (in {lines[-1].name}, line {lines[-1].lineno} of {Path(file).name})" if lines else ""


def copies(weights: Iterable[FloatArray]) -> Weights:
    """Arrays of one's own, with the same values."""
    return Weights(*(np.array(array) for array in weights))


def _overwrite(weights: Weights) -> None:
    for array in weights:
        array[...] = 7


def _same(found: Weights, expected: Weights) -> bool:
    return all(np.array_equal(array, other) for array, other in zip(found, expected, strict=True))


def _near(found: float, expected: float, tolerance: float) -> bool:
    return abs(float(found) / expected - 1) <= tolerance


def _described(arrays: Iterable[Any]) -> str:
    """Shapes and dtypes, or types where there are no arrays."""
    return ", ".join(
        f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__ for array in arrays
    )


def _expect_given(subject: Subject, found: Weights) -> None:
    """Weights right after `build` are those given to it."""
    for name, array, given in zip(Weights._fields, found, subject.given(), strict=True):
        if not np.array_equal(array, given):
            causes = "the framework's own initial weights, a transposed kernel, weights kept from before, another dtype"
            apart = f", up to {np.abs(array - given).max():.1e} apart" if array.shape == given.shape else ""
            raise Broken(f"after `build` exactly the given {name.replace('_', ' ')}", f"another{apart}", causes)


def _expect_weights(subject: Subject, found: Weights, expected: Weights, those: str, causes: str) -> None:
    """Weights as far from others as the tolerance allows, relative to the way that these went, in the L2 norm."""
    apart = relative(found.flat(), expected.flat(), subject.given().flat())
    if not apart <= subject.tolerance.weights:
        raise Broken(f"weights that are {those}", f"others, {apart:.1e} of the way apart", causes)


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
