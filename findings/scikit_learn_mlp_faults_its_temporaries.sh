#!/usr/bin/env bash
# About half of the time of scikit-learn's MLPClassifier goes into page faults, where a layer's weights take megabytes.
#
# Its Adam makes temporaries as large as the weights in every step: 2.4 MB each for 784 x 784 in float32. glibc maps
# such blocks, or trims the heap where it has grown, and so gives them back to the system when they are freed. The next
# step faults the same pages in again, some 1,300 of them, and the kernel has to clear each. With two variables of
# mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, the memory stays with the process: no faults, the same results.
# One of them alone makes it worse: to set either ends glibc's own adjustment of the mmap threshold, so that every
# temporary of more than 128 KiB is mapped.
#
# Seen with scikit-learn 1.9.1 and NumPy 2.4.6 on Linux with glibc, Python 3.11, two cores:
#   as it comes: 8.6 ms a step, 1516 page faults
#   trim threshold 1 GiB: 18.8 ms a step, 6454 page faults
#   trim and mmap threshold 1 GiB: 4.2 ms a step, 0 page faults
#   as it comes takes 2.0 times as long; the same weights: True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 scikit-learn==1.9.1

cat > "$folder/train.py" <<'END'
import resource
from statistics import median
from time import perf_counter

import numpy as np
from sklearn.neural_network import MLPClassifier

BATCH, STEPS, CALLS = 15, 50, 12

random = np.random.default_rng(0)
images = random.random((BATCH * STEPS, 784), dtype=np.float32)
labels = random.integers(0, 10, len(images))
network = MLPClassifier((784,), batch_size=BATCH, shuffle=False, random_state=0)
seconds, faults = [], []
for _ in range(CALLS):
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, perf_counter()
    network.partial_fit(images, labels, classes=np.arange(10))
    seconds.append((perf_counter() - begin) / STEPS)
    faults.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / STEPS)
print(median(seconds[2:]), median(faults[2:]), float(np.abs(network.coefs_[0]).sum()))
END

cat > "$folder/finding.py" <<'END'
import os
import subprocess
import sys

GIB = str(1 << 30)
SETTINGS = {
    "as it comes": {},
    "trim threshold 1 GiB": {"MALLOC_TRIM_THRESHOLD_": GIB},
    "trim and mmap threshold 1 GiB": {"MALLOC_TRIM_THRESHOLD_": GIB, "MALLOC_MMAP_THRESHOLD_": GIB},
}


def trained(variables: dict[str, str]) -> list[float]:
    """Seconds and page faults of a step, and the sum of the weights."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, os.path.join(os.path.dirname(__file__), "train.py")]
    done = subprocess.run(command, env={**inherited, **variables}, capture_output=True, text=True, check=True)
    return [float(text) for text in done.stdout.split()]


if __name__ == "__main__":
    found = {name: trained(variables) for name, variables in SETTINGS.items()}
    for name, (seconds, faults, _) in found.items():
        print(f"{name}: {1e3 * seconds:.1f} ms a step, {faults:.0f} page faults")
    plain, one, both = found.values()
    same = plain[2] == one[2] == both[2]
    print(f"as it comes takes {plain[0] / both[0]:.1f} times as long; the same weights: {same}")
    sys.exit(not (plain[1] > 300 and both[1] < 5 and plain[0] > 1.2 * both[0] and one[0] > plain[0] and same))
END
"$folder/venv/bin/python" "$folder/finding.py"
