"""Who trains when: rounds of turns over the slices of an epoch, a pure function of seed and sizes.

Shuffled, and reversed on alternate rounds, so that no backend always follows the same one: Randomized Multiple
Interleaved Trials (Abedi and Brecht, ICPE 2017).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lockstep_bench.harness.problem import Stream, random_stream


class Round(NamedTuple):
    """One training turn of every backend, in this order, on images `start` to `stop` of the epoch's order."""

    number: int
    start: int
    stop: int
    backends: tuple[str, ...]


def epoch_rounds(
    backends: Sequence[str], *, seed: int, epoch: int, images: int, batch_size: int, slice_steps: int
) -> Iterator[Round]:
    """The rounds of one epoch (1, 2, ...), numbered from 1 through all epochs; the last slice may be short.

    Rounds come in pairs: the second of a pair has the first one's order reversed.
    """
    size = slice_steps * batch_size
    starts = range(0, images, size)
    first = (epoch - 1) * len(starts) + 1
    for number, start in enumerate(starts, start=first):
        pair, is_second = divmod(number - 1, 2)
        order = random_stream(seed, Stream.SCHEDULE, pair).permutation(len(backends))
        names = tuple(backends[index] for index in (order[::-1] if is_second else order))
        yield Round(number, start, min(start + size, images), names)


def steps(images: int, batch_size: int) -> int:
    """How many batches `images` make, the last of which may be short."""
    return -(-images // batch_size)
