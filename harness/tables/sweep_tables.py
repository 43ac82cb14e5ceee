"""The tables of a sweep, a pure function of its raw files: sweep.csv, exponents.csv and crossings.csv.

A cell is one Problem on one number of threads; its times, ratios and floor are those that `tables` and `comparisons`
derive for any run, but for two things. The first round warms up, and does not count. And of every turn the cost of a
call of `train` is taken off, as measured where steps are the shortest: a user trains in one call, and in slices of few
steps it would pass for an overhead of every step.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from pandas import DataFrame

from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.records.raw_files import plan_path
from lockstep_bench.harness.records.sweep_grid import FILE, Point, Sweep, call_point, folder_of, points, read_sweep
from lockstep_bench.harness.statistics import FEWEST, Floats
from lockstep_bench.harness.tables import scaling
from lockstep_bench.harness.tables.results import Results, compared, load_uncompared, write_table

AXES: Final = ("batch_size", "hidden", "train_images", "threads")
FITTED: Final = ("batch_size", "hidden")
"""Axes of two values, or where steps do not depend on it, have no exponent."""
COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "sweep": (
        *(*AXES, "backend", "style", "status", "machine", "dataset", "reason", "rounds"),
        *("microseconds_per_step", "microseconds_per_step_low", "microseconds_per_step_high"),
        *("microseconds_per_image", "microseconds_per_image_low", "microseconds_per_image_high"),
        *("floor_microseconds_per_step", "floor_microseconds_per_image", "floor_multiple"),
        *("ratio_to_reference", "ratio_to_reference_low", "ratio_to_reference_high"),
        *("call_milliseconds", "disagreements", "unstable"),
    ),
    "exponents": (
        *("axis", "backend", "machine", *AXES, "cells", "exponent", "exponent_low", "exponent_high"),
        *("overhead_microseconds_per_step", "work_microseconds_per_image"),
        *("half_batch_size", "half_batch_size_low", "half_batch_size_high"),
    ),
    "crossings": ("axis", "faster_below", "faster_above", "machine", *AXES, "below", "above", "crossing"),
}
DECIMALS: Final = {
    **{column: 1 for column in COLUMNS["sweep"] if "microseconds_per_step" in column},
    **{column: 3 for column in COLUMNS["sweep"] if "microseconds_per_image" in column},
    **{column: 4 for column in COLUMNS["sweep"] if column.startswith("ratio")},
    **{column: 3 for column in COLUMNS["exponents"] if column.startswith("exponent")},
    **{column: 1 for column in COLUMNS["exponents"] if column.startswith("half")},
    "floor_multiple": 3,
    "call_milliseconds": 3,
    "overhead_microseconds_per_step": 1,
    "work_microseconds_per_image": 3,
    "crossing": 1,
}
WHOLE: Final = (*AXES, "rounds", "cells", "disagreements", "below", "above")
MOST_OF_A_TURN: Final = 0.5
"""Of a backend's shortest turn a call is taken to cost at most so much: beyond, it was measured in a bad moment."""
Row = dict[str, Any]
Logs = dict[int, list[Floats]]
Calls = dict[tuple[Hashable, ...], float]


class SweepResults(NamedTuple):
    """A sweep's folder as tables, unrounded; `results/README.md` says what every column means.

    `ratios` is `Results.ratios` of all cells, with the axes; `cut` and `is_damaged` are as there.
    """

    sweep: Sweep
    cells: DataFrame
    ratios: DataFrame
    exponents: DataFrame
    crossings: DataFrame
    cut: tuple[str, ...] = ()
    is_damaged: bool = False


