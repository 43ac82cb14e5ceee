"""Shows that a slow-down of known size is seen, and as large as it is.

    python tests/benchmarks/known_slowdown.py [PERCENT] [--preset PRESET] [--replicates N] [--runs N]

Runs the reference against `slowed.py`: the same, but for extra work of PERCENT in every slice, 10 if not given, which
it times by itself. So every turn implies a ratio of its own: all of its time over its time without the extra work. The
interval of the measured ratio must exclude 1 and, widened by one percent, contain the median of these. Exit code 1 if
it does not.

One percent because an interval speaks of the processes of its run: with no extra work at all the two were seen one
percent apart. Three pairs of processes even out some of that.

With `--runs` it does so several times, and asks for the interval to exclude 1 in four of five: that is what
`lockstep machine` promises of the smallest difference. Without `--preset` a run has 240 rounds of 100 steps in three
replicates and takes two to six minutes. It wants the machine for itself.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from lockstep_bench.harness import run

LUCK: Final = 0.01
"""How far apart two processes that do the same may be."""
SHOWN: Final = 0.8
"""The part of several runs in which a difference must be shown."""
ADAPTER: Final = """
import sys

sys.path.append({folder!r})

import slowed

slowed.PART = {part!r}


class Slowed(slowed.Slowed):
    pass
"""


class Seen(NamedTuple):
    """What one run shows: whether the interval excludes 1, and whether it contains what the extra work implies."""

    excludes_one: bool
    contains_implied: bool


def main() -> int:
    """Run, print, and say by the exit code whether it was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("percent", nargs="?", type=float, default=10.0)
    parser.add_argument("--preset")
    parser.add_argument("--replicates", type=int)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    size = {"preset": options.preset or "standard", "replicates": options.replicates or (1 if options.preset else 3)}
    short = {} if options.preset else {"epochs": 2, "slice_steps": 100}
    seen = [once(options.percent / 100, **size, **short) for _ in range(options.runs)]
    if options.runs == 1:
        return 0 if all(seen[0]) else 1
    shown = sum(one.excludes_one for one in seen)
    print(f"shown in {shown} of {options.runs} runs")
    return 0 if shown >= SHOWN * options.runs else 1


def once(part: float, **options: Any) -> Seen:
    """Make one run with extra work of a part of every slice, and print what it shows."""
    with tempfile.TemporaryDirectory() as name:
        adapter = Path(name, "numpy_slowed.py")
        adapter.write_text(ADAPTER.format(folder=str(Path(__file__).parent), part=part))
        results = run("numpy", str(adapter), out=Path(name, "out"), **options)
        logs = "".join(log.read_text() for log in Path(name).glob("out/logs/*/numpy-slowed.log"))
    turns = re.findall(r"extra ([0-9.e-]+) of ([0-9.e-]+)", logs)
    implied = median(float(all_) / (float(all_) - float(extra)) for extra, all_ in turns)
    ratios = results.ratios
    found = ratios[(ratios["backend"] == "numpy-slowed") & (ratios["other"] == "numpy")].iloc[0]
    print(
        f"measured {found['ratio']:.4f}, 95 % interval {found['ratio_low']:.4f} to {found['ratio_high']:.4f}, "
        f"{found['rounds']} rounds on {results.plan.dataset.name}; implied by its own extra work {implied:.4f}",
        flush=True,
    )
    contains = found["ratio_low"] / (1 + LUCK) <= implied <= found["ratio_high"] * (1 + LUCK)
    return Seen(bool(found["ratio_low"] > 1), bool(contains))


if __name__ == "__main__":
    sys.exit(main())
