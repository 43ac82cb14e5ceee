"""one step for all seeds of a core (`jax.vmap`)"""

from lockstep_bench.backends.jax_vmap import JaxVmap
from lockstep_bench.harness.records.format import MOST_TOGETHER


class OneStepForAll(JaxVmap):
    name = "jax-vmap--one-step-for-all"
    width = MOST_TOGETHER
