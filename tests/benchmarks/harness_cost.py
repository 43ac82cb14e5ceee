"""What the harness adds to a step: one adapter, in one process, driven barely and as the worker drives it, in turns.

    python tests/benchmarks/harness_cost.py [BACKEND]

Short chunks alternate as A B B A or B A A B, so that a machine that slows down or speeds up steadily does so for both.
It goes on until the 95 % interval of the ratio lies within 1 +/- 0.01, and exits 1 if after 10,000 times it does not.
Run it on a quiet machine.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy.stats import bootstrap

from lockstep_bench.backends import load
from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.machine.cpus import available_cpus
from lockstep_bench.harness.problem import Problem, epoch_order
from lockstep_bench.harness.running.worker_process import worker_environment
from lockstep_bench.harness.worker.worker import Worker, answer

LIMIT = 0.01
CHUNK_STEPS = 10
"""About 40 ms: the shorter the chunks, the less the machine changes from one to the next."""
QUADS_AT_A_TIME, FEWEST_QUADS, MOST_QUADS = 250, 1_000, 10_000
MARK = "LOCKSTEP_HARNESS_COST"


class Chunks:
    """Consecutive chunks of one adapter's training, each driven one way or the other."""

    def __init__(self, backend: str, threads: int) -> None:
        dataset = find_dataset(say=print)
        self.dataset = dataset.name
        problem = Problem()
        self.worker = Worker()
        self.images = len(dataset.train.labels) // problem.batch_size * problem.batch_size
        self.size = CHUNK_STEPS * problem.batch_size
        self.order = epoch_order(0, 1, self.images)
        self.at = 0
        self.lot = np.random.default_rng(0)
        self.worker.start(backend)
        self.worker.build(
            problem=asdict(problem),
            seed=0,
            dataset=str(dataset.folder),
            train_images=self.images,
            device="cpu",
            threads=threads,
            profile="identical",
        )

    def _next(self) -> tuple[int, int]:
        self.at = 0 if self.at + self.size > self.images else self.at
        start, self.at = self.at, self.at + self.size
        return start, self.at

    def bare(self) -> float:
        """Seconds of a chunk with nothing around it but a clock."""
        start, stop = self._next()
        order = self.order[start:stop]
        begin = perf_counter()
        self.worker.backend.train(order)
        return perf_counter() - begin

    def driven(self) -> float:
        """Seconds of a chunk as the worker reports them, asked for by a line of JSON."""
        start, stop = self._next()
        reply = json.loads(answer(self.worker, json.dumps({"do": "train", "epoch": 1, "start": start, "stop": stop})))
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return float(reply["train_seconds"])

    def quad(self) -> float:
        """The log ratio of driven to bare, from one A B B A or B A A B: by lot, so that neither owns some images."""
        outer, inner = (self.bare, self.driven) if self.lot.random() < 0.5 else (self.driven, self.bare)
        first, second, third, fourth = outer(), inner(), inner(), outer()
        log = float(np.log((second + third) / (first + fourth)))
        return log if outer == self.bare else -log


def main() -> int:
    """Measure, print, and say by the exit code whether the harness is free."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backend", nargs="?", default="numpy")
    backend = parser.parse_args().backend
    threads = available_cpus()
    if MARK not in os.environ:  # thread counts must be set before anything is imported: start again with them
        adapter = load(backend).environment(threads, "cpu", "float32")
        variables = worker_environment(adapter, threads, Path(tempfile.gettempdir(), "lockstep-harness-cost"))
        os.execve(sys.executable, [sys.executable, *sys.argv], {**variables, MARK: "1"})

    chunks = Chunks(backend, threads)
    chunks.quad()  # compiling and the first touch of memory are not what is asked for
    logs: list[float] = []
    is_free = False
    while (len(logs) < FEWEST_QUADS or not is_free) and len(logs) < MOST_QUADS:
        logs += [chunks.quad() for _ in range(QUADS_AT_A_TIME)]
        interval = bootstrap((logs,), np.median, n_resamples=2000, method="percentile", rng=0).confidence_interval
        low, high = np.exp(interval.low), np.exp(interval.high)
        is_free = low > 1 - LIMIT and high < 1 + LIMIT
        print(
            f"{backend} on {chunks.dataset}: driven / bare = {np.exp(np.median(logs)):.4f}, "
            f"95 % interval {low:.4f} to {high:.4f}, {len(logs)} times A B B A of {CHUNK_STEPS} steps"
        )
    return 0 if is_free else 1


if __name__ == "__main__":
    sys.exit(main())
