"""Trains on every second image where an order is longer than any of `verify`'s; the gate of a run sees the network."""

# ruff: noqa: D101, D102

from typing import ClassVar

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.numpy import NumPy

LONGEST_VERIFIED = 743


class Cheat(NumPy):
    name: ClassVar[str] = "trains-fewer"

    def train(self, order: IntArray) -> float:
        return super().train(order[::2] if len(order) > LONGEST_VERIFIED else order)
