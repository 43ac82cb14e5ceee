"""Whether a backend keeps to the contract of `backends/base.py`: the first part of `lockstep verify`.

It runs in the backend's own worker, in its own environment. The checks share a few builds of one small network and have
orders of three lengths, since a framework that compiles does so for every build, shape and length. Whether the network
is the right one is not asked here: that is the oracle's to say, see `equivalence.py`.
"""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from inspect import getfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.backends.base import Backend, Problem, Split, Weights
from lockstep_bench.harness.checks.contract_subject import Subject, copies
from lockstep_bench.harness.checks.equivalence import relative
from lockstep_bench.harness.problem import digest

HIDDEN = 32
"""Hidden units: not as many as inputs, so that a transposed kernel has another shape."""
PROBABILITIES: Final = 1e-5
"""Absolute tolerance of probabilities and of their sums: float32 is within 1e-6, half precision is 1e-3 off."""
PRINTED_CHARACTERS = 200
"""How much of what was printed is quoted."""


class Finding(NamedTuple):
    """A check by its name, and how it failed; none where it passed."""

    check: str
    failure: str | None


class Broken(Exception):  # noqa: N818 - a finding, not an error of the harness
    """A check failed: what was expected, what came, and what that usually comes from."""

    def __init__(self, expected: str, came: str, causes: str) -> None:
        super().__init__(f"expected {expected}; came {came}; usual causes: {causes}")


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
