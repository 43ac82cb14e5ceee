"""the gradient written out, not derived"""

from typing import Any

from lockstep_bench.backends.base import Weights
from lockstep_bench.backends.jax import JaxScan


class ByHand(JaxScan):
    name = "jax-scan--by-hand"

    def _value_and_gradients(self, params: Weights, x: Any, labels: Any) -> Any:
        import jax

        hidden = jax.nn.softmax(x @ params.hidden_kernel + params.hidden_bias)
        log_probabilities = jax.nn.log_softmax(hidden @ params.output_kernel + params.output_bias)
        targets = jax.nn.one_hot(labels, self.problem.classes, dtype=x.dtype)
        value = -(log_probabilities * targets).sum() / len(x)
        output_delta = (jax.numpy.exp(log_probabilities) - targets) / len(x)
        delta = output_delta @ params.output_kernel.T
        delta = hidden * (delta - (delta * hidden).sum(axis=1, keepdims=True))
        return value, Weights(x.T @ delta, delta.sum(axis=0), hidden.T @ output_delta, output_delta.sum(axis=0))
