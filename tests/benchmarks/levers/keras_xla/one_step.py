"""one step per execution"""

from typing import Any

from lockstep_bench.backends.keras import KerasXla


class OneStep(KerasXla):
    name = "keras-xla--one-step"

    def _options(self) -> dict[str, Any]:
        return {"jit_compile": True}
