"""the idiomatic loop with `Adam(fused=True)`"""

from typing import Any

from lockstep_bench.backends.pytorch import PyTorch


class FusedAdam(PyTorch):
    name = "pytorch-tuned--fused-adam"

    def _optimizer(self) -> Any:
        optimizer = super()._optimizer()
        for group in optimizer.param_groups:
            group["fused"] = True
        return optimizer
