"""PaddlePaddle: what its documentation would write."""

from collections.abc import Mapping
from typing import ClassVar

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


class Paddle(Backend):
    """`nn.Sequential`, `CrossEntropyLoss` and `optimizer.Adam`, in a loop of `backward`, `step` and `clear_grad`.

    Its Adam multiplies epsilon by `sqrt(1 - beta_2**t)`, which is to add it to the corrected moment: it is given,
    before each step, the one that makes it the Problem's.
    """

    name: ClassVar[str] = "paddle"
    style: ClassVar[Style] = "idiomatic"
    packages = ("paddlepaddle",)
    modules = ("paddle",)
    extra = "paddle"

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """No advice on standard error."""
        return {"GLOG_minloglevel": "2", "CUDA_VISIBLE_DEVICES": "-1"}

    @classmethod
    def native_defaults(cls) -> Defaults:
        """`nn.Linear`, which is Glorot-uniform, and `optimizer.Adam` as they come."""
        return Defaults(epsilon=1e-8, epsilon_placement="corrected")

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Make the model and overwrite its weights."""
        import paddle

        paddle.set_device("cpu")
        paddle.set_default_dtype(problem.dtype)
        self.problem = problem
        self.model = paddle.nn.Sequential(
            paddle.nn.Linear(problem.inputs, problem.hidden),
            paddle.nn.Softmax(),
            paddle.nn.Linear(problem.hidden, problem.classes),
        )
        for parameter, value in zip(self.model.parameters(), weights, strict=True):
            parameter.set_value(value)
        self.loss = paddle.nn.CrossEntropyLoss()
        self.optimizer = paddle.optimizer.Adam(
            problem.learning_rate, problem.beta_1, problem.beta_2, parameters=self.model.parameters()
        )
        self.step = 0
        self.images = paddle.to_tensor(train.images, problem.dtype)
        self.labels = paddle.to_tensor(train.labels, "int64")

    def train(self, order: IntArray) -> float:
        """The losses are added up as tensors, and read once."""
        import paddle

        indices = paddle.to_tensor(order)
        total = paddle.zeros([], self.problem.dtype)
        for start in range(0, len(order), self.problem.batch_size):
            batch = indices[start : start + self.problem.batch_size]
            self.step += 1
            self.optimizer._epsilon = self.problem.epsilon_at(self.step, "corrected")
            loss = self.loss(self.model(self.images[batch]), self.labels[batch])
            loss.backward()
            self.optimizer.step()
            self.optimizer.clear_grad()
            total += loss.detach() * len(batch)
        return float(total) / len(order)

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """The model gives logits, as `CrossEntropyLoss` wants them: the last softmax is taken here."""
        import paddle

        with paddle.no_grad():
            logits = self.model(paddle.to_tensor(images, self.problem.dtype))
            probabilities: FloatArray = paddle.nn.functional.softmax(logits, axis=1).numpy()
        return probabilities

    def weights(self) -> Weights:
        """Paddle's kernels are (in, out) already."""
        return Weights(*(parameter.numpy().copy() for parameter in self.model.parameters()))
