"""The grid of a sweep: its axes, the Problem at each point, and where the results of each lie.

`results/NAME/sweep.json` says what was asked for; `problems/hidden-784-batch-15-images-15000/` holds one Problem.
"""

from itertools import product
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field

from lockstep_bench.harness.machine.floor import Rates, floor_seconds
from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.records.format import Count, Name, PlannedBackend, Record
from lockstep_bench.harness.records.raw_files import read_record

FILE: Final = "sweep.json"
NOMINAL: Final = Rates(flops_per_second=6e10, bytes_per_second=1e10)
"""Of two cores of a server of these years, roughly: what slices are cut by, so that plans are alike on all machines."""
SLICE_SECONDS, MOST_STEPS = 0.2, 150
"""A slice is as many steps as take this long at the floor of a NOMINAL machine, and no more; in the default grid, 1 to
133. Steps of small networks are bound by overheads far above that floor."""

Axis = Annotated[list[Annotated[int, Field(ge=1, le=2**31)]], Field(min_length=1, max_length=1000)]


class Sweep(Record):
    """What was asked for: the axes of the grid, each in rising order; as resolved when the sweep began.

    `keep` is as in a Plan.
    """

    format: Literal[1] = 1
    lockstep: str
    python: str
    commit: str | None
    commit_clean: bool | None
    command: str
    dataset: Name
    dataset_sha256: str
    backends: Annotated[list[PlannedBackend], Field(min_length=1, max_length=1000)]
    batch_size: Axis
    hidden: Axis
    train_images: Axis
    threads: Axis
    seed: Count
    rounds: Annotated[int, Field(ge=1, le=2**20)]
    machine: str
    keep: list[str] = Field(default_factory=list)


class Point(NamedTuple):
    """One Problem of the grid."""

    hidden: int
    batch_size: int
    train_images: int

    @property
    def name(self) -> str:
        """Of its results folder, in `problems/`."""
        return f"hidden-{self.hidden}-batch-{self.batch_size}-images-{self.train_images}"

    @property
    def step_seconds(self) -> float:
        """The floor of a step on the NOMINAL machine."""
        return floor_seconds(Problem(hidden=self.hidden, batch_size=self.batch_size), NOMINAL)

    @property
    def slice_steps(self) -> int:
        """How many steps a slice has: in all Problems it takes about as long."""
        return max(1, min(MOST_STEPS, round(SLICE_SECONDS / self.step_seconds)))


def points(sweep: Sweep) -> list[Point]:
    """The grid, in the order of its axes."""
    return [Point(*values) for values in product(sweep.hidden, sweep.batch_size, sweep.train_images)]


def folder_of(out: Path, point: Point) -> Path:
    """Where a Problem's results lie."""
    return out / "problems" / point.name


def call_point(sweep: Sweep) -> Point:
    """The Problem in which it is measured what a call of `train` costs beside its steps: that of the shortest steps."""
    return min(points(sweep), key=lambda point: point.step_seconds)


def read_sweep(out: Path) -> Sweep | None:
    """What the sweep in a folder asked for; none where there is no sweep.

    Raises:
        LockstepError: sweep.json is not of a sweep; the message says where.
    """
    path = out / FILE
    return read_record(path, Sweep, "a sweep") if path.is_file() else None
