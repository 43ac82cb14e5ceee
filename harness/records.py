"""The raw records of a run: its plan, and per block one JSON line per event and one file of arrays.

A results folder holds `plan.json`, `blocks/<block id>.jsonl` and `blocks/<block id>.npz`; everything else in it is
derived from these. A block's events are only ever appended to: one that was interrupted and is run again begins once
more below, with a machine event, and what was above does not count. Reading checks every field, for a record may come
from a stranger: it is data and nothing else, its names are names, its numbers are numbers that there can be, and no
path in it is followed.
"""

import fcntl
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from lockstep_bench.backends import NAME
from lockstep_bench.backends.base import Style
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.problem import EpsilonPlacement, Initializer, Problem, Profile

Status = Literal["ok", "not-identical", "diverged", "error", "timeout", "killed", "interrupted", "skipped"]

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
"""Of a backend, a block, a dataset: names become names of files, cells of tables and parts of a page."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Positive = Annotated[float, Field(gt=0, le=1e15)]
"""Something that took no time at all was not measured."""
Percent = Annotated[float, Field(ge=0, le=100)]

PLAN_BYTES = 16 << 20
LINE_BYTES = 2 << 20
BLOCK_BYTES = 1 << 30
ARRAYS_BYTES = 1 << 30
"""The most that is read of each: a hundred times what the largest run writes."""


class Record(BaseModel):
    """Anything that is read from disk: unknown fields and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PlannedBackend(Record):
    """A backend as the plan resolved it; `spec` is what loaded it, `skip` why it cannot run here.

    `device` is where it trains if that is not the plan's: the reference has only the CPU, and is part of every run.
    `source_sha256` is of the adapter's own code. Plans from before runs could be resumed lack it.
    """

    name: Name
    style: Style
    spec: str
    versions: dict[str, str]
    skip: str | None = None
    source_sha256: str | None = None
    device: str | None = None


class PlannedDataset(Record):
    """The dataset as resolved: how much of it is used, and the hash of all of it."""

    name: Name
    sha256: str
    train_images: Annotated[int, Field(ge=1, le=2**31)]
    test_images: Annotated[int, Field(ge=1, le=2**31)]


class Block(Record):
    """Reference and chosen backends, one seed, one machine: the unit of resuming and of distribution.

    `replicate` (1, 2, ...) tells blocks apart that do the same in processes of their own.
    """

    id: Name
    seed: Count
    threads: Annotated[int, Field(ge=1, le=2**16)]
    replicate: Annotated[int, Field(ge=1, le=2**16)] = 1


class Plan(Record):
    """What was asked for, as resolved when the run began; plans from before runs could be resumed lack `python`.

    `fixed_steps` is for plans that end after so many steps, whole batches all of them: the Problem then has one epoch,
    which is as long as they are (`problem.fixed_order`).
    """

    file: ClassVar[str] = "plan.json"
    format: Literal[2] = 2
    lockstep: str
    python: str | None = None
    commit: str | None
    commit_clean: bool | None
    command: str
    preset: str | None
    profile: Profile = "identical"
    problem: Problem
    dataset: PlannedDataset
    backends: Annotated[list[PlannedBackend], Field(min_length=1, max_length=1000)]
    blocks: Annotated[list[Block], Field(min_length=1, max_length=100_000)]
    device: str
    slice_steps: Annotated[int, Field(ge=1, le=2**31)]
    fixed_steps: Annotated[int, Field(ge=1, le=2**31)] | None = None
    turn_timeout_seconds: Positive
    target_error_percent: Number
    machine: str

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        for what in ([backend.name for backend in self.backends], [block.id for block in self.blocks]):
            if twice := next((name for name in what if what.count(name) > 1), None):
                raise ValueError(f"{twice} is in it twice")
        return self

    @model_validator(mode="after")
    def _no_larger_than_a_run_can_be(self) -> Self:
        for name in ("inputs", "hidden", "classes", "batch_size", "epochs"):
            if getattr(self.problem, name) > 2**31:
                raise ValueError(f"the problem's {name} is more than {2**31:,}")
        return self

    @property
    def reference(self) -> PlannedBackend:
        """The backend that the others are compared with: always the first."""
        return self.backends[0]

    @property
    def twin(self) -> PlannedBackend | None:
        """The reference once more, under another name: the two differ by noise alone. None without `--aa`."""
        return next((one for one in self.backends[1:] if one.spec == self.reference.spec), None)

    @property
    def epoch_images(self) -> int:
        """How many images an epoch trains on, some of them more than once where the steps are fixed."""
        return self.fixed_steps * self.problem.batch_size if self.fixed_steps else self.dataset.train_images

    @property
    def threads(self) -> list[int]:
        """The thread counts that were asked for, in order; each has tables of its own."""
        return list(dict.fromkeys(block.threads for block in self.blocks))


