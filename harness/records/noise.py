"""How far the reference is from itself on one machine: measured by `lockstep machine`, kept for `lockstep compare`."""

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from lockstep_bench.harness.records.format import Positive, Record
from lockstep_bench.harness.records.raw_files import write_record

FOLDER = "machines"
"""In lockstep's cache."""


class Noise(Record):
    """The noise of one machine, in deviations of the log ratio of the reference to itself.

    Attributes:
        identity: of the machine, in words.
        measured: when, UTC, ISO 8601.
        threads: of every worker.
        rounds: in which each pair of processes took turns.
        pairs: of processes.
        within: of the median over these rounds, within a pair.
        between: from one pair to the next, beyond that: the upper end of its one-sided 80 % interval.
    """

    format: Literal[1] = 1
    lockstep: str
    commit: str | None
    identity: str
    measured: str
    threads: Annotated[int, Field(ge=1)]
    rounds: Annotated[int, Field(ge=1)]
    pairs: Annotated[int, Field(ge=2)]
    within: Positive
    between: Annotated[float, Field(ge=0, allow_inf_nan=False)]


def keep_noise(cache: Path, noise: Noise) -> Path:
    """Keep it in lockstep's cache, in place of an earlier one of the same machine; return its file."""
    file = _file(cache, noise.identity)
    write_record(file, noise)
    return file


def kept_noise(cache: Path, identity: str) -> Noise | None:
    """Return what the cache has of a machine; none if it has nothing that can be read."""
    try:
        noise = Noise.model_validate_json(_file(cache, identity).read_bytes())
    except (OSError, ValidationError):
        return None
    return noise if noise.identity == identity else None


def _file(cache: Path, identity: str) -> Path:
    return cache / FOLDER / f"{sha256(identity.encode()).hexdigest()[:16]}.json"
