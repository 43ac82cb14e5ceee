"""The reference with about 10 % of extra work in every slice, which it times: the instrument of known_slowdown.py.

It times and prints, which no backend may otherwise.
"""

from time import perf_counter

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.numpy import NumPy

COUNT = 10_000
"""How far to count for each step of a slice.

Counting takes no memory, so that all else lies where it does in the reference; and all of it comes after the last step,
so that no step follows it at once.
"""


class Slowed(NumPy):
    name = "numpy-slowed"

    def train(self, order: IntArray) -> float:
        begin = perf_counter()
        loss = super().train(order)
        middle = perf_counter()
        for _ in range(COUNT * -(-len(order) // self.problem.batch_size)):
            pass
        end = perf_counter()
        print(f"extra {end - middle:.6f} of {end - begin:.6f}", flush=True)
        return loss
