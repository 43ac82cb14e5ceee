"""The charts, drawn from the tables alone: the same tables give the same bytes, as PNG and as SVG.

Those of what the network learnt need the raw arrays beside them, and the dataset for its mistakes. A run that failed is
drawn thin up to its last epoch, which is crossed out.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from matplotlib.style import context

from lockstep_bench.harness.report.charts import cost, learning, network
from lockstep_bench.harness.report.charts.frame import STYLE, save
from lockstep_bench.harness.tables.learnt import Learnt
from lockstep_bench.harness.tables.results import Results, parts

FORMATS: Final = ("png", "svg")


def write_charts(
    folder: Path,
    results: Results,
    learnt: Learnt | None = None,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Draw every chart into `charts/` of a results folder and return the paths.

    With several machines or numbers of threads, into a folder for each, numbered as by `parts`:
    `charts/1-2-threads`, and `charts/ratios` has them side by side.
    """
    paths: list[Path] = []
    with context(["default", STYLE]):  # not the user's own settings: the same tables give the same bytes
        several = parts(results)
        for number, part in enumerate(several, start=1):
            own = re.sub("[^a-z0-9]+", "-", f"{number} {part.name}".lower())
            target = folder / "charts" / (own if len(several) > 1 else "")
            target.mkdir(parents=True, exist_ok=True)
            for name, figure in chain(learning.figures(part.results), cost.figures(part.results)):
                paths += save(figure, target, name, formats)
        if len(several) > 1:
            paths += write_ratios(folder, {part.name: part.results for part in several})
        for name, figure in network.figures(results, learnt) if learnt else ():
            paths += save(figure, folder / "charts", name, formats)
    return paths


def write_ratios(folder: Path, columns: Mapping[str, Results]) -> list[Path]:
    """Draw `charts/ratios` into a folder: every backend's ratio to the reference in each of several results."""
    target = folder / "charts"
    target.mkdir(parents=True, exist_ok=True)
    with context(["default", STYLE]):
        return list(save(cost.ratios(columns), target, "ratios", FORMATS))
