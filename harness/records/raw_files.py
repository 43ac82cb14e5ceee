"""The raw files of a results folder: its plan, and per block the events and the arrays, written and read.

A plan and a block's arrays appear whole or not at all. A block's events are only ever appended to: one that was
interrupted and is run again begins once more below, with a machine event, and what was above does not count. Reading
has bounds, and whatever is wrong with a file is said with its name.
"""

import fcntl
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.records.format import EVENT, Block, EndEvent, Event, MachineEvent, Plan, PlanKind, Record

RecordKind = TypeVar("RecordKind", bound=Record)

RECORD_BYTES = 16 << 20
LINE_BYTES = 2 << 20
BLOCK_BYTES = 1 << 30
ARRAYS_BYTES = 1 << 30
"""The most that is read of each: a hundred times what the largest run writes."""


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
    return read_record(path, kind, "a plan")


def read_record(path: Path, kind: type[RecordKind], what: str) -> RecordKind:
    """A record that is a file of its own.

    Raises:
        LockstepError: the file is not `what` it should be; the message says where.
    """
    try:
        return kind.model_validate_json(at_most(path, RECORD_BYTES))
    except ValidationError as error:
        raise LockstepError(f"{path} is not {what}: {first_error(error)}; restore it from where it came") from error


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
    except MemoryError:
        raise  # it is the machine's lack, not the file's
    except Exception as error:  # whatever NumPy and zipfile raise of what is no good archive
        raise LockstepError(f"{path.name} cannot be read: {error}; restore the file") from error
