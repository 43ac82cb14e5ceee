#!/usr/bin/env bash
# `import paddle` makes NumPy single-threaded in every process that is started afterwards.
#
# PaddlePaddle writes OMP_NUM_THREADS=1 into os.environ when it is imported, if it is not there. The process itself
# keeps the threads that NumPy's OpenBLAS has taken before; a child process inherits the variable. So a pool of spawned
# processes, a launcher or a benchmark runner that imports PaddlePaddle to look at its version gives its children one
# thread each.
#
# Seen with paddlepaddle 3.3.1 and NumPy 2.4.6, Python 3.11, two cores:
#   paddlepaddle 3.3.1: a child's BLAS had 2 threads before, 1 after the import
#   OMP_NUM_THREADS 1
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 paddlepaddle==3.3.1 threadpoolctl==3.6.0

cat > "$folder/finding.py" <<'END'
import os
import subprocess
import sys

CHILD = "import numpy, threadpoolctl; print(max(pool['num_threads'] for pool in threadpoolctl.threadpool_info()))"


def threads_of_a_child() -> int:
    """How many threads the BLAS of a new process has."""
    return int(subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    os.environ.pop("OMP_NUM_THREADS", None)
    before = threads_of_a_child()
    import paddle

    after = threads_of_a_child()
    variable = os.environ.get("OMP_NUM_THREADS", "not set")
    print(f"paddlepaddle {paddle.__version__}: a child's BLAS had {before} threads before, {after} after the import")
    print(f"OMP_NUM_THREADS {variable}")
    sys.exit(not (before > 1 and after == 1 and variable == "1"))
END
"$folder/venv/bin/python" "$folder/finding.py"
