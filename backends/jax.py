"""JAX: with optax as its documentation writes it, and a whole slice compiled into one loop."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from lockstep_bench.backends.base import (
    FULL_FLOAT32,
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


def jax_environment(device: str, dtype: Dtype) -> Mapping[str, str]:
    """JAX rounds to float32 unless told otherwise, multiplies in TF32 on a GPU, and takes most of its memory."""
    platform = {"JAX_PLATFORMS": device, "JAX_ENABLE_X64": str(int(dtype == "float64"))}
    on_gpu = {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "XLA_PYTHON_CLIENT_PREALLOCATE": "false", **FULL_FLOAT32}
    return platform | (on_gpu if device == "cuda" else {})


def use_jax_gpu() -> None:
    """See that JAX has a GPU; it fails without one too, and does not say why.

    Raises:
        RuntimeError: it sees none.
    """
    import jax

    try:
        jax.devices("cuda")
    except (AssertionError, RuntimeError) as error:
        raise RuntimeError(f"this JAX sees no GPU: install jax[cuda12] ({error})") from error


def jax_memory_bytes() -> int | None:
    """The most that JAX has held of its device's memory; none on the CPU, of which it keeps no count."""
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


class Jax(Backend):
    """A jitted update of `value_and_grad` and `optax.adam`, called batch by batch.

    optax adds epsilon to `sqrt(v / (1 - beta_2**t))`: `inject_hyperparams` gives it the Problem's, by a schedule.
    """

    name: ClassVar[str] = "jax"
    style: ClassVar[Style] = "idiomatic"
    packages: ClassVar[tuple[str, ...]] = ("jax", "jaxlib", "optax")
    modules: ClassVar[tuple[str, ...]] = ("jax", "optax")
    extra = "jax"
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """What JAX has to be told before it is imported."""
        return jax_environment(device, dtype)

    @classmethod
    def native_defaults(cls) -> Defaults:
        """`optax.adam` as it comes; JAX has no layers, and so no initial weights of its own."""
        return Defaults(epsilon=1e-8, epsilon_placement="corrected")

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Define the update; it is compiled when it is first called."""
        import jax
        import jax.numpy as jnp
        import optax

        self.problem = problem
        if device == "cuda":
            use_jax_gpu()

        def take(images: Any, labels: Any, batch: IntArray) -> tuple[Any, Any]:
            return images[batch], labels[batch]

        # On a GPU the data live there, and a compiled call takes a batch of them: uncompiled it costs 30 times as much.
        place = np.asarray if device == "cpu" else jnp.asarray
        self.take: Callable[[Any, Any, IntArray], tuple[Any, Any]] = take if device == "cpu" else jax.jit(take)
        self.images = place(train.images.astype(problem.dtype, copy=False))
        self.labels = place(train.labels)
        self.params = Weights(*(jnp.array(array) for array in weights))

        def epsilon(count: Any) -> Any:
            return problem.epsilon_at(count + 1, "corrected")

        optimizer = optax.inject_hyperparams(optax.adam)(
            problem.learning_rate, b1=problem.beta_1, b2=problem.beta_2, eps=epsilon
        )
        self.state = optimizer.init(self.params)

        def loss(params: Weights, x: Any, labels: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(self._logits(params, x), labels).mean()

        def update(params: Weights, state: Any, x: Any, labels: Any) -> Any:
            value, gradients = jax.value_and_grad(loss)(params, x, labels)
            updates, state = optimizer.update(gradients, state)
            return optax.apply_updates(params, updates), state, value

        self.update = jax.jit(update)
        self.probabilities = jax.jit(lambda params, x: jax.nn.softmax(self._logits(params, x)))

    @staticmethod
    def _logits(params: Weights, x: Any) -> Any:
        import jax

        hidden = jax.nn.softmax(x @ params.hidden_kernel + params.hidden_bias)
        return hidden @ params.output_kernel + params.output_bias

    def train(self, order: IntArray) -> float:
        """The losses stay on the device until the last step is under way."""
        losses = []
        for start in range(0, len(order), self.problem.batch_size):
            batch = order[start : start + self.problem.batch_size]
            x, labels = self.take(self.images, self.labels, batch)
            self.params, self.state, loss = self.update(self.params, self.state, x, labels)
            losses.append((loss, len(batch)))
        return sum(float(loss) * count for loss, count in losses) / len(order)

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """In the Problem's dtype."""
        return np.asarray(self.probabilities(self.params, images.astype(self.problem.dtype, copy=False)))

    def weights(self) -> Weights:
        """Copies, because JAX's arrays are read-only in NumPy."""
        return Weights(*(np.array(array) for array in self.params))

    def device_memory_bytes(self) -> int | None:
        """Of XLA's own allocator."""
        return jax_memory_bytes()

    def synchronize(self) -> None:
        """JAX returns before its work is done."""
        import jax

        jax.block_until_ready((self.params, self.state))


