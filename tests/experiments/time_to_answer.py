"""Measures how long two commits of lockstep take to answer: the base commit and the current one, in alternate order.

    python tests/experiments/time_to_answer.py BASE [CASE...] [--pairs N] [--append FILE]
    python tests/experiments/time_to_answer.py --summary FILE

Each commit gets a worktree and a virtual environment over the packages of this interpreter. Both run the same command,
A B and then B A, with the same warm caches. Changes that are not committed are not measured.

The cases are these; all are measured if none is named.

    bench     `lockstep run` with all backends, on digits unless LOCKSTEP_MNIST is set
    core      `lockstep run numpy keras pytorch scikit-learn --preset quick`, on the same data
    report    `lockstep report` on a copy of the base's results/standard
    tox       `tox` in the worktree, without an earlier .tox
    backends  `lockstep backends`
    help      `lockstep --help`

A Markdown table gives the ratios current / base of wall time, CPU time and peak memory. CPU time is that of the process
and of all descendants that were waited for. Peak memory is the largest sampled sum of the processes' proportional set
sizes (PSS). A sample is taken every 10 ms, or less often where that would take more than 5 % of one CPU.

Exit code 1 if a command fails. Needs Linux and git; wants the machine for itself.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
import psutil

from lockstep_bench.harness.errors import LockstepError, one_line
from lockstep_bench.harness.statistics import Floats, mean_interval

SIDES: Final = ("base", "current")
ROOT: Final = Path(__file__).resolve().parents[2]
FEWEST_PAIRS: Final = 3
"""Below it there is no interval: the deviation of two ratios says next to nothing."""
LIST_SECONDS: Final = 0.25
"""How old the list of a command's processes may be."""
PAUSE_SECONDS, PAUSE_SAMPLES = 0.01, 19
"""The pause after a sample: at least so long, and at least so many times as long as the sample took."""
METRICS: Final = {"wall_seconds": 1, "cpu_seconds": 1, "peak_pss_bytes": 1 << 20}
"""What is compared, and by what it is divided in the table, which has seconds and MiB."""

RUN: Final = ("lockstep", "run", *(() if os.environ.get("LOCKSTEP_MNIST") else ("--dataset", "digits")), "--out", "OUT")
CORE: Final = (*RUN, "numpy", "keras", "pytorch", "scikit-learn", "--preset", "quick")
SHORT: Final = ("--epochs", "1", "--train-images", "150", "--no-report")
REPORT, LIST, HELP = ("lockstep", "report", "RESULTS"), ("lockstep", "backends"), ("lockstep", "--help")


class Case(NamedTuple):
    """A command, the command that warms the caches before it, and how many pairs are measured by default.

    OUT is a folder that does not exist yet, RESULTS a fresh copy of the base's results/standard.
    """

    command: tuple[str, ...]
    warm_up: tuple[str, ...]
    pairs: int


CASES: Final = {
    "bench": Case(RUN, (*RUN, *SHORT), 3),
    "core": Case(CORE, (*CORE, *SHORT), 5),
    "report": Case(REPORT, REPORT, 7),
    "tox": Case(("tox",), ("tox", "run", "--notest"), 1),
    "backends": Case(LIST, LIST, 15),
    "help": Case(HELP, HELP, 15),
}


class Tree(NamedTuple):
    """A commit's worktree, and the environment that runs its code; its side is `base` or `current`."""

    side: str
    commit: str
    folder: Path
    environment: Path


class Usage(NamedTuple):
    """Exit code, wall and CPU time, peak memory, and last line of output of a command."""

    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    peak_pss_bytes: int
    said: str


class Measurement(NamedTuple):
    """One command in one tree, a line of the file. The two of one pair have the same `pair`, the time it began."""

    case: str
    base: str
    current: str
    pair: str
    side: str
    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    peak_pss_bytes: int


class Comparison(NamedTuple):
    """One metric of a case: the geometric mean of current / base, its 95 % interval, both medians.

    The interval is Student's, of the mean of the ratios' logarithms; not a number for fewer than FEWEST_PAIRS.
    """

    pairs: int
    ratio: float
    low: float
    high: float
    base: float
    current: float


