"""The backends under pytest-benchmark, in the same worker processes as under `lockstep run`.

    pytest tests/benchmarks --benchmark-only [--backends numpy,jax] [--rounds 10] [--benchmark-json FILE]

A benchmark's time is what the worker reports: neither processes nor messages are in it. Beside each backend the
reference does the same, before the backend in one round and after it in the next, off the benchmark's clock. So
`extra_info` has a reference's time for each of `data`, which pairs two runs as `lockstep compare` wants it; and in the
end both must still be the same network.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lockstep_bench.backends import REFERENCE, load
from lockstep_bench.harness.checks.equivalence import allowed_disagreements, disagreements, gate
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.machine import cpus, environment
from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.running.schedule import steps
from lockstep_bench.harness.running.worker_process import WorkerProcess

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

PROBLEM = Problem()
IMAGES = 1_000 * PROBLEM.batch_size
"""Trained on in a round, once each; all there are, such as 1,500 digits, where that is less. Eleven rounds of ten
epochs each would part even honest networks (docs/reliability.md)."""
SEED, DEVICE = 0, "cpu"
TIMEOUT = 1_800.0
"""Seconds that a turn may take: where memory is slow, tinygrad's search for kernels took three minutes on two CPUs, and
more than five on one."""
pytestmark = pytest.mark.timeout(0)  # a turn has its own, and ten starts of tinygrad take longer


class Network:
    """A backend in a worker process of its own; what it does returns the seconds that the worker reports."""

    def __init__(self, spec: str, dataset: Dataset, folder: Path, leads: bool) -> None:
        self.spec, self.dataset, self.leads = spec, dataset, leads
        self.log, self.weights = folder / f"{'reference' if leads else 'own'}.log", folder / "weights.npy"
        self.images = min(IMAGES, len(dataset.train.labels))
        self.threads = cpus.default_threads()
        self.process = ExitStack()

    def start(self) -> float:
        """A new process, the framework imported, the network at step 0."""
        self.process.close()
        self.worker = self.process.enter_context(
            WorkerProcess(
                self.spec, dtype=PROBLEM.dtype, device=DEVICE, threads=self.threads, log=self.log, timeout=TIMEOUT
            )
        )
        self.started = self.worker.start()
        self.built = self.worker.build(PROBLEM, SEED, self.dataset.folder, self.images)
        self.epochs = self.steps = 0
        return float(self.started["start_seconds"] + self.built["build_seconds"])

    def start_and_step(self) -> float:
        """The same and one step, which compiles where anything is compiled."""
        return self.start() + self._train(1, 0, PROBLEM.batch_size)

    def train(self) -> float:
        """A round's steps, an epoch of its images."""
        self.epochs += 1
        return self._train(self.epochs, 0, self.images)

    def _train(self, epoch: int, start: int, stop: int) -> float:
        self.steps += steps(stop - start, PROBLEM.batch_size)
        return float(self.worker.ask("train", epoch=epoch, start=start, stop=stop)["train_seconds"])

    def predict(self) -> float:
        """All test images."""
        return float(self.evaluate()["predict_seconds"])

    def evaluate(self) -> dict[str, Any]:
        """What `lockstep run` asks after an epoch: the reference, which leads, leaves its weights for the other."""
        return self.worker.ask("evaluate", epoch=max(self.epochs, 1), weights=str(self.weights), write=self.leads)


class Pair:
    """The backend that is measured, and the reference beside it."""

    def __init__(self, own: Network, reference: Network, benchmark: "BenchmarkFixture", clock: Any) -> None:
        self.own, self.reference, self.benchmark, self.clock = own, reference, benchmark, clock
        self.reference_seconds: list[float] = []
        self.round = 0

    def measure(self, work: str, rounds: int, warmup_rounds: int) -> None:
        """Have both do some work of `Network` in every round; the warm-up rounds do not count."""

        def reference_first() -> None:
            self.round += 1
            if self.round % 2:
                reference()

        def reference() -> None:
            self.reference_seconds.append(getattr(self.reference, work)())

        def own() -> None:
            self.clock.seconds += getattr(self.own, work)()

        def reference_last() -> None:
            if not self.round % 2:
                reference()

        self.benchmark.extra_info["load_average"] = environment.machine_details()["load_average"]
        self.benchmark.pedantic(  # type: ignore[no-untyped-call] # it has no types
            own, setup=reference_first, teardown=reference_last, rounds=rounds, warmup_rounds=warmup_rounds
        )
        self.benchmark.extra_info["reference_seconds"] = self.reference_seconds[warmup_rounds:]

    def check(self) -> None:
        """Record what was measured of what, and fail where it is not the reference's network."""
        own, reference, dataset = self.own, self.reference, self.own.dataset
        expected, scored = reference.evaluate(), own.evaluate()
        differ = disagreements(*(np.array(list(reply["digits"])) for reply in (scored, expected)))
        images = len(dataset.test.labels)
        parted = gate(differ, scored["weights_difference"], images, REFERENCE)
        backend = load(own.spec)
        self.benchmark.extra_info |= {
            "backend": backend.name,
            "style": backend.style,
            "threads": own.threads,
            "device": DEVICE,
            "profile": "identical",
            "dataset": dataset.name,
            "dataset_sha256": dataset.sha256,
            "train_images": own.images,
            "batch_size": PROBLEM.batch_size,
            "seed": SEED,
            "steps": own.steps,
            "test_error_percent": scored["test_error_percent"],
            "disagreements": differ,
            "disagreements_allowed": allowed_disagreements(images),
            "weights_difference": scored["weights_difference"],
            "identical": not parted,
            "memory_peak_bytes": scored["peak_bytes"],
            **{name: own.started[name] for name in ("versions", "source_sha256")},
            "reference": {
                **{name: reference.started[name] for name in ("versions", "source_sha256")},
                "pools": reference.built["pools"],
            },
        }
        assert own.built["weights_sha256"] == reference.built["weights_sha256"], "other initial weights"
        assert own.steps == reference.steps
        assert not parted, parted


@pytest.fixture
def pair(backend: str, dataset: Dataset, tmp_path: Path, clock: Any, benchmark: "BenchmarkFixture") -> Iterator[Pair]:
    """Both sides, not started; ended after the test."""
    own, reference = Network(backend, dataset, tmp_path, leads=False), Network(REFERENCE, dataset, tmp_path, leads=True)
    with own.process, reference.process:
        yield Pair(own, reference, benchmark, clock)


def test_train(pair: Pair, rounds: int) -> None:
    """An epoch, by processes that have trained and been evaluated before, as for all epochs of `lockstep run` but one.

    It makes a difference: until larger arrays have been freed, glibc's malloc maps new pages for each of those that
    scikit-learn makes in a step, which then takes twice as long.
    """
    for network in (pair.reference, pair.own):
        network.start()
        network.train()
        network.evaluate()
    pair.measure("train", rounds, warmup_rounds=0)
    pair.check()


def test_predict(pair: Pair, rounds: int) -> None:
    """All test images at once, after an epoch: 10,000 of MNIST."""
    for network in (pair.own, pair.reference):
        network.start()
        network.train()
    pair.measure("predict", rounds, warmup_rounds=1)
    pair.check()


def test_start(pair: Pair, rounds: int) -> None:
    """Start of the process, import, build and first step; each time with empty compile caches."""
    pair.measure("start_and_step", rounds, warmup_rounds=0)
    for network in (pair.own, pair.reference):
        network.train()  # what one step has learnt tells no networks apart
    pair.check()
