"""What charts show and no table has as it is: the phases of a run, memory by phase, ratios round by round."""

from typing import Final

from pandas import DataFrame, Index, Series

from lockstep_bench.harness.tables import Results

PHASES: Final = ("process start", "import", "build", "start-up", "training", "evaluation")
"""What `own_seconds` is made of; start-up is what the first slice takes beyond the median one."""
MEMORY: Final = ("after import", "more after build", "more at the peak")
"""What `memory_peak_bytes` is made of."""
MEBIBYTE: Final = 2**20


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


def _ok(results: Results) -> DataFrame:
    """The runs that came through, without the reference's twin."""
    twin = results.plan.twin.name if results.plan.twin else None
    return results.runs[(results.runs["status"] == "ok") & (results.runs["backend"] != twin)]
