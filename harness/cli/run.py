"""`lockstep run`."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep_bench.harness.cli.report import report_run
from lockstep_bench.harness.cli.terminal import (
    PLAIN,
    BackendsArgument,
    DataOption,
    DatasetOption,
    KeepOption,
    asks_for_a_plan,
    command_line,
    console,
    numbers,
    say,
    say_refused,
    say_variables,
)
from lockstep_bench.harness.errors import LockstepError, UsageError

if TYPE_CHECKING:
    from lockstep_bench.harness.records.format import Plan
    from lockstep_bench.harness.running.forecast import Stopwatch


class Preset(StrEnum):
    """The presets of `lockstep run`."""

    QUICK = "quick"
    STANDARD = "standard"
    FULL = "full"


class Profile(StrEnum):
    """The profiles of `lockstep run`."""

    IDENTICAL = "identical"
    NATIVE = "native"


def run(
    context: typer.Context,
    backends: BackendsArgument = None,
    preset: Annotated[
        Preset, typer.Option(help="Defaults for a look, for the notebook's job, for five seeds.")
    ] = Preset.QUICK,
    seeds: Annotated[str | None, typer.Option(help="Seeds, separated by commas: 0,1.")] = None,
    epochs: Annotated[int | None, typer.Option(help="How often to go through the training images.")] = None,
    train_images: Annotated[int | None, typer.Option(help="How many training images: the first so many.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 15,
    slice_steps: Annotated[int | None, typer.Option(help="Steps per turn.")] = None,
    threads: Annotated[
        str | None, typer.Option(help="CPU threads for every backend; all CPUs if not given; 1,2 to run both.")
    ] = None,
    replicates: Annotated[int, typer.Option(help="How often to run all of it, in new processes.")] = 1,
    with_slow: Annotated[
        bool, typer.Option("--with-slow", help="In quick, also the backends that take most of half a minute or longer.")
    ] = False,
    aa: Annotated[bool, typer.Option("--aa", help="Run the reference twice: their ratio is noise alone.")] = False,
    device: Annotated[str, typer.Option(help="Where to train: cpu, or what a backend offers beside it.")] = "cpu",
    profile: Annotated[
        Profile, typer.Option(help="One network, checked; or each with its framework's own defaults, not checked.")
    ] = Profile.IDENTICAL,
    keep: KeepOption = None,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    target: Annotated[float, typer.Option(help="The test error, in percent, to time the way to.")] = 7.21,
    out: Annotated[Path | None, typer.Option(help="The results folder; results/PRESET-TIME if not given.")] = None,
    turn_timeout: Annotated[float, typer.Option(help="Seconds after which a turn counts as hung.")] = 300.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out: with its own options if none are given.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: run the blocks again in which a backend failed.")
    ] = False,
    cluster: Annotated[
        str | None, typer.Option(help="Run the blocks on a Dask cluster: its scheduler's address, or local:N.")
    ] = None,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="With --cluster: nodes may have other versions than this machine.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Tables, charts and page now, or later by `lockstep report`.")
    ] = True,
) -> None:
    """Train the backends in lockstep and report on them.

    Example: `lockstep run numpy pytorch --preset standard --out results/mine`

    If that is interrupted: `lockstep run --resume --out results/mine`
    """
    from lockstep_bench.harness.data.find import RESERVED, find_dataset
    from lockstep_bench.harness.records.format import Plan
    from lockstep_bench.harness.records.raw_files import blocks_left
    from lockstep_bench.harness.running import resuming
    from lockstep_bench.harness.running.cluster import conduct_on_cluster
    from lockstep_bench.harness.running.conductor import conduct
    from lockstep_bench.harness.running.forecast import Stopwatch
    from lockstep_bench.harness.running.plan import make_plan
    from lockstep_bench.harness.running.progress import Progress

    stopwatch = Stopwatch()
    if resume and out is None:
        raise UsageError("--resume needs --out, the results folder to go on with")
    if retry_failed and not resume:
        raise UsageError("--retry-failed goes with --resume: give both")
    recorded = resuming.begun(out, Plan) if resume and out else None
    if recorded and not asks_for_a_plan(context):
        found = find_dataset(recorded.dataset.name if recorded.dataset.name in RESERVED else dataset, data, say)
        plan = resuming.planned_again(recorded, found)
    else:
        say_refused(backends)
        found = find_dataset(dataset, data, say)
        plan = make_plan(
            found,
            backends or [],
            preset=preset.value,
            seeds=numbers("--seeds", seeds),
            epochs=epochs,
            train_images=train_images,
            batch_size=batch_size,
            slice_steps=slice_steps,
            threads=numbers("--threads", threads),
            replicates=replicates,
            aa=aa,
            device=device,
            profile=profile.value,
            target=target,
            turn_timeout=turn_timeout,
            command=command_line(),
            with_slow=with_slow,
            keep=keep or [],
        )
    if recorded and out:
        resuming.see_that_it_fits(recorded, plan, out)
        plan = recorded
    out = out or Path("results") / f"{preset.value}-{datetime.now():%Y%m%d-%H%M%S}"
    interrupted = ""
    left = blocks_left(out, plan, retry_failed) if recorded else plan.blocks
    say_skipped(plan)
    if cluster is None:
        say_variables(plan.keep)
    with Progress(plan.model_copy(update={"blocks": left}), console, stopwatch) as progress:
        observe = progress.observe
        again: Any = {"resume": resume, "retry_failed": retry_failed}
        try:
            if cluster is None:
                conduct(plan, found.folder, out, observe, heartbeat=progress.heartbeat, **again)
            else:
                beat: Any = {"beat": progress.beat, "allow_mixed": allow_mixed}
                conduct_on_cluster(plan, found, out, cluster, observe, say, **beat, **again)
        except KeyboardInterrupt:
            interrupted = progress.last_work
    stopwatch.spend("ending")
    _end(out, report, interrupted, stopwatch)


def say_skipped(plan: "Plan") -> None:
    """Say which backends are left out, in one line for each reason."""
    reasons: dict[str, list[str]] = {}
    for backend in plan.backends:
        if backend.skip:
            reasons.setdefault(backend.skip, []).append(backend.name)
    for reason, names in reasons.items():
        say(f"{', '.join(names)} left out: {reason}")


def _end(out: Path, report: bool, interrupted: str, stopwatch: "Stopwatch") -> None:
    """Report on what was run.

    Args:
        out: the results folder.
        report: whether to write the report.
        interrupted: the phase that an interrupt ended; empty if none did.
        stopwatch: of the command.

    Raises:
        LockstepError: the run was interrupted, or a backend did not come through.
    """
    from lockstep_bench.harness.tables.results import load

    try:
        runs = (report_run(out) if report else load(out)).runs
    except KeyboardInterrupt:
        raise LockstepError(
            f"interrupted while writing the report: all that was measured is in {out}; make the report by: "
            f"lockstep report {out}"
        ) from None
    if report:
        stopwatch.spend("writing the report")
    else:
        console.print(f"The raw records are in {out}; make the report by: lockstep report {out}", **PLAIN)
    console.print(f"Took {stopwatch}", **PLAIN)
    failed = ", ".join(
        f"{row.backend} {row.status}" for row in runs[~runs["status"].isin(["ok", "skipped"])].itertuples()
    )
    if interrupted:
        raise LockstepError(
            f"interrupted while {interrupted}: what was done is in {out}; go on with: lockstep run --resume --out {out}"
        )
    if failed:
        raise LockstepError(f"not every run ended ok: {failed}; every outcome is in {out}")
