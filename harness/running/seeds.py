"""`lockstep seeds`: one network from many seeds, so that one can see how far its test error is luck.

The seeds are trained in blocks, those of a block side by side in one worker process, each from the harness's own
initial weights and in its own order for that seed. Of some blocks the first seed is trained by the reference too,
`jax-scan`, in a worker of its own and in turns, and after every epoch the gate of `equivalence.py` is applied between
the two. Raw records, interruption and resuming are those of a run: `conductor.conduct_blocks`.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.checks.equivalence import disagreements
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.machine import environment, identity
from lockstep_bench.harness.machine.variables import recorded_variables
from lockstep_bench.harness.records.format import (
    MOST_SEEDS,
    MOST_TOGETHER,
    Block,
    BuildEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    MachineEvent,
    Plan,
    PlannedBackend,
    SeedsEvent,
    SeedsPlan,
    StartEvent,
)
from lockstep_bench.harness.running.block_conductor import Heartbeat, replied, sent_digits
from lockstep_bench.harness.running.conductor import Observer, conduct_blocks
from lockstep_bench.harness.running.plan import make_plan
from lockstep_bench.harness.running.schedule import steps
from lockstep_bench.harness.running.worker_process import WORKER, WorkerFailed, WorkerProcess

REFERENCE: Final = "jax-scan"
"""Trains the checked seeds one by one; `lockstep verify` and every run hold it against NumPy."""
SIDE_BY_SIDE: Final = "jax-vmap"
TURN_TIMEOUT_SECONDS: Final = 4 * 3600.0
"""A turn is an epoch of all seeds of a block."""
SEEDS_WORKER: Final = "lockstep_bench.harness.worker.seeds_worker"


def plan_seeds(
    dataset: Dataset,
    *,
    count: int,
    together: int = 4,
    check: int = 2,
    epochs: int = 20,
    train_images: int | None = None,
    threads: int | None = None,
    command: str = "",
    keep: Sequence[str] = (),
) -> SeedsPlan:
    """Resolve what was asked for; `check` blocks, evenly spaced from the first on, have their first seed checked.

    Raises:
        UsageError: a value is out of range, or JAX is not installed.
    """
    limits = {"--count": (count, 1, MOST_SEEDS), "--together": (together, 1, MOST_TOGETHER)}
    for option, (value, least, most) in limits.items():
        if not least <= value <= most:
            raise UsageError(f"{option} must be from {least} to {most:,}, not {value}: give a number in between")
    starts = range(0, count, together)
    if not 0 <= check <= len(starts):
        raise UsageError(
            f"--check {check} is not between 0 and the {len(starts)} blocks of {together} seeds: one in a block can be"
        )
    plan = make_plan(
        dataset,
        [REFERENCE, SIDE_BY_SIDE],
        preset="standard",
        epochs=epochs,
        train_images=train_images,
        threads=threads,
        turn_timeout=TURN_TIMEOUT_SECONDS,
        command=command,
        keep=keep,
    )
    counted = plan.blocks[0].threads
    blocks = [
        Block(id=f"seeds-{start}-to-{min(start + together, count) - 1}", seed=start, threads=counted)
        for start in starts
    ]
    checked = [blocks[ceil(place * len(blocks) / check)].id for place in range(check)]
    own = {"backends": plan.backends[1:], "blocks": blocks, "preset": None}
    own["slice_steps"] = steps(plan.dataset.train_images, plan.problem.batch_size)
    return SeedsPlan(
        **{**{name: getattr(plan, name) for name in Plan.model_fields}, **own},
        count=count,
        together=together,
        checked=checked,
    )


def train_seeds(
    plan: SeedsPlan,
    dataset: Path,
    out: Path,
    observe: Observer = lambda *_: None,
    *,
    heartbeat: Heartbeat = lambda *_: None,
    resume: bool = False,
) -> None:
    """Train every seed of a plan into a results folder; arguments and errors are those of `conductor.conduct`.

    Blocks that came to their end are kept; those that failed are tried again.
    """

    def conductor(block: Block, emit: Callable[[Event], None]) -> SeedsConductor:
        return SeedsConductor(plan, block, dataset, out / "logs" / block.id, emit, heartbeat)

    conduct_blocks(plan, dataset, out, observe, conductor, resume=resume, retry_failed=True)


class SeedsConductor:
    """One block: its seeds side by side, and the first by the reference too where the block is checked.

    Attributes:
        arrays: the checked seed's predicted digits by both, uint8 (epochs, test images), as `predicted/BACKEND`.
    """

    def __init__(
        self,
        plan: SeedsPlan,
        block: Block,
        dataset: Path,
        logs: Path,
        emit: Callable[[Event], None],
        heartbeat: Heartbeat,
    ) -> None:
        self.plan, self.block, self.dataset, self.logs, self.emit = plan, block, dataset, logs, emit
        self.heartbeat = heartbeat
        self.seeds = plan.seeds(block)
        self.arrays: dict[str, NDArray[Any]] = {}
        self.digits: dict[str, list[NDArray[np.uint8]]] = {}
        self.reference: WorkerProcess | None = None

    def run(self) -> None:
        """Run every epoch of the block; a worker that fails ends it, and is recorded."""
        variables = recorded_variables(self.plan.keep)
        self.emit(
            MachineEvent(
                machine=identity.machine_name(),
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                details=environment.machine_details(),
                variables_removed=variables.removed,
                variables_kept=variables.kept,
            )
        )
        with ExitStack() as processes, tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
            self.weights = Path(folder) / "weights.npy"
            try:
                self._build(processes)
                for epoch in range(1, self.plan.problem.epochs + 1):
                    self._epoch(epoch)
            except WorkerFailed as failure:
                self.emit(EndEvent(backend=SIDE_BY_SIDE, status=failure.status, reason=failure.reason))
            else:
                self.emit(EndEvent(backend=SIDE_BY_SIDE, status="ok"))
        self.arrays = {f"predicted/{name}": np.stack(epochs) for name, epochs in self.digits.items()}

    def _build(self, processes: ExitStack) -> None:
        """Start the workers, and have all seeds stand at step 0, the checked one from the same arrays in both."""
        reference, side_by_side = self.plan.backends
        plan, images = self.plan, self.plan.dataset.train_images
        self.worker = self._start(side_by_side, processes, SEEDS_WORKER)
        reply = self.worker.build_for(plan.problem, self.dataset, images, do="build_seeds", seeds=self.seeds)
        built = replied(BuildEvent, backend=side_by_side.name, **reply)
        self.emit(built)
        if self.block.id in plan.checked:
            self.reference = self._start(reference, processes)
            reply = self.reference.build(plan.problem, self.block.seed, self.dataset, images)
            theirs = replied(BuildEvent, backend=reference.name, **reply)
            self.emit(theirs)
            if theirs.weights_sha256 != built.weights_sha256:
                raise WorkerFailed("error", f"its initial weights of seed {self.seeds[0]} are not {reference.name}'s")

    def _start(self, backend: PlannedBackend, processes: ExitStack, module: str = WORKER) -> WorkerProcess:
        worker = processes.enter_context(
            WorkerProcess(
                backend.spec,
                dtype=self.plan.problem.dtype,
                device=self.plan.device,
                threads=self.block.threads,
                log=self.logs / f"{backend.name}.log",
                timeout=self.plan.turn_timeout_seconds,
                keep=self.plan.keep,
                module=module,
                heartbeat=lambda do: self.heartbeat(self.block, backend.name, do),
            )
        )
        self.emit(replied(StartEvent, backend=backend.name, **worker.start()))
        return worker

    def _epoch(self, epoch: int) -> None:
        """Train and score all seeds, and hold the first against the reference where there is one."""
        reference, side_by_side = self.plan.backends
        trained = self.worker.ask("train_seeds", epoch=epoch)
        theirs = self._reference_epoch(epoch, reference.name) if self.reference else None
        reply = self.worker.ask(
            "evaluate_seeds", epoch=epoch, weights=str(self.weights) if theirs is not None else None
        )
        digits = sent_digits(reply.pop("digits", None), self.plan.dataset.test_images)
        checks: dict[str, Any] = {}
        if theirs is not None:
            self.digits.setdefault(side_by_side.name, []).append(digits)
            checks = {"disagreements": disagreements(digits, theirs)}
            checks["weights_difference"] = reply.pop("weights_difference", None)
        self.emit(
            replied(
                SeedsEvent,
                backend=side_by_side.name,
                epoch=epoch,
                train_seconds=trained.get("train_seconds"),
                scores=list(self._scores(trained, reply, checks)),
            )
        )

    def _scores(
        self, trained: dict[str, Any], evaluated: dict[str, Any], checks: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """What was sent as lists over the seeds, by seed.

        Raises:
            WorkerFailed: it is not one value of each for each seed.
        """
        columns = {**trained, **evaluated}
        names = ("train_loss", "test_loss", "test_error_percent")
        lists: list[Sequence[Any]] = [columns.get(name) or [] for name in names]
        if any(len(values) != len(self.seeds) for values in lists):
            raise WorkerFailed("error", f"what it sent is not a value for each of its {len(self.seeds)} seeds")
        for seed, *values in zip(self.seeds, *lists, strict=True):
            own = checks if seed == self.seeds[0] else {}
            yield {"seed": seed, **dict(zip(names, values, strict=True)), **own}

    def _reference_epoch(self, epoch: int, name: str) -> NDArray[np.uint8]:
        """Have the reference train and evaluate its seed, and leave its weights; the digits that it predicts."""
        assert self.reference is not None
        self.reference.ask("train", epoch=epoch, start=0, stop=self.plan.dataset.train_images)
        reply = self.reference.ask("evaluate", epoch=epoch, weights=str(self.weights), write=True)
        digits = sent_digits(reply.pop("digits", None), self.plan.dataset.test_images)
        self.digits.setdefault(name, []).append(digits)
        self.emit(replied(EvaluationEvent, backend=name, epoch=epoch, disagreements=0, **reply))
        return digits
