"""TensorFlow without Keras: a whole slice as one compiled loop."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lockstep_bench.backends.base import (
    FULL_FLOAT32,
    Backend,
    Dtype,
    FloatArray,
    IntArray,
    NDArray,
    Problem,
    Split,
    Style,
    Weights,
)


def tensorflow_environment(device: str) -> Mapping[str, str]:
    """No advice on standard error; no GPU, or not all of its memory."""
    on_gpu = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", **FULL_FLOAT32}
    return {"TF_CPP_MIN_LOG_LEVEL": "2"} | (on_gpu if device == "cuda" else {"CUDA_VISIBLE_DEVICES": "-1"})


def use_gpu() -> None:
    """Full float32 on the GPU that there has to be: without one TensorFlow would train on the CPU, and say nothing.

    Raises:
        RuntimeError: TensorFlow sees none.
    """
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        raise RuntimeError("this TensorFlow sees no GPU: install tensorflow[and-cuda]")
    tf.config.experimental.enable_tensor_float_32_execution(False)


def tensorflow_memory_bytes() -> int | None:
    """The most that TensorFlow has held of the GPU's memory; none on the CPU."""
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return None
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


class TensorFlow(Backend):
    """`tf.GradientTape` and Adam by hand in a `tf.while_loop` over batches, compiled by XLA."""

    name: ClassVar[str] = "tensorflow"
    style: ClassVar[Style] = "tuned"
    packages = ("tensorflow",)
    modules = ("tensorflow",)
    extra = "tensorflow"
    devices = ("cpu", "cuda")

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """What TensorFlow has to be told before it is imported."""
        return tensorflow_environment(device)

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Trace the loop; XLA compiles it for each number of batches when it is first called."""
        import tensorflow as tf

        if device == "cuda":
            use_gpu()
        self.device, self.problem = device, problem
        self.images = tf.constant(train.images, problem.dtype)
        self.targets = tf.one_hot(train.labels, problem.classes, dtype=problem.dtype)
        self.parameters = [tf.Variable(array) for array in weights]
        self.m, self.v = ([tf.Variable(tf.zeros_like(array)) for array in weights] for _ in range(2))
        self.step = 0

        def logits(parameters: Any, x: Any) -> Any:
            hidden_kernel, hidden_bias, output_kernel, output_bias = parameters
            return tf.nn.softmax(x @ hidden_kernel + hidden_bias) @ output_kernel + output_bias

        def update(parameters: Any, m: Any, v: Any, batch: Any, alpha: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(parameters)
                outputs = logits(parameters, tf.gather(self.images, batch))
                losses = tf.nn.softmax_cross_entropy_with_logits(tf.gather(self.targets, batch), outputs)
                loss = tf.reduce_mean(losses)
            gradients = tape.gradient(loss, parameters)
            m = [old + (new - old) * (1 - problem.beta_1) for old, new in zip(m, gradients, strict=True)]
            v = [old + (new * new - old) * (1 - problem.beta_2) for old, new in zip(v, gradients, strict=True)]
            parameters = [
                w - alpha * first / (tf.sqrt(second) + problem.epsilon)
                for w, first, second in zip(parameters, m, v, strict=True)
            ]
            return parameters, m, v, tf.reduce_sum(losses)

        def run(batches: Any, alphas: Any) -> Any:
            state = [[variable.read_value() for variable in group] for group in (self.parameters, self.m, self.v)]
            total = tf.zeros((), problem.dtype)
            parameters, m, v = state
            for index in tf.range(tf.shape(batches)[0]):
                parameters, m, v, loss = update(parameters, m, v, batches[index], alphas[index])
                total += loss
            for group, values in zip((self.parameters, self.m, self.v), (parameters, m, v), strict=True):
                for variable, value in zip(group, values, strict=True):
                    variable.assign(value)
            return total

        self.run = tf.function(run, jit_compile=True, reduce_retracing=True)
        self.probabilities = tf.function(lambda x: tf.nn.softmax(logits(self.parameters, x)), reduce_retracing=True)

    def train(self, order: IntArray) -> float:
        """Whole batches in one call, a short last one in another."""
        size = self.problem.batch_size
        whole = len(order) // size * size
        total = 0.0
        for batches in (order[:whole].reshape(-1, size), order[whole:].reshape(1, -1)):
            if batches.size:
                total += float(self.run(batches, self._alphas(len(batches))))
        return total / len(order)

    def _alphas(self, steps: int) -> FloatArray:
        self.step += steps
        return np.array(
            [self.problem.alpha(t) for t in range(self.step - steps + 1, self.step + 1)], self.problem.dtype
        )

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """In the Problem's dtype."""
        probabilities: FloatArray = self.probabilities(images.astype(self.problem.dtype, copy=False)).numpy()
        return probabilities

    def weights(self) -> Weights:
        """Copies of the variables."""
        return Weights(*(np.array(variable) for variable in self.parameters))

    def device_memory_bytes(self) -> int | None:
        """Of TensorFlow's own allocator."""
        return tensorflow_memory_bytes()

    def synchronize(self) -> None:
        """What is left on a GPU when the loss has come back."""
        import tensorflow as tf

        if self.device == "cuda":
            tf.experimental.sync_devices()
