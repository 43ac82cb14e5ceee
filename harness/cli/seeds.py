"""`lockstep seeds`."""

from pathlib import Path
from typing import Annotated

import typer

from lockstep_bench.harness.cli.report import report_seeds
from lockstep_bench.harness.cli.terminal import (
    DataOption,
    DatasetOption,
    KeepOption,
    command_line,
    console,
    say,
    say_variables,
)
from lockstep_bench.harness.errors import LockstepError


def seeds(
    out: Annotated[Path, typer.Option(help="The results folder.")],
    count: Annotated[int, typer.Option(help="How many seeds to train: 0, 1, ...")] = 64,
    together: Annotated[int, typer.Option(help="How many of them side by side in one process.")] = 4,
    check: Annotated[int, typer.Option(help="How many of them jax-scan trains too, to be compared.")] = 2,
    epochs: Annotated[int, typer.Option(help="How often to go through the training images.")] = 20,
    train_images: Annotated[int | None, typer.Option(help="How many training images: the first so many.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all CPUs if not given.")] = None,
    keep: KeepOption = None,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the seeds in --out; same options.")] = False,
) -> None:
    """Train one network from many seeds, and say how its test error spreads over them.

    Example: `lockstep seeds --count 64 --out results/seeds`
    """
    from lockstep_bench.harness.data.find import find_dataset
    from lockstep_bench.harness.records.format import SeedsEvent
    from lockstep_bench.harness.running import resuming
    from lockstep_bench.harness.running.progress import Pulse
    from lockstep_bench.harness.running.seeds import plan_seeds, train_seeds

    found = find_dataset(dataset, data, say)
    plan = plan_seeds(
        found,
        count=count,
        together=together,
        check=check,
        epochs=epochs,
        train_images=train_images,
        threads=threads,
        command=command_line(),
        keep=keep or [],
    )
    if resume:
        plan = resuming.continued(plan, out)

    say_variables(plan.keep)

    def observe(_: object, event: object) -> None:
        if isinstance(event, SeedsEvent):
            first, last = event.scores[0], event.scores[-1]
            errors = [score.test_error_percent for score in event.scores]
            text = f"seeds {first.seed} to {last.seed}, epoch {event.epoch} of {plan.problem.epochs}: test error "
            pulse.say(f"{text}{min(errors):.2f} to {max(errors):.2f} % in {event.train_seconds:.0f} s")

    interrupted, pulse = False, Pulse(console)
    try:
        with pulse:
            train_seeds(plan, found.folder, out, observe, heartbeat=pulse.heartbeat, resume=resume)
    except KeyboardInterrupt:
        interrupted = True
    results = report_seeds(out)
    if interrupted:
        raise LockstepError(f"interrupted: the blocks that were done are in {out}; go on with --resume")
    if not results.table["status"].eq("ok").all():
        raise LockstepError(f"not every seed ended ok; {out / 'seeds.csv'} has every outcome")
