"""`lockstep sweep`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from lockstep_bench.harness.cli.report import report_sweep
from lockstep_bench.harness.cli.terminal import (
    DataOption,
    DatasetOption,
    KeepOption,
    asks_for_a_plan,
    command_line,
    console,
    numbers,
    say,
    say_variables,
)
from lockstep_bench.harness.errors import LockstepError, UsageError


def sweep(
    context: typer.Context,
    backends: Annotated[
        list[str] | None,
        typer.Argument(help="Names, or files such as ./mine.py; numpy, keras, pytorch and scikit-learn if none."),
    ] = None,
    batch_size: Annotated[str | None, typer.Option(help="Images per step; 15,60,240,960 if not given.")] = None,
    hidden: Annotated[str | None, typer.Option(help="Hidden units; 784,1568,3136 if not given.")] = None,
    train_images: Annotated[str | None, typer.Option(help="Training images; 15000,60000 if not given.")] = None,
    threads: Annotated[str | None, typer.Option(help="CPU threads; 1,2 if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and schedule.")] = 0,
    rounds: Annotated[int, typer.Option(help="Rounds that count, 6 or more: the more, the narrower intervals.")] = 8,
    keep: KeepOption = None,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder; results/sweep-TIME if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in --out.")] = False,
) -> None:
    """How does cost grow? A grid of Problems, each in lockstep for a fixed number of steps.

    Example: `lockstep sweep numpy pytorch --batch-size 15,240 --hidden 784,1568 --threads 1 --out results/growth`

    If that is interrupted: `lockstep sweep --resume --out results/growth`
    """
    from lockstep_bench.harness.data.find import RESERVED, find_dataset
    from lockstep_bench.harness.records.sweep_grid import read_sweep
    from lockstep_bench.harness.running.progress import Pulse, SweepProgress
    from lockstep_bench.harness.running.resuming import see_that_it_fits
    from lockstep_bench.harness.running.sweep import blocks_to_run, conduct_sweep, make_sweep, swept_again

    if resume and out is None:
        raise UsageError("--resume needs --out, the folder of the sweep to go on with")
    recorded = read_sweep(out) if resume and out else None
    if recorded and not asks_for_a_plan(context):
        found = find_dataset(recorded.dataset if recorded.dataset in RESERVED else dataset, data, say)
        planned = swept_again(recorded, found)
    else:
        found = find_dataset(dataset, data, say)
        planned = make_sweep(
            found,
            backends or [],
            batch_size=numbers("--batch-size", batch_size),
            hidden=numbers("--hidden", hidden),
            train_images=numbers("--train-images", train_images),
            threads=numbers("--threads", threads),
            seed=seed,
            rounds=rounds,
            command=command_line(),
            keep=keep or [],
        )
    if recorded and out:
        see_that_it_fits(recorded, planned, out)
        planned = recorded
    say_variables(planned.keep)
    out = out or Path("results") / f"sweep-{datetime.now():%Y%m%d-%H%M%S}"
    interrupted = False
    try:
        with Pulse(console) as pulse:
            progress = SweepProgress(blocks_to_run(planned, out), pulse)
            conduct_sweep(planned, found, out, progress, heartbeat=pulse.heartbeat, resume=resume)
    except KeyboardInterrupt:
        interrupted = True
    cells = report_sweep(out).cells
    if interrupted:
        raise LockstepError(f"interrupted: what was done is in {out}; go on with: lockstep sweep --resume --out {out}")
    if not (cells["status"] == "ok").all():
        raise LockstepError(f"not every cell ended ok: {out / 'sweep.csv'} has every outcome")
