"""One process, one backend: it does one thing at a time, when the conductor says so, and holds the only clock.

Started as `python -P -m lockstep_bench.harness.worker.worker FD`. It reads one JSON object per line from that socket,
of the form `{"do": "train", ...arguments}`, and answers each with one: the results, or `{"error": ...}`, or
`{"diverged": ...}`. What a framework prints goes to standard output and error, which the conductor sends to a log file.
"""

import json
import math
import os
import socket
import sys
import traceback
from collections.abc import Callable
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, RUSAGE_SELF, getrlimit, getrusage, setrlimit
from time import perf_counter, process_time, sleep
from typing import Any

import numpy as np

from lockstep_bench.backends import load
from lockstep_bench.harness.checks.equivalence import relative
from lockstep_bench.harness.data.cache import open_dataset
from lockstep_bench.harness.machine import conditions
from lockstep_bench.harness.machine.cpus import affinity
from lockstep_bench.harness.machine.floor import Floor
from lockstep_bench.harness.machine.variables import deciding
from lockstep_bench.harness.problem import (
    Defaults,
    IntArray,
    Problem,
    Profile,
    Split,
    digest,
    epoch_order,
    fixed_order,
    initial_weights,
)
from lockstep_bench.harness.worker import extras
from lockstep_bench.harness.worker.metrics import DivergedError, score

PREDICT_IMAGES = 10_000
"""Images given to `predict` at a time: bounds the memory of an evaluation."""
SCORED_IMAGES = 1_000
"""Where the steps are fixed, the training error is of so many: to score all of them could take longer than training."""
LARGEST_FILE_BYTES = 1 << 31
"""No file of a worker may grow beyond, its log among them: what floods that must not fill the disk."""
SETTLED_SECONDS, UNSETTLED_SECONDS = 0.01, 0.5
"""A turn ends when the process has been idle for the first, at the latest after the second; see `settle`."""

Reply = dict[str, Any]