class JaxScan(Jax):
    """A whole slice as one `lax.scan`, its state donated, so that it is updated in place.

    Adam is written out in the Problem's form. XLA compiles the loop anew for each number of batches. On a GPU ten steps
    are one turn of it: there the loop itself costs a tenth of a step.
    """

    name: ClassVar[str] = "jax-scan"
    style: ClassVar[Style] = "tuned"
    packages = ("jax", "jaxlib")
    modules = ("jax",)
    unroll = 1

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Put everything on the device and define the loop."""
        import jax
        import jax.numpy as jnp

        if device == "cuda":
            use_jax_gpu()
            self.unroll = 10
        self.problem = problem
        self.images = jnp.asarray(train.images, problem.dtype)
        self.labels = jnp.asarray(train.labels, jnp.int32)
        self.params, m, v = (Weights(*(jnp.array(scale * array) for array in weights)) for scale in (1, 0, 0))
        self.state = m, v
        self.steps = 0
        self.run = jax.jit(self._run, donate_argnums=(0, 1))
        self.probabilities = jax.jit(self._probabilities)

    def _run(self, params: Weights, state: Any, images: Any, labels: Any, batches: Any, scalars: Any) -> Any:
        """A step for each of `batches`, (steps, images); new parameters, new state, and the sum of the mean losses."""
        import jax
        import jax.numpy as jnp

        problem = self.problem

        def update(w: Any, g: Any, m: Any, v: Any, alpha: Any, epsilon: Any) -> Any:
            m = problem.beta_1 * m + (1 - problem.beta_1) * g
            v = problem.beta_2 * v + (1 - problem.beta_2) * g**2
            return w - alpha * m / (jnp.sqrt(v) + epsilon), m, v

        def step(carry: Any, batch_scalars: Any) -> Any:
            params, m, v = carry
            batch, (alpha, epsilon) = batch_scalars
            value, gradients = self._value_and_gradients(params, images[batch], labels[batch])
            updated = [update(*arrays, alpha, epsilon) for arrays in zip(params, gradients, m, v, strict=True)]
            return tuple(Weights(*arrays) for arrays in zip(*updated, strict=True)), value

        (params, *state), values = jax.lax.scan(step, (params, *state), (batches, scalars), unroll=self.unroll)
        return params, tuple(state), values.sum()

    def _probabilities(self, params: Weights, x: Any) -> Any:
        import jax

        return jax.nn.softmax(self._logits(params, x))

    def _value_and_gradients(self, params: Weights, x: Any, labels: Any) -> Any:
        import jax
        import jax.numpy as jnp

        def loss(params: Weights) -> Any:
            log_probabilities = jax.nn.log_softmax(self._logits(params, x))
            return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()

        return jax.value_and_grad(loss)(params)

    def train(self, order: IntArray) -> float:
        """Whole batches in one call, a short last one in another."""
        return float(self._train(order))

    def _train(self, order: IntArray) -> Any:
        """Train on `order`, whose last axis is images; the mean losses, of the shape of the others."""
        problem, size = self.problem, self.problem.batch_size
        *others, images = order.shape
        whole = images // size * size
        total: Any = 0.0
        for batches in (order[..., :whole].reshape(*others, -1, size), order[..., None, whole:]):
            if batches.size:
                count = batches.shape[-2]
                steps = range(self.steps + 1, self.steps + 1 + count)
                scalars = [(problem.alpha(step), problem.epsilon_at(step, "uncorrected")) for step in steps]
                self.params, self.state, losses = self.run(
                    self.params, self.state, self.images, self.labels, batches, np.array(scalars, problem.dtype)
                )
                self.steps += count
                total += np.asarray(losses, np.float64) * batches.shape[-1]
        return total / images
