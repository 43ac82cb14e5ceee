"""a wider search (`BEAM=4`)"""

from lockstep_bench.backends.tinygrad import Tinygrad


class WiderSearch(Tinygrad):
    name = "tinygrad--wider-search"
    beam = 4
