"""Going on with a run that ended early: whether what it began can be completed by what is here now.

All blocks of a plan have to be of the same software and data, or its averages would be of different things.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lockstep_bench.backends import registered
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.records.format import Plan, PlanKind, PlannedBackend, Record
from lockstep_bench.harness.records.raw_files import plan_path, read_plan_of
from lockstep_bench.harness.running.plan import make_plan

MAY_DIFFER = {"command", "preset", "commit_clean", "machine"}
"""What of a plan says nothing about its results; the machine that it ran on, a block names itself."""


def begun(out: Path, kind: type[PlanKind]) -> PlanKind | None:
    """The plan, of that kind, that a results folder was begun with; none where nothing was.

    Raises:
        LockstepError: what is there is not a plan.
    """
    return read_plan_of(out, kind) if plan_path(out, kind).exists() else None


def continued(plan: PlanKind, out: Path) -> PlanKind:
    """The plan that a results folder was begun with, which has to be this one; this one where nothing was begun.

    Raises:
        LockstepError: what is there is not a plan.
        UsageError: it is another.
    """
    recorded = begun(out, type(plan))
    if recorded is None:
        return plan
    see_that_it_fits(recorded, plan, out)
    return recorded


def see_that_none_is_a_file(backends: Iterable[PlannedBackend]) -> None:
    """What loads a recorded backend must be a registered name: no path in a record is followed.

    Raises:
        UsageError: one came from a file.
    """
    known = registered()
    for backend in backends:
        if backend.spec not in known:
            raise UsageError(
                f"{backend.name} came from a file, and none that a plan names is loaded: give the backends and options "
                "of the run once more, with --resume"
            )


def planned_again(recorded: Plan, dataset: Dataset) -> Plan:
    """What would be planned here and now for what a recorded plan asked for; no path in it is followed.

    Raises:
        UsageError: a backend came from a file, or cannot run here any more, or there are fewer CPUs.
    """
    see_that_none_is_a_file(recorded.backends)
    twin, problem, known = recorded.twin, recorded.problem, registered()
    names = [backend.spec for backend in recorded.backends if backend is not twin]
    return make_plan(
        dataset,
        [] if any(backend.skip for backend in recorded.backends) else names,
        seeds=[block.seed for block in recorded.blocks],
        epochs=problem.epochs,
        train_images=recorded.dataset.train_images,
        batch_size=problem.batch_size,
        hidden=problem.hidden,
        slice_steps=recorded.slice_steps,
        fixed_steps=recorded.fixed_steps,
        threads=recorded.threads,
        replicates=max(block.replicate for block in recorded.blocks),
        aa=twin is not None,
        device=recorded.device,
        profile=recorded.profile,
        target=recorded.target_error_percent,
        turn_timeout=recorded.turn_timeout_seconds,
        keep=recorded.keep,
        with_slow=any(known[backend.spec].slow for backend in recorded.backends if backend.skip is None),
    )


def see_that_it_fits(recorded: Record, now: Record, out: Path) -> None:
    """Compare the plan that was begun, of a run or of a sweep, with what would be planned now.

    Raises:
        UsageError: they are not the same; the message says in what.
    """
    before, after = (dict(_flat(plan.model_dump(exclude=MAY_DIFFER))) for plan in (recorded, now))
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        if old != new and not (old is None and name.endswith(("source_sha256", "python"))):  # not recorded then
            raise UsageError(
                f"{out} was begun with {name} {old}, and now it is {new}: what it has and what would come are not "
                "comparable; make that as it was, or begin anew with another --out"
            )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries and lists, by where they are; what has a name is called by it."""
    if isinstance(value, dict):
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        named = (item.get("name", item.get("id")) if isinstance(item, dict) else None for item in value)
        items = [(str(place if own is None else own), value[place]) for place, own in enumerate(named)]
    else:
        yield name, value
        return
    for key, inner in items:
        yield from _flat(inner, f"{name} {key}".strip())
