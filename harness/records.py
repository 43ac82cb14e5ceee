"""The raw records of a run: its plan, and per block one JSON line per event and one file of arrays.

A results folder holds `plan.json`, `blocks/<block id>.jsonl` and `blocks/<block id>.npz`; everything else in it is
derived from these. Raw files are only ever appended to. Reading them checks every field: a record may come from another
machine.
"""

import os
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TextIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lockstep_bench.backends.base import Style
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.problem import EpsilonPlacement, Initializer, Problem, Profile

Status = Literal["ok", "not-identical", "diverged", "error", "timeout", "killed", "interrupted", "skipped"]


class Record(BaseModel):
    """Anything that is read from disk: unknown fields and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PlannedBackend(Record):
    """A backend as the plan resolved it; `spec` is what loads it again, `skip` why it cannot run here."""

    name: str
    style: Style
    spec: str
    versions: dict[str, str]
    skip: str | None = None


class PlannedDataset(Record):
    """The dataset as resolved: how much of it is used, and the hash of all of it."""

    name: str
    sha256: str
    train_images: int
    test_images: int


class Block(Record):
    """Reference and chosen backends, one seed, one machine: the unit of resuming and of distribution.

    `replicate` (1, 2, ...) tells blocks apart that do the same in processes of their own.
    """

    id: str
    seed: int
    threads: int
    replicate: int = 1


class Plan(Record):
    """What was asked for, as resolved when the run began."""

    format: Literal[2] = 2
    lockstep: str
    commit: str | None
    commit_clean: bool | None
    command: str
    preset: str | None
    profile: Profile = "identical"
    problem: Problem
    dataset: PlannedDataset
    backends: list[PlannedBackend]
    blocks: list[Block]
    device: str
    slice_steps: int
    turn_timeout_seconds: float
    target_error_percent: float
    machine: str

    @property
    def reference(self) -> PlannedBackend:
        """The backend that the others are compared with: always the first."""
        return self.backends[0]

    @property
    def twin(self) -> PlannedBackend | None:
        """The reference once more, under another name: the two differ by noise alone. None without `--aa`."""
        return next((one for one in self.backends[1:] if one.spec == self.reference.spec), None)

    @property
    def threads(self) -> list[int]:
        """The thread counts that were asked for, in order; each has tables of its own."""
        return list(dict.fromkeys(block.threads for block in self.blocks))


class MachineEvent(Record):
    """The first line of a block: when (UTC, ISO 8601) and on what it was run."""

    event: Literal["machine"] = "machine"
    machine: str
    started: str
    details: dict[str, Any]


class StartEvent(Record):
    """A worker process is there and has imported its framework; `memory_bytes` is what it then held resident.

    `source_sha256` is of the adapter's own code. Records from before two runs could be compared lack it.
    """

    event: Literal["start"] = "start"
    backend: str
    start_seconds: float
    import_seconds: float
    versions: dict[str, str]
    source_sha256: str | None = None
    memory_bytes: int


class BuildEvent(Record):
    """A backend stands at step 0; the hash says which initial weights it was given.

    `initializer`, `epsilon`, `epsilon_placement` and `l2` are what it trains with, as in `problem.Defaults`. Records
    from before there was a native profile lack them: all trained with these.

    `pools` are its thread pools as threadpoolctl reports them, `variables` the environment's that bear on speed.
    """

    event: Literal["build"] = "build"
    backend: str
    build_seconds: float
    weights_sha256: str
    memory_bytes: int
    pools: list[dict[str, Any]]
    variables: dict[str, str]
    initializer: Initializer = "glorot-uniform"
    epsilon: float = 1e-7
    epsilon_placement: EpsilonPlacement = "uncorrected"
    l2: float = 0.0


class TurnEvent(Record):
    """One slice trained: the images `start` to `stop` of the epoch's order, `at_seconds` after the block began.

    Conditions of the turn: the worker's CPU seconds and involuntary context switches within `train_seconds`; around
    it, as the conductor sees it, the part of the machine's CPU time that its host took (none where the system knows of
    no host), the load average of the last minute, and the CPU seconds of every waiting worker.
    """

    event: Literal["turn"] = "turn"
    backend: str
    epoch: int
    round: int
    start: int
    stop: int
    steps: int
    at_seconds: float
    train_seconds: float
    train_loss: float
    cpu_seconds: float
    involuntary_switches: int
    steal_percent: float | None
    load_average: float
    waiting_seconds: dict[str, float]


class FloorEvent(Record):
    """What the machine can do at best, measured in a turn of its own: `floor.measure`."""

    event: Literal["floor"] = "floor"
    round: int
    at_seconds: float
    flops_per_second: float
    bytes_per_second: float


class EvaluationEvent(Record):
    """The network after an epoch, off the training clock; `predict_seconds` is for the test images.

    `weights_seconds` are those of the first and of a second call of `weights()` after the epoch's training: a first
    call that is much slower waited for work that was put off. `threads_used` counts the threads of the process that
    have been busy since `build`, `affinity` the CPUs that it may use; `peak_bytes` is the most it ever held resident.
    `disagreements` counts the test images predicted differently from the reference; none where there was no reference
    left, and in the native profile, where nobody is meant to agree.
    """

    event: Literal["evaluation"] = "evaluation"
    backend: str
    epoch: int
    weights_seconds: tuple[float, float]
    predict_seconds: float
    evaluate_seconds: float
    train_error_percent: float
    test_loss: float
    test_error_percent: float
    order_sha256: str
    threads_used: int
    affinity: list[int]
    peak_bytes: int
    disagreements: int | None


class ExtraEvent(Record):
    """Measured after the last epoch, when nothing counts any more.

    Seconds of single predictions of one image, and what one call of `train` costs beyond its steps; none where a
    slice is too short or a step too slow to tell.
    """

    event: Literal["extra"] = "extra"
    backend: str
    latency_seconds: list[float]
    call_seconds: float | None


class EndEvent(Record):
    """What became of a backend; with no backend, the last line of a block."""

    event: Literal["end"] = "end"
    backend: str | None
    status: Status
    reason: str | None = None


Event = MachineEvent | StartEvent | BuildEvent | TurnEvent | FloorEvent | EvaluationEvent | ExtraEvent | EndEvent
EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


class BlockFile:
    """The raw file of one block, open for appending; a line is on the disk before the next turn begins."""

    def __init__(self, folder: Path, block: Block) -> None:
        (folder / "blocks").mkdir(parents=True, exist_ok=True)
        self.file: TextIO = block_path(folder, block, "jsonl").open("x", encoding="utf-8")

    def append(self, event: Event) -> None:
        """Write one event, flushed and fsynced."""
        self.file.write(event.model_dump_json() + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def block_path(folder: Path, block: Block, suffix: Literal["jsonl", "npz"]) -> Path:
    """Where a block's raw file lies."""
    return folder / "blocks" / f"{block.id}.{suffix}"


