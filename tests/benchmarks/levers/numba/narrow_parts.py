"""four times as many parts as threads"""

from lockstep_bench.backends.numba import Numba


class NarrowParts(Numba):
    name = "numba--narrow-parts"
    parts = 4
