"""Every 100th update skipped."""

from typing import ClassVar

from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "skipped-steps"

    def _adam(self) -> None:
        if (self.step + 1) % 100 == 0:
            self.step += 1
        else:
            super()._adam()
