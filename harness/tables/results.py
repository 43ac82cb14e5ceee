"""The derived tables: a pure function of the raw records, with a row for every planned run, whatever became of it.

The same raw files give the same tables, byte for byte. Only runs with status `ok` are averaged, ranked or compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pandas import DataFrame, Series

from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.problem import Defaults
from lockstep_bench.harness.records import raw_files
from lockstep_bench.harness.records.format import Plan
from lockstep_bench.harness.records.whole_files import written_whole
from lockstep_bench.harness.tables.comparisons import CONDITIONS, ratio_rows, summary_rows
from lockstep_bench.harness.tables.runs import Run, epoch_rows, run_row, runs_of, turn_rows
from lockstep_bench.harness.wording import counted

COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "runs": (
        *("backend", "style", "seed", "status", *CONDITIONS, "block", "replicate", "reason", "epochs_done", "versions"),
        *("machine_identity", "caches", "python", "nodes", "blas", "variables_kept", "variables_removed"),
        *("source_sha256", *Defaults._fields),
        *("test_error_percent", "test_loss", "disagreements", "microseconds_per_step", "images_per_second"),
        *("floor_multiple", "start_seconds", "import_seconds", "build_seconds", "first_slice_seconds"),
        *("median_slice_seconds", "startup_seconds", "train_seconds", "evaluation_seconds", "own_seconds"),
        *("weights_seconds", "weights_again_seconds", "call_milliseconds", "call_percent", "predict_images_per_second"),
        *("latency_milliseconds", "latency_p99_milliseconds", "memory_import_bytes", "memory_build_bytes"),
        *("memory_peak_bytes", "device_memory_peak_bytes", "cpus_used", "threads_used", "waiting_percent"),
        *("epochs_to_target", "train_seconds_to_target", "own_seconds_to_target"),
    ),
    "epochs": (
        *("backend", "style", "seed", "epoch", "status", *CONDITIONS, "block", "replicate", "train_seconds"),
        *("train_loss", "train_error_percent", "test_loss", "test_error_percent", "disagreements", "predict_seconds"),
        "weights_difference",
    ),
    "turns": (
        *("backend", "style", "seed", "epoch", "status", *CONDITIONS, "block", "replicate", "round", "start", "stop"),
        *("steps", "at_seconds", "train_seconds", "microseconds_per_step", "outlier", "floor_microseconds_per_step"),
        *("train_loss", "cpu_per_second", "involuntary_switches", "steal_percent", "load_average", "waiting_seconds"),
        *("suspended_seconds", "throttled_seconds", "foreign_load"),
    ),
    "summary": (
        *("backend", "style", "status", *CONDITIONS, "runs", "runs_ok", "rank", "microseconds_per_step"),
        *("microseconds_per_step_low", "microseconds_per_step_high"),
        *("images_per_second", "ratio_to_reference", "ratio_to_reference_low", "ratio_to_reference_high"),
        *("ratio_to_fastest", "ratio_to_fastest_low", "ratio_to_fastest_high", "floor_multiple", "startup_seconds"),
        *("train_seconds", "own_seconds", "test_error_percent", "seeds", "test_error_low", "test_error_high"),
        *("test_error_min", "test_error_max", "notebook_reached", "disagreements", "target_reached"),
        *("epochs_to_target", "train_seconds_to_target", "predict_images_per_second", "latency_milliseconds"),
        *("call_milliseconds", "call_percent", "memory_peak_bytes", "device_memory_peak_bytes", "outliers"),
        *("spread_percent", "steal_percent", "throttled_percent"),
        *("foreign_load", "waiting_percent", "suspended_seconds", "put_off_percent", "nodes", "unstable"),
    ),
    "ratios": (
        *("backend", "other", *CONDITIONS, "rounds", "ratio", "ratio_low", "ratio_high", "order_low", "order_high"),
        *("spread_percent", "p_value", "p_holm", "verdict"),
    ),
}
DECIMALS: Final = {
    **dict.fromkeys(("train_loss", "test_loss", "train_seconds", "predict_seconds"), 6),
    **dict.fromkeys(("first_slice_seconds", "median_slice_seconds", "waiting_seconds"), 6),
    **dict.fromkeys(("weights_seconds", "weights_again_seconds"), 6),
    **dict.fromkeys(("train_error_percent", "test_error_percent", "test_error_low", "test_error_high"), 4),
    **dict.fromkeys(("test_error_min", "test_error_max", "p_value", "p_holm", "cpu_per_second"), 4),
    **dict.fromkeys(("ratio_to_reference", "ratio_to_reference_low", "ratio_to_reference_high"), 4),
    **dict.fromkeys(("ratio_to_fastest", "ratio_to_fastest_low", "ratio_to_fastest_high"), 4),
    **dict.fromkeys(("ratio", "ratio_low", "ratio_high", "order_low", "order_high"), 4),
    **dict.fromkeys(("start_seconds", "import_seconds", "build_seconds", "startup_seconds", "at_seconds"), 3),
    **dict.fromkeys(("evaluation_seconds", "own_seconds"), 3),
    **dict.fromkeys(("train_seconds_to_target", "own_seconds_to_target", "floor_multiple", "call_milliseconds"), 3),
    **dict.fromkeys(("latency_milliseconds", "latency_p99_milliseconds", "steal_percent", "waiting_percent"), 3),
    **dict.fromkeys(("throttled_percent",), 3),
    **dict.fromkeys(("foreign_load", "load_average", "spread_percent", "put_off_percent", "call_percent"), 2),
    **dict.fromkeys(("microseconds_per_step", "floor_microseconds_per_step", "images_per_second"), 1),
    **dict.fromkeys(("microseconds_per_step_low", "microseconds_per_step_high"), 1),
    **dict.fromkeys(("epochs_to_target", "predict_images_per_second"), 1),
    **dict.fromkeys(("epsilon", "l2"), 12),
    **dict.fromkeys(("weights_difference",), 8),
    **dict.fromkeys(("suspended_seconds",), 1),
    **dict.fromkeys(("throttled_seconds",), 6),
}
"""Decimals that a column is rounded to in CSV files: every column of measured numbers has an entry."""
WHOLE: Final = (
    *("seed", "epoch", "threads", "replicate", "round", "rounds", "start", "stop", "steps", "rank", "seeds"),
    *("runs", "runs_ok", "nodes", "epochs_done", "disagreements", "outliers", "cpus_used", "threads_used"),
    *("memory_import_bytes", "memory_build_bytes", "memory_peak_bytes", "device_memory_peak_bytes"),
    "involuntary_switches",
)
"""Columns of whole numbers, some of them missing; a column in neither set holds text."""


FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet takes for a formula."""
NOT_IDENTICAL: Final = (
    "The networks are not identical: each backend has its framework's own initial weights, epsilon and L2 penalty."
)
"""What every page and picture of the native profile has to say."""


