"""Shows that a slow-down of known size is seen, and as large as it is.

    python tests/benchmarks/known_slowdown.py

Runs the reference against `slowed.py`: the same, but for extra work of about 10 % in every step, which it times by
itself. So every turn implies a ratio of its own: all of its time over its time without the extra work. The interval of
the measured ratio must exclude 1 and contain the median of these. Exit code 1 if it does not.

Takes about four minutes for 160 rounds, and wants the machine for itself.
"""

import re
import sys
import tempfile
from pathlib import Path
from statistics import median

from lockstep_bench.harness import run

SLOWED = Path(__file__).with_name("slowed.py")


def main() -> int:
    """Run, print, and say by the exit code whether it was seen."""
    with tempfile.TemporaryDirectory() as folder:
        results = run(*("numpy", str(SLOWED)), out=Path(folder, "out"), preset="standard", epochs=4, slice_steps=100)
        [log] = Path(folder).glob("out/logs/*/numpy-slowed.log")
        turns = re.findall(r"extra ([0-9.e-]+) of ([0-9.e-]+)", log.read_text())
    implied = median(float(all_) / (float(all_) - float(extra)) for extra, all_ in turns)
    ratios = results.ratios
    found = ratios[(ratios["backend"] == "numpy-slowed") & (ratios["other"] == "numpy")].iloc[0]
    print(
        f"measured {found['ratio']:.4f}, 95 % interval {found['ratio_low']:.4f} to {found['ratio_high']:.4f}, "
        f"{found['rounds']} rounds on {results.plan.dataset.name}; implied by its own extra work {implied:.4f}"
    )
    return 0 if 1 < found["ratio_low"] <= implied <= found["ratio_high"] else 1


if __name__ == "__main__":
    sys.exit(main())
