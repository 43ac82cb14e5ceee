"""sweep.md: what a sweep's tables say, for people. Short sentences first, then what they rest on."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd
from pandas import DataFrame, Series

from lockstep_bench.harness.records.sweep_grid import Sweep, call_point
from lockstep_bench.harness.records.whole_files import write_whole
from lockstep_bench.harness.report.summary import ratio_cell
from lockstep_bench.harness.statistics import FEWEST
from lockstep_bench.harness.tables.results import each
from lockstep_bench.harness.tables.sweep_tables import AXES, SweepResults
from lockstep_bench.harness.wording import counted

MOST_CROSSINGS: Final = 40
"""Rows of the table for people; crossings.csv has all."""
NO_CROSSING: Final = (
    "No crossing point is shown: nobody who is shown to be faster at one value of an axis is shown to be slower at "
    "another."
)
CROSSING: Final = (
    "It is shown where two backends differ, each time beyond the 95 % interval of their paired ratio, in one direction "
    "at one value of an axis and in the other at a later one, and nothing is shown in between. The point is "
    "interpolated."
)
GROWTH: Final = (
    "Exponents a of time per step ~ axis ** a, by least squares on logarithms over all cells of a number of threads, "
    "with 95 % intervals: 1 is proportional, 0 is no growth. `exponents.csv` has those of every single line of cells."
)
OVERHEAD: Final = (
    "A step is taken to be overhead + work * batch size; overhead is what it costs whatever the batch: dispatch, and "
    "Adam's pass over all parameters. Below the batch size at which the two are equal (Hockney's n½) a step is bound "
    "by its overhead."
)


def title(results: SweepResults) -> str:
    """Dataset and machine: every page and picture of results has to name them."""
    name = results.sweep.dataset
    of = "MNIST" if name == "mnist" else f"{name} (not MNIST)"
    return f"{of} on {each(results.cells['machine'])}"


def write_sweep_summary(folder: Path, results: SweepResults) -> None:
    """Write sweep.md into a sweep's folder."""
    write_whole(folder / "sweep.md", page(results))


def page(results: SweepResults) -> str:
    """The page: what is missing or failed, the sentences, their tables, all cells, how it was measured."""
    sweep = results.sweep
    other = f"**THESE ARE NOT MNIST NUMBERS:** they were measured on another dataset, {sweep.dataset}."
    texts = [
        f"# lockstep sweep: {title(results)}",
        "" if sweep.dataset == "mnist" else other,
        "\n".join(f"- **{sentence}.**" for sentence in results.cut),
        "\n".join(f"- **{sentence}**" for sentence in failures(results)),
        "\n".join(f"- {sentence}" for sentence in sentences(results)),
        "## Crossing points",
        f"{CROSSING}\n\n{_rows(crossing_cells(results))}" if len(results.crossings) else NO_CROSSING,
        "## How the time of a step grows",
        f"{GROWTH}\n\n{_rows(exponent_cells(results))}",
        "## Where the overhead ends",
        f"{OVERHEAD}\n\n{_rows(overhead_cells(results))}",
        "## Time per image (µs), cell by cell",
        "In brackets the ratio to the reference, paired, with its 95 % interval.",
        _rows(time_cells(results)),
        "## How it was measured",
        "\n".join(f"- {line}" for line in conditions(results)),
    ]
    return "\n\n".join(filter(None, texts)) + "\n"


