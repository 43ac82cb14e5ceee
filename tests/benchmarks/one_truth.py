"""Shows that pytest-benchmark and `lockstep run` measure the same: the ratio of two backends agrees in both.

    python tests/benchmarks/one_truth.py [BACKEND]

Runs the pytest-benchmark suite's `train` and `lockstep run` in turns, three times each, for a backend (scikit-learn, if
none is named) beside the reference, with slices of the same 1,000 steps, or 100 of digits. Absolute times are not
compared: only the ratio, and whether the one over the other, by the rule of `lockstep compare`, is shown to differ from
1. Exit code 1 if it is.

Takes some five minutes and wants the machine for itself.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from lockstep_bench.harness import run
from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.statistics import Floats, change, estimate

TIMES, ROUNDS = 3, 8
SUITE = Path(__file__).parent
STEPS, BATCH_SIZE = 1_000, 15


def main(backend: str) -> int:
    """Measure in turns, print both ratios, and say by the exit code whether they differ."""
    series: dict[str, list[Floats]] = {"pytest-benchmark": [], "lockstep run": []}
    with tempfile.TemporaryDirectory() as folder:
        for time in range(TIMES):
            series["pytest-benchmark"].append(by_pytest(backend, Path(folder, f"{time}.json")))
            series["lockstep run"].append(by_run(backend, Path(folder, f"run-{time}")))
    for name, each in series.items():
        found = estimate(np.concatenate(each))
        ratio, low, high = np.exp([found.median, found.low, found.high])
        print(f"{name}: {backend} / numpy = {ratio:.4f} ({low:.4f} to {high:.4f}), {found.samples} rounds")
    both = change(series["pytest-benchmark"], series["lockstep run"])
    print(f"one over the other: {both.ratio:.4f} ({both.ratio_low:.4f} to {both.ratio_high:.4f})")
    return 0 if both.ratio_low <= 1 <= both.ratio_high else 1


def by_pytest(backend: str, file: Path) -> Floats:
    """The log ratios of a run of the suite."""
    options = ("--benchmark-only", "--rounds", str(ROUNDS), "--backends", backend, "-k", "train")
    suite = [sys.executable, "-m", "pytest", "-q", str(SUITE), *options, f"--benchmark-json={file}"]
    done = subprocess.run(suite, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"The pytest-benchmark suite failed: {done.stdout}{done.stderr}")
    [benchmark] = json.loads(file.read_text())["benchmarks"]
    ratios: Floats = np.log(benchmark["stats"]["data"]) - np.log(benchmark["extra_info"]["reference_seconds"])
    return ratios


def by_run(backend: str, out: Path) -> Floats:
    """The log ratios of a run of as many rounds, after one that is to warm up, on the same images."""
    results = run(
        *("numpy", backend),
        out=out,
        preset="standard",
        epochs=ROUNDS + 1,
        train_images=min(STEPS * BATCH_SIZE, len(find_dataset().train.labels)),
        slice_steps=STEPS,
    )
    times = results.turns.pivot(index="round", columns="backend", values="train_seconds").iloc[1:]
    ratios: Floats = np.log(times[backend].to_numpy(float)) - np.log(times["numpy"].to_numpy(float))
    return ratios


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ["scikit-learn"])))
