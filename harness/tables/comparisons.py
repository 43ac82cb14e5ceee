"""ratios.csv and summary.csv: every backend against every other, and a row that says where it stands.

Only runs with status `ok` are averaged, ranked or compared, and only within one machine and number of threads.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from pandas import DataFrame, Series

from lockstep_bench.harness.problem import NOTEBOOK_ERROR_PERCENT
from lockstep_bench.harness.records.format import Plan
from lockstep_bench.harness.statistics import LEVEL, Floats, compare_all, estimate, mean_interval

CONDITIONS: Final = ("machine", "dataset", "threads", "device", "profile")
PART: Final = ["machine", "threads"]
"""Times are compared within these alone."""
TO_REFERENCE: Final = {
    "ratio": "ratio_to_reference",
    "ratio_low": "ratio_to_reference_low",
    "ratio_high": "ratio_to_reference_high",
    "spread_percent": "spread_percent",
}
TO_FASTEST: Final = {
    "ratio": "ratio_to_fastest",
    "ratio_low": "ratio_to_fastest_low",
    "ratio_high": "ratio_to_fastest_high",
}
Row = dict[str, Any]


class Rule(NamedTuple):
    """When a backend's times are called unstable: a column of the summary, its limit, what it means, what to do."""

    column: str
    limit: float
    meaning: str
    advice: str


CONDITION_RULES: Final = (
    Rule(
        "spread_percent",
        20,
        "the ratio to the reference varies by more than 20 % from round to round",
        "run more rounds (--epochs, --replicates) or on a quieter machine",
    ),
    Rule(
        "steal_percent",
        2,
        "the host took more than 2 % of the CPU time of its turns for other guests",
        "run at another hour or on a machine of your own",
    ),
    Rule(
        "throttled_percent",
        2,
        "a quota on CPU time held it back for more than 2 % of its turns",
        "raise the container's quota, or give fewer --threads",
    ),
    Rule(
        "foreign_load",
        0.5,
        "the load average was above the number of threads by more than half of the machine's CPUs",
        "end the other programs",
    ),
    Rule(
        "waiting_percent",
        1,
        "its worker used more than 1 % of a CPU while others had their turns, which slows them",
        "have its threads sleep when idle, by a variable in its `environment`",
    ),
    Rule(
        "suspended_seconds",
        0,
        "the machine was suspended during one of its turns, after which everything is cold",
        "run it again, and keep the machine awake",
    ),
    Rule(
        "put_off_percent",
        5,
        "the first `weights()` after training took longer than the second by more than 5 % of a slice",
        "have its `synchronize` wait for the work that `train` put off",
    ),
)
"""Stated before the numbers, in summary.md and in results/README.md; the spread is 1.4826 times the median absolute
deviation of the log ratios."""


NODES = Rule(
    "nodes",
    1,
    "several nodes shared its machine, and disturbed each other: its times are not ranked",
    "start one node per machine",
)
RULES: Final = (*CONDITION_RULES, NODES)
"""All of them, the last of which is the only one that takes the rank too: it spoils the ratios themselves."""
MEANS: Final = ("train_seconds", "own_seconds", "test_error_percent")
MEDIANS: Final = (
    *("images_per_second", "startup_seconds", "predict_images_per_second", "latency_milliseconds"),
    *("call_milliseconds", "call_percent", "waiting_percent"),
)


def ratio_rows(plan: Plan, turns: DataFrame) -> Iterator[Row]:
    """Every ordered pair of backends, by machine and number of threads."""
    for _, own in turns[turns["status"] == "ok"].groupby(PART, sort=False):
        conditions = {**{column: own[column].iloc[0] for column in CONDITIONS}, "device": plan.device}
        for found in compare_all(_seconds(plan, own)):
            yield {**found._asdict(), "verdict": found.verdict, **conditions}


def _seconds(plan: Plan, turns: DataFrame) -> dict[str, Floats]:
    """Of every backend its times by round, block after block."""
    table = turns.pivot(index=["block", "round"], columns="backend", values="train_seconds")
    return {planned.name: table[planned.name].to_numpy() for planned in plan.backends if planned.name in table}


def summary_rows(plan: Plan, runs: DataFrame, turns: DataFrame, ratios: DataFrame) -> list[Row]:
    """A row per backend over its runs, by machine and number of threads; the fastest first, those that failed last."""
    rows: list[Row] = []
    for machine, threads in runs[PART].drop_duplicates().itertuples(index=False):
        own = [table[(table["machine"] == machine) & (table["threads"] == threads)] for table in (runs, turns, ratios)]
        each = [_backend(plan, planned.name, *own[:2]) for planned in plan.backends]
        each.sort(key=lambda row: (row["status"] != "ok", _last(row["microseconds_per_step"])))
        _stand(plan, each, own[2])
        rows += each
    return rows


