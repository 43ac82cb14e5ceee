"""a wider search (`BEAM=4`)"""

from collections.abc import Mapping

from lockstep_bench.backends.base import Dtype
from lockstep_bench.backends.tinygrad import Tinygrad


class WiderSearch(Tinygrad):
    name = "tinygrad--wider-search"

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        return {**super().environment(threads, device, dtype), "BEAM": "4"}
