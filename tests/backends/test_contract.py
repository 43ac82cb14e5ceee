"""What every backend that the suite comes with keeps to, whatever framework it is made of."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lockstep_bench.backends import registered
from lockstep_bench.backends.base import Backend, Dtype, FloatArray, IntArray, NDArray, Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy
from lockstep_bench.harness.data import Dataset
from lockstep_bench.harness.problem import digest, epoch_order, initial_weights

PROBLEM = Problem(hidden=32)
SIZE = PROBLEM.batch_size
DTYPES: tuple[Dtype, ...] = ("float32", "float64")
# Of weights that move by 1e-3 per step: three roundings of float32, and far below one forgotten or extra image.
FLOAT32_ATOL, FLOAT64_ATOL = 1e-6, 1e-11


@pytest.fixture(params=registered())
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Each backend that the suite comes with, in the environment that it wants, not yet built."""
    found = registered()[request.param]
    for name, value in found.environment(threads=1, device="cpu", dtype="float32").items():
        monkeypatch.setenv(name, value)
    return found()


@pytest.fixture(scope="module")
def train(digits: Dataset) -> Split:
    """The first 90 training images of the embedded digits."""
    return digits.train.first(90)


@pytest.fixture(scope="module")
def images(digits: Dataset) -> NDArray[np.float32]:
    """Twenty images that nobody trains on."""
    return digits.test.images[:20]


class Textbook(NumPy):
    """The reference's gradients, and an Adam as the paper has it, with epsilon in either place and the L2 penalty."""

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """As the reference."""
        super().build(problem, weights, train, device, threads)
        self.moments = [(np.zeros_like(array), np.zeros_like(array)) for array in weights]

    def _gradients(self, x: FloatArray, targets: FloatArray) -> float:
        loss = super()._gradients(x, targets)
        self.gradient.hidden_kernel[:] += self.problem.l2 * self.parameter.hidden_kernel / len(x)
        self.gradient.output_kernel[:] += self.problem.l2 * self.parameter.output_kernel / len(x)
        return loss

    def _adam(self) -> None:
        problem = self.problem
        self.step += 1
        first, second = 1 - problem.beta_1**self.step, 1 - problem.beta_2**self.step
        corrected = problem.epsilon_placement == "corrected"
        for w, g, (m, v) in zip(self.parameter, self.gradient, self.moments, strict=True):
            m[:] = problem.beta_1 * m + (1 - problem.beta_1) * g
            v[:] = problem.beta_2 * v + (1 - problem.beta_2) * g**2
            if corrected:
                w[:] -= problem.learning_rate * (m / first) / (np.sqrt(v / second) + problem.epsilon)
            else:
                w[:] -= problem.learning_rate * np.sqrt(second) / first * m / (np.sqrt(v) + problem.epsilon)


def build(backend: Backend, train: Split, problem: Problem = PROBLEM) -> Weights:
    """Build a backend, and return the weights that it was given."""
    weights = initial_weights(problem, seed=0)
    backend.build(problem, weights, train, device="cpu", threads=1)
    return weights


def order_of(images: int) -> IntArray:
    """Some of the 90 training images."""
    return epoch_order(seed=0, epoch=1, images=90)[:images]


def cross_entropy(probabilities: FloatArray, labels: NDArray[np.uint8]) -> float:
    """Minus the logarithm of the true class's probability, its mean."""
    return float(-np.log(probabilities[np.arange(len(labels)), labels].astype(np.float64)).mean())


def assert_close(found: Weights, expected: Weights, atol: float = FLOAT32_ATOL) -> None:
    """Every array is within `atol`."""
    for name, array, other in zip(Weights._fields, found, expected, strict=True):
        np.testing.assert_allclose(array, other, rtol=0, atol=atol, err_msg=name)


def test_backend_says_what_it_is(backend: Backend) -> None:
    """All that the harness reads of a class is there."""
    assert backend.style in ("idiomatic", "tuned")
    assert "cpu" in backend.devices
    assert "float32" in backend.dtypes
    assert backend.packages
    assert backend.missing() == []


