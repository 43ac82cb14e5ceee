"""not divided: both cores on the same seed"""

from collections.abc import Mapping

from lockstep_bench.backends.base import Dtype
from lockstep_bench.backends.jax import JaxScan
from lockstep_bench.backends.jax_vmap import JaxVmap


class NotDivided(JaxVmap):
    name = "jax-vmap--not-divided"

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        return JaxScan.environment(threads, device, dtype)
