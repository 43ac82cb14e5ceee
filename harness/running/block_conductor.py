"""One block: a worker per backend, one turn at a time, a check after every epoch, and an event for all of it.

It imports no framework and, while a worker has its turn, does nothing but wait. What it measures of a turn's conditions
it reads before and after.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from lockstep_bench.backends import REFERENCE
from lockstep_bench.harness.checks.equivalence import disagreements, gate
from lockstep_bench.harness.machine import environment, identity
from lockstep_bench.harness.machine.conditions import Watch
from lockstep_bench.harness.machine.variables import recorded_variables
from lockstep_bench.harness.records.format import (
    Block,
    BuildEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    ExtraEvent,
    FloorEvent,
    MachineEvent,
    Plan,
    PlannedBackend,
    StartEvent,
    Status,
    TurnEvent,
)
from lockstep_bench.harness.records.raw_files import first_error
from lockstep_bench.harness.running.schedule import Round, epoch_rounds, steps
from lockstep_bench.harness.running.worker_process import WorkerFailed, WorkerProcess, ending

FLOOR = "_floor"
"""The worker that measures what the machine can do at best; no backend can be called that."""

EXTRA_PART, EXTRA_SECONDS = 0.1, 3.0
"""Extras take at most this part of the training time together, and at most so many seconds of one backend."""

Kind = TypeVar("Kind", bound=Event)
Heartbeat = Callable[[Block, str, str], None]
"""Called with block, backend and kind of turn when a turn begins, and every few seconds while it lasts."""


class Slice(NamedTuple):
    """The steps of a turn, and the seconds that they took."""

    steps: int
    seconds: float


class BlockConductor:
    """One block: all its backends on one seed, in turns.

    Attributes:
        arrays: what goes into the block's .npz file, filled as the block goes on.
    """

    def __init__(
        self,
        plan: Plan,
        block: Block,
        dataset: Path,
        logs: Path,
        emit: Callable[[Event], None],
        extras: bool = True,
        caches: Path | None = None,
        heartbeat: Heartbeat = lambda *_: None,
        extra_part: float = EXTRA_PART,
    ) -> None:
        self.extras, self.caches, self.heartbeat, self.extra_part = extras, caches, heartbeat, extra_part
        self.plan, self.block, self.dataset, self.logs, self.emit = plan, block, dataset, logs, emit
        self.arrays: dict[str, NDArray[Any]] = {}
        self.workers: dict[str, WorkerProcess] = {}
        self.floor: WorkerProcess | None = None
        self.digits: dict[str, list[NDArray[np.uint8]]] = {}
        self.slices: dict[str, list[Slice]] = {}
        self.failed_gate: dict[str, str] = {}
        self.unchecked: str | None = None
        self.agreed: dict[str, str] = {}

    def run(self) -> KeyboardInterrupt | None:
        """Run every turn of the block; a worker that fails is recorded and left out, the others go on.

        Returns:
            The interrupt that came when only extras were left: the block is complete without them.

        Raises:
            KeyboardInterrupt: it came before.
        """
        self.began = perf_counter()
        variables = recorded_variables(self.plan.keep)
        self.emit(
            MachineEvent(
                machine=identity.machine_name(self.plan.device),
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                details=environment.machine_details(),
                variables_removed=variables.removed,
                variables_kept=variables.kept,
            )
        )
        with ExitStack() as processes:
            try:
                for backend in self.plan.backends:
                    self._attempt(backend.name, self._start, backend, processes)
                self._start_floor(processes)
                with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
                    self.weights = Path(folder) / "weights.npy"
                    for epoch in range(1, self.plan.problem.epochs + 1):
                        self._epoch(epoch)
                    return self._finish()
            except KeyboardInterrupt as interrupt:
                reason = interrupted_by(interrupt)
                for name in list(self.workers):
                    self._end(name, "interrupted", reason, at_once=True)
                self.emit(EndEvent(backend=None, status="interrupted", reason=reason))
                raise
            finally:
                self._collect_digits()

    def _attempt(self, name: str, turn: Callable[..., None], *arguments: Any) -> None:
        """Give a backend a turn; if its worker fails, that is how it ends."""
        try:
            turn(*arguments)
        except WorkerFailed as failure:
            self._end(name, failure.status, failure.reason, at_once=True)

    def _record(self, kind: type[Kind], **fields: Any) -> Kind:
        """An event of what a worker replied, on the disk.

        Raises:
            WorkerFailed: it is not what a worker can reply.
        """
        event = replied(kind, **fields)
        self.emit(event)
        return event

    def _start(self, backend: PlannedBackend, processes: ExitStack) -> None:
        """Start a worker, have it import its framework and stand at step 0."""
        plan = self.plan
        if backend.skip:
            self.emit(EndEvent(backend=backend.name, status="skipped", reason=backend.skip))
            return
        device = backend.device or plan.device
        worker = self.workers[backend.name] = processes.enter_context(self._process(backend.spec, backend.name, device))
        self._record(StartEvent, backend=backend.name, **worker.start())
        images = plan.dataset.train_images
        reply = worker.build(plan.problem, self.block.seed, self.dataset, images, plan.profile, plan.fixed_steps)
        built = self._record(BuildEvent, backend=backend.name, **reply)
        self._agree(f"{built.initializer} initial weights", built.weights_sha256)

    def _process(self, spec: str, name: str, device: str) -> WorkerProcess:
        return WorkerProcess(
            spec,
            dtype=self.plan.problem.dtype,
            device=device,
            threads=self.block.threads,
            log=self.logs / f"{name}.log",
            timeout=self.plan.turn_timeout_seconds,
            caches=self.caches,
            keep=self.plan.keep,
            heartbeat=lambda do: self.heartbeat(self.block, name, do),
        )

    def _start_floor(self, processes: ExitStack) -> None:
        """Start the worker that measures the floor; a run without it is a run all the same."""
        with suppress(WorkerFailed):
            worker = processes.enter_context(self._process(REFERENCE, FLOOR, "cpu"))
            worker.start()
            self.floor = worker

    def _agree(self, what: str, sha256: str) -> None:
        """Nobody trains on other arrays than the first who had them."""
        if self.agreed.setdefault(what, sha256) != sha256:
            raise WorkerFailed("error", f"its {what} are not those of the others")

    def _epoch(self, epoch: int) -> None:
        """All rounds of an epoch, then an evaluation of every backend, the reference first."""
        plan = self.plan
        rounds = epoch_rounds(
            [*self.workers, FLOOR],
            seed=self.block.seed,
            epoch=epoch,
            images=plan.epoch_images,
            batch_size=plan.problem.batch_size,
            slice_steps=plan.slice_steps,
        )
        for round_ in rounds:
            for name in round_.backends:
                if name == FLOOR:
                    self._measure_floor(round_)
                elif name in self.workers:
                    self._attempt(name, self._train, name, epoch, round_)
        for name in self._still_there(list(self.workers)):
            self._attempt(name, self._evaluate, name, epoch)

    def _still_there(self, names: Iterable[str]) -> Iterable[str]:
        return (name for name in names if name in self.workers)

    def _train(self, name: str, epoch: int, round_: Round) -> None:
        others = {other: worker.process.pid for other, worker in self._processes() if other != name}
        at = perf_counter() - self.began
        watch = Watch(others)
        reply = self.workers[name].ask("train", epoch=epoch, start=round_.start, stop=round_.stop)
        reply |= watch.conditions()
        turn = self._record(
            TurnEvent,
            backend=name,
            epoch=epoch,
            round=round_.number,
            start=round_.start,
            stop=round_.stop,
            steps=steps(round_.stop - round_.start, self.plan.problem.batch_size),
            at_seconds=at,
            **reply,
        )
        self.slices.setdefault(name, []).append(Slice(turn.steps, turn.train_seconds))

    def _processes(self) -> Iterator[tuple[str, WorkerProcess]]:
        yield from self.workers.items()
        if self.floor:
            yield FLOOR, self.floor

    def _measure_floor(self, round_: Round) -> None:
        if not self.floor:
            return
        at = perf_counter() - self.began
        try:
            reply = self.floor.floor(self.plan.problem)
        except WorkerFailed:
            self.floor.close(at_once=True)
            self.floor = None
        else:
            self.emit(FloorEvent(round=round_.number, at_seconds=at, **reply))

    def _evaluate(self, name: str, epoch: int) -> None:
        """Evaluate, and in the identical profile apply the gate."""
        is_reference = name == self.plan.reference.name
        is_gated = self.plan.profile == "identical" and (is_reference or self.plan.reference.name in self.workers)
        reply = self.workers[name].ask(
            "evaluate", epoch=epoch, weights=str(self.weights) if is_gated else None, write=is_reference
        )
        digits = sent_digits(reply.pop("digits", None), self.plan.dataset.test_images)
        self._agree(f"images of epoch {epoch}", str(reply.get("order_sha256")))
        self.digits.setdefault(name, []).append(digits)
        reference = self.digits[self.plan.reference.name][-1] if is_gated else None
        differ = disagreements(digits, reference) if reference is not None else None
        event = self._record(EvaluationEvent, backend=name, epoch=epoch, disagreements=differ, **reply)
        if self.plan.profile == "identical":
            self._gate(event)

    def _gate(self, event: EvaluationEvent) -> None:
        """A backend that is not the reference's network goes on, marked from now on."""
        found, differ, apart = "", event.disagreements, event.weights_difference
        if differ is None or apart is None:
            self.unchecked = self.unchecked or f"from epoch {event.epoch} on not checked: the reference was gone"
        else:
            found = gate(differ, apart, self.plan.dataset.test_images, self.plan.reference.name)
        if found:
            self.failed_gate.setdefault(event.backend, f"after epoch {event.epoch} {found}")

    def _finish(self) -> KeyboardInterrupt | None:
        """Take the reference's final state, measure what would disturb a run, and let every worker go.

        Where the steps are fixed nothing was learnt that would be worth the megabytes. Once training is complete an
        interrupt costs the extras and nothing else; it is returned.
        """
        reference, interrupt = self.plan.reference.name, None
        try:
            if reference in self.workers and not self.plan.fixed_steps:
                self._attempt(reference, self._save, reference)
            if self.extras:
                self._measure_extras()
        except KeyboardInterrupt as signal:
            interrupt = signal
        for worker in self.workers.values():
            worker.let_go()
        for name in list(self.workers):
            at_once = interrupt is not None
            if self.unchecked:
                self._end(name, "error", self.unchecked, at_once)
            else:
                self._end(name, "ok", at_once=at_once)
        return interrupt

    def _save(self, reference: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "reference.npz"
            self.workers[reference].ask("save", path=str(path))
            with np.load(path, allow_pickle=False) as saved:
                self.arrays.update(saved)

    def _measure_extras(self) -> None:
        """Measure single predictions and the cost of a call, of all backends within a part of the training time.

        The fastest come first: what they leave over is the others'. A call that has begun is ended.
        """
        left = self.extra_part * sum(turn.seconds for turns in self.slices.values() for turn in turns)
        names = sorted(self.workers, key=lambda name: self.slices[name][-1].seconds)
        for place, name in enumerate(names):
            limit = min(left / (len(names) - place), EXTRA_SECONDS)
            begin = perf_counter()
            try:
                self._attempt(name, self._measure_extra, name, limit)
            except KeyboardInterrupt as interrupt:
                reason = interrupted_by(interrupt)
                for other in names[place:]:
                    self._record(
                        ExtraEvent,
                        backend=other,
                        latency_seconds=[],
                        call_seconds=None,
                        latency_reason=reason,
                        call_reason=reason,
                    )
                raise
            left -= min(perf_counter() - begin, limit)

    def _measure_extra(self, name: str, limit: float) -> None:
        """Single predictions in half of the time, and the cost of a call, which trains the network on, in the other."""
        latency = self.workers[name].ask("latency", limit=limit / 2)
        call = self._call_cost(name, limit / 2)
        self._record(ExtraEvent, backend=name, **latency, **call)

    def _call_cost(self, name: str, limit: float) -> dict[str, Any]:
        """What a call of `train` costs, as the worker replies; or why that cannot be known."""
        size = self.plan.slice_steps
        seconds = [turn.seconds for turn in self.slices[name][1:] if turn.steps == size]  # the first may compile
        if size < 2:
            return {"call_seconds": None, "call_reason": "a slice is one step, so a call is not told from a step"}
        if not seconds:
            return {"call_seconds": None, "call_reason": f"there is no second slice of {size} steps to compare with"}
        epoch = self.plan.problem.epochs + 1
        return self.workers[name].ask("call", epoch=epoch, limit=limit, slice_steps=size, slice_seconds=median(seconds))

    def _end(self, name: str, status: Status, reason: str | None = None, at_once: bool = False) -> None:
        """Record how a backend ended; one that failed the gate is not identical, whatever became of it later."""
        if failed := self.failed_gate.get(name):
            later = "" if status == "ok" else f"; then {status}: {reason}"
            status, reason = "not-identical", failed + later
        code = worker.close(at_once) if (worker := self.workers.pop(name, None)) else 0
        if code != 0 and not at_once:
            reason = "; ".join(filter(None, [reason, f"when all was done, it {ending(code)[1]}"]))
        self.emit(EndEvent(backend=name, status=status, reason=reason))

    def _collect_digits(self) -> None:
        self.arrays.update({f"predicted/{name}": np.stack(epochs) for name, epochs in self.digits.items()})


def interrupted_by(interrupt: KeyboardInterrupt) -> str:
    """Say which signal interrupted the run, as a reason for the records."""
    return f"the run was interrupted by {next(iter(interrupt.args), 'SIGINT')}"


def replied(kind: type[Kind], **fields: Any) -> Kind:
    """An event of what a worker replied.

    Raises:
        WorkerFailed: it is not what a worker can reply.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        raise WorkerFailed("error", f"what it sent is no {kind.__name__}: {first_error(error)}") from error


def sent_digits(text: object, images: int) -> NDArray[np.uint8]:
    """The predicted digits that a worker sent as a text of them.

    Raises:
        WorkerFailed: they are not one digit for each image.
    """
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) == images):
        raise WorkerFailed("error", f"what it sent is no digit for each of the {images:,} test images")
    return np.array(list(text), dtype=np.uint8)
