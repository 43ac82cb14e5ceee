"""scikit-learn: `MLPClassifier` itself, taught the one thing that it lacks: the derivative of a hidden softmax."""

from typing import Any, ClassVar

import numpy as np

from lockstep_bench.backends.base import (
    Backend,
    Defaults,
    FloatArray,
    IntArray,
    NDArray,
    Problem,
    Split,
    Style,
    Weights,
)


def softmax_derivative(activations: FloatArray, delta: FloatArray) -> None:
    """Turn the loss's derivative by the softmax's outputs, `delta` (n, units), into that by its inputs, in place.

    The Jacobian of a softmax Z is diag(Z) - Z Z', so the derivative is Z * (delta - sum(delta * Z)).
    """
    delta -= (delta * activations).sum(axis=1, keepdims=True)
    delta *= activations


class ScikitLearn(Backend):
    """`MLPClassifier` by `partial_fit`, with `alpha=0` (it regularises by default, the Problem does not), unshuffled.

    It knows softmax as an output only: the derivative is registered, `activation="softmax"` allowed, and the initial
    weights given in place of its own. Its Adam is the Problem's. With `alpha` its loss has the penalty in it, 3e-3 of
    2.3 nats at first: it is taken again without, in 5 microseconds a step.
    """

    name: ClassVar[str] = "scikit-learn"
    style: ClassVar[Style] = "idiomatic"
    packages = ("scikit-learn", "scipy", "numpy")
    modules = ("sklearn.neural_network",)

    @classmethod
    def native_defaults(cls) -> Defaults:
        """`MLPClassifier` as it comes."""
        return Defaults("glorot-uniform-biases", epsilon=1e-8, l2=1e-4)

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Make the classifier and, by a `partial_fit` of no iterations, have it take up its initial weights."""
        self.images = train.images.astype(problem.dtype, copy=False)
        self.labels = train.labels
        self.model = softmax_classifier(weights)(
            hidden_layer_sizes=(problem.hidden,),
            activation="softmax",
            solver="adam",
            alpha=problem.l2,
            learning_rate_init=problem.learning_rate,
            beta_1=problem.beta_1,
            beta_2=problem.beta_2,
            epsilon=problem.epsilon,
            shuffle=False,
            batch_size=1,
            max_iter=0,
        )
        self.model.partial_fit(self.images[:1], self.labels[:1], classes=np.arange(problem.classes))
        self.model.set_params(batch_size=problem.batch_size, max_iter=1)

    def train(self, order: IntArray) -> float:
        """One `partial_fit` over the images in the harness's order."""
        self.model.partial_fit(self.images[order], self.labels[order])
        return float(self.model.loss_)

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """`predict_proba`, in the Problem's dtype."""
        probabilities: FloatArray = self.model.predict_proba(images.astype(self.images.dtype, copy=False))
        return probabilities

    def weights(self) -> Weights:
        """scikit-learn's kernels are (in, out) already."""
        (hidden_kernel, output_kernel), (hidden_bias, output_bias) = self.model.coefs_, self.model.intercepts_
        return Weights(hidden_kernel.copy(), hidden_bias.copy(), output_kernel.copy(), output_bias.copy())


def softmax_classifier(weights: Weights) -> Any:
    """A subclass of `MLPClassifier` that allows a softmax hidden layer, and no iterations, and starts from `weights`.

    Raises:
        RuntimeError: this release of scikit-learn has moved the internals that this needs.
    """
    import sklearn
    from sklearn.neural_network import MLPClassifier, _base
    from sklearn.utils._param_validation import StrOptions

    if (
        "softmax" not in getattr(_base, "ACTIVATIONS", {})
        or not hasattr(_base, "DERIVATIVES")
        or not hasattr(MLPClassifier, "_backprop")
        or not hasattr(MLPClassifier, "_init_coef")
        or not {"activation", "max_iter"} <= getattr(MLPClassifier, "_parameter_constraints", {}).keys()
    ):
        raise RuntimeError(
            f"scikit-learn {sklearn.__version__} has moved the internals that give its MLPClassifier a hidden softmax: "
            "install the release that lockstep's constraints.txt names"
        )
    _base.DERIVATIVES["softmax"] = softmax_derivative
    layers = iter([(weights.hidden_kernel, weights.hidden_bias), (weights.output_kernel, weights.output_bias)])

    class SoftmaxClassifier(MLPClassifier):  # type: ignore[misc] # scikit-learn has no types
        _parameter_constraints: ClassVar[dict[str, Any]] = {
            **MLPClassifier._parameter_constraints,
            "activation": [StrOptions({"softmax"})],
            "max_iter": [int],
        }

        def _init_coef(self, fan_in: int, fan_out: int, dtype: Any) -> tuple[FloatArray, FloatArray]:
            kernel, bias = next(layers)
            if (kernel.shape, kernel.dtype) != ((fan_in, fan_out), dtype):
                raise RuntimeError(
                    f"scikit-learn asks for a {dtype} kernel of {fan_in} x {fan_out}, not {kernel.shape}"
                )
            return kernel.copy(), bias.copy()

        def _backprop(self, x: Any, y: Any, *rest: Any) -> Any:
            found = super()._backprop(x, y, *rest)
            if not self.alpha:
                return found
            *_, activations, _deltas, _coef_grads, _intercept_grads = rest
            probabilities = np.maximum(activations[-1][y == 1], np.finfo(x.dtype).eps)
            return -np.log(probabilities).sum() / len(y), *found[1:]

    return SoftmaxClassifier
