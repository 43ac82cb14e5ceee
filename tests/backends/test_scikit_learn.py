"""What scikit-learn's backend needs of scikit-learn's internals, and what it does where they are gone."""

from collections.abc import Callable

import numpy as np
import pytest
import sklearn
from sklearn.neural_network import MLPClassifier, _base
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron

from lockstep_bench.backends.base import FloatArray, Problem, Split, Weights
from lockstep_bench.backends.scikit_learn import ScikitLearn, softmax_derivative
from lockstep_bench.harness.problem import initial_weights

PROBLEM = Problem(inputs=6, hidden=5, classes=3, batch_size=2)
TRAIN = Split(np.ones((4, 6), np.float32), np.array([0, 1, 2, 0], np.uint8))
CONSTRAINTS = MLPClassifier._parameter_constraints

MOVED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "the derivatives": lambda patch: patch.delattr(_base, "DERIVATIVES"),
    "the initial weights": lambda patch: patch.delattr(BaseMultilayerPerceptron, "_init_coef"),
    "the loss and gradient": lambda patch: patch.delattr(BaseMultilayerPerceptron, "_backprop"),
    "the softmax": lambda patch: patch.delitem(_base.ACTIVATIONS, "softmax"),
    "the activations": lambda patch: patch.delattr(_base, "ACTIVATIONS"),
    "the check of the activation": lambda patch: patch.setattr(
        MLPClassifier, "_parameter_constraints", {k: v for k, v in CONSTRAINTS.items() if k != "activation"}
    ),
    "the check of the iterations": lambda patch: patch.setattr(
        MLPClassifier, "_parameter_constraints", {k: v for k, v in CONSTRAINTS.items() if k != "max_iter"}
    ),
}


def build(weights: Weights | None = None) -> ScikitLearn:
    """The backend, built on four images."""
    backend = ScikitLearn()
    backend.build(PROBLEM, weights or initial_weights(PROBLEM, seed=0), TRAIN, device="cpu", threads=1)
    return backend


@pytest.mark.parametrize("what", MOVED)
def test_scikit_learn_with_other_internals_is_refused(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that has moved one of them is named, with what to do, before anything is trained wrongly."""
    build()
    MOVED[what](monkeypatch)
    with pytest.raises(RuntimeError) as caught:
        build()
    assert f"scikit-learn {sklearn.__version__} has moved the internals" in str(caught.value)
    assert "constraints.txt" in str(caught.value)


def test_kernel_of_another_shape_is_refused() -> None:
    """scikit-learn asks for the shapes itself: weights that do not fit are not squeezed in."""
    with pytest.raises(RuntimeError, match="asks for a float32 kernel of 6 x 5, not \\(6, 4\\)"):
        build(initial_weights(Problem(inputs=6, hidden=4, classes=3), seed=0))


def test_kernel_of_another_dtype_is_refused() -> None:
    """float64 weights in a float32 network would change its arithmetic."""
    with pytest.raises(RuntimeError, match="asks for a float32 kernel"):
        build(initial_weights(Problem(inputs=6, hidden=5, classes=3, dtype="float64"), seed=0))


def test_other_classifiers_are_left_alone() -> None:
    """A program that uses scikit-learn itself finds it as it was."""
    build()
    assert MLPClassifier._parameter_constraints is CONSTRAINTS
    with pytest.raises(ValueError, match="'activation' parameter of MLPClassifier"):
        MLPClassifier(activation="softmax").fit(TRAIN.images, TRAIN.labels)


def test_derivative_is_the_jacobian_s_product() -> None:
    """In place: the full matrix diag(z) - z z' times delta, row by row."""
    random = np.random.default_rng(0)
    z: FloatArray = np.exp(random.normal(size=(4, 5)))
    z /= z.sum(axis=1, keepdims=True)
    delta: FloatArray = random.normal(size=(4, 5))
    expected = [(np.diag(row) - np.outer(row, row)) @ column for row, column in zip(z, delta, strict=True)]
    softmax_derivative(z, delta)
    np.testing.assert_allclose(delta, expected, rtol=1e-12, atol=1e-15)


def test_native_defaults_are_the_classifier_s_own() -> None:
    """What `MLPClassifier` says when nobody tells it otherwise, and the range that it draws kernel and bias from."""
    plain, defaults = MLPClassifier(), ScikitLearn.native_defaults()
    assert (plain.epsilon, plain.alpha) == (defaults.epsilon, defaults.l2)
    plain._random_state = np.random.RandomState(0)
    drawn = plain._init_coef(300, 200, np.float64)
    ours = initial_weights(Problem(inputs=300, hidden=200), 0, defaults.initializer)
    for array, other in zip(drawn, ours[:2], strict=True):
        assert np.abs(array).max() == pytest.approx(np.abs(other).max(), rel=0.02)
        assert array.std() == pytest.approx(other.std(), rel=0.1)