def write_plan(folder: Path, plan: Plan) -> None:
    """Begin a results folder with its plan.

    Raises:
        FileExistsError: it holds a plan already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "plan.json").open("x", encoding="utf-8") as file:
        file.write(plan.model_dump_json(indent=2) + "\n")


def read_plan(folder: Path) -> Plan:
    """The plan of a results folder.

    Raises:
        LockstepError: there is none, or it is not a plan; the message says where.
    """
    path = folder / "plan.json"
    if not path.is_file():
        raise LockstepError(f"{folder} holds no results: plan.json is missing; give a folder that `lockstep run` wrote")
    try:
        return Plan.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise LockstepError(f"{path} is not a plan: {first_error(error)}; restore it from where it came") from error


class Recorded(NamedTuple):
    """What a block's raw file holds; `cut` says what of it is missing at the end, and is empty if nothing is."""

    events: list[Event]
    cut: str


def read_block(folder: Path, block: Block) -> Recorded:
    """The events of a block in order; none where it was not begun.

    A crash in mid-write, or a copy that broke off, leaves a file that ends anywhere: what was complete before counts.

    Raises:
        LockstepError: a line before the last is not an event; the message names file and line.
    """
    path = block_path(folder, block, "jsonl")
    if not path.is_file():
        return Recorded([], "")
    *lines, unfinished = path.read_bytes().split(b"\n")
    events = [_event(path, number, line) for number, line in enumerate(lines, start=1)]
    if unfinished:
        return Recorded(events, f"{path.name} breaks off in line {len(lines) + 1}, which was left out")
    if not (events and isinstance(events[-1], EndEvent) and events[-1].backend is None):
        return Recorded(events, f"{path.name} stops after {len(lines)} lines, before the end of its block")
    return Recorded(events, "")


def _event(path: Path, number: int, line: bytes) -> Event:
    try:
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
    """
    path = block_path(folder, block, "npz")
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    partial.replace(path)


def read_arrays(folder: Path, block: Block) -> dict[str, NDArray[Any]]:
    """A block's arrays by name; none where there is no file.

    Raises:
        LockstepError: the file is damaged; the message names it.
    """
    path = block_path(folder, block, "npz")
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, RuntimeError, MemoryError, BadZipFile, zlib.error) as error:
        raise LockstepError(f"{path.name} cannot be read: {error}; restore the file") from error
