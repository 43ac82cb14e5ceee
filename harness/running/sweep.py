"""A sweep: a grid of Problems, each run in lockstep in a results folder of its own.

Each has a block for each number of threads. The folders are those of any run: gate, floor, records, resuming and damage
are theirs. `sweep_grid.py` says where they lie.

Every Problem has a fixed number of steps, in rounds of one slice; an epoch of 60,000 images in batches of 15 at a width
of 3,136 alone would take minutes. Problems are run in a shuffled order, so that a machine that gets slower within the
half hour is noise along every axis, and no trend.
"""

from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Final

from lockstep_bench.backends import registered, why_not
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.machine import cpus
from lockstep_bench.harness.problem import Stream, random_stream
from lockstep_bench.harness.records.format import Plan
from lockstep_bench.harness.records.raw_files import blocks_left, locked, write_record
from lockstep_bench.harness.records.sweep_grid import FILE, Point, Sweep, call_point, folder_of, points
from lockstep_bench.harness.running import resuming
from lockstep_bench.harness.running.block_conductor import Heartbeat
from lockstep_bench.harness.running.conductor import Observer, conduct
from lockstep_bench.harness.running.plan import make_plan
from lockstep_bench.harness.statistics import FEWEST

BACKENDS: Final = ("numpy", "keras", "pytorch", "scikit-learn")
"""If none are named: those that the project began with, of which a sweep takes half an hour and not half a day."""
BATCH_SIZES: Final = (15, 60, 240, 960)
HIDDEN: Final = (784, 1568, 3136)
TRAIN_IMAGES: Final = (15_000, 60_000)
THREADS: Final = (1, 2)
ROUNDS: Final = 8
"""That count; before them comes one that warms up. FEWEST make an interval, a few more make it hold."""


def make_sweep(
    dataset: Dataset,
    backends: Sequence[str] = (),
    *,
    batch_size: Sequence[int] | None = None,
    hidden: Sequence[int] | None = None,
    train_images: Sequence[int] | None = None,
    threads: Sequence[int] | None = None,
    seed: int = 0,
    rounds: int = ROUNDS,
    command: str = "",
    keep: Sequence[str] = (),
) -> Sweep:
    """Resolve what was asked for; none of an axis means its default, as far as dataset and machine have it.

    Raises:
        UsageError: a value is out of range, or a backend named is not there or not installed.
    """
    available, most_threads = len(dataset.train.labels), cpus.default_threads()
    images = train_images or [count for count in TRAIN_IMAGES if count <= available] or [available]
    counts = threads or [count for count in THREADS if count <= most_threads]
    if rounds < FEWEST:
        raise UsageError(f"--rounds {rounds} are too few for an interval: give {FEWEST} or more")
    specs = list(backends) or [name for name in BACKENDS if why_not(registered()[name]) is None]
    axes = {
        "batch_size": sorted(set(batch_size or BATCH_SIZES)),
        "hidden": sorted(set(hidden or HIDDEN)),
        "train_images": sorted(set(images)),
        "threads": sorted(set(counts)),
    }
    # What a plan refuses, the least or the greatest value of an axis shows.
    for place in (0, -1):
        plan = make_plan(
            dataset,
            specs,
            seeds=[seed],
            batch_size=axes["batch_size"][place],
            hidden=axes["hidden"][place],
            train_images=axes["train_images"][place],
            threads=axes["threads"][place],
        )
    return Sweep(
        lockstep=plan.lockstep,
        python=plan.python or "",
        commit=plan.commit,
        commit_clean=plan.commit_clean,
        machine=plan.machine,
        command=command,
        dataset=dataset.name,
        dataset_sha256=dataset.sha256,
        backends=plan.backends,
        batch_size=axes["batch_size"],
        hidden=axes["hidden"],
        train_images=axes["train_images"],
        threads=axes["threads"],
        seed=seed,
        rounds=rounds,
        keep=list(dict.fromkeys(keep)),
    )


def swept_again(recorded: Sweep, dataset: Dataset) -> Sweep:
    """What would be planned here and now for what a recorded sweep asked for; no path in it is followed.

    Raises:
        UsageError: a backend came from a file, or cannot run here any more, or there are fewer CPUs.
    """
    resuming.see_that_none_is_a_file(recorded.backends)
    return make_sweep(
        dataset,
        [backend.spec for backend in recorded.backends],
        batch_size=recorded.batch_size,
        hidden=recorded.hidden,
        train_images=recorded.train_images,
        threads=recorded.threads,
        seed=recorded.seed,
        rounds=recorded.rounds,
        keep=recorded.keep,
    )


def plan_of(sweep: Sweep, point: Point, dataset: Dataset) -> Plan:
    """The plan of one Problem: a round to warm up, and those that count."""
    return make_plan(
        dataset,
        [backend.spec for backend in sweep.backends],
        seeds=[sweep.seed],
        hidden=point.hidden,
        batch_size=point.batch_size,
        train_images=point.train_images,
        slice_steps=point.slice_steps,
        fixed_steps=point.slice_steps * (1 + sweep.rounds),
        threads=sweep.threads,
        command=sweep.command,
        keep=sweep.keep,
    )


def conduct_sweep(
    sweep: Sweep,
    dataset: Dataset,
    out: Path,
    observe: Callable[[Plan], Observer],
    *,
    heartbeat: Heartbeat = lambda *_: None,
    resume: bool = False,
) -> None:
    """Run every Problem of a sweep into a folder.

    Args:
        sweep: what to run.
        dataset: the cached dataset.
        out: the sweep's folder; made, or empty.
        observe: is told the plan of every Problem that is begun, and returns what is told its events.
        heartbeat: as in `conduct`.
        resume: go on with this sweep where `out` holds it.

    Raises:
        UsageError: `out` holds other things, or what is there was begun otherwise.
        LockstepError, KeyboardInterrupt: as `conduct`.
    """
    with locked(out):
        if not (resume and (out / FILE).exists()):
            if any(path.name != f"{FILE}.partial" for path in out.iterdir()):
                raise UsageError(f"{out} holds other things already: give another --out, or --resume its sweep")
            write_record(out / FILE, sweep)
        for point, plan in _to_run(sweep, dataset, out):
            extras = point == call_point(sweep)
            folder = folder_of(out, point)
            # What a call costs is taken off every turn of the sweep: it has to be known, however short the training is.
            conduct(
                plan,
                dataset.folder,
                folder,
                observe(plan),
                heartbeat=heartbeat,
                extras=extras,
                extra_part=inf,
                resume=True,
            )


def blocks_to_run(sweep: Sweep, out: Path) -> int:
    """How many blocks of a sweep are to be run yet.

    Raises:
        LockstepError: what `out` holds of a Problem is damaged.
    """
    begun = (resuming.begun(folder_of(out, point), Plan) for point in points(sweep))
    left = zip(points(sweep), begun, strict=True)
    return sum(len(blocks_left(folder_of(out, point), plan)) if plan else len(sweep.threads) for point, plan in left)


def _to_run(sweep: Sweep, dataset: Dataset, out: Path) -> Iterator[tuple[Point, Plan]]:
    """Problems that have not come to their end, shuffled, with their plans: where one was begun, as it was then."""
    grid = points(sweep)
    for place in random_stream(sweep.seed, Stream.SCHEDULE).permutation(len(grid)):
        point = grid[place]
        folder = folder_of(out, point)
        plan = resuming.continued(plan_of(sweep, point, dataset), folder)
        if blocks_left(folder, plan):
            yield point, plan