def _last(value: float) -> float:
    return np.inf if np.isnan(value) else value


def _backend(plan: Plan, name: str, runs: DataFrame, turns: DataFrame) -> Row:
    """What its own runs say."""
    runs, turns = runs[runs["backend"] == name], turns[turns["backend"] == name]
    ok, timed = runs[runs["status"] == "ok"], turns[turns["status"] == "ok"]
    errors = ok.groupby("seed")["test_error_percent"].mean()  # replicates of a seed end at the same error
    low, high = mean_interval(errors.to_numpy())
    steps_low, steps_high = np.exp(estimate(np.log(timed["microseconds_per_step"].to_numpy()))[3:5])
    return {
        "backend": name,
        **runs.iloc[0][["style", *CONDITIONS]],
        "status": next((status for status in runs["status"] if status != "ok"), "ok"),
        "runs": len(runs),
        "runs_ok": len(ok),
        "microseconds_per_step": timed["microseconds_per_step"].median(),
        "microseconds_per_step_low": steps_low,
        "microseconds_per_step_high": steps_high,
        "floor_multiple": (timed["microseconds_per_step"] / timed["floor_microseconds_per_step"]).median(),
        **ok[list(MEANS)].mean(),
        **ok[list(MEDIANS)].median(),
        "disagreements": runs["disagreements"].max(),
        "memory_peak_bytes": ok["memory_peak_bytes"].max(),
        "device_memory_peak_bytes": ok["device_memory_peak_bytes"].max(),
        "seeds": len(errors),
        "test_error_low": low,
        "test_error_high": high,
        "test_error_min": errors.min(),
        "test_error_max": errors.max(),
        "notebook_reached": _of(errors <= NOTEBOOK_ERROR_PERCENT) if plan.dataset.name == "mnist" else "",
        "target_reached": _of(ok["epochs_to_target"].notna()),
        "epochs_to_target": _typical(ok["epochs_to_target"]),
        "train_seconds_to_target": _typical(ok["train_seconds_to_target"]),
        "outliers": int((timed["outlier"] == "yes").sum()),
        **_conditions(timed, ok),
    }


def _of(reached: "Series[bool]") -> str:
    return f"{int(reached.sum())} of {len(reached)}"


def _typical(to_target: "Series[Any]") -> float:
    """The median over runs, with those that never get there as infinitely late: none where they are the half."""
    middle = float(to_target.astype("float64").fillna(np.inf).median()) if len(to_target) else np.nan
    return middle if np.isfinite(middle) else np.nan


def _conditions(turns: DataFrame, runs: DataFrame) -> Row:
    """What the rules ask for."""
    near = runs[runs["device"] == "cpu"]  # elsewhere a first call copies what a framework keeps for the second
    put_off = (near["weights_seconds"] - near["weights_again_seconds"]) / near["median_slice_seconds"]
    return {
        "steal_percent": turns["steal_percent"].mean(),
        "throttled_percent": 100 * turns["throttled_seconds"].sum(min_count=1) / turns["train_seconds"].sum(),
        "foreign_load": turns["foreign_load"].median(),
        "suspended_seconds": turns["suspended_seconds"].sum(),
        "put_off_percent": 100 * put_off.median(),
        "nodes": int(runs["nodes"].max()) if len(runs) else 1,
    }


def _against(ratios: DataFrame, name: str, other: str, columns: Mapping[str, str]) -> Row:
    """What is known of a backend against another, under other names; it is once as slow as itself."""
    found = ratios[(ratios["backend"] == name) & (ratios["other"] == other)]
    if found.empty:
        return dict.fromkeys(columns.values(), np.nan)
    return {new: found[old].iloc[0] for old, new in columns.items()}


def _stand(plan: Plan, rows: Sequence[Row], ratios: DataFrame) -> None:
    """Fill in where each stands among the others, and whether its times are to be relied on."""
    twin = plan.twin.name if plan.twin else None
    ranked = [row["backend"] for row in rows if row["status"] == "ok" and row["backend"] != twin]
    shown = ratios[(ratios["p_holm"] < 1 - LEVEL) & (ratios["ratio"] > 1) & ratios["other"].isin(ranked)]
    for row in rows:
        name = row["backend"]
        row |= _against(ratios, name, plan.reference.name, TO_REFERENCE)
        row |= _against(ratios, name, ranked[0] if ranked else "", TO_FASTEST)
        for column, own in (("ratio_to_reference", [plan.reference.name]), ("ratio_to_fastest", ranked[:1])):
            if name in own and row["status"] == "ok":
                row[column] = 1.0
        if name in ranked and row[NODES.column] <= NODES.limit:
            row["rank"] = 1 + int((shown["backend"] == name).sum())
        broken = [f"{rule.column} {row[rule.column]:.3g}" for rule in RULES if row[rule.column] > rule.limit]
        row["unstable"] = "; ".join(broken)
