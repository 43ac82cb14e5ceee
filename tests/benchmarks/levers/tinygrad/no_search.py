"""kernels not searched for"""

from collections.abc import Mapping

from lockstep_bench.backends.base import Dtype
from lockstep_bench.backends.tinygrad import Tinygrad


class NoSearch(Tinygrad):
    name = "tinygrad--no-search"

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        return {**super().environment(threads, device, dtype), "BEAM": "0"}
