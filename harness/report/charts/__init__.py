"""The charts, drawn from the tables alone: the same tables give the same bytes, as PNG and as SVG.

Those of what the network learnt need the raw arrays beside them, and the dataset for its mistakes. A run that failed is
drawn thin up to its last epoch, which is crossed out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from lockstep_bench.harness.data.cache import Say
from lockstep_bench.harness.report.charts import cost, learning, network
from lockstep_bench.harness.report.charts.frame import Chart, Named, draw
from lockstep_bench.harness.report.processes import Processes
from lockstep_bench.harness.tables.learnt import Learnt
from lockstep_bench.harness.tables.results import Results, parts

FORMATS: Final = ("png", "svg")


def write_charts(
    folder: Path,
    results: Results,
    learnt: Learnt | None = None,
    formats: Sequence[str] = FORMATS,
    processes: Processes | None = None,
    say: Say = lambda _: None,
) -> list[Path]:
    """Draw every chart into `charts/` of a results folder and return the paths.

    With several machines or numbers of threads, into a folder for each, numbered as by `parts`:
    `charts/1-2-threads`, and `charts/ratios` has them side by side.
    """
    charts = [Chart(folder / "charts" / name, figure) for name, figure in _figures(results, learnt)]
    return draw(charts, formats, processes, say)


def _figures(results: Results, learnt: Learnt | None) -> Iterator[Named]:
    """Each chart's path within `charts/`, and what makes its figure."""
    several = parts(results)
    for number, part in enumerate(several, start=1):
        own = re.sub("[^a-z0-9]+", "-", f"{number} {part.name}".lower())
        for name, figure in chain(learning.figures(part.results), cost.figures(part.results)):
            yield f"{own}/{name}" if len(several) > 1 else name, figure
    if len(several) > 1:
        yield "ratios", partial(cost.ratios, {part.name: part.results for part in several})
    yield from network.figures(results, learnt) if learnt else ()


def write_ratios(folder: Path, columns: Mapping[str, Results]) -> list[Path]:
    """Draw `charts/ratios` into a folder: every backend's ratio to the reference in each of several results."""
    return draw([Chart(folder / "charts" / "ratios", partial(cost.ratios, columns))], FORMATS)