def main() -> int:
    """Measure, print the table, and say by the exit code whether every command succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", help="a commit")
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument("--pairs", type=int, help="how often both commits are measured")
    parser.add_argument("--append", type=Path, metavar="FILE", help="keep the measurements, and show all that it holds")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="measure nothing, and show all that it holds")
    options = parser.parse_args()
    if (options.base is None) == (options.summary is None) or not CASES.keys() >= set(options.cases):
        parser.error(f"give a base commit and cases among {', '.join(CASES)}, or --summary FILE")
    try:
        measurements = read(options.summary or options.append)
        if options.base:
            for measurement in measure(options.base, options.cases or CASES, options.pairs, measurements):
                measurements.append(measurement)
                print(*measurement, file=sys.stderr)
                if options.append:
                    with options.append.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(measurement._asdict()) + "\n")
    except (LockstepError, OSError) as error:
        print(f"time_to_answer: {error}", file=sys.stderr)
        return 1
    print(table(measurements))
    return 0


def read(path: Path | None) -> list[Measurement]:
    """The measurements of a file; none if there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
    return [Measurement(**json.loads(line)) for line in lines]


def measure(
    revision: str, cases: Iterable[str], pairs: int | None, earlier: Sequence[Measurement]
) -> Iterator[Measurement]:
    """Measure cases; how many pairs were measured earlier decides which commit comes first in the next.

    Raises:
        LockstepError: a command failed.
    """
    with tempfile.TemporaryDirectory(prefix="time-to-answer-") as name, ExitStack() as stack:
        commits = zip(SIDES, (revision, "HEAD"), strict=True)
        trees = [stack.enter_context(checked_out(side, commit, Path(name))) for side, commit in commits]
        results = trees[0].folder / "results" / "standard"
        for case in cases:
            run(CASES[case].warm_up, trees[0], results, Path(name))
            done = len({measurement.pair for measurement in earlier if measurement.case == case})
            for number in range(done, done + (pairs or CASES[case].pairs)):
                began = datetime.now(UTC).isoformat()
                for tree in trees if number % 2 == 0 else trees[::-1]:
                    usage = run(CASES[case].command, tree, results, Path(name))
                    yield Measurement(case, trees[0].commit, trees[1].commit, began, tree.side, *usage[:-1])
                    if usage.exit_code:
                        command = " ".join(CASES[case].command)
                        raise LockstepError(f"{command} of {tree.side} exited with {usage.exit_code}: {usage.said}")


@contextmanager
def checked_out(side: str, revision: str, folder: Path) -> Iterator[Tree]:
    """Within it there is a worktree of the revision, and an environment that runs its code."""
    git = ("git", "-C", ROOT)
    commit = output(*git, "rev-parse", "--verify", f"{revision}^{{commit}}")
    tree = Tree(side, commit, folder / side, folder / f"{side}-environment")
    output(*git, "worktree", "add", "--detach", tree.folder, commit)
    try:
        install(tree)
        yield tree
    finally:
        output(*git, "worktree", "remove", "--force", tree.folder)