PlanKind = TypeVar("PlanKind", bound=Plan)


class MachineEvent(Record):
    """The first line of a block: when (UTC, ISO 8601) and on what it was run.

    `nodes` is how many nodes of a cluster were on that machine: where there are more than one, blocks disturbed each
    other.
    """

    event: Literal["machine"] = "machine"
    machine: str
    started: str
    details: dict[str, Any]
    nodes: Annotated[int, Field(ge=1, le=2**16)] = 1


class StartEvent(Record):
    """A worker process is there and has imported its framework; `memory_bytes` is what it then held resident.

    `source_sha256` is of the adapter's own code. Records from before two runs could be compared lack it.
    """

    event: Literal["start"] = "start"
    backend: Name
    start_seconds: Seconds
    import_seconds: Seconds
    versions: dict[str, str]
    source_sha256: str | None = None
    memory_bytes: Count


class BuildEvent(Record):
    """A backend stands at step 0; the hash says which initial weights it was given.

    `initializer`, `epsilon`, `epsilon_placement` and `l2` are what it trains with, as in `problem.Defaults`. Records
    from before there was a native profile lack them: all trained with these.

    `pools` are its thread pools as threadpoolctl reports them, `variables` the environment's that bear on speed.
    """

    event: Literal["build"] = "build"
    backend: Name
    build_seconds: Seconds
    weights_sha256: str
    memory_bytes: Count
    pools: list[dict[str, Any]]
    variables: dict[str, str]
    initializer: Initializer = "glorot-uniform"
    epsilon: Number = 1e-7
    epsilon_placement: EpsilonPlacement = "uncorrected"
    l2: Number = 0.0


class TurnEvent(Record):
    """One slice trained: the images `start` to `stop` of the epoch's order, `at_seconds` after the block began.

    Conditions of the turn: the worker's CPU seconds and involuntary context switches within `train_seconds`; around
    it, as the conductor sees it, the part of the machine's CPU time that its host took (none where the system knows of
    no host), the load average of the last minute, the CPU seconds of every waiting worker, and for how long the machine
    was suspended, which `train_seconds` does not count.
    """

    event: Literal["turn"] = "turn"
    backend: Name
    epoch: Count
    round: Count
    start: Count
    stop: Count
    steps: Annotated[int, Field(ge=1, le=2**31)]
    at_seconds: Seconds
    train_seconds: Positive
    train_loss: Number
    cpu_seconds: Seconds
    involuntary_switches: Count
    steal_percent: Number | None
    load_average: Seconds
    waiting_seconds: dict[str, Number]
    suspended_seconds: Seconds = 0.0

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if self.stop <= self.start:
            raise ValueError("stop must be more than start")
        return self


class FloorEvent(Record):
    """What the machine can do at best, measured in a turn of its own: `floor.measure`."""

    event: Literal["floor"] = "floor"
    round: Count
    at_seconds: Seconds
    flops_per_second: Positive
    bytes_per_second: Positive


class EvaluationEvent(Record):
    """The network after an epoch, off the training clock; `predict_seconds` is for the test images.

    `weights_seconds` are those of the first and of a second call of `weights()` after the epoch's training: a first
    call that is much slower waited for work that was put off. `threads_used` counts the threads of the process that
    have been busy since `build`, `affinity` the CPUs that it may use; `peak_bytes` is the most it ever held resident.
    `disagreements` counts the test images predicted differently from the reference, and `weights_difference` is how far
    the weights are from the reference's, relative to how far those moved; none where there was no reference left, and
    in the native profile, where nobody is meant to agree. `device_peak_bytes` is the most that the framework held of a
    device's own memory; none on the CPU. Earlier records lack the latter two.
    Where the steps are fixed, `train_error_percent` is of the first `worker.SCORED_IMAGES` that were trained on.
    """

    event: Literal["evaluation"] = "evaluation"
    backend: Name
    epoch: Count
    weights_seconds: tuple[Seconds, Seconds]
    predict_seconds: Positive
    evaluate_seconds: Seconds
    train_error_percent: Percent
    test_loss: Number
    test_error_percent: Percent
    order_sha256: str
    threads_used: Count
    affinity: list[Count]
    peak_bytes: Count
    disagreements: Count | None
    weights_difference: Number | None = None
    device_peak_bytes: Count | None = None


class ExtraEvent(Record):
    """Measured after the last epoch, when nothing counts any more.

    Seconds of single predictions of one image, and what one call of `train` costs beyond its steps; none where a
    slice is too short or a step too slow to tell.
    """

    event: Literal["extra"] = "extra"
    backend: Name
    latency_seconds: list[Seconds]
    call_seconds: Number | None


