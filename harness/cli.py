"""The command line: one function for each command of `lockstep`."""

import os
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from errno import EIO, EPIPE
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lockstep_bench.harness.errors import LockstepError, UsageError

if TYPE_CHECKING:
    from lockstep_bench.harness.seeds_tables import SeedsResults
    from lockstep_bench.harness.sweep_tables import SweepResults
    from lockstep_bench.harness.tables import Results

# Each command imports what it needs itself: listing the backends must not wait for pandas and matplotlib.

app = typer.Typer(
    help="One network, every framework, in lockstep.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
PLAIN: Final[Any] = {"highlight": False, "markup": False, "soft_wrap": True}
"""For text that is not ours: names, paths and reasons are printed as they are."""
WIDE: Final = 100
OF_NO_PLAN: Final = {"out", "data", "dataset", "resume", "retry_failed", "cluster", "allow_mixed", "report"}
"""Options of `lockstep run` that go with --resume and leave the recorded plan as it is."""
NOT_IF_NARROW: Final = ("times the floor", "training (s)", "initial weights", "added to")
"""A terminal of fewer characters shows tables without these columns."""


class Terminal(Console):
    """A console that leaves it to its caller what to do when nobody reads it any more: a run goes on."""

    def on_broken_pipe(self) -> None:
        """Rich would end the process."""
        raise BrokenPipeError(EPIPE, os.strerror(EPIPE))


console = Terminal()
errors = Terminal(stderr=True)


class Preset(StrEnum):
    """The presets of `lockstep run`."""

    QUICK = "quick"
    STANDARD = "standard"
    FULL = "full"


class Profile(StrEnum):
    """The profiles of `lockstep run`."""

    IDENTICAL = "identical"
    NATIVE = "native"


class Format(StrEnum):
    """What charts are drawn as beside PNG and SVG."""

    PDF = "pdf"


class Dtype(StrEnum):
    """The arithmetic of `lockstep verify`."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


DatasetOption = Annotated[
    str,
    typer.Option(help="auto (MNIST, or digits where none can be had), mnist, digits, or a folder of four IDX files."),
]
DataOption = Annotated[
    Path | None,
    typer.Option(help="The folder that holds MNIST: its four IDX files, or mnist.npz; LOCKSTEP_MNIST if not given."),
]
BackendsArgument = Annotated[
    list[str] | None, typer.Argument(help="Names, or files such as ./mine.py; all that are installed if none.")
]


@app.command()
def data(
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    figures: Annotated[Path | None, typer.Option(help="Draw the images and their principal components here.")] = None,
) -> None:
    """Find, check and cache the dataset, and say what it is.

    Example: `lockstep data --figures figures`
    """
    from lockstep_bench.harness.data import find_dataset
    from lockstep_bench.harness.data_figures import describe, draw

    found = find_dataset(dataset, data, say)
    table = Table(show_header=False, box=None)
    for name, text in describe(found):
        table.add_row(name, text)
    console.print(table)
    if figures is not None:
        for path in draw(found, figures):
            console.print(f"wrote {path}", highlight=False)


@app.command()
def backends() -> None:
    """List the backends, and what to install for those that are missing.

    Example: `lockstep backends`
    """
    from lockstep_bench.backends import refused, registered, why_not

    table = Table("backend", "style", "devices", "here")
    for name, backend in registered().items():
        installed = ", ".join(f"{package} {number}" for package, number in backend.versions().items())
        table.add_row(name, backend.style, ", ".join(backend.devices), escape(why_not(backend) or installed))
    for name, reason in refused().items():
        table.add_row(escape(name), "", "", escape(f"refused: {reason}"))
    console.print(table)


@app.command()
def new_backend(
    name: Annotated[str, typer.Argument(help="What the command line and the tables are to call it.")],
) -> None:
    """Write a backend to start from into this folder: complete, and commented where to replace what.

    Example: `lockstep new-backend my-framework`
    """
    from lockstep_bench.harness.new_backend import next_steps, write_backend

    path = write_backend(name, Path())
    console.print(
        f"wrote {path}, a backend in NumPy: replace in it what says REPLACE. Next:", highlight=False, soft_wrap=True
    )
    for line in next_steps(name, path):
        console.print(f"  {line}", **PLAIN)


@app.command()
def verify(
    backends: BackendsArgument = None,
    dtype: Annotated[Dtype, typer.Option(help="The backends' arithmetic; the oracle's is float64.")] = Dtype.FLOAT32,
    device: Annotated[str, typer.Option(help="Where the backends run: cpu or cuda; the oracle is on the CPU.")] = "cpu",
    dataset: DatasetOption = "auto",
    data: DataOption = None,
) -> None:
    """The acceptance test of backends: the contract, identity with the float64 oracle, a short run in lockstep.

    In float64 there is no run, since runs are in float32.

    Example: `lockstep verify keras ./mine.py`
    """
    from lockstep_bench.harness.data import find_dataset
    from lockstep_bench.harness.verification import Verifier

    _say_refused(backends)
    verifier = Verifier(find_dataset(dataset, data, say), dtype.value, device=device)
    all_passed = True
    for verification in verifier.verify_all(backends or []):
        all_passed &= verification.passed or (verification.backend.skip is not None)
        for line in verification.lines():
            console.print(line, **PLAIN)
    if not all_passed:
        raise LockstepError(
            "a backend did not pass: the lines marked FAILED say what was expected, what came, and the usual causes"
        )


@app.command()
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
    aa: Annotated[bool, typer.Option("--aa", help="Run the reference twice: their ratio is noise alone.")] = False,
    device: Annotated[str, typer.Option(help="Where to train: cpu, or what a backend offers beside it.")] = "cpu",
    profile: Annotated[
        Profile, typer.Option(help="One network, checked; or each with its framework's own defaults, not checked.")
    ] = Profile.IDENTICAL,
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
    from lockstep_bench.harness import resuming
    from lockstep_bench.harness.cluster import conduct_on_cluster
    from lockstep_bench.harness.conductor import conduct
    from lockstep_bench.harness.data import RESERVED, find_dataset
    from lockstep_bench.harness.plan import make_plan
    from lockstep_bench.harness.progress import Progress
    from lockstep_bench.harness.records import Plan, blocks_left
    from lockstep_bench.harness.tables import load

    if resume and out is None:
        raise UsageError("--resume needs --out, the results folder to go on with")
    if retry_failed and not resume:
        raise UsageError("--retry-failed goes with --resume: give both")
    recorded = resuming.begun(out, Plan) if resume and out else None
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    if recorded and not given - OF_NO_PLAN:
        found = find_dataset(recorded.dataset.name if recorded.dataset.name in RESERVED else dataset, data, say)
        plan = resuming.planned_again(recorded, found)
    else:
        _say_refused(backends)
        found = find_dataset(dataset, data, say)
        plan = make_plan(
            found,
            backends or [],
            preset=preset.value,
            seeds=_numbers("--seeds", seeds),
            epochs=epochs,
            train_images=train_images,
            batch_size=batch_size,
            slice_steps=slice_steps,
            threads=_numbers("--threads", threads),
            replicates=replicates,
            aa=aa,
            device=device,
            profile=profile.value,
            target=target,
            turn_timeout=turn_timeout,
            command=shlex.join(["lockstep", *sys.argv[1:]]),
        )
    if recorded and out:
        resuming.see_that_it_fits(recorded, plan, out)
        plan = recorded
    out = out or Path("results") / f"{preset.value}-{datetime.now():%Y%m%d-%H%M%S}"
    interrupted = False
    left = blocks_left(out, plan, retry_failed) if recorded else plan.blocks
    with Progress(plan.model_copy(update={"blocks": left}), console) as progress:
        try:
            if cluster is None:
                conduct(plan, found.folder, out, progress.observe, resume=resume, retry_failed=retry_failed)
            else:
                how: Any = {"allow_mixed": allow_mixed, "resume": resume, "retry_failed": retry_failed}
                conduct_on_cluster(plan, found, out, cluster, progress.observe, say, **how)
        except KeyboardInterrupt:
            interrupted = True
    runs = (_report(out) if report else load(out)).runs
    if not report:
        console.print(f"The raw records are in {out}; make the report by: lockstep report {out}", **PLAIN)
    failed = ", ".join(
        f"{row.backend} {row.status}" for row in runs[~runs["status"].isin(["ok", "skipped"])].itertuples()
    )
    if interrupted:
        raise LockstepError(f"interrupted: what was done is in {out}; go on with: lockstep run --resume --out {out}")
    if failed:
        raise LockstepError(f"not every run ended ok: {failed}; every outcome is in {out}")


@app.command()
def seeds(
    out: Annotated[Path, typer.Option(help="The results folder.")],
    count: Annotated[int, typer.Option(help="How many seeds to train: 0, 1, ...")] = 64,
    together: Annotated[int, typer.Option(help="How many of them side by side in one process.")] = 4,
    check: Annotated[int, typer.Option(help="How many of them jax-scan trains too, to be compared.")] = 2,
    epochs: Annotated[int, typer.Option(help="How often to go through the training images.")] = 20,
    train_images: Annotated[int | None, typer.Option(help="How many training images: the first so many.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all CPUs if not given.")] = None,
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the seeds in --out; same options.")] = False,
) -> None:
    """Train one network from many seeds, and say how its test error spreads over them.

    Example: `lockstep seeds --count 64 --out results/seeds`
    """
    from lockstep_bench.harness import resuming
    from lockstep_bench.harness.data import find_dataset
    from lockstep_bench.harness.records import SeedsEvent
    from lockstep_bench.harness.seeds import SeedsPlan, plan_seeds, train_seeds

    found = find_dataset(dataset, data, say)
    plan = plan_seeds(
        found,
        count=count,
        together=together,
        check=check,
        epochs=epochs,
        train_images=train_images,
        threads=threads,
        command=shlex.join(["lockstep", *sys.argv[1:]]),
    )
    if resume and (recorded := resuming.begun(out, SeedsPlan)):
        resuming.see_that_it_fits(recorded, plan, out)
        plan = recorded

    def observe(_: object, event: object) -> None:
        if isinstance(event, SeedsEvent):
            first, last = event.scores[0], event.scores[-1]
            errors = [score.test_error_percent for score in event.scores]
            text = f"seeds {first.seed} to {last.seed}, epoch {event.epoch} of {plan.problem.epochs}: test error "
            console.print(f"{text}{min(errors):.2f} to {max(errors):.2f} % in {event.train_seconds:.0f} s", **PLAIN)

    interrupted = False
    try:
        train_seeds(plan, found.folder, out, observe, resume=resume)
    except KeyboardInterrupt:
        interrupted = True
    results = _report_seeds(out)
    if interrupted:
        raise LockstepError(f"interrupted: the blocks that were done are in {out}; go on with --resume")
    if not results.table["status"].eq("ok").all():
        raise LockstepError(f"not every seed ended ok; {out / 'seeds.csv'} has every outcome")


def _report_seeds(folder: Path) -> "SeedsResults":
    """Write the report of a folder of many seeds, and show what it says."""
    from lockstep_bench.harness.seeds_summary import sentences, write_seeds_report

    results = write_seeds_report(folder)
    for sentence in sentences(results):
        console.print(f"- {sentence}", **PLAIN)
    console.print(f"The table, the answer and the charts are in {folder}", **PLAIN)
    for sentence in results.cut:
        say(sentence)
    return results


def _say_refused(backends: list[str] | None) -> None:
    """Where all backends are meant, say which are left out because they cannot even be loaded."""
    from lockstep_bench.backends import refused

    for reason in () if backends else refused().values():
        say(f"left out: {reason}")


def _numbers(option: str, text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} takes whole numbers separated by commas, such as 1,2, not {text}") from None


@app.command()
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
    dataset: DatasetOption = "auto",
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder; results/sweep-TIME if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in --out.")] = False,
) -> None:
    """How does cost grow? A grid of Problems, each in lockstep for a fixed number of steps.

    Example: `lockstep sweep numpy pytorch --batch-size 15,240 --hidden 784,1568 --threads 1 --out results/growth`

    If that is interrupted: `lockstep sweep --resume --out results/growth`
    """
    from lockstep_bench.harness.data import RESERVED, find_dataset
    from lockstep_bench.harness.progress import SweepProgress
    from lockstep_bench.harness.resuming import see_that_it_fits
    from lockstep_bench.harness.sweep import blocks_to_run, conduct_sweep, make_sweep, read_sweep, swept_again

    if resume and out is None:
        raise UsageError("--resume needs --out, the folder of the sweep to go on with")
    recorded = read_sweep(out) if resume and out else None
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    if recorded and not given - OF_NO_PLAN:
        found = find_dataset(recorded.dataset if recorded.dataset in RESERVED else dataset, data, say)
        planned = swept_again(recorded, found)
    else:
        found = find_dataset(dataset, data, say)
        planned = make_sweep(
            found,
            backends or [],
            batch_size=_numbers("--batch-size", batch_size),
            hidden=_numbers("--hidden", hidden),
            train_images=_numbers("--train-images", train_images),
            threads=_numbers("--threads", threads),
            seed=seed,
            rounds=rounds,
            command=shlex.join(["lockstep", *sys.argv[1:]]),
        )
    if recorded and out:
        see_that_it_fits(recorded, planned, out)
        planned = recorded
    out = out or Path("results") / f"sweep-{datetime.now():%Y%m%d-%H%M%S}"
    interrupted = False
    try:
        conduct_sweep(planned, found, out, SweepProgress(blocks_to_run(planned, out), console), resume=resume)
    except KeyboardInterrupt:
        interrupted = True
    cells = _report_sweep(out).cells
    if interrupted:
        raise LockstepError(f"interrupted: what was done is in {out}; go on with: lockstep sweep --resume --out {out}")
    if not (cells["status"] == "ok").all():
        raise LockstepError(f"not every cell ended ok: {out / 'sweep.csv'} has every outcome")


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Results folders.")],
    into: Annotated[
        Path | None, typer.Option(help="A document that gets the answer and the table, between its marker lines.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A folder that gets all of them side by side.")] = None,
    also: Annotated[
        Format | None, typer.Option("--format", help="Draw the charts as this too, for papers, beside PNG and SVG.")
    ] = None,
) -> None:
    """Make the tables, the charts and the page of results folders, or of sweeps, again from their raw files.

    Example: `lockstep report results/standard --into README.md`

    Several, and side by side: `lockstep report results/laptop results/server --out results/both`
    """
    from lockstep_bench.harness.seeds_summary import answer as answer_of_seeds
    from lockstep_bench.harness.seeds_tables import is_seeds
    from lockstep_bench.harness.side_by_side import write_side_by_side
    from lockstep_bench.harness.summary import put_into, write_into
    from lockstep_bench.harness.sweep import FILE

    sweeps = [folder for folder in folders if (folder / FILE).is_file()]
    if sweeps and (into is not None or out is not None):
        raise UsageError(f"{sweeps[0]} is a sweep, whose tables fit no other's: leave out --into and --out")
    if into is not None and len(folders) > 1:
        raise UsageError("--into takes the results of one folder: give one")
    each: dict[Path, Results] = {}
    swept: dict[Path, SweepResults] = {}
    bad: list[str] = []
    for folder in folders:
        try:
            if is_seeds(folder):
                of_seeds = _report_seeds(folder)
                bad += [f"{folder} has damaged files, which were left out"] if of_seeds.is_damaged else []
                if into is not None:
                    put_into(into, answer_of_seeds(of_seeds))
            elif folder in sweeps:
                swept[folder] = _report_sweep(folder, [also] if also else [])
            else:
                each[folder] = _report(folder, [also] if also else [])
        except LockstepError as error:
            bad.append(str(error))
    if into is not None and (results := each.get(folders[0])):
        write_into(into, results)
    if out is not None and each:
        write_side_by_side(out, each)
        console.print(f"Side by side, they are in {out}", highlight=False)
    bad += [
        f"{folder} has damaged files, which were left out"
        for folder, found in (each | swept).items()
        if found.is_damaged
    ]
    if bad:
        raise LockstepError("; ".join(bad))


def _report(folder: Path, formats: Sequence[str] = ()) -> "Results":
    """Write a folder's report, and show what it says."""
    from lockstep_bench.harness import summary
    from lockstep_bench.harness.charts import FORMATS
    from lockstep_bench.harness.report import write_report
    from lockstep_bench.harness.tables import parts, title

    results = write_report(folder, [*FORMATS, *formats])
    console.print(" on ".join(title(results)), style="bold", **PLAIN)
    for backend, status, rest in summary.failures(results):
        console.print(f"{backend}: {status} {rest}", **PLAIN)
    for part in parts(results):
        cells = list(summary.narrow_cells(part.results))
        table = Table(title=part.name or None, box=None, padding=(0, 1, 0, 0))
        columns = list(zip(*cells, strict=True))
        if console.width < WIDE:  # else rich leaves out the last columns, which are the errors
            columns = [column for column in columns if column[0] not in NOT_IF_NARROW]
        for header, *texts in columns:
            justify: Any = "left" if header in summary.TEXT_COLUMNS else "right"
            table.add_column(fill(header, max(map(len, (*texts, *header.split())))), justify=justify, no_wrap=True)
        for row in zip(*(texts for _, *texts in columns), strict=True):
            table.add_row(*map(escape, row))
        for sentence in summary.sentences(part.results):
            console.print(sentence.replace("**", ""), **PLAIN)
        console.print(table)
        for line in summary.remarks(part):
            console.print(f"- {line}", **PLAIN)
    opens = shlex.join(["lockstep", "open", str(folder)])
    console.print(f"Tables and charts are in {folder}, the page is {folder / 'report.html'}: {opens}", **PLAIN)
    for sentence in results.cut:
        say(sentence)
    return results


def _report_sweep(folder: Path, formats: Sequence[str] = ()) -> "SweepResults":
    """Write a sweep's report, and show what it says."""
    from lockstep_bench.harness import sweep_summary
    from lockstep_bench.harness.charts import FORMATS
    from lockstep_bench.harness.report import write_sweep_report

    results = write_sweep_report(folder, [*FORMATS, *formats])
    console.print(sweep_summary.title(results), style="bold", **PLAIN)
    for sentence in (*sweep_summary.failures(results), *sweep_summary.sentences(results)):
        console.print(f"- {sentence}", **PLAIN)
    console.print(f"Tables and charts are in {folder}, the page is {folder / 'sweep.md'}", **PLAIN)
    for sentence in results.cut:
        say(sentence)
    return results


@app.command("open")
def open_page(folder: Annotated[Path, typer.Argument(help="A results folder.")]) -> None:
    """Show the page of a results folder in the browser; it is made first where there is none.

    Example: `lockstep open results/standard`
    """
    import webbrowser

    from lockstep_bench.harness.report import write_report

    page = folder / "report.html"
    if not page.is_file():
        write_report(folder)
    if not webbrowser.open(page.resolve().as_uri()):
        raise LockstepError(f"no browser was found: open {page} in one")


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(help="A results folder, or a JSON file of pytest-benchmark.")],
    new: Annotated[Path, typer.Argument(help="Another, measured later.")],
    csv: Annotated[Path | None, typer.Option(help="A file for the table as CSV.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="A file for the table in Markdown, for a pull request.")] = None,
    fail_on_slower: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="Exit with 1 if a backend is shown to be slower by more.")
    ] = None,
) -> None:
    """Say what got faster or slower from one result to another.

    Example: `lockstep compare results/before results/after --fail-on-slower 5`
    """
    from lockstep_bench.harness import changes

    found = changes.compare(old, new)
    header, *rows = changes.cells(found)
    table = Table(*header)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(changes.answer(found), **PLAIN)
    console.print(table)
    for note in changes.notes(found):
        console.print(f"- {note}", **PLAIN)
    if csv is not None:
        changes.write_csv(csv, found)
    if markdown is not None:
        markdown.write_text(changes.page(found, str(old), str(new)), encoding="utf-8", newline="\n")
    if fail_on_slower is not None:
        changes.fail_on_slower(found, fail_on_slower)


def say(message: str) -> None:
    """Tell the user something that must not be overlooked."""
    errors.print(f"lockstep: {message}", style="bold yellow", **PLAIN)


def main() -> None:
    """Run the command line; an error that a user can cause is one sentence and an exit code."""
    try:
        app()
    except LockstepError as error:
        fail(str(error), error.exit_code)
    except OSError as error:  # a full disk, a folder that may not be written, a terminal that is gone
        if error.filename is None and error.errno in (EPIPE, EIO):
            os._exit(1)  # nobody is left to tell, and Python would try to at its end
        where = error.filename or "the output"
        fail(f"{where}: {error.strerror}; give another path, or make room or permission there", 1)
    except KeyboardInterrupt:
        fail("interrupted", 1)


def fail(message: str, exit_code: int) -> NoReturn:
    """End with a sentence."""
    errors.print(f"lockstep: {message}", style="bold red", **PLAIN)
    sys.exit(exit_code)
