"""50 steps per execution"""

from typing import Any

from lockstep_bench.backends.keras import KerasXla


class FiftySteps(KerasXla):
    name = "keras-xla--fifty-steps"

    def _options(self) -> dict[str, Any]:
        return {"jit_compile": True, "steps_per_execution": 50}
