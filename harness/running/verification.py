"""`lockstep verify`: the acceptance test of a backend, in worker processes of its own, as in a run.

Three parts: the contract (`contract.py`), identity with the float64 oracle over 150 steps (`equivalence.py`), and a
short run in lockstep with the reference (`conductor.py`).
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from math import nan
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from lockstep_bench.backends import REFERENCE
from lockstep_bench.harness.checks.equivalence import State, compare, failure, tolerance
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.machine.cpus import default_threads
from lockstep_bench.harness.problem import Dtype, Problem, Weights, initial_weights
from lockstep_bench.harness.records.format import Block, EndEvent, Event, PlannedBackend
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.running.plan import choose_backends, make_plan
from lockstep_bench.harness.running.worker_process import WorkerFailed, WorkerProcess

EPOCHS, IMAGES = 3, 743
"""Three epochs of 49 whole batches of 15 and a short one of 8: 150 steps."""
RUN_EPOCHS, RUN_IMAGES, RUN_SLICE_STEPS = 2, 120, 4
"""The short run: two rounds of four steps per epoch. All slices are as long, for those who compile for a length."""
SEED = 0
TURN_TIMEOUT_SECONDS = 300.0
LOG_CHARACTERS = 4_000
"""How much of a failed worker's log is shown: a traceback and a little more."""

Part = Literal["contract", "identity", "lockstep"]


class Outcome(NamedTuple):
    """What came of one check; `detail` says of one that failed what was expected, what came, and the usual causes."""

    part: Part
    check: str
    passed: bool
    detail: str = ""
    difference: float = nan
    tolerance: float = nan


class Row(NamedTuple):
    """One row of what `verify` returns: a check, or why there are no others, with the end of the worker's log."""

    backend: str
    part: str
    check: str
    difference: float
    tolerance: float
    passed: bool
    detail: str