def load_sweep(folder: Path) -> SweepResults:
    """Derive all tables from the raw records of a sweep.

    Raises:
        LockstepError: the folder holds no sweep.
    """
    sweep = read_sweep(folder)
    if sweep is None:
        raise LockstepError(f"{folder} holds no sweep: {FILE} is missing; give a folder that `lockstep sweep` wrote")
    rows: list[Row] = []
    logs: Logs = {}
    ratios: list[DataFrame] = []
    cut: list[str] = []
    is_damaged = False
    calls = _calls(folder, sweep)
    for point in points(sweep):
        try:
            results = _results(folder, point)
        except LockstepError as error:
            reason = str(error).replace(f"{folder}/", "")
            cut.append(reason)
            is_damaged = True
            rows += _missing(sweep, point, "error", reason)
            continue
        if results is None:
            rows += _missing(sweep, point, "skipped", "the sweep ended before this Problem")
            continue
        cut += [f"{point.name}: {sentence}" for sentence in results.cut]
        is_damaged |= results.is_damaged
        turns = _timed(results.turns, calls)
        summary, pairs = compared(results.plan, results.runs, turns)
        ratios.append(pairs.assign(**point._asdict()))
        for _, row in summary.iterrows():
            own = turns[(turns["backend"] == row["backend"]) & (turns["threads"] == row["threads"])]
            own = own[own["machine"] == row["machine"]]
            logs[len(rows)] = [np.log(own["microseconds_per_step"].to_numpy())]
            rows.append(_cell(point, row, own, results.runs, calls))
    cells = _table("sweep", rows)
    both = pd.concat(ratios, ignore_index=True) if ratios else DataFrame(columns=["backend", "other", *AXES])
    return SweepResults(
        sweep,
        cells,
        both,
        _table("exponents", _exponents(cells, logs)),
        _table("crossings", _crossings(sweep, both)),
        tuple(cut),
        is_damaged,
    )


def write_sweep_tables(folder: Path) -> SweepResults:
    """Write sweep.csv, exponents.csv and crossings.csv into a sweep's folder.

    Raises:
        LockstepError: as `load_sweep`; then nothing is written.
    """
    results = load_sweep(folder)
    for name, table in (("sweep", results.cells), ("exponents", results.exponents), ("crossings", results.crossings)):
        write_table(folder, name, table, DECIMALS)
    return results


def _results(folder: Path, point: Point) -> Results | None:
    """The tables of one Problem; none where it was not begun.

    Raises:
        LockstepError: its plan is no plan, or that of another Problem.
    """
    own = folder_of(folder, point)
    if not plan_path(own).exists():
        return None
    results = load_uncompared(own)
    found = Point(results.plan.problem.hidden, results.plan.problem.batch_size, results.plan.dataset.train_images)
    if found != point:
        raise LockstepError(f"{plan_path(own)} is that of {found.name}; restore the file")
    return results


def _calls(folder: Path, sweep: Sweep) -> Calls:
    """Seconds that a call of `train` costs, by backend and machine; empty where that was not measured.

    The least of all numbers of threads: beginning is the work of one, and what a bad moment adds is not in all of them.
    """
    try:
        results = _results(folder, call_point(sweep))
    except LockstepError:  # it is said where the Problem is read
        return {}
    if results is None:
        return {}
    runs = results.runs[results.runs["call_milliseconds"].notna() & (results.runs["status"] == "ok")]
    return {
        key: max(0.0, float(own["call_milliseconds"].min()) / 1e3) for key, own in runs.groupby(["backend", "machine"])
    }


def _timed(turns: DataFrame, calls: Calls) -> DataFrame:
    """The turns that count, without what their call cost."""
    timed = turns[turns["round"] > 1].copy()
    for key, own in timed.groupby(["backend", "machine", "threads"], sort=False):
        cost = min(calls.get(key[:2], 0.0), MOST_OF_A_TURN * own["train_seconds"].min())
        seconds = own["train_seconds"] - cost
        timed.loc[own.index, "train_seconds"] = seconds
        timed.loc[own.index, "microseconds_per_step"] = 1e6 * seconds / own["steps"].astype("float64")
    return timed


def _cell(point: Point, row: "pd.Series[Any]", turns: DataFrame, runs: DataFrame, calls: Calls) -> Row:
    """One backend's row of a cell."""
    run = runs[(runs["backend"] == row["backend"]) & (runs["threads"] == row["threads"])].iloc[0]
    floor = turns["floor_microseconds_per_step"].median()
    call = calls.get((row["backend"], row["machine"]), np.nan)
    of_image = {
        f"microseconds_per_image{end}": row[f"microseconds_per_step{end}"] / point.batch_size
        for end in ("", "_low", "_high")
    }
    return {
        **row.reindex(list(COLUMNS["sweep"])).dropna(),
        **of_image,
        "reason": run["reason"],
        "rounds": len(turns),
        "floor_microseconds_per_step": floor,
        "floor_microseconds_per_image": floor / point.batch_size,
        "call_milliseconds": 1e3 * call,
        **point._asdict(),
    }