class SeedScore(Record):
    """One of several seeds that are trained side by side, after an epoch.

    `disagreements` and `weights_difference`, as in an evaluation, from the reference that trained the seed by itself;
    none where none did.
    """

    seed: Count
    train_loss: Number
    test_loss: Number
    test_error_percent: Percent
    disagreements: Count | None = None
    weights_difference: Number | None = None


class SeedsEvent(Record):
    """An epoch of all seeds of a block: the seconds that training them took, and a score for each."""

    event: Literal["seeds"] = "seeds"
    backend: Name
    epoch: Count
    train_seconds: Positive
    scores: Annotated[list[SeedScore], Field(min_length=1, max_length=1000)]


class EndEvent(Record):
    """What became of a backend; with no backend, the last line of a block or of an interrupted attempt at it."""

    event: Literal["end"] = "end"
    backend: Name | None
    status: Status
    reason: str | None = None


Event = (
    MachineEvent
    | StartEvent
    | BuildEvent
    | TurnEvent
    | FloorEvent
    | EvaluationEvent
    | SeedsEvent
    | ExtraEvent
    | EndEvent
)
EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a results folder, made if need be, for one run; when its process ends, however it does, the system lets go.

    Raises:
        UsageError: it is no folder, or another run holds it.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: give another --out, nothing was overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UsageError(f"another run is writing into {folder}: wait for its end, or give another --out") from error
    finally:
        os.close(descriptor)


class BlockFile:
    """The raw file of one block, open for appending; a line is on the disk before the next turn begins.

    What it holds of an attempt that did not come to its end is marked as interrupted, and stays.

    Raises:
        LockstepError: it cannot be written, or holds what is no event; the message names it.
    """

    def __init__(self, folder: Path, block: Block) -> None:
        self.path = block_path(folder, block, "jsonl")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        before = read_block(folder, block)
        self.file = self.path.open("ab", buffering=0)
        if before.cut:
            os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)  # half a line says nothing
        if before.cut and before.events:
            self.append(EndEvent(backend=None, status="interrupted", reason="the run ended before its block did"))

    def append(self, event: Event) -> None:
        """Write one event whole, and see it onto the disk."""
        line = event.model_dump_json().encode() + b"\n"
        size = os.fstat(self.file.fileno()).st_size
        try:
            while line:
                line = line[self.file.write(line) :]
            os.fsync(self.file.fileno())
            there = self.path.stat().st_ino == os.fstat(self.file.fileno()).st_ino
        except FileNotFoundError:
            there = False
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self.file.fileno(), size)
            raise LockstepError(
                f"{self.path} cannot be written: {error.strerror}; make room, then go on with --resume: "
                "what was complete is kept"
            ) from error
        if not there:
            raise LockstepError(f"{self.path} was removed or replaced while the run wrote it: begin with another --out")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()


def block_path(folder: Path, block: Block, suffix: Literal["jsonl", "npz"]) -> Path:
    """Where a block's raw file lies."""
    return folder / "blocks" / f"{block.id}.{suffix}"


def plan_path(folder: Path, kind: type[Plan] = Plan) -> Path:
    """Where a results folder's plan lies."""
    return folder / kind.file


def write_plan(folder: Path, plan: Plan) -> None:
    """Begin a results folder with its plan, which appears whole or not at all.

    Raises:
        FileExistsError: it holds a plan already.
    """
    path = plan_path(folder, type(plan))
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    write_record(path, plan)