def test_predicts_before_any_training(backend: Backend, train: Split, images: NDArray[np.float32]) -> None:
    """Class probabilities of the initial weights: the reference's, ten per image, that sum to 1; of one image too."""
    build(backend, train)
    probabilities = backend.predict(images)
    assert probabilities.shape == (20, 10)
    assert np.issubdtype(probabilities.dtype, np.floating)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-6)
    build(reference := NumPy(), train)
    np.testing.assert_allclose(probabilities, reference.predict(images), rtol=0, atol=1e-6)
    np.testing.assert_allclose(backend.predict(images[:1]), probabilities[:1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_starts_from_exactly_the_weights_it_is_given(backend: Backend, train: Split, dtype: Dtype) -> None:
    """`weights()` after `build` gives them back bit by bit, in the Problem's dtype."""
    given = build(backend, train, replace(PROBLEM, dtype=dtype))
    found = backend.weights()
    assert isinstance(found, Weights)
    assert [array.dtype for array in found] == [np.dtype(dtype)] * 4
    assert [array.shape for array in found] == [(784, 32), (32,), (32, 10), (10,)]
    assert digest(found) == digest(given)


def test_given_weights_are_copied_not_kept(backend: Backend, train: Split) -> None:
    """Training changes nothing in the arrays that the harness gave, nor do they change the backend later."""
    given = build(backend, train)
    backend.train(order_of(30))
    assert digest(given) == digest(initial_weights(PROBLEM, seed=0))
    before = digest(backend.weights())
    for array in given:
        array[:] = 7
    assert digest(backend.weights()) == before


def test_weights_are_copies(backend: Backend, train: Split, images: NDArray[np.float32]) -> None:
    """They stay as they were while training goes on, and writing into them changes nothing."""
    build(backend, train)
    backend.train(order_of(30))
    taken, predicted = backend.weights(), backend.predict(images)
    hashed = digest(taken)
    for array in backend.weights():
        array[:] = 7
    assert digest(backend.weights()) == hashed
    np.testing.assert_array_equal(backend.predict(images), predicted)
    backend.train(order_of(30))
    assert digest(taken) == hashed
    assert digest(backend.weights()) != hashed


def test_build_starts_afresh(backend: Backend, train: Split) -> None:
    """A second `build` forgets weights, moments and step of the first."""
    build(backend, train)
    first = backend.train(order_of(60))
    trained = backend.weights()
    given = build(backend, train)
    assert digest(backend.weights()) == digest(given)
    assert backend.train(order_of(60)) == pytest.approx(first, rel=1e-6)
    assert_close(backend.weights(), trained)


def test_cut_between_batches_changes_nothing(backend: Backend, train: Split) -> None:
    """An order in two parts trains as in one, short last batch included; its loss is the mean over all images."""
    build(backend, train)
    whole = backend.train(order_of(70))
    trained = backend.weights()
    build(backend, train)
    first, second = backend.train(order_of(70)[: 2 * SIZE]), backend.train(order_of(70)[2 * SIZE :])
    assert whole == pytest.approx((30 * first + 40 * second) / 70, rel=1e-6)
    assert_close(backend.weights(), trained)


@pytest.mark.parametrize("count", [1, SIZE + 4])
def test_batches_of_any_length_are_the_reference_s(backend: Backend, train: Split, count: int) -> None:
    """One image, or a full batch and a short one: in float64 loss and weights are the reference's.

    A full batch goes before, because after a single step Adam hardly tells a mean from a sum.
    """
    problem = replace(PROBLEM, dtype="float64")
    build(backend, train, problem)
    build(reference := NumPy(), train, problem)
    for order in (order_of(90)[-SIZE:], order_of(count)):
        assert backend.train(order) == pytest.approx(reference.train(order), rel=1e-9)
    assert_close(backend.weights(), reference.weights(), FLOAT64_ATOL)


def test_native_defaults_are_honoured(backend: Backend, train: Split) -> None:
    """With its own epsilon, placement and L2 penalty it is the textbook's in float64; its loss is without the penalty.

    The reference, which has no defaults of its own, holds the textbook to account.
    """
    defaults = backend.native_defaults()
    problem = defaults.applied_to(replace(PROBLEM, dtype="float64"))
    weights = initial_weights(problem, 0, defaults.initializer)
    textbook = Textbook()
    for network in (backend, textbook):
        network.build(problem, weights, train, device="cpu", threads=1)
    for order in (order_of(90)[: 2 * SIZE], order_of(90)[: SIZE + 4]):
        assert backend.train(order) == pytest.approx(textbook.train(order), rel=1e-9)
    assert_close(backend.weights(), textbook.weights(), FLOAT64_ATOL)


def test_loss_is_that_of_the_images_before_the_step(backend: Backend, train: Split) -> None:
    """A Python float: the mean cross-entropy that `predict` gave before, not after."""
    build(backend, train)
    order = order_of(SIZE)
    before = cross_entropy(backend.predict(train.images[order]), train.labels[order])
    loss = backend.train(order)
    after = cross_entropy(backend.predict(train.images[order]), train.labels[order])
    assert type(loss) is float
    assert loss == pytest.approx(before, rel=1e-6)
    assert loss != pytest.approx(after, rel=1e-5)


def test_predicting_trains_nothing(backend: Backend, train: Split, images: NDArray[np.float32]) -> None:
    """Evaluations between slices leave weights and moments alone."""
    build(backend, train)
    backend.train(order_of(30))
    backend.train(order_of(30))
    undisturbed = backend.weights()
    build(backend, train)
    backend.train(order_of(30))
    backend.predict(images)
    backend.train(order_of(30))
    assert_close(backend.weights(), undisturbed)


def test_read_only_arrays_are_accepted_and_untouched(
    backend: Backend, train: Split, images: NDArray[np.float32]
) -> None:
    """Images, labels and order are the harness's, which all workers share."""
    weights = initial_weights(PROBLEM, seed=0)
    for array in weights:
        array.flags.writeable = False
    arrays: list[NDArray[Any]] = [train.images, train.labels, images, order_of(40), *weights]
    assert not any(array.flags.writeable for array in arrays)
    before = digest(arrays)
    backend.build(PROBLEM, weights, train, device="cpu", threads=1)
    backend.train(order_of(40))
    backend.predict(images)
    assert digest(arrays) == before


def test_prints_nothing(
    backend: Backend, train: Split, images: NDArray[np.float32], capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither to standard output nor to standard error, also below Python, and warns of nothing."""
    build(backend, train)
    capfd.readouterr()
    with warnings.catch_warnings(action="error"):
        backend.train(order_of(40))
        backend.predict(images)
        backend.synchronize()
        backend.weights()
    assert capfd.readouterr() == ("", "")
