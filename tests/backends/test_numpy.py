"""The reference's mathematics, against finite differences, PyTorch's autograd, and formulas written out plainly."""

from dataclasses import replace

import numpy as np
import pytest

from lockstep_bench.backends.base import FloatArray, Problem, Split, Weights
from lockstep_bench.backends.numpy import CHUNK, NumPy, softmax
from lockstep_bench.harness.problem import digest, initial_weights

TINY = Problem(inputs=6, hidden=5, classes=3, batch_size=4, dtype="float64")
LONG = replace(TINY, inputs=370, hidden=370)  # 138,000 parameters: more than a chunk, and no multiple of it
IMAGES = 7
STEPS = 6
RANDOM_SEED = 20


def split(problem: Problem) -> Split:
    """Random images with labels of every class."""
    random = np.random.default_rng(RANDOM_SEED)
    images = random.uniform(0, 1, (IMAGES, problem.inputs)).astype(np.float32)
    return Split(images, (np.arange(IMAGES) % problem.classes).astype(np.uint8))


def built(problem: Problem) -> NumPy:
    """The reference, with biases other than zero too, so that none of them can be left out."""
    random = np.random.default_rng(RANDOM_SEED)
    start = Weights(*(random.normal(0, 0.5, array.shape) for array in initial_weights(problem, seed=0)))
    backend = NumPy()
    backend.build(problem, start, split(problem), device="cpu", threads=1)
    return backend


def gradient(backend: NumPy) -> tuple[float, Weights]:
    """Mean loss over all images and its gradient, without a step."""
    total = backend._gradients(backend.images, backend.targets)
    return total / IMAGES, Weights(*(array.copy() for array in backend.gradient))


def test_gradient_is_the_slope_of_the_loss() -> None:
    """Central finite differences, for every parameter of every array."""
    backend = built(TINY)
    _, found = gradient(backend)
    step = 1e-5
    for name, array, slope in zip(Weights._fields, backend.parameter, found, strict=True):
        expected = np.empty_like(array)
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + step
            above, _ = gradient(backend)
            array[index] = kept - step
            below, _ = gradient(backend)
            array[index] = kept
            expected[index] = (above - below) / (2 * step)
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-9, err_msg=name)
        assert np.abs(expected).max() > 1e-4, f"{name} must matter to the loss"


@pytest.mark.frameworks
def test_loss_and_gradient_are_those_of_autograd() -> None:
    """The same expression in PyTorch, in float64, differentiated by PyTorch."""
    import torch

    backend = built(TINY)
    loss, found = gradient(backend)
    hidden_kernel, hidden_bias, output_kernel, output_bias = leaves = [
        torch.tensor(array, requires_grad=True) for array in backend.weights()
    ]
    images, labels = torch.tensor(backend.images).double(), torch.tensor(split(TINY).labels).long()
    hidden = torch.softmax(images @ hidden_kernel + hidden_bias, dim=1)
    expected = torch.nn.functional.cross_entropy(hidden @ output_kernel + output_bias, labels)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-14)
    for name, array, leaf in zip(Weights._fields, found, leaves, strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(array, leaf.grad.numpy(), rtol=1e-11, atol=1e-15, err_msg=name)


@pytest.mark.parametrize("problem", [TINY, LONG], ids=["tiny", "longer than a chunk"])
def test_step_is_the_docstring_s_adam(problem: Problem) -> None:
    """The formula written out plainly, over several steps, for gradients above and far below epsilon."""
    backend = built(problem)
    w = backend.weights().flat()
    assert (len(w) > CHUNK) == (problem is LONG)
    m, v = np.zeros_like(w), np.zeros_like(w)
    random = np.random.default_rng(RANDOM_SEED)
    for t in range(1, STEPS + 1):
        g = random.normal(size=w.shape) * 10.0 ** random.uniform(-10, 1, w.shape)
        m = problem.beta_1 * m + (1 - problem.beta_1) * g
        v = problem.beta_2 * v + (1 - problem.beta_2) * g**2
        alpha_t = problem.learning_rate * np.sqrt(1 - problem.beta_2**t) / (1 - problem.beta_1**t)
        update = alpha_t * m / (np.sqrt(v) + problem.epsilon)
        w = w - update

        before = backend.weights().flat()
        backend.gradients[:] = g
        backend._adam()
        after = backend.weights().flat()
        np.testing.assert_allclose(after, w, rtol=0, atol=1e-15)
        np.testing.assert_allclose(before - after, update, rtol=1e-9, atol=1e-15)


def test_train_takes_one_step_per_batch() -> None:
    """Seven images in batches of four: the gradient of four, a step, the gradient of three, a step."""
    backend, by_hand = built(TINY), built(TINY)
    order = np.array([6, 0, 3, 1, 5, 2, 4], np.int64)
    losses = 0.0
    for batch in (order[:4], order[4:]):
        losses += by_hand._gradients(by_hand.images[batch], by_hand.targets[batch])
        by_hand._adam()
    assert backend.train(order) == losses / 7
    assert digest(backend.weights()) == digest(by_hand.weights())
    assert backend.step == 2


def test_hopeless_image_has_a_large_finite_loss() -> None:
    """A true class of probability 0 counts as the smallest normal number, not as infinity."""
    backend = built(TINY)
    backend.parameter.output_bias[:] = [1e6, 0, 0]
    loss = backend.train(np.array([1], np.int64))  # of class 1
    assert loss == pytest.approx(-np.log(np.finfo(np.float64).tiny))
    assert np.isfinite(backend.weights().flat()).all()


def test_softmax_rows_are_probabilities() -> None:
    """Non-negative, they sum to 1, and differences of the inputs are ratios of the outputs."""
    z = np.random.default_rng(RANDOM_SEED).normal(0, 3, (50, 10))
    p = softmax(z.copy())
    assert p.min() >= 0
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=0, atol=1e-15)
    np.testing.assert_allclose(np.log(p[:, 1:] / p[:, :1]), z[:, 1:] - z[:, :1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_large_inputs_stays_finite(dtype: type[np.floating]) -> None:
    """Where exp alone would overflow, or every term underflow."""
    z: FloatArray = np.array([[1e4, 1e4, -1e4], [-1e4, -1e4, -1e4], [1e30, 0, -1e30]], dtype)
    expected = np.array([[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [1, 0, 0]])
    np.testing.assert_allclose(softmax(z), expected, rtol=1e-6)
