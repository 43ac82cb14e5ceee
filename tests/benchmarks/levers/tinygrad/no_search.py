"""kernels not searched for"""

from lockstep_bench.backends.tinygrad import Tinygrad


class NoSearch(Tinygrad):
    name = "tinygrad--no-search"
    beam = 0
