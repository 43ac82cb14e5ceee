"""`lockstep verify`: every backend against the float64 oracle, each in a worker process of its own, as in a run."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lockstep_bench.backends import REFERENCE
from lockstep_bench.harness.data import Dataset
from lockstep_bench.harness.environment import available_cpus
from lockstep_bench.harness.equivalence import TOLERANCES, Check, State, compare
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.plan import choose_backends
from lockstep_bench.harness.problem import Dtype, Problem, Weights, initial_weights
from lockstep_bench.harness.records import PlannedBackend
from lockstep_bench.harness.worker_process import WorkerFailed, WorkerProcess

EPOCHS, IMAGES = 3, 743
"""Three epochs of 49 whole batches of 15 and a short one of 8: 150 steps."""
SEED = 0
TURN_TIMEOUT_SECONDS = 300.0
LOG_CHARACTERS = 4_000
"""How much of a failed worker's log is shown: a traceback and a little more."""


class Verification(NamedTuple):
    """What came of one backend: its checks, or why there are none and the end of its worker's log."""

    backend: PlannedBackend
    checks: list[Check]
    failure: str | None = None
    log: str = ""

    @property
    def passed(self) -> bool:
        """Whether it was checked, and is the same network in every respect."""
        return self.failure is None and all(check.passed for check in self.checks)

    def rows(self) -> list[tuple[str, str, float, float, bool]]:
        """Backend, check, difference, tolerance, passed: a row per check, or one that says why there are none."""
        if self.failure is not None:
            return [(self.backend.name, self.failure, float("nan"), float("nan"), False)]
        return [(self.backend.name, *check, check.passed) for check in self.checks]

    def lines(self) -> Iterator[str]:
        """The same for people."""
        name = self.backend.name
        if self.failure is not None:
            yield f"{name}: {self.failure}"
            yield from self.log.splitlines()
        for check in self.checks:
            verdict = "ok    " if check.passed else "FAILED"
            yield f"{verdict} {name}: {check.name} differ by {check.difference:.1e}, allowed {check.tolerance:.0e}"


class Verifier:
    """Trains the oracle once and holds backends against it.

    Args:
        dataset: its first images are trained on, its test images predicted.
        dtype: the arithmetic of the backends; the oracle's is float64.
        threads: how many CPU threads every worker uses; all there are if none.

    Raises:
        UsageError: the dataset is too small.
        LockstepError: the oracle's worker failed.
    """

    def __init__(self, dataset: Dataset, dtype: Dtype = "float32", threads: int | None = None) -> None:
        if len(dataset.train.labels) < IMAGES:
            raise UsageError(f"{dataset.name} has fewer than the {IMAGES} training images that verifying takes")
        self.dataset, self.dtype, self.threads = dataset, dtype, threads or available_cpus()
        try:
            self.oracle = self._train(REFERENCE, Problem(dtype="float64"))
        except WorkerFailed as failed:
            raise LockstepError(f"the oracle itself failed, {failed.status}: {failed.reason}") from failed

    def verify_all(self, specs: Sequence[str] = ()) -> Iterator[Verification]:
        """Verify the backends that are named, or all there are, one after another."""
        for backend in choose_backends(specs, dtype=self.dtype):
            if not specs or backend.spec in specs:
                yield self.verify(backend)

    def verify(self, backend: PlannedBackend) -> Verification:
        """Train one backend as the oracle was trained, and compare."""
        if backend.skip:
            return Verification(backend, [], f"skipped: {backend.skip}")
        try:
            state = self._train(backend.spec, Problem(dtype=self.dtype))
        except WorkerFailed as failed:
            return Verification(backend, [], f"{failed.status}: {failed.reason}", *failed.__notes__)
        start = initial_weights(Problem(dtype="float64"), SEED)
        return Verification(backend, compare(state, self.oracle, start, TOLERANCES[self.dtype]))

    def _train(self, spec: str, problem: Problem) -> State:
        """Step-0 probabilities; losses, of the first batch by itself and of the rest; weights after 150 steps.

        Raises:
            WorkerFailed: with the end of the worker's log as its note.
        """
        with tempfile.TemporaryDirectory() as folder:
            before, after, log = (Path(folder, name) for name in ("before.npz", "after.npz", "log"))
            try:
                with WorkerProcess(
                    spec,
                    dtype=problem.dtype,
                    device="cpu",
                    threads=self.threads,
                    log=log,
                    timeout=TURN_TIMEOUT_SECONDS,
                ) as worker:
                    worker.start()
                    worker.build(problem, SEED, self.dataset.folder, IMAGES)
                    worker.ask("save", path=str(before))
                    slices = [(1, 0, problem.batch_size), (1, problem.batch_size, IMAGES)]
                    slices += [(epoch, 0, IMAGES) for epoch in range(2, EPOCHS + 1)]
                    losses = [
                        worker.ask("train", epoch=epoch, start=start, stop=stop)["train_loss"]
                        for epoch, start, stop in slices
                    ]
                    worker.ask("save", path=str(after))
            except WorkerFailed as failed:
                failed.add_note(log.read_text(errors="backslashreplace")[-LOG_CHARACTERS:] if log.exists() else "")
                raise
            with np.load(before, allow_pickle=False) as first, np.load(after, allow_pickle=False) as last:
                weights = Weights(*(last[f"weights/{name}"] for name in Weights._fields))
                return State(first["probabilities"], np.array(losses), weights)
