"""tinygrad: a whole step under its JIT."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lockstep_bench.backends.base import (
    Backend,
    Defaults,
    Dtype,
    FloatArray,
    IntArray,
    NDArray,
    Problem,
    Split,
    Style,
    Weights,
)


class Tinygrad(Backend):
    """`TinyJit` around forward, `backward` and Adam, which is written out in the Problem's form.

    tinygrad makes C of it, which clang compiles: once for whole batches; a short batch is run without the JIT. Of the
    ways to write a kernel it times some and keeps the fastest (`BEAM`): for a step that takes a minute when the first
    one is taken, and saves more than that in a standard run. Nothing else is run often enough to be searched for.
    """

    name: ClassVar[str] = "tinygrad"
    style: ClassVar[Style] = "tuned"
    packages = ("tinygrad",)
    modules = ("tinygrad",)
    programs = ("clang",)
    extra = "tinygrad"
    slow = "its first steps search for kernels for about a minute"
    beam: ClassVar[int] = 2

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """Its device, and how many threads a kernel may be split over."""
        return {"DEV": "CPU", "NUM_CPU_THREADS": str(threads), "DEFAULT_FLOAT": dtype}

    @classmethod
    def native_defaults(cls) -> Defaults:
        """`nn.Linear` and `nn.optim.Adam` as they come."""
        return Defaults("fan-in-uniform", epsilon=1e-8, epsilon_placement="corrected")

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Copy everything into tensors and define the step; it is compiled when it is called the second time."""
        from tinygrad import Tensor, TinyJit

        self.problem = problem
        self.parameters: Any = Weights(*(Tensor(array).realize() for array in weights))
        self.m, self.v = ([Tensor(0 * array).realize() for array in weights] for _ in range(2))
        self.images, self.labels = train.images.astype(problem.dtype, copy=False), train.labels.astype(np.int32)
        self.step = 0

        def step(x: Any, labels: Any, scalars: Any) -> Any:
            alpha, epsilon = scalars[0], scalars[1]
            loss = self._logits(x).sparse_categorical_crossentropy(labels)
            gradients = loss.gradient(*self.parameters)
            for w, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
                m.assign(problem.beta_1 * m + (1 - problem.beta_1) * g)
                v.assign(problem.beta_2 * v + (1 - problem.beta_2) * g * g)
                w.assign(w - alpha * m / (v.sqrt() + epsilon))
            return loss.realize(*self.parameters, *self.m, *self.v)

        self.eager, self.jitted = step, TinyJit(step)

    def _logits(self, x: Any) -> Any:
        w = self.parameters
        return (x @ w.hidden_kernel + w.hidden_bias).softmax() @ w.output_kernel + w.output_bias

    def train(self, order: IntArray) -> float:
        """The JIT wants inputs that are realized, and every batch of the same shape."""
        from tinygrad import Context, Tensor

        total = 0.0
        for start in range(0, len(order), self.problem.batch_size):
            batch = order[start : start + self.problem.batch_size]
            self.step += 1
            scalars = (self.problem.alpha(self.step), self.problem.epsilon_at(self.step, "uncorrected"))
            inputs = self.images[batch], self.labels[batch], np.array(scalars, self.problem.dtype)
            tensors = [Tensor(array).realize() for array in inputs]
            if len(batch) == self.problem.batch_size:
                with Context(BEAM=self.beam):
                    loss = self.jitted(*tensors)
            else:
                loss = self.eager(*tensors)
            total += loss.item() * len(batch)
        return total / len(order)

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """In the Problem's dtype."""
        from tinygrad import Tensor

        probabilities: FloatArray = self._logits(Tensor(images.astype(self.problem.dtype))).softmax().numpy()
        return probabilities

    def weights(self) -> Weights:
        """Copies."""
        return Weights(*(tensor.numpy().copy() for tensor in self.parameters))