def _rows(cells: Iterator[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def failures(results: SweepResults) -> Iterator[str]:
    """A sentence for each way in which cells failed."""
    failed = results.cells[results.cells["status"] != "ok"]
    for (backend, status, reason), own in failed.groupby(["backend", "status", "reason"], sort=False):
        where = where_is(own.iloc[0], results.sweep)
        more = f" and {len(own) - 1} more" if len(own) > 1 else ""
        yield f"{backend}: {status} in {len(own)} of {_count(results, backend)} cells ({where}{more}): {reason}"


def _count(results: SweepResults, backend: object) -> int:
    return int((results.cells["backend"] == backend).sum())


def sentences(results: SweepResults) -> Iterator[str]:
    """What the tables say."""
    ok = results.cells[results.cells["status"] == "ok"]
    if ok.empty:
        yield "No backend came through, so there is nothing to compare."
        return
    yield _fastest(ok)
    alike = ["axis", "faster_below", "faster_above"]
    for _, own in results.crossings.groupby(alike, sort=False):
        yield _crossing(own, results.sweep)
    if results.crossings.empty:
        yield NO_CROSSING
    yield from _overheads(results)


def _fastest(ok: DataFrame) -> str:
    """Who has the shortest median, in how many cells."""
    best = ok.loc[ok.groupby(list(AXES))["microseconds_per_step"].idxmin(), "backend"]
    counts = best.value_counts(sort=False).sort_values(ascending=False, kind="stable")
    each_of = ", ".join(f"{name} in {count}" for name, count in counts.items())
    return f"Shortest time per step, of {len(best)} cells: {each_of}."


def _crossing(rows: DataFrame, sweep: Sweep) -> str:
    """One sentence for all lines of cells along which one of two backends overtakes the other in the same direction."""
    first, axis = rows.iloc[0], str(rows["axis"].iloc[0])
    low, high = rows["crossing"].min(), rows["crossing"].max()
    winner, other = first["faster_below"], first["faster_above"]
    where = where_is(first, sweep) if len(rows) == 1 else f"in {len(rows)} lines of cells"
    about = f"{low:,.0f}" if f"{low:,.0f}" == f"{high:,.0f}" else f"{low:,.0f} to {high:,.0f}"
    tail = f" ({where})." if where else "."
    if axis in ("threads", "train_images"):  # nobody trains on one and a half threads
        below, above = rows["below"].min(), rows["above"].max()
        name = AXIS_NAMES[axis]
        one = name.removesuffix("s") if below == 1 else name
        return f"With {below:,} {one} {winner} beats {other}, with {above:,} {other} beats {winner}{tail}"
    return f"Below {AXIS_NAMES[axis]} {about} {winner} beats {other}, above it {other} beats {winner}{tail}"


def _overheads(results: SweepResults) -> Iterator[str]:
    """Of each number of threads, up to what batch size every backend is bound by its overhead."""
    sizes = results.sweep.batch_size
    lines = results.exponents.dropna(subset="half_batch_size")
    for threads in sorted(lines["threads"].unique()):
        of_backends = lines[lines["threads"] == threads].groupby("backend", sort=False)["half_batch_size"]
        parts = (f"{name} {_span(halves, sizes[0], sizes[-1])}" for name, halves in of_backends)
        yield f"On {counted(threads, 'thread')} overhead outweighs work up to batch size: {', '.join(parts)}."


def _span(halves: "Series[float]", least: int, most: int) -> str:
    low, high = (half_text(value, least, most) for value in (halves.min(), halves.max()))
    return low if low == high else f"{low} to {high}"


def half_text(half: float, least: int, most: int) -> str:
    """A batch size, as far as a grid from `least` to `most` can tell it."""
    return f"<{least}" if half < least else f">{most} (never within this grid)" if half > most else f"{half:,.0f}"


AXIS_NAMES: Final[Mapping[str, str]] = {
    "batch_size": "batch size",
    "hidden": "width",
    "train_images": "training images",
    "threads": "threads",
}


def where_is(row: "Series[Any]", sweep: Sweep) -> str:
    """A cell, or a line of cells, by those axes that it has a place on and that have more places than one."""
    says: dict[str, Callable[[int], str]] = {
        "batch_size": "batch size {:,}".format,
        "hidden": "width {:,}".format,
        "train_images": "{:,} images".format,
        "threads": lambda count: counted(count, "thread"),
    }
    texts = [say(row[axis]) for axis, say in says.items() if pd.notna(row[axis]) and len(getattr(sweep, axis)) > 1]
    return ", ".join(texts)


def crossing_cells(results: SweepResults) -> Iterator[list[str]]:
    """A row per crossing point."""
    yield ["axis", "faster below", "faster above", "crossing at about", "shown between", "where"]
    yield ["---", "---", "---", "---:", "---", "---"]
    for _, row in results.crossings.head(MOST_CROSSINGS).iterrows():
        at = "" if row["axis"] in ("threads", "train_images") else f"{row['crossing']:,.0f}"
        between = f"{row['below']:,} and {row['above']:,}"
        where = where_is(row, results.sweep)
        yield [AXIS_NAMES[row["axis"]], row["faster_below"], row["faster_above"], at, between, where]


def exponent_cells(results: SweepResults) -> Iterator[list[str]]:
    """A row per backend and number of threads, over all of its cells."""
    yield ["backend", "threads", "with the batch size", "with the width"]
    yield ["---", "---:", "---:", "---:"]
    found = results.exponents
    for (backend, threads), own in found.groupby(["backend", "threads"], sort=False):
        texts = []
        for axis in ("batch_size", "hidden"):
            along = own[own["axis"] == axis]
            texts.append("" if along.empty else _interval(along.iloc[0]))
        yield [str(backend), str(threads), *texts]


def _interval(row: "Series[Any]") -> str:
    return f"{row['exponent']:.2f} ({row['exponent_low']:.2f} to {row['exponent_high']:.2f})"


def overhead_cells(results: SweepResults) -> Iterator[list[str]]:
    """A row per backend and number of threads, a column per width: where work is as much as overhead."""
    widths, sizes = results.sweep.hidden, results.sweep.batch_size
    images = results.sweep.train_images
    yield ["backend", "threads", "images", *(f"width {width:,}" for width in widths)]
    yield ["---", "---:", "---:", *("---:" for _ in widths)]
    lines = results.exponents.dropna(subset="half_batch_size")
    for (backend, threads), own in lines.groupby(["backend", "threads"], sort=False):
        for count in images:
            at = {row["hidden"]: row for _, row in own[own["train_images"] == count].iterrows()}
            texts = [_half(at[width], sizes[0], sizes[-1]) if width in at else "" for width in widths]
            yield [str(backend), str(threads), f"{count:,}", *texts]


def _half(row: "Series[Any]", least: int, most: int) -> str:
    half, low, high = (half_text(row[f"half_batch_size{end}"], least, most) for end in ("", "_low", "_high"))
    short = " (never within this grid)"
    return half if half == low == high else f"{half} ({low.removesuffix(short)} to {high.removesuffix(short)})"


def time_cells(results: SweepResults) -> Iterator[list[str]]:
    """A row per cell, a column per backend: microseconds per image, or what became of it."""
    names = [backend.name for backend in results.sweep.backends]
    yield [*(AXIS_NAMES[axis] for axis in ("hidden", "batch_size", "train_images", "threads")), *names, "dense floor"]
    yield ["---:" for _ in range(5 + len(names))]
    for place, own in results.cells.groupby(["hidden", "batch_size", "train_images", "threads"]):
        rows = {row["backend"]: row for _, row in own.iterrows()}
        floor = own["floor_microseconds_per_image"].median()
        texts = [_time(rows[name]) for name in names]
        yield [*(f"{value:,}" for value in place), *texts, "" if pd.isna(floor) else f"{floor:,.1f}"]


def _time(row: "Series[Any]") -> str:
    if row["status"] != "ok":
        return str(row["status"])
    ratio = ratio_cell(row, "ratio_to_reference")
    marks = (f" [{ratio}]" if ratio and ratio != "1.00" else "") + (" unstable" if row["unstable"] else "")
    return f"{row['microseconds_per_image']:,.1f}{marks}"


def conditions(results: SweepResults) -> Iterator[str]:
    """How it was measured, line by line."""
    sweep = results.sweep
    calls = results.cells["call_milliseconds"].notna().any()
    yield f"grid: batch size {_list(sweep.batch_size)}; width {_list(sweep.hidden)}"
    yield f"and: {_list(sweep.train_images)} training images; {_list(sweep.threads)} threads; seed {sweep.seed}"
    yield (
        f"every cell: a round to warm up and {sweep.rounds} that count (no interval from fewer than {FEWEST}), each of "
        "as many steps as make slices of all Problems about as long, all backends in turn; Problems in a shuffled order"
    )
    yield (
        f"the cost of a call of `train`, measured in {call_point(sweep).name}, is taken off every turn"
        if calls
        else "the cost of a call of `train` was not measured, so it is in the times"
    )
    yield f"dataset: {sweep.dataset}, SHA-256 {sweep.dataset_sha256}"
    for backend in sweep.backends:
        yield f"{backend.name}: {', '.join(f'{name} {version}' for name, version in backend.versions.items())}"
    changes = " with uncommitted changes" if sweep.commit_clean is False else ""
    yield f"lockstep {sweep.lockstep}" + (f", commit {sweep.commit}{changes}" if sweep.commit else "")
    yield f"command: `{sweep.command}`"


def _list(values: list[int]) -> str:
    return ", ".join(f"{value:,}" for value in values)
