"""kernels chosen by trying them (`BEAM=2`)"""

from collections.abc import Mapping

from lockstep_bench.backends.base import Dtype
from lockstep_bench.backends.tinygrad import Tinygrad


class Beam(Tinygrad):
    name = "tinygrad--beam"

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        return {**super().environment(threads, device, dtype), "BEAM": "2"}