class Results(NamedTuple):
    """A results folder as tables, unrounded; `results/README.md` says what every column means.

    `cut` says which raw files end before their time: what was complete before is in the tables. It names those that are
    damaged too, then `is_damaged`: what such a file holds is in no table. `again` says which blocks were run again.
    """

    plan: Plan
    runs: DataFrame
    epochs: DataFrame
    turns: DataFrame
    summary: DataFrame
    ratios: DataFrame
    cut: tuple[str, ...] = ()
    is_damaged: bool = False
    again: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[DataFrame, ...]:
        """All of them, in the order of COLUMNS."""
        return tuple(getattr(self, name) for name in COLUMNS)


def load(folder: Path | str) -> Results:
    """Derive all tables from the raw records of a results folder.

    Raises:
        LockstepError: the folder holds no plan.
    """
    results = load_uncompared(folder)
    summary, ratios = compared(results.plan, results.runs, results.turns)
    return results._replace(summary=summary, ratios=ratios)


def load_uncompared(folder: Path | str) -> Results:
    """The same with nothing in the tables `summary` and `ratios`, for whoever makes them of some of the turns.

    Raises:
        LockstepError: the folder holds no plan.
    """
    plan = raw_files.read_plan(Path(folder))
    each_run: list[Run] = []
    cut: list[str] = []
    again: list[str] = []
    is_damaged = False
    for block in plan.blocks:
        recorded, damage = raw_files.Recorded([]), ""
        try:
            recorded = raw_files.read_block(Path(folder), block)
        except LockstepError as error:  # the others are as good as before
            damage = str(error).replace(f"{folder}/", "")
        each_run += runs_of(plan, block, recorded.events, damage)
        cut += filter(None, [recorded.cut, damage])
        is_damaged |= bool(damage)
        if recorded.before:
            times = counted(recorded.before, "attempt")
            again.append(f"{block.id} was run again: {times} before, in the raw file above the last, count for nothing")
    runs = _table("runs", map(run_row, each_run))
    epochs = _table("epochs", (row for run in each_run for row in epoch_rows(run)))
    turns = _table("turns", (row for run in each_run for row in turn_rows(run)))
    return Results(
        plan, runs, epochs, turns, _table("summary", []), _table("ratios", []), tuple(cut), is_damaged, tuple(again)
    )


