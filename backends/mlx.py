"""MLX: what its documentation would write."""

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


class Mlx(Backend):
    """`nn.Sequential`, `nn.value_and_grad` and `optimizers.Adam`, evaluated after each step.

    MLX's Adam corrects no bias unless told to, and adds epsilon to `sqrt(v / (1 - beta_2**t))`: it is given, before
    each step, the one that makes it the Problem's. Its nearest rounding of the corrections is float32, so float64
    would not be the Problem's.
    """

    name: ClassVar[str] = "mlx"
    style: ClassVar[Style] = "idiomatic"
    packages = ("mlx",)
    modules = ("mlx.core",)
    extra = "mlx"
    dtypes = ("float32",)
    slow = "a step on the CPU takes ten times NumPy's"

    @classmethod
    def native_defaults(cls) -> Defaults:
        """`nn.Linear` and `optimizers.Adam` as they come, but for the bias correction, without which it is not Adam."""
        return Defaults("fan-in-uniform", epsilon=1e-8, epsilon_placement="corrected")

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Make the model and overwrite its weights; its kernels are (out, in)."""
        import mlx.core as mx
        from mlx import nn, optimizers

        mx.set_default_device(mx.cpu)
        self.problem = problem
        self.model = nn.Sequential(
            nn.Linear(problem.inputs, problem.hidden), nn.Softmax(), nn.Linear(problem.hidden, problem.classes)
        )
        hidden, _, output = self.model.layers
        hidden.weight, hidden.bias = mx.array(weights.hidden_kernel.T), mx.array(weights.hidden_bias)
        output.weight, output.bias = mx.array(weights.output_kernel.T), mx.array(weights.output_bias)
        self.optimizer = optimizers.Adam(
            problem.learning_rate, betas=[problem.beta_1, problem.beta_2], bias_correction=True
        )
        self.step = 0
        self.images = mx.array(train.images)
        self.labels = mx.array(train.labels)

        def loss(x: Any, labels: Any) -> Any:
            return nn.losses.cross_entropy(self.model(x), labels, reduction="mean")

        self.loss_and_gradients = nn.value_and_grad(self.model, loss)
        mx.eval(self.model.parameters(), self.images, self.labels)

    def train(self, order: IntArray) -> float:
        """MLX is lazy: without the evaluation of each step its graph would grow with the slice."""
        import mlx.core as mx

        indices = mx.array(order)
        total: Any = mx.array(0.0)
        for start in range(0, len(order), self.problem.batch_size):
            batch = indices[start : start + self.problem.batch_size]
            self.step += 1
            self.optimizer.eps = self.problem.epsilon_at(self.step, "corrected")
            loss, gradients = self.loss_and_gradients(self.images[batch], self.labels[batch])
            self.optimizer.update(self.model, gradients)
            total = total + loss * len(batch)
            mx.eval(self.model.parameters(), self.optimizer.state, total)
        return float(total.item()) / len(order)

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """The model gives logits: the last softmax is taken here."""
        import mlx.core as mx

        return np.array(mx.softmax(self.model(mx.array(images)), axis=1))

    def weights(self) -> Weights:
        """Kernels turned back to (in, out)."""
        hidden, _, output = self.model.layers
        return Weights(
            np.array(hidden.weight).T.copy(),
            np.array(hidden.bias),
            np.array(output.weight).T.copy(),
            np.array(output.bias),
        )
