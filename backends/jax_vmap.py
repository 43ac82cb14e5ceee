"""JAX with many seeds in one program: what makes the distribution of an error over seeds affordable."""

import os
from collections.abc import Callable, Mapping, Sequence
from math import gcd
from typing import Any, ClassVar

import numpy as np

from lockstep_bench.backends.base import (
    Dtype,
    FloatArray,
    IntArray,
    NDArray,
    Problem,
    SeedsBackend,
    Split,
    Style,
    Weights,
)
from lockstep_bench.backends.jax import JaxScan, use_jax_gpu

DEVICES = "--xla_force_host_platform_device_count"
"""XLA's flag for how many devices it makes of one CPU."""


class JaxVmap(JaxScan, SeedsBackend):
    """`jax-scan`'s loop, mapped over a leading axis of seeds, which is divided among the cores.

    A core trains its seeds `width` at a time: with 1 a seed's whole slice and then the next one's, with more a step of
    so many at once (`jax.vmap`). docs/tuning.md has what that costs: one seed's parameters and moments are 7.5 MB, and
    the caches hold those of a few.
    """

    name: ClassVar[str] = "jax-vmap"
    style: ClassVar[Style] = "tuned"
    width: ClassVar[int] = 1

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """A device of XLA's for each thread, beside what its flags are already."""
        flags = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}={threads}"
        return {**super().environment(threads, device, dtype), "XLA_FLAGS": flags.strip()}

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """One seed alone."""
        self.build_seeds(problem, [weights], train, device, threads)

    def build_seeds(
        self, problem: Problem, weights: Sequence[Weights], train: Split, device: str, threads: int
    ) -> None:
        """Give every core its seeds, and all of the images; as many cores as divide the seeds evenly."""
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        if device == "cuda":
            use_jax_gpu()
        self.problem, self.steps = problem, 0
        cores = gcd(len(weights), min(threads, len(jax.devices())))
        self.mesh = Mesh(np.array(jax.devices()[:cores]), ("seeds",))
        divided, whole = (NamedSharding(self.mesh, spec) for spec in (PartitionSpec("seeds"), PartitionSpec()))
        self.images = jax.device_put(train.images.astype(problem.dtype, copy=False), whole)
        self.labels = jax.device_put(train.labels.astype(np.int32), whole)
        stacked = [np.stack(arrays) for arrays in zip(*weights, strict=True)]
        self.params, m, v = (
            Weights(*(jax.device_put(scale * array, divided) for array in stacked)) for scale in (1, 0, 0)
        )
        self.state = m, v

        def run(params: Any, state: Any, images: Any, labels: Any, batches: Any, scalars: Any) -> Any:
            def one(own: Any, images: Any, labels: Any, scalars: Any) -> Any:
                params, state, batches = own
                return self._run(params, state, images, labels, batches, scalars)

            return self._each(one)((params, state, batches), images, labels, scalars)

        self.run = jax.jit(run, donate_argnums=(0, 1))
        self.probabilities = jax.jit(self._each(self._probabilities))

    def _each(self, of_one: Callable[..., Any]) -> Callable[..., Any]:
        """A function of one seed's own arrays and of shared ones, as one of every seed's, stacked, and the same."""
        import jax
        from jax.sharding import PartitionSpec

        def of_a_core(own: Any, *shared: Any) -> Any:
            size = self.width if self.width > 1 else None  # a batch of one would be products with an axis too many
            return jax.lax.map(lambda one: of_one(one, *shared), own, batch_size=size)

        def of_all(own: Any, *shared: Any) -> Any:
            seeds, all_of_it = PartitionSpec("seeds"), PartitionSpec()
            specs = (seeds, *[all_of_it] * len(shared))
            return jax.shard_map(of_a_core, mesh=self.mesh, in_specs=specs, out_specs=seeds)(own, *shared)

        return of_all

    def train(self, order: IntArray) -> float:
        """The one seed's."""
        return float(self.train_seeds(order[None])[0])

    def train_seeds(self, orders: IntArray) -> NDArray[np.float64]:
        """Whole batches in one call, a short last one in another."""
        losses: NDArray[np.float64] = self._train(orders)
        return losses

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """The one seed's."""
        first: FloatArray = self.predict_seeds(images)[0]
        return first

    def predict_seeds(self, images: NDArray[np.float32]) -> FloatArray:
        """In the Problem's dtype."""
        return super().predict(images)

    def weights(self) -> Weights:
        """The one seed's."""
        return self.weights_of_each()[0]

    def weights_of_each(self) -> list[Weights]:
        """Copies, because JAX's arrays are read-only in NumPy."""
        return [Weights(*arrays) for arrays in zip(*super().weights(), strict=True)]
