"""twice as many parts as threads"""

from lockstep_bench.backends.numba import NumbaSparse


class NarrowParts(NumbaSparse):
    name = "numba-sparse--narrow-parts"
    parts = 2
