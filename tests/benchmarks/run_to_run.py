"""Measures how far the same ratio is from one run to the next: the source of `RUN_TO_RUN` in harness/statistics.py.

    python tests/benchmarks/run_to_run.py [BACKEND...]

Where a process lies in memory makes it faster or slower for as long as it lives, and a neighbour that takes memory's
bandwidth for some minutes slows some backends more than others. Each backend is run beside the reference in five
replicates, in new processes each, for 40 rounds of 100 steps; what is printed is the deviation of their medians.

Takes some ten minutes and wants the machine for itself.
"""

import sys
import tempfile
from math import log
from pathlib import Path

import numpy as np

from lockstep_bench.harness import run
from lockstep_bench.harness.tables.results import Results

BACKENDS = ("scikit-learn", "pytorch", "jax-scan", "numba")
REPLICATES, SLICE_STEPS = 5, 100


def main(names: list[str]) -> int:
    """Run and print."""
    with tempfile.TemporaryDirectory() as folder:
        results = run(
            *("numpy", *(names or BACKENDS)),
            out=Path(folder, "out"),
            preset="standard",
            epochs=1,
            slice_steps=SLICE_STEPS,
            replicates=REPLICATES,
            aa=True,
        )
    print(table(results))
    return 0


def table(results: Results) -> str:
    """A row for each backend and one for all, in Markdown."""
    times = results.turns.pivot(index=["block", "round"], columns="backend", values="train_seconds")
    logs = times.div(times["numpy"], axis="index").drop(columns="numpy").map(log)
    medians = logs.groupby(level="block", sort=False).median()
    medians -= medians.median()
    deviations = medians.std()
    rows = ["| backend | deviation (%) | medians of the replicates, the middle one as 1 |", "| --- | ---: | --- |"]
    for name, deviation in deviations.items():
        rows.append(f"| {name} | {100 * deviation:.1f} | {' '.join(np.exp(medians[name]).map('{:.3f}'.format))} |")
    return "\n".join([*rows, f"| all | {100 * (deviations**2).mean() ** 0.5:.1f} | |"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
