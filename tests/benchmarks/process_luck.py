"""Measures how far apart two processes are that do the same: the source of `PROCESS_LUCK` in harness/statistics.py.

    python tests/benchmarks/process_luck.py [BACKEND...]

Where a process lies in memory makes it faster or slower for as long as it lives. Each backend is run beside the
reference in eight replicates, in new processes each, for 40 rounds of 100 steps. The variance of the replicates'
medians, less what their own rounds explain of it, is luck: that of the backend's process and of the reference's.

Takes some six minutes and wants the machine for itself.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from lockstep_bench.harness import run
from lockstep_bench.harness.statistics import resampled_medians

BACKENDS = ("scikit-learn", "pytorch", "jax-scan", "numba")
REPLICATES, SLICE_STEPS = 8, 100


def main(names: list[str]) -> int:
    """Run, and print a line for each backend and one for all."""
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
    times = results.turns.pivot(index=["block", "round"], columns="backend", values="train_seconds")
    variances = []
    for name in times.columns.drop("numpy"):
        logs = np.log(times[name] / times["numpy"])
        each = [block.to_numpy() for _, block in logs.groupby(level="block")]
        medians = [float(np.median(block)) for block in each]
        explained = np.mean([resampled_medians([block], 4, 2_000, seed=0).var() for block in each])
        variances.append(max(0.0, np.var(medians, ddof=1) - explained))
        shown = " ".join(f"{ratio:.3f}" for ratio in np.exp(np.array(medians) - np.median(medians)))
        print(f"{name}: luck {100 * variances[-1] ** 0.5:.1f} %; replicates, their median as 1: {shown}")
    print(f"all {len(variances)}: luck {100 * np.mean(variances) ** 0.5:.1f} %, {results.plan.machine}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