def _missing(sweep: Sweep, point: Point, status: str, reason: str) -> Iterator[Row]:
    """The rows of a Problem of which there is nothing."""
    for threads in sweep.threads:
        for backend in sweep.backends:
            yield {
                **point._asdict(),
                "threads": threads,
                "backend": backend.name,
                "style": backend.style,
                "status": status,
                "reason": reason,
                "machine": sweep.machine,
                "dataset": sweep.dataset,
                "rounds": 0,
                "unstable": "",
            }


def _exponents(cells: DataFrame, logs: Logs) -> Iterator[Row]:
    """Of every axis and backend: over all cells of a number of threads, then of every line of cells."""
    ok = cells[(cells["status"] == "ok") & (cells["rounds"] >= FEWEST)]
    drawn = {place: scaling.plausible_logs(logs[place], seed=place) for place in ok.index}
    for axis in FITTED:
        fixed = [other for other in AXES if other != axis]
        for key, own in ok.groupby(["backend", "machine", "threads"], sort=False):
            lines = [line for _, line in own.groupby(fixed) if len(line) >= scaling.FEWEST_CELLS]
            backend, machine, threads = key
            row = {"axis": axis, "backend": backend, "machine": machine, "threads": threads}
            if len(lines) > 1:
                yield {**row, **_fit(axis, lines, drawn)}
            for line in lines:
                yield {**row, **line.iloc[0][fixed], **_fit(axis, [line], drawn)}


def _fit(axis: str, lines: Sequence[DataFrame], drawn: Mapping[int, Floats]) -> Row:
    """The exponent of some lines of cells along an axis; of one line of batch sizes its overhead too."""
    cells = pd.concat(lines)
    values = cells[axis].to_numpy(np.float64)
    groups = np.repeat(np.arange(len(lines)), list(map(len, lines)))
    times = np.log(cells["microseconds_per_step"].to_numpy())
    plausible = np.stack([drawn[place] for place in cells.index])
    found = scaling.exponent(values, groups, times, plausible)
    row = {"cells": len(cells), "exponent": found.exponent, "exponent_low": found.low, "exponent_high": found.high}
    if axis == "batch_size" and len(lines) == 1:
        line = scaling.overhead(values, times, plausible)
        row |= {"overhead_microseconds_per_step": line.overhead, "work_microseconds_per_image": line.work}
        row |= {"half_batch_size": line.half, "half_batch_size_low": line.low, "half_batch_size_high": line.high}
    return row


def _crossings(sweep: Sweep, ratios: DataFrame) -> Iterator[Row]:
    """Of every axis and pair of backends, along every line of cells."""
    names = [backend.name for backend in sweep.backends]
    pairs = [(one, other) for place, one in enumerate(names) for other in names[place + 1 :]]
    for axis in AXES:
        fixed = ["machine", *(other for other in AXES if other != axis)]
        for one, other in pairs:
            both = ratios[(ratios["backend"] == one) & (ratios["other"] == other)]
            for _, line in both.groupby(fixed):
                own = line.sort_values(axis)
                shown = own["verdict"].map({"faster": -1, "slower": 1}).fillna(0).to_numpy(np.int64)
                values, logs = own[axis].to_numpy(np.float64), np.log(own["ratio"].to_numpy(np.float64))
                for found in scaling.crossings(values, logs, shown):
                    below, above = (one, other) if found.first_is_faster else (other, one)
                    yield {
                        "axis": axis,
                        "faster_below": below,
                        "faster_above": above,
                        **own.iloc[0][fixed],
                        "below": found.below,
                        "above": found.above,
                        "crossing": found.at,
                    }


def _table(name: str, rows: Any) -> DataFrame:
    """Rows as a table of exactly its columns, of the same types even where there are no rows."""
    kinds = dict.fromkeys(DECIMALS, "float64") | dict.fromkeys(WHOLE, "Int64")
    types = {column: kinds.get(column, "object") for column in COLUMNS[name]}
    return DataFrame(list(rows), columns=list(COLUMNS[name])).astype(types)
