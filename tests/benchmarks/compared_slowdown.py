"""Shows that `lockstep compare` sees who got slower, and nobody else.

    python tests/benchmarks/compared_slowdown.py

Runs three backends beside the reference twice. In the second run one of them, `mine`, does extra work of 15 % of its
time; all else is the same. `lockstep compare` must call it slower, and of the others say that no difference is shown.
Exit code 1 if it does not.

Takes some six minutes for four replicates of 40 rounds in each run, and wants the machine for itself.
"""

import re
import sys
import tempfile
from pathlib import Path
from statistics import median

from lockstep_bench.harness import compare, run
from lockstep_bench.harness.report.changes import page

OTHERS = ("numpy", "scikit-learn-tuned", "jax-scan")
SAME = """
from lockstep_bench.backends.numpy import NumPy


class Mine(NumPy):
    name = "mine"
"""
SLOWER = f"""
import sys

sys.path.append({str(Path(__file__).parent)!r})

import slowed

slowed.PART = 0.15


class Mine(slowed.Slowed):
    name = "mine"
"""


def main() -> int:
    """Run twice, print what `lockstep compare` writes, and say by the exit code whether it is right."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for out, adapter in (("old", SAME), ("new", SLOWER)):
            (folder / "mine.py").write_text(adapter)
            run(
                *(*OTHERS, str(folder / "mine.py")),
                out=folder / out,
                preset="standard",
                epochs=1,
                slice_steps=100,
                replicates=4,
            )
        changes = compare(folder / "old", folder / "new")
        logs = "".join(log.read_text() for log in folder.glob("new/logs/*/mine.log"))
    turns = re.findall(r"extra ([0-9.e-]+) of ([0-9.e-]+)", logs)
    implied = median(float(all_) / (float(all_) - float(extra)) for extra, all_ in turns)
    print(page(changes, "the first run", "the second"))
    print(f"Implied by the extra work itself: {implied:.4f}.")
    verdicts = changes.set_index("backend")["verdict"].to_dict()
    return 0 if verdicts == {**dict.fromkeys(OTHERS, "no difference shown"), "mine": "slower"} else 1


if __name__ == "__main__":
    sys.exit(main())
