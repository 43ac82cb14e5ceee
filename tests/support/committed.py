"""The committed results, which several tests read."""

from functools import cache
from pathlib import Path
from typing import Final

from lockstep_bench.harness.tables.results import Results, load

RESULTS: Final = Path(__file__).parents[2] / "results"


@cache
def committed(name: str) -> Results:
    """The tables of `results/NAME`, made once in a test process; to be read, and not changed."""
    return load(RESULTS / name)