def install(tree: Tree) -> None:
    """Make the environment of a tree: its code, compiled, over the packages of this interpreter."""
    venv.create(tree.environment)
    [packages] = tree.environment.glob("lib/python*/site-packages")
    (packages / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")) + "\n")
    python = tree.environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    output(*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", tree.folder)
    output(python, "-m", "compileall", "-q", tree.folder / "backends", tree.folder / "harness")
    code = output(python, "-P", "-c", "import lockstep_bench.harness as harness; print(harness.__file__)")
    if not Path(code).is_relative_to(tree.folder):
        raise LockstepError(f"{tree.side} would run {code}: install lockstep with --editable in this environment")


def run(command: Sequence[str], tree: Tree, results: Path, folder: Path) -> Usage:
    """Run a command of a tree in an empty folder, or tox in the tree; only caches are kept of what it writes."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    variables = {**kept, "LOCKSTEP_CACHE": str(folder / "cache")}
    program, *arguments = command
    with tempfile.TemporaryDirectory(dir=folder) as work:
        paths = {"OUT": str(Path(work, "out")), "RESULTS": str(Path(work, "results"))}
        arguments = [paths.get(argument, argument) for argument in arguments]
        log = Path(work, "log")
        if program == "tox":  # its pip has a cache of its own, in the user's folder: it is the same for both
            shutil.rmtree(tree.folder / ".tox", ignore_errors=True)
            return use([sys.executable, "-m", program, *arguments], tree.folder, variables, log)
        shutil.copytree(results, paths["RESULTS"])
        variables["XDG_CACHE_HOME"] = variables["LOCKSTEP_CACHE"]
        return use([str(tree.environment / "bin" / program), *arguments], Path(work), variables, log)


def use(command: Sequence[str], folder: Path, variables: Mapping[str, str], log: Path) -> Usage:
    """Run a command to its end, its output in the log, and count what it takes."""
    begin = perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    peak, ended = [0], Event()
    sampler = Thread(target=sample, args=(process.pid, peak, ended))
    sampler.start()
    _, status, used = os.wait4(process.pid, 0)
    seconds = perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    ended.set()
    sampler.join()
    said = log.read_text(errors="replace").split("\n")
    last = next((line for line in reversed(said) if line.strip()), "")
    return Usage(process.returncode, seconds, used.ru_utime + used.ru_stime, peak[0], last)


def sample(process: int, peak: list[int], ended: Event) -> None:
    """Keep the largest sum of the PSS of a process and its descendants in `peak`, until it has ended."""
    members: list[psutil.Process] = []
    listed, pause = -LIST_SECONDS, 0.0
    while not ended.wait(pause):
        begin = perf_counter()
        if begin - listed >= LIST_SECONDS:
            with suppress(psutil.Error):  # it has just ended
                root = psutil.Process(process)
                members, listed = [root, *root.children(recursive=True)], begin
        peak[0] = max(peak[0], sum(map(pss, members)))
        pause = max(PAUSE_SECONDS, PAUSE_SAMPLES * (perf_counter() - begin))


def pss(process: psutil.Process) -> int:
    """The proportional set size of a process; 0 if it has ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def output(*command: str | Path) -> str:
    """Return the standard output of a command.

    Raises:
        LockstepError: it failed.
    """
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LockstepError(f"{command[0]} exited with {done.returncode}: {one_line(done.stderr)}")
    return done.stdout.strip()


def compare(measurements: Iterable[Measurement]) -> dict[tuple[str, str, str], dict[str, Comparison]]:
    """Compare each metric, by case, base and current commit; pairs that are not whole or failed are left out."""
    rows = pd.DataFrame(measurements, columns=Measurement._fields)
    pairs = rows[rows["exit_code"] == 0].pivot(
        index=["case", "base", "current", "pair"], columns="side", values=list(METRICS)
    )
    whole = pairs.reindex(columns=pd.MultiIndex.from_product([METRICS, SIDES])).dropna()
    compared = {}
    for commits, found in whole.groupby(level=["case", "base", "current"], sort=False):
        case, base, current = map(str, commits)
        sides = {metric: [found[metric][side].to_numpy(float) for side in SIDES] for metric in METRICS}
        compared[case, base, current] = {metric: comparison(*values) for metric, values in sides.items()}
    return compared


def comparison(base: Floats, current: Floats) -> Comparison:
    """Compare one metric of the base and the current commit, each (pairs,) and in the same order."""
    logs = np.log(current / base)
    low, high = np.exp(mean_interval(logs)) if len(logs) >= FEWEST_PAIRS else (np.nan, np.nan)
    medians = float(np.median(base)), float(np.median(current))
    return Comparison(len(logs), float(np.exp(logs.mean())), float(low), float(high), *medians)


def table(measurements: Iterable[Measurement]) -> str:
    """A row for each case and pair of commits, in Markdown."""
    header = "| case | commits | pairs | wall time | CPU time | peak memory | wall (s) | CPU (s) | peak (MiB) |"
    rows = [header, "| --- | --- | ---: | --- | --- | --- | --- | --- | --- |"]
    for (case, base, current), metrics in compare(measurements).items():
        ratios = [_ratio(metric) for metric in metrics.values()]
        medians = [
            f"{metrics[name].base / unit:.2f}, {metrics[name].current / unit:.2f}" for name, unit in METRICS.items()
        ]
        pairs = str(metrics["wall_seconds"].pairs)
        rows.append(f"| {' | '.join([case, f'{base[:7]}, {current[:7]}', pairs, *ratios, *medians])} |")
    return "\n".join(rows)


def _ratio(metric: Comparison) -> str:
    """A ratio with its interval."""
    interval = f"{metric.low:.3f} to {metric.high:.3f}" if metric.pairs >= FEWEST_PAIRS else "no interval"
    return f"{metric.ratio:.3f} ({interval})"


if __name__ == "__main__":
    sys.exit(main())