def write_record(path: Path, record: Record) -> None:
    """Write a record as a file that appears whole or not at all; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".json.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(record.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_plan(folder: Path) -> Plan:
    """The plan of a results folder; as `read_plan_of`."""
    return read_plan_of(folder, Plan)


def read_plan_of(folder: Path, kind: type[PlanKind]) -> PlanKind:
    """The plan of a results folder, of that kind.

    Raises:
        LockstepError: there is none, or it is not such a plan; the message says where.
    """
    path = plan_path(folder, kind)
    if not path.is_file():
        raise LockstepError(
            f"{folder} holds no results: {path.name} is missing; give a folder that `lockstep run` wrote"
        )
    try:
        return kind.model_validate_json(at_most(path, PLAN_BYTES))
    except ValidationError as error:
        raise LockstepError(f"{path} is not a plan: {first_error(error)}; restore it from where it came") from error


def at_most(path: Path, limit: int) -> bytes:
    """The content of a file that must not be larger than that."""
    with path.open("rb") as file:
        # At most what is there: Python sets aside as much memory as it is asked to read.
        content = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > limit:
        raise LockstepError(f"{path} has more than the {limit:,} bytes that are read; restore the file")
    return content


class Recorded(NamedTuple):
    """What a block's raw file holds.

    Attributes:
        events: of the last attempt at the block.
        cut: what of it is missing at the end; empty if nothing is.
        before: how many attempts there were before, which do not count.
    """

    events: list[Event]
    cut: str = ""
    before: int = 0

    @property
    def complete(self) -> bool:
        """Whether the block came to its end."""
        last = self.events[-1] if self.events else None
        return isinstance(last, EndEvent) and last.backend is None and last.status == "ok"

    @property
    def failed(self) -> bool:
        """Whether a backend did not come through."""
        ends = (event.status for event in self.events if isinstance(event, EndEvent))
        return any(status not in ("ok", "skipped") for status in ends)


def read_block(folder: Path, block: Block) -> Recorded:
    """The events of a block in order; none where it was not begun.

    A crash in mid-write, or a copy that broke off, leaves a file that ends anywhere: what was complete before counts.

    Raises:
        LockstepError: a line before the last is not an event, or not one that can come there; the message names file
            and line.
    """
    path = block_path(folder, block, "jsonl")
    if not path.is_file():
        return Recorded([])
    *lines, unfinished = at_most(path, BLOCK_BYTES).split(b"\n")
    attempts: list[list[Event]] = []
    seen: set[tuple[object, ...]] = set()
    for number, line in enumerate(lines, start=1):
        event = _event(path, number, line)
        if isinstance(event, MachineEvent) or not attempts:
            attempts.append([])
            seen.clear()
        if not seen.isdisjoint({key(event), BLOCK_END}):
            raise LockstepError(f"{path}, line {number}, is an event that cannot come there; restore the file")
        seen.add(key(event))
        attempts[-1].append(event)
    cut = ""
    if unfinished:
        cut = f"{path.name} breaks off in line {len(lines) + 1}, which was left out"
    elif BLOCK_END not in seen:
        cut = f"{path.name} stops after {len(lines)} lines, before the end of its block"
    return Recorded(attempts[-1] if attempts else [], cut, before=max(len(attempts) - 1, 0))


def blocks_left(folder: Path, plan: Plan, retry_failed: bool = False) -> list[Block]:
    """The blocks of a plan that did not come to their end, and those in which a backend failed if they are wanted too.

    Raises:
        LockstepError: as `read_block`.
    """
    each = [(block, read_block(folder, block)) for block in plan.blocks]
    return [block for block, found in each if not found.complete or (retry_failed and found.failed)]


BLOCK_END = ("end", None, 0)


def key(event: Event) -> tuple[object, ...]:
    """What there can be only one of in an attempt at a block."""
    return event.event, getattr(event, "backend", ""), getattr(event, "round", getattr(event, "epoch", 0))


def _event(path: Path, number: int, line: bytes) -> Event:
    try:
        if len(line) > LINE_BYTES:
            raise LockstepError(f"{path}, line {number}, has more than {LINE_BYTES:,} bytes; restore the file")
        return EVENT.validate_json(line)
    except ValidationError as error:
        raise LockstepError(
            f"{path}, line {number}, is not an event: {first_error(error)}; restore the file"
        ) from error


def first_error(error: ValidationError) -> str:
    """The first thing that is wrong, in one clause."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the text'}: {first['msg']}"


def write_arrays(folder: Path, block: Block, arrays: dict[str, NDArray[Any]]) -> None:
    """Write a block's arrays, as a whole or not at all.

    Predicted digits, uint8 (epochs, test images), as `predicted/<backend>`; of the reference its final `probabilities`
    and `weights/<name>`.

    Raises:
        LockstepError: they cannot be written; the message names the file.
    """
    path = block_path(folder, block, "npz")
    partial = path.with_suffix(".partial.npz")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise LockstepError(
            f"{path} cannot be written: {error.strerror}; make room, then go on with --resume"
        ) from error


def remove_arrays(folder: Path, block: Block) -> None:
    """Remove a block's arrays, before it is run again: those of one attempt must not stand beside another's events."""
    block_path(folder, block, "npz").unlink(missing_ok=True)


def read_arrays(folder: Path, block: Block) -> dict[str, NDArray[Any]]:
    """A block's arrays by name; none where there is no file.

    Raises:
        LockstepError: the file is damaged; the message names it.
    """
    path = block_path(folder, block, "npz")
    if not path.is_file():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
        if claimed > ARRAYS_BYTES:
            raise ValueError(f"it unpacks to {claimed:,} bytes, and at most {ARRAYS_BYTES:,} are read")
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        if other := next((name for name, array in found.items() if not isinstance(array, np.ndarray)), None):
            raise ValueError(f"{other} is no array")  # NumPy gives such a member as it is, in bytes
        return found
    except Exception as error:  # whatever NumPy and zipfile raise of what is no good archive
        raise LockstepError(f"{path.name} cannot be read: {error}; restore the file") from error