def compared(plan: Plan, runs: DataFrame, turns: DataFrame) -> tuple[DataFrame, DataFrame]:
    """The tables `summary` and `ratios` that follow from those of runs and turns."""
    ratios = _table("ratios", ratio_rows(plan, turns))
    return _table("summary", summary_rows(plan, runs, turns, ratios)), ratios


def write_tables(folder: Path) -> Results:
    """Write runs.csv, epochs.csv, turns.csv, summary.csv and ratios.csv into a results folder.

    Raises:
        LockstepError: as `load`; then nothing is written.
    """
    results = load(folder)
    for name in COLUMNS:
        write_table(folder, name, getattr(results, name))
    return results


def no_link(folder: Path) -> None:
    """See that nothing in a results folder is a link.

    Raises:
        LockstepError: something is; the message names it.
    """
    if link := next((path for path in folder.rglob("*") if path.is_symlink()), None):
        raise LockstepError(f"{link} is a link, which could lead a report's files anywhere: remove it")


def write_table(folder: Path, name: str, table: DataFrame, decimals: Mapping[str, int] = DECIMALS) -> None:
    """Write one of them, rounded to the decimals of each column; no text in it is one that a spreadsheet would run."""
    texts = table.select_dtypes(exclude="number").columns  # whatever this version of pandas calls a text
    safe = table.assign(**{column: table[column].map(_no_formula) for column in texts})
    with written_whole(folder / f"{name}.csv") as path:
        safe.round(dict(decimals)).to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def _no_formula(cell: object) -> object:
    """A text that a spreadsheet would take for a formula, with an apostrophe before it (OWASP, CSV injection).

    A carriage return would be written bare, and begin a row for a spreadsheet: it becomes a space.
    """
    if not isinstance(cell, str):
        return cell
    return f"{chr(39) if cell.startswith(FORMULA) else ''}{cell}".replace("\r", " ")


class Part(NamedTuple):
    """The results of one machine and number of threads, which are compared with no other; called what sets it apart."""

    name: str
    results: Results


def parts(results: Results) -> list[Part]:
    """The results by machine and number of threads, in the order of their blocks."""
    both = results.runs[["machine", "threads"]].drop_duplicates()
    machines, threads = (list(both[column].unique()) for column in both)
    found = []
    for machine, count in both.itertuples(index=False):
        names = [str(machine)] if len(machines) > 1 else []
        names += [counted(count, "thread")] if len(threads) > 1 else []
        own = [table[(table["machine"] == machine) & (table["threads"] == count)] for table in results.tables]
        blocks = [block for block in results.plan.blocks if block.id in set(own[0]["block"])]
        plan = results.plan.model_copy(update={"blocks": blocks})
        found.append(Part(", ".join(names), Results(plan, *(table.reset_index(drop=True) for table in own))))
    return found


def title(results: Results) -> tuple[str, str]:
    """Dataset and machine: every page and picture of results has to name them."""
    return dataset_title(results.plan), each(results.runs["machine"])


def dataset_title(plan: Plan) -> str:
    """The dataset, as every page and picture names it."""
    name = plan.dataset.name
    return "MNIST" if name == "mnist" else f"{name} (not MNIST)"


def each(values: "Series[str]") -> str:
    """The different values, in order, without those that are empty or missing."""
    return "; ".join(filter(None, values.dropna().unique()))


def _table(name: str, rows: Iterable[dict[str, object]]) -> DataFrame:
    """Rows as a table of exactly its columns, of the same types even where there are no rows."""
    return DataFrame(list(rows), columns=list(COLUMNS[name])).astype(_types(name))


def _types(name: str) -> dict[str, str]:
    kinds = dict.fromkeys(DECIMALS, "float64") | dict.fromkeys(WHOLE, "Int64")
    if name == "runs":  # of one run, not a mean of several
        kinds["epochs_to_target"] = "Int64"
    return {column: kinds.get(column, "object") for column in COLUMNS[name]}
