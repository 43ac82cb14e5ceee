"""Measures what training several seeds in one program brings, and writes it into docs/tuning.md.

    python tests/benchmarks/seeds_together.py

Each arrangement (`jax-vmap`, and what is in `seeds/`, a file each) and each number of seeds has a worker of its own,
and one has `jax-scan`, which is what one would do otherwise: a seed after another. They train in turns, in a shuffled
order; what is compared is the time per seed and step within a round.

Some five minutes.
"""

import ast
import random
import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np

from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.machine.environment import commit
from lockstep_bench.harness.machine.identity import machine_name
from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.running.seeds import REFERENCE, SEEDS_WORKER, SIDE_BY_SIDE
from lockstep_bench.harness.running.worker_process import WORKER, WorkerProcess
from lockstep_bench.harness.statistics import estimate

LEVERS: Final = Path(__file__).parent / "seeds"
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "tuning.md"
SEEDS: Final = (1, 2, 4, 8, 16)
ROUNDS, STEPS, THREADS = 10, 100, 2


def main() -> int:
    """Measure and write."""
    table = tabulate(measure())
    print(table)
    text = DOCUMENT.read_text(encoding="utf-8")
    place = re.compile(r"(<!-- seeds together -->\n).*?(<!-- end -->)", re.DOTALL)
    DOCUMENT.write_text(place.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text), encoding="utf-8")
    return 0


def measure() -> dict[tuple[str, int], list[float]]:
    """Seconds per seed and step, by round, of `jax-scan` and of each arrangement with each number of seeds."""
    problem, dataset = Problem(), find_dataset("mnist")
    images = STEPS * problem.batch_size
    arrangements = [SIDE_BY_SIDE, *map(str, sorted(LEVERS.glob("*.py")))]
    times: dict[tuple[str, int], list[float]] = {}
    workers = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        for spec, count in [(REFERENCE, 1), *((spec, count) for spec in arrangements for count in SEEDS)]:
            worker = WorkerProcess(
                spec,
                dtype="float32",
                device="cpu",
                threads=THREADS,
                log=Path(folder, "log"),
                timeout=300.0,
                module=WORKER if spec == REFERENCE else SEEDS_WORKER,
            )
            workers[spec, count] = processes.enter_context(worker)
            worker.start()
            if spec == REFERENCE:
                worker.build(problem, 0, dataset.folder, images)
            else:
                worker.build_for(problem, dataset.folder, images, do="build_seeds", seeds=list(range(count)))
        for epoch in range(1, ROUNDS + 2):
            for (spec, count), worker in random.sample(list(workers.items()), len(workers)):
                if spec == REFERENCE:
                    reply = worker.ask("train", epoch=epoch, start=0, stop=images)
                else:
                    reply = worker.ask("train_seeds", epoch=epoch)
                if epoch > 1:  # the first compiles
                    times.setdefault((spec, count), []).append(reply["train_seconds"] / STEPS / count)
    return times


def tabulate(times: dict[tuple[str, int], list[float]]) -> str:
    """A row for each arrangement, a column for each number of seeds."""
    alone = np.array(times[REFERENCE, 1])
    step = f"{1e6 * np.median(alone):,.0f} µs"
    head = str(commit()[0])
    rows = [
        f"`{REFERENCE}`, a seed after another: {step} per seed and step; {machine_name()}, {THREADS} threads, "
        f"{ROUNDS} rounds of {STEPS} steps, commit {head[:10]}. Time per seed and step over that:",
        "",
        "| arrangement | " + " | ".join(f"{count} seed{'s' if count > 1 else ''}" for count in SEEDS) + " |",
        "| --- |" + " ---: |" * len(SEEDS),
    ]
    for spec in sorted({spec for spec, _ in times} - {REFERENCE}, key=lambda spec: (spec != SIDE_BY_SIDE, spec)):
        what = f"`{spec}`: a seed's slice after another, the seeds divided among the cores"
        if spec != SIDE_BY_SIDE:
            what = str(ast.get_docstring(ast.parse(Path(spec).read_text())))
        found = (estimate(np.log(np.array(times[spec, count]) / alone)) for count in SEEDS)
        cells = (f"{np.exp(one.median):.2f} ({np.exp(one.low):.2f} to {np.exp(one.high):.2f})" for one in found)
        rows.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LockstepError as error:  # docs/tuning.md is of MNIST, and there is none
        sys.exit(str(error))
