"""as many parts as threads"""

from lockstep_bench.backends.numba import Numba


class WideParts(Numba):
    name = "numba--wide-parts"
    parts = 1
