"""How a backend looks: the same colour and marker in every chart of every report.

Readable in grey and by the colour-blind: the colours are Okabe and Ito's, and those that come with lockstep each have a
pair of colour and marker of their own. Variants of one framework share its colour. Any other has the look that its name
makes; where that is taken by another of one's own, it has the next marker, or colour, that is free.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import product
from typing import Final, NamedTuple

from lockstep_bench.harness.tables.results import Results

COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
"""Okabe and Ito's (2008); their black is the reference's, their yellow is too pale for lines on white."""
BLUE, ORANGE, GREEN, RED, PINK, SKY = COLOURS
INK: Final = "#000000"
MARKERS: Final = ("s", "^", "D", "v", "P", "X", "p")
"""One more than there are colours, in matplotlib's letters."""
KNOWN: Final = {
    "numpy": (INK, "o"),
    "keras": (BLUE, "s"),
    "keras-xla": (BLUE, "^"),
    "keras-jax": (BLUE, "D"),
    "keras-torch": (BLUE, "v"),
    "tensorflow": (SKY, "^"),
    "pytorch": (RED, "s"),
    "pytorch-tuned": (RED, "^"),
    "scikit-learn": (ORANGE, "s"),
    "scikit-learn-tuned": (ORANGE, "^"),
    "jax": (GREEN, "s"),
    "jax-scan": (GREEN, "^"),
    "jax-vmap": (GREEN, "v"),
    "numba": (PINK, "s"),
    "numba-sparse": (PINK, "^"),
    "mlx": (SKY, "D"),
    "paddle": (RED, "D"),
    "tinygrad": (GREEN, "D"),
}
"""Of the backends that come with lockstep. Any other has the look that its name makes of those that are left."""
FILLS: Final = {
    "process start": ("#BBBBBB", ""),
    "import": ("#666666", ""),
    "build": ("#FFFFFF", "////"),
    "start-up": (ORANGE, "\\\\\\\\"),
    "training": (SKY, ""),
    "evaluation": ("#FFFFFF", "...."),
    "after import": ("#666666", ""),
    "more after build": ("#FFFFFF", "////"),
    "more at the peak": (SKY, ""),
}
"""Colour and hatching of the pieces of a bar: of a run's phases, and of memory."""
FREE: Final = [look for look in product(COLOURS, MARKERS) if look not in KNOWN.values()]


class Look(NamedTuple):
    """How a backend is drawn and called; a label names the status of one that failed."""

    name: str
    label: str
    colour: str
    marker: str
    status: str


def looks(results: Results) -> list[Look]:
    """One per backend, in the order of the plan.

    The reference's twin is left out: it would only hide the reference.
    """
    names = [planned.name for planned in results.plan.backends if planned != results.plan.twin]
    status = results.summary.set_index("backend")["status"]
    return named({name: str(status[name]) for name in names})


def named(statuses: Mapping[str, str]) -> list[Look]:
    """One per backend of these names, in their order, each with its status."""
    names, status = list(statuses), list(statuses.values())
    labels = [name if how == "ok" else f"{name} ({how})" for name, how in zip(names, status, strict=True)]
    return [
        Look(name, label, colour, marker, how)
        for name, label, (colour, marker), how in zip(names, labels, _drawn(names), status, strict=True)
    ]


def ranked(results: Results) -> list[Look]:
    """The same as rows from the bottom: those that failed, then the slowest, the fastest on top."""
    rank = list(results.summary["backend"])
    return sorted(looks(results), key=lambda look: rank.index(look.name), reverse=True)


def _drawn(names: list[str]) -> Iterator[tuple[str, str]]:
    """Colours and markers. Of two backends that would look alike, the later one takes another look."""
    taken: list[tuple[str, str]] = []
    for name in names:
        if name in KNOWN:
            yield KNOWN[name]
            continue
        place = int.from_bytes(sha256(name.encode()).digest()) % len(FREE)
        free = [look for look in FREE[place:] + FREE[:place] if look not in taken] or [FREE[place]]
        taken.append(next((look for look in free if look[0] == FREE[place][0]), free[0]))
        yield taken[-1]