class Verification(NamedTuple):
    """What came of one backend: its checks, and, where not all were made, why, with the end of its worker's log."""

    backend: PlannedBackend
    outcomes: list[Outcome]
    failure: str | None = None
    log: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check was made, and passed."""
        return self.failure is None and all(outcome.passed for outcome in self.outcomes)

    def rows(self) -> Iterator[Row]:
        """A row per check, and one that says why there are no others."""
        for one in self.outcomes:
            yield Row(self.backend.name, one.part, one.check, one.difference, one.tolerance, one.passed, one.detail)
        if self.failure is not None:
            yield Row(self.backend.name, "", self.failure, nan, nan, False, self.log)

    def lines(self) -> Iterator[str]:
        """The same for people: a line per part that passed, and per failure; those alike in all together are one."""
        name = self.backend.name
        for part, grouped in groupby(self.outcomes, lambda outcome: outcome.part):
            outcomes = list(grouped)
            failed: dict[str, list[str]] = {}
            for outcome in outcomes:
                if not outcome.passed:
                    failed.setdefault(outcome.detail, []).append(outcome.check)
            for detail, checks in failed.items():
                yield f"FAILED {name}: {', '.join(checks)}: {detail}"
            if not failed:
                yield f"ok     {name}: {part}, {_passed(outcomes)}"
        if self.failure is not None:
            yield f"{name}: {self.failure}"
            yield from self.log.splitlines()


def _passed(outcomes: list[Outcome]) -> str:
    """What a part that passed has shown."""
    differences = ", ".join(
        f"{outcome.check} {outcome.difference:.1e} of {outcome.tolerance:.0e} allowed"
        for outcome in outcomes
        if outcome.check in ("first probabilities", "losses", "all weights")
    )
    return differences or (f"{len(outcomes)} checks" if len(outcomes) > 1 else outcomes[0].check)


class Verifier:
    """Trains the oracle once and holds backends against it.

    Args:
        dataset: its first images are trained on, its test images predicted.
        dtype: the arithmetic of the backends; the oracle's is float64.
        device: where they run; the oracle is on the CPU.
        threads: how many CPU threads every worker uses; as many as CPUs if none.
        caches: a folder for what workers compile, each for those after it; one for this verifier if none.

    Raises:
        UsageError: the dataset is too small.
        LockstepError: the oracle's worker failed.
    """

    def __init__(
        self,
        dataset: Dataset,
        dtype: Dtype = "float32",
        threads: int | None = None,
        caches: Path | None = None,
        device: str = "cpu",
    ) -> None:
        if len(dataset.train.labels) < IMAGES:
            raise UsageError(f"{dataset.name} has fewer than the {IMAGES} training images that verifying takes")
        self.dataset, self.dtype, self.threads = dataset, dtype, threads or default_threads()
        self.device = device
        # No start-up is timed here, so what one worker compiles is there for the next.
        self._own_caches = tempfile.TemporaryDirectory(prefix="lockstep-", ignore_cleanup_errors=True)
        self.caches = caches or Path(self._own_caches.name)
        try:
            self.oracle = self._train(REFERENCE, Problem(dtype="float64"), "cpu")
        except WorkerFailed as failed:
            raise LockstepError(f"the oracle itself failed, {failed.status}: {failed.reason}") from failed

    def verify_all(
        self, specs: Sequence[str] = (), begun: Callable[[str], None] = lambda _: None
    ) -> Iterator[Verification]:
        """Verify the backends that are named, or all there are, one after another; `begun` is told each one's name."""
        for backend in choose_backends(specs, dtype=self.dtype, device=self.device):
            if not specs or backend.spec in specs:
                begun(backend.name)
                yield self.verify(backend)

    def verify(self, backend: PlannedBackend, parts: Sequence[Part] = get_args(Part)) -> Verification:
        """Make the checks of these parts, until a worker fails; a run is in float32, and so only part of that.

        A check that fails stops nothing.
        """
        if backend.skip:
            return Verification(backend, [], f"skipped: {backend.skip}")
        make = {"contract": self._contract, "identity": self._identity, "lockstep": self._lockstep}
        outcomes: list[Outcome] = []
        try:
            for part in parts:
                if part != "lockstep" or self.dtype == "float32":
                    outcomes += make[part](backend)
        except WorkerFailed as failed:
            return Verification(backend, outcomes, f"{failed.status}: {failed.reason}", *failed.__notes__)
        return Verification(backend, outcomes)

    def _contract(self, backend: PlannedBackend) -> list[Outcome]:
        """What the backend's own worker finds."""
        with self._worker(backend.spec, self.dtype, backend.device or self.device) as worker:
            findings = worker.contract(Problem(dtype=self.dtype), self.dataset.folder)
        return [Outcome("contract", name, failure is None, failure or "") for name, failure in findings.items()]

    def _identity(self, backend: PlannedBackend) -> list[Outcome]:
        """Train it as the oracle was trained, and compare."""
        state = self._train(backend.spec, Problem(dtype=self.dtype), backend.device or self.device)
        start = initial_weights(Problem(dtype="float64"), SEED)
        checks = compare(state, self.oracle, start, tolerance(self.dtype, backend.device or self.device))
        return [
            Outcome("identity", check.name, check.passed, failure(check, checks), check.difference, check.tolerance)
            for check in checks
        ]

    def _lockstep(self, backend: PlannedBackend) -> list[Outcome]:
        """Run it in turns with the reference, and apply the gate.

        Raises:
            WorkerFailed: it did not come to the end of the run.
        """
        plan = make_plan(
            self.dataset,
            [backend.spec],
            seeds=[SEED],
            epochs=RUN_EPOCHS,
            train_images=RUN_IMAGES,
            slice_steps=RUN_SLICE_STEPS,
            threads=self.threads,
            device=self.device,
            turn_timeout=TURN_TIMEOUT_SECONDS,
        )
        ends: dict[str | None, EndEvent] = {}

        def observe(_: Block, event: Event) -> None:
            if isinstance(event, EndEvent):
                ends[event.backend] = event

        with tempfile.TemporaryDirectory() as folder:
            conduct(plan, self.dataset.folder, Path(folder, "run"), observe, extras=False, caches=self.caches)
            end = ends[backend.name]
            status, reason = end.status, end.reason
            if status not in ("ok", "not-identical"):
                failed = WorkerFailed(status, f"in a run in lockstep: {reason}")
                failed.add_note(_end_of(Path(folder, "run", "logs", plan.blocks[0].id, f"{backend.name}.log")))
                raise failed
        detail = (
            f"expected the reference's predictions; came {reason}; usual causes: those of the other parts, or "
            "else what comes with a second epoch, or with evaluations between them"
        )
        passed = status == "ok"
        check = f"{RUN_EPOCHS} epochs in turns with {REFERENCE}"
        return [Outcome("lockstep", check, passed, "" if passed else detail)]

    def _train(self, spec: str, problem: Problem, device: str) -> State:
        """Step-0 probabilities; losses, of the first batch by itself and of the rest; weights after 150 steps."""
        slices = [(1, 0, problem.batch_size), (1, problem.batch_size, IMAGES)]
        slices += [(epoch, 0, IMAGES) for epoch in range(2, EPOCHS + 1)]
        with tempfile.TemporaryDirectory() as folder, self._worker(spec, problem.dtype, device) as worker:
            before, after = Path(folder, "before.npz"), Path(folder, "after.npz")
            worker.build(problem, SEED, self.dataset.folder, IMAGES)
            worker.ask("save", path=str(before))
            losses = [
                worker.ask("train", epoch=epoch, start=start, stop=stop)["train_loss"] for epoch, start, stop in slices
            ]
            worker.ask("save", path=str(after))
            with np.load(before, allow_pickle=False) as first, np.load(after, allow_pickle=False) as last:
                weights = Weights(*(last[f"weights/{name}"] for name in Weights._fields))
                return State(first["probabilities"], np.array(losses), weights)

    @contextmanager
    def _worker(self, spec: str, dtype: Dtype, device: str) -> Iterator[WorkerProcess]:
        """A worker that has imported its framework.

        Raises:
            WorkerFailed: with the end of the worker's log as its note.
        """
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log")
            try:
                with WorkerProcess(
                    spec,
                    dtype=dtype,
                    device=device,
                    threads=self.threads,
                    log=log,
                    timeout=TURN_TIMEOUT_SECONDS,
                    caches=self.caches,
                ) as worker:
                    worker.start()
                    yield worker
            except WorkerFailed as failed:
                failed.add_note(_end_of(log))
                raise


def _end_of(log: Path) -> str:
    return log.read_text(errors="backslashreplace")[-LOG_CHARACTERS:] if log.exists() else ""
