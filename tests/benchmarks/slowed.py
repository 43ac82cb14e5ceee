"""The reference with extra work in every slice, which it times by itself: the instrument of known_slowdown.py.

It times and prints, which no backend may otherwise.
"""

from time import perf_counter

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.numpy import NumPy

PART = 0.1
"""The extra work, as a part of the time that the slice took.

It is reading the clock until it is time, which takes no memory: all else lies where it does in the reference. All of it
comes after the last step, so that no step follows it at once.
"""


class Slowed(NumPy):
    name = "numpy-slowed"

    def train(self, order: IntArray) -> float:
        begin = perf_counter()
        loss = super().train(order)
        middle = perf_counter()
        end = middle
        while end - middle < PART * (middle - begin):
            end = perf_counter()
        print(f"extra {end - middle:.6f} of {end - begin:.6f}", flush=True)
        return loss
