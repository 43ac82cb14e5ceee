"""The worker of `lockstep seeds`: as `worker.py`, with turns for many seeds of one backend side by side.

Started as `python -P -m lockstep_bench.harness.worker.seeds_worker FD`.
"""

import math
import os
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from lockstep_bench.backends.base import SeedsBackend
from lockstep_bench.harness.data.cache import open_dataset
from lockstep_bench.harness.machine import conditions
from lockstep_bench.harness.machine.variables import deciding
from lockstep_bench.harness.problem import Problem, digest, epoch_order, initial_weights
from lockstep_bench.harness.worker.metrics import DivergedError, score
from lockstep_bench.harness.worker.worker import Reply, Worker, main


class SeedsWorker(Worker):
    """The turns of a backend that trains several seeds; what it says as a Backend is of the first, which is checked."""

    def build_seeds(
        self,
        problem: dict[str, Any],
        seeds: list[int],
        dataset: str,
        train_images: int,
        device: str,
        threads: int,
    ) -> Reply:
        """Map the data, make each seed's initial weights, and have the backend stand at step 0 with all of them."""
        if not isinstance(self.backend, SeedsBackend):
            raise TypeError(f"{self.backend.name} trains one seed at a time: it is no SeedsBackend")
        self.seeds_backend = self.backend
        data = open_dataset(Path(dataset))
        self.seeds, self.problem = seeds, Problem(**problem)
        self.train_split, self.test_split = data.train.first(train_images), data.test
        weights = [initial_weights(self.problem, seed) for seed in seeds]
        self.start_weights = weights[0]
        begin = perf_counter()
        self.seeds_backend.build_seeds(self.problem, weights, self.train_split, device, threads)
        self.backend.synchronize()
        return {
            "build_seconds": perf_counter() - begin,
            "weights_sha256": digest(weights[0]),
            "memory_bytes": conditions.memory_bytes(),
            "pools": conditions.thread_pools(),
            "variables": deciding(os.environ),
        }

    def train_seeds(self, epoch: int) -> Reply:
        """Train an epoch of every seed, each in its own order; their mean losses."""
        images = len(self.train_split.labels)
        orders = np.stack([epoch_order(seed, epoch, images) for seed in self.seeds])
        begin = perf_counter()
        losses = self.seeds_backend.train_seeds(orders)
        self.backend.synchronize()
        seconds = perf_counter() - begin
        for seed, loss in zip(self.seeds, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise DivergedError(f"the training loss of seed {seed} is {loss} in epoch {epoch}")
        return {"train_seconds": seconds, "train_loss": losses.tolist()}

    def evaluate_seeds(self, epoch: int, weights: str | None = None) -> Reply:
        """Score every seed's network on the test images; the first seed's predicted digits come as a string of them.

        `weights` is the file in which the reference has left the first seed's weights.
        """
        images, labels = self.test_split
        each = [score(own, labels, self.problem.classes) for own in self.seeds_backend.predict_seeds(images)]
        return {
            "test_loss": [one.loss for one in each],
            "test_error_percent": [one.error_percent for one in each],
            "digits": "".join(map(str, each[0].digits)),
            "weights_difference": self._weights_difference(weights, write=False) if weights else None,
        }


if __name__ == "__main__":
    main(SeedsWorker())
