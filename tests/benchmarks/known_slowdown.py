"""Shows that a slow-down of known size is seen, and as large as it is.

    python tests/benchmarks/known_slowdown.py

Runs the reference against `slowed.py`: the same, but for extra work of about 10 % in every slice, which it times by
itself. So every turn implies a ratio of its own: all of its time over its time without the extra work. The interval of
the measured ratio must exclude 1 and, widened by one percent, contain the median of these. Exit code 1 if it does not.

One percent because an interval speaks of the processes of its run: with no extra work at all the two were seen one
percent apart. Three pairs of processes even out some of that.

Takes two to six minutes for 240 rounds, and wants the machine for itself.
"""

import re
import sys
import tempfile
from pathlib import Path
from statistics import median

from lockstep_bench.harness import run

LUCK = 0.01
"""How far apart two processes that do the same may be."""
SLOWED = Path(__file__).with_name("slowed.py")


def main() -> int:
    """Run, print, and say by the exit code whether it was seen."""
    with tempfile.TemporaryDirectory() as folder:
        results = run(
            *("numpy", str(SLOWED)),
            out=Path(folder, "out"),
            preset="standard",
            epochs=2,
            slice_steps=100,
            replicates=3,
        )
        logs = "".join(log.read_text() for log in Path(folder).glob("out/logs/*/numpy-slowed.log"))
    turns = re.findall(r"extra ([0-9.e-]+) of ([0-9.e-]+)", logs)
    implied = median(float(all_) / (float(all_) - float(extra)) for extra, all_ in turns)
    ratios = results.ratios
    found = ratios[(ratios["backend"] == "numpy-slowed") & (ratios["other"] == "numpy")].iloc[0]
    print(
        f"measured {found['ratio']:.4f}, 95 % interval {found['ratio_low']:.4f} to {found['ratio_high']:.4f}, "
        f"{found['rounds']} rounds on {results.plan.dataset.name}; implied by its own extra work {implied:.4f}"
    )
    within = found["ratio_low"] / (1 + LUCK) <= implied <= found["ratio_high"] * (1 + LUCK)
    return 0 if found["ratio_low"] > 1 and within else 1


if __name__ == "__main__":
    sys.exit(main())
