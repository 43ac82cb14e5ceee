"""What charts show and no table has as it is: the phases of a run, memory by phase, ratios round by round."""

from collections.abc import Iterable
from math import ceil, floor, log10
from typing import Final

from pandas import DataFrame, Index, Series

from lockstep_bench.harness.tables.results import Results

PHASES: Final = ("process start", "import", "build", "start-up", "training", "evaluation")
"""What `own_seconds` is made of; start-up is what the first slice takes beyond the median one."""
MEMORY: Final = ("after import", "more after build", "more at the peak")
"""What `memory_peak_bytes` is made of."""
MEBIBYTE: Final = 2**20


def with_curves(results: Results) -> Results:
    """With what curves over epochs show: accuracies, the training time so far, epochs as numbers to draw by."""
    epochs = results.epochs.astype({"epoch": "float64"})
    epochs["seconds"] = epochs.groupby(["backend", "block"])["train_seconds"].cumsum()
    for split in ("train", "test"):
        epochs[f"{split}_accuracy_percent"] = 100 - epochs[f"{split}_error_percent"]
    return results._replace(epochs=epochs)


def came_through(results: Results) -> DataFrame:
    """The rows of the summary with status ok, the fastest first, without the reference's twin."""
    twin = results.plan.twin.name if results.plan.twin else None
    return results.summary[(results.summary["status"] == "ok") & (results.summary["backend"] != twin)]


def phases(results: Results) -> DataFrame:
    """Seconds of every phase, the mean over runs that are ok: a row per backend, the least in all first."""
    runs = _ok(results)
    startup = runs["startup_seconds"].fillna(0).clip(lower=0)  # below 0 it is noise
    seconds = [
        runs["start_seconds"] - runs["import_seconds"],
        runs["import_seconds"],
        runs["build_seconds"],
        startup,
        runs["train_seconds"] - startup,
        runs["evaluation_seconds"],
    ]
    return _stacked(runs["backend"], PHASES, seconds)


def memory(results: Results) -> DataFrame:
    """Mebibytes that came with every phase, of the run with the highest peak: a row per backend, the least first."""
    runs = _ok(results).dropna(subset=["memory_peak_bytes"])
    runs = runs.sort_values("memory_peak_bytes", kind="stable").drop_duplicates("backend", keep="last")
    imported, built, peak = (
        runs[f"memory_{when}_bytes"].astype("float64") / MEBIBYTE for when in ("import", "build", "peak")
    )
    return _stacked(runs["backend"], MEMORY, [imported, (built - imported).clip(lower=0), peak - built.clip(imported)])


def _stacked(backends: "Series[str]", names: tuple[str, ...], parts: "list[Series[float]]") -> DataFrame:
    table = DataFrame(dict(zip(names, parts, strict=True))).groupby(backends, sort=False).mean()
    return table.loc[table.sum(axis=1).sort_values(kind="stable").index]


def rounds(results: Results) -> DataFrame:
    """Microseconds per step, a row per round in the order they were run, a column per backend that came through."""
    turns = results.turns[results.turns["status"] == "ok"]
    table = turns.pivot(index=["block", "round"], columns="backend", values="microseconds_per_step")
    blocks = [block.id for block in results.plan.blocks]
    table = table.loc[sorted(table.index, key=lambda found: (blocks.index(found[0]), found[1]))]
    names = [backend.name for backend in results.plan.backends if backend.name in table]
    return table[names].set_axis(Index(range(1, len(table) + 1), name="round"))


def dense_floor(results: Results) -> tuple[float, str]:
    """The dense floor in microseconds per step, the median over rounds, NaN if none was measured; and its name."""
    name = "dense floor" if results.plan.device == "cpu" else "dense floor of the CPU"
    return float(results.turns["floor_microseconds_per_step"].median()), name


def _ok(results: Results) -> DataFrame:
    """The runs of backends that came through, all of theirs, without the reference's twin."""
    return results.runs[results.runs["backend"].isin(came_through(results)["backend"])]


def log_ticks(values: Iterable[float]) -> list[float]:
    """What is written at a logarithmic axis that shows these values: three numbers at least, if the digits allow."""
    shown = [value for value in values if value > 0]
    if not shown:
        return []
    low, high = min(shown) / 1.3, max(shown) * 1.3
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), tuple(tenth / 10 for tenth in range(10, 100))):
        powers = range(floor(log10(low)), ceil(log10(high)) + 1)
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        within = [tick for tick in ticks if low <= tick <= high]
        if len(within) >= 3:
            break
    return within


def whole_step(most: float) -> int:
    """From one number of an axis from 0 to `most` to the next: a whole one, so that there are ten at most."""
    tenth = max(1.0, most / 10)
    power = 10 ** floor(log10(tenth))
    return int(next(step * power for step in (1, 2, 5, 10) if step * power >= tenth))
