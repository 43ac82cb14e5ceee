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

CHUNK = 32_768
"""Parameters updated at a time by the tuned Adam: 128 KiB of each array stay in the nearer caches."""


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
        self.model.set_params(max_iter=1)
        self.batch_size = problem.batch_size

    def train(self, order: IntArray) -> float:
        """One `partial_fit` over the images in the harness's order; it warns of batches longer than that."""
        self.model.batch_size = min(self.batch_size, len(order))
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


class ScikitLearnTuned(ScikitLearn):
    """The same classifier with two of its parts replaced, which cost more than the network's arithmetic.

    Its Adam makes the parameters' updates float64, because its learning rate is an `np.float64`, and ten new arrays of
    the kernel's size in each step; here it is in place, in the Problem's dtype, a piece of the parameters at a time.
    And each gradient takes two more passes over the kernel, to add an L2 penalty of 0 and to divide by the batch.
    """

    name: ClassVar[str] = "scikit-learn-tuned"
    style: ClassVar[Style] = "tuned"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Make the classifier, and replace the methods of this one."""
        super().build(problem, weights, train, device, threads)
        self.problem = problem
        self.scratch = np.empty(CHUNK, problem.dtype)
        optimizer = self.model._optimizer
        optimizer.update_params = self._adam
        if problem.l2 == 0:
            self.model._compute_loss_grad = self._gradient

    def _adam(self, parameters: list[FloatArray], gradients: list[FloatArray]) -> None:
        problem, optimizer = self.problem, self.model._optimizer
        optimizer.t += 1
        alpha = problem.alpha(optimizer.t)
        for arrays in zip(parameters, gradients, optimizer.ms, optimizer.vs, strict=True):
            flat = [array.reshape(-1) for array in arrays]
            for start in range(0, len(flat[0]), CHUNK):
                w, g, m, v = (array[start : start + CHUNK] for array in flat)
                update = self.scratch[: len(w)]
                # m = beta_1 * m + (1 - beta_1) * g
                m *= problem.beta_1
                np.multiply(g, 1 - problem.beta_1, out=update)
                m += update
                # v = beta_2 * v + (1 - beta_2) * g**2
                v *= problem.beta_2
                g *= g
                g *= 1 - problem.beta_2
                v += g
                # w -= alpha * m / (sqrt(v) + epsilon)
                np.sqrt(v, out=update)
                update += problem.epsilon
                np.divide(m, update, out=update)
                update *= alpha
                w -= update

    @staticmethod
    def _gradient(
        layer: int,
        images: int,
        activations: list[FloatArray],
        deltas: list[FloatArray],
        kernels: list[FloatArray],
        biases: list[FloatArray],
    ) -> None:
        """The gradients of a layer, without a penalty; it is the delta that is divided by the batch, not the kernel."""
        delta = deltas[layer] / images
        kernels[layer] = activations[layer].T @ delta
        biases[layer] = delta.sum(axis=0)


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
