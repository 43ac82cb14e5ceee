"""without XLA"""

from typing import Any

from lockstep_bench.backends.keras import KerasXla


class NoXla(KerasXla):
    name = "keras-xla--no-xla"

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "jit_compile": False}