class Worker:
    """The turns of one backend; each public method is one kind of turn and returns its reply."""

    def start(self, backend: str) -> Reply:
        """Load the adapter and import its framework."""
        self.backend = load(backend)()
        begin = perf_counter()
        for module in self.backend.modules:
            import_module(module)
        seconds = perf_counter() - begin
        return {
            "import_seconds": seconds,
            "versions": self.backend.versions(),
            "source_sha256": self.backend.source_sha256(),
            "memory_bytes": conditions.memory_bytes(),
        }

    def contract(self, problem: dict[str, Any], dataset: str, device: str, threads: int) -> Reply:
        """Check that the backend keeps to the contract; a failure, or none, by each check's name."""
        from lockstep_bench.harness.checks.contract import check_contract

        data = open_dataset(Path(dataset))
        return dict(check_contract(self.backend, Problem(**problem), data.train, data.test, device, threads))

    def build(
        self,
        problem: dict[str, Any],
        seed: int,
        dataset: str,
        train_images: int,
        device: str,
        threads: int,
        profile: Profile,
        fixed_steps: int | None = None,
    ) -> Reply:
        """Map the data, make the initial weights, and have the backend stand at step 0.

        In the native profile weights and Problem are made of the backend's own defaults. Where the steps are fixed,
        the one epoch is as long as they are.
        """
        data = open_dataset(Path(dataset))
        self.train_split, self.test_split = data.train.first(train_images), data.test
        planned = Problem(**problem)
        order = partial(epoch_order, seed, images=train_images)
        if fixed_steps:
            order = partial(fixed_order, seed, images=train_images, count=fixed_steps * planned.batch_size)
        self.order: Callable[[int], IntArray] = lru_cache(1)(lambda epoch: order(epoch=epoch))
        self.are_steps_fixed = fixed_steps is not None
        defaults = self.backend.native_defaults() if profile == "native" else Defaults.of(planned)
        self.problem = defaults.applied_to(planned)
        self.start_weights = weights = initial_weights(self.problem, seed, defaults.initializer)
        begin = perf_counter()
        self.backend.build(self.problem, weights, self.train_split, device, threads)
        self.backend.synchronize()
        seconds = perf_counter() - begin
        self.threads_before = conditions.thread_seconds()
        return {
            "build_seconds": seconds,
            "weights_sha256": digest(weights),
            **Defaults.of(self.problem)._replace(initializer=defaults.initializer)._asdict(),
            "memory_bytes": conditions.memory_bytes(),
            "pools": conditions.thread_pools(),
            "variables": deciding(os.environ),
        }

    def train(self, epoch: int, start: int, stop: int) -> Reply:
        """Train the images `start` to `stop` of the epoch's order. The clock sees the backend's work alone."""
        order = self.order(epoch)[start:stop]
        before = getrusage(RUSAGE_SELF)
        try:
            begin = perf_counter()
            loss = self.backend.train(order)
            self.backend.synchronize()
            seconds = perf_counter() - begin
        except Exception as error:
            if all(np.isfinite(array).all() for array in self.backend.weights()):
                raise
            # Some frameworks refuse to go on by themselves: scikit-learn, for one.
            raise DivergedError(f"the weights are not finite in epoch {epoch}: {error}") from error
        after = getrusage(RUSAGE_SELF)
        loss = float(loss)
        if not math.isfinite(loss):
            raise DivergedError(f"the training loss is {loss} in epoch {epoch}")
        return {
            "train_seconds": seconds,
            "train_loss": loss,
            "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "involuntary_switches": after.ru_nivcsw - before.ru_nivcsw,
        }

    def evaluate(self, epoch: int, weights: str | None = None, write: bool = False) -> Reply:
        """Score test and training images (some of them: `_seen`); the predicted test digits come as a string of them.

        `weights` is the file in which the reference leaves its weights, for the others to be held against.
        """
        threads_used = conditions.busy_threads(self.threads_before)
        weights_seconds = _seconds(self.backend.weights), _seconds(self.backend.weights)
        begin = perf_counter()
        probabilities = self._predict(self.test_split.images)
        predicted = perf_counter()
        test = score(probabilities, self.test_split.labels, self.problem.classes)
        seen = self._seen(epoch)
        train = score(self._predict(seen.images), seen.labels, self.problem.classes)
        return {
            "weights_seconds": weights_seconds,
            "predict_seconds": predicted - begin,
            "evaluate_seconds": perf_counter() - begin,
            "train_error_percent": train.error_percent,
            "test_loss": test.loss,
            "test_error_percent": test.error_percent,
            "order_sha256": digest([self.order(epoch)]),
            "threads_used": threads_used,
            "affinity": affinity(),
            "peak_bytes": conditions.peak_memory_bytes(),
            "device_peak_bytes": self.backend.device_memory_bytes(),
            "digits": "".join(map(str, test.digits)),
            "weights_difference": self._weights_difference(weights, write) if weights else None,
        }

    def _seen(self, epoch: int) -> Split:
        """The training images to score: all of them, or the first of those that a fixed number of steps came to."""
        if not self.are_steps_fixed:
            return self.train_split
        first = self.order(epoch)[: min(SCORED_IMAGES, len(self.train_split.labels))]  # of one epoch: no image twice
        return Split(self.train_split.images[first], self.train_split.labels[first])

    def _weights_difference(self, path: str, write: bool) -> float:
        """How far the weights are from the reference's, relative to how far those have moved."""
        own = self.backend.weights().flat()
        if write:
            np.save(path, own, allow_pickle=False)
        return relative(own, np.load(path, allow_pickle=False), self.start_weights.flat())

    def save(self, path: str) -> Reply:
        """Write the test images' probabilities and the weights into an .npz file."""
        weights = self.backend.weights()
        probabilities = self._predict(self.test_split.images)
        score(probabilities, self.test_split.labels, self.problem.classes)  # are they probabilities at all?
        np.savez(
            path,
            allow_pickle=False,
            probabilities=probabilities,
            **{f"weights/{name}": array for name, array in weights._asdict().items()},
        )
        return {}

    def latency(self, limit: float) -> Reply:
        """Predict one test image after another, as a server would, and give their seconds.

        The test images are taken in turn, from the first again where there are too few.
        """
        images = self.test_split.images
        timings = extras.latency(lambda number: self.backend.predict(images[number % len(images)][None]), limit)
        return {"latency_seconds": timings.seconds, "latency_reason": timings.reason}

    def call(self, epoch: int, limit: float, slice_steps: int, slice_seconds: float) -> Reply:
        """Measure what one call of `train` costs beyond its steps. The network is trained on by this."""
        batch, order = self.problem.batch_size, self.order(epoch)
        batches = len(order) // batch
        if not batches:
            return {"call_seconds": None, "call_reason": "there are too few images for one whole batch"}

        def step(number: int) -> None:
            start = number % batches * batch
            self.backend.train(order[start : start + batch])
            self.backend.synchronize()

        cost = extras.call_cost(step, limit, slice_steps, slice_seconds)
        return {"call_seconds": cost.seconds, "call_reason": cost.reason}

    def floor(self, problem: dict[str, Any], threads: int) -> Reply:
        """Measure what the machine can do at best; the first measurement warms up and is thrown away."""
        if not hasattr(self, "machine"):
            self.machine = Floor(Problem(**problem), threads)
            self.machine.measure()
        return self.machine.measure()._asdict()

    def _predict(self, images: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, Any]:
        starts = range(0, len(images), PREDICT_IMAGES)
        return np.concatenate([self.backend.predict(images[start : start + PREDICT_IMAGES]) for start in starts])


def _seconds(do: Callable[[], object]) -> float:
    """How long something takes."""
    begin = perf_counter()
    do()
    return perf_counter() - begin


def settle() -> None:
    """Wait, off every clock, until this process uses no more CPU.

    OpenMP's threads spin on for some milliseconds after their work, waiting for more: that would be in the next
    worker's turn. Those who never stop are not waited for, and show in `waiting_percent`.
    """
    late = perf_counter() + UNSETTLED_SECONDS
    used = SETTLED_SECONDS
    while used > 0.1 * SETTLED_SECONDS and perf_counter() < late:
        before = process_time()
        sleep(SETTLED_SECONDS)
        used = process_time() - before


def answer(worker: Worker, line: str) -> str:
    """Do what one line asks for; what goes wrong in it is the reply, with its traceback in the log."""
    try:
        message = json.loads(line)
        turn: Callable[..., Reply] = getattr(worker, message.pop("do"))
        return json.dumps(turn(**message))
    except DivergedError as error:
        return json.dumps({"diverged": str(error)})
    except Exception as error:  # whatever an adapter or its framework raises
        traceback.print_exc()
        return json.dumps({"error": f"{type(error).__name__}: {error}"})


def main(worker: Worker) -> None:
    """Answer line by line until the conductor closes its end."""
    soft, hard = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (LARGEST_FILE_BYTES if soft == RLIM_INFINITY else min(soft, LARGEST_FILE_BYTES), hard))
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            reply = answer(worker, line)
            settle()
            lines.write(reply + "\n")
            lines.flush()


if __name__ == "__main__":
    main(Worker())
