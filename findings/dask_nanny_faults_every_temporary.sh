#!/usr/bin/env bash
# A function on NumPy arrays takes longer in a worker of Dask than in a plain process, for each of its temporaries of
# more than 128 KiB is mapped, faulted in page by page, and given back.
#
# Dask's nanny starts its workers with MALLOC_TRIM_THRESHOLD_=65536 (distributed.nanny.pre-spawn-environ), so that
# freed memory goes back to the system. To set that variable also ends glibc's adjustment of the mmap threshold, which
# stays at 128 KiB (mallopt(3), M_MMAP_THRESHOLD). Without it, glibc raises the threshold once, to 32 MiB at most, and
# a temporary lies in memory that is there already.
#
# Seen with distributed 2026.8.0 and NumPy 2.4.6 on Linux with glibc, Python 3.11, two cores:
#   plain process: 13 us a pass, 0 page faults, MALLOC_TRIM_THRESHOLD_ not set
#   Dask worker: 132 us a pass, 65 page faults, MALLOC_TRIM_THRESHOLD_ 65536
#   ratio of times 10.1
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet distributed==2026.8.0 numpy==2.4.6

cat > "$folder/finding.py" <<'END'
import os
import resource
import sys
from statistics import median
from time import perf_counter

import numpy as np
from distributed import Client, LocalCluster

PASSES = 2_000


def measured() -> tuple[float, float, str]:
    """Seconds and page faults of a pass over 256 KiB with a temporary as large, and the variable."""
    array = np.linspace(0, 1, 32_768)
    seconds = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(PASSES):
        begin = perf_counter()
        (array * 1.5).sum()
        seconds.append(perf_counter() - begin)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return median(seconds), faults / PASSES, os.environ.get("MALLOC_TRIM_THRESHOLD_", "not set")


if __name__ == "__main__":
    plain = measured()
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        worker = client.submit(measured).result()
    for where, (seconds, faults, variable) in (("plain process", plain), ("Dask worker", worker)):
        print(f"{where}: {1e6 * seconds:.0f} us a pass, {faults:.0f} page faults, MALLOC_TRIM_THRESHOLD_ {variable}")
    print(f"ratio of times {worker[0] / plain[0]:.1f}")
    sys.exit(not (plain[1] < 5 and worker[1] > 40 and worker[0] > 1.2 * plain[0]))
END
"$folder/venv/bin/python" "$folder/finding.py"
