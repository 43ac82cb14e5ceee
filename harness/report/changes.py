"""What changed from one result to another: speed, error and memory of every backend, and a verdict.

Two runs are not paired in time. But in each of them the reference took a turn beside every backend, so a backend's
change is that of its ratio to the reference: what slowed the machine slowed both. This holds only while the reference
is the same program: where its code, NumPy or the BLAS changed as well, nothing is said.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd
from pandas import DataFrame, Series

from lockstep_bench.backends import REFERENCE
from lockstep_bench.harness.data.cache import cache_root
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.machine.identity import may_be_one
from lockstep_bench.harness.records.noise import kept_noise
from lockstep_bench.harness.report.summary import ratio_cell
from lockstep_bench.harness.statistics import (
    FEWEST,
    LEVEL,
    REFERENCE_RUN_TO_RUN,
    RUN_TO_RUN,
    change,
    holm,
)
from lockstep_bench.harness.tables.comparisons import CONDITIONS
from lockstep_bench.harness.tables.measured import Measured, Software, read
from lockstep_bench.harness.wording import counted

COLUMNS: Final = (
    *("phase", "backend", *CONDITIONS, "verdict", "ratio", "ratio_low", "ratio_high", "p_holm", "drift"),
    *("run_to_run_percent", "rounds_old", "rounds_new", "test_error_change", "memory_change_percent", "changed"),
    "reason",
)
VERDICTS: Final = ("slower", "faster", "no difference shown", "not comparable")
DECIMALS: Final = {
    **dict.fromkeys(("ratio", "ratio_low", "ratio_high", "p_holm", "drift", "test_error_change"), 4),
    **dict.fromkeys(("run_to_run_percent", "memory_change_percent"), 2),
}
"""That a column is rounded to in CSV files."""
ROUNDS: Final = {"rounds_old": "Int64", "rounds_new": "Int64"}
METHOD: Final = (
    "A change is that of a backend's time over the reference's in the same rounds. Its 95 % interval allows for noise "
    "within each run, and for what differs from one run to the next of the same. Verdicts are corrected for many "
    "comparisons (Holm)."
)
Row = dict[str, Any]


def compare(old: Path | str, new: Path | str) -> DataFrame:
    """A row per phase, backend and conditions of either result, with COLUMNS.

    `verdict` is `faster`, `slower`, `no difference shown` or `not comparable`, the last with a `reason`. `ratio` is the
    new time over the old one, the machine's drift taken out, with its 95 % interval; `p_holm` is corrected for all
    rows. `drift` is the reference's own new time over its old one. `test_error_change` is in percentage points, and
    missing where epochs or seeds differ.

    Raises:
        LockstepError: one of the two is neither a results folder nor a suitable JSON file, or is damaged.
    """
    pairs = _pairs(read(Path(old)), read(Path(new)))
    rows = [_row(before, after, (str(old), str(new))) for before, after in pairs]
    timed = [row for row in rows if "p_value" in row]
    for row, p in zip(timed, holm([row["p_value"] for row in timed]).tolist(), strict=True):
        row["p_holm"] = p
        if p < 1 - LEVEL:
            row["verdict"] = "faster" if row["ratio"] < 1 else "slower"
    return DataFrame(rows, columns=list(COLUMNS)).astype({**dict.fromkeys(DECIMALS, "float64"), **ROUNDS})


def _pairs(old: list[Measured], new: list[Measured]) -> Iterator[tuple[Measured | None, Measured | None]]:
    """What was measured in both; then, of the rest, the same backend under other conditions, or nothing.

    Records of before have no machine's identity, and another name for it.
    """
    before, after = ({_key(measured): measured for measured in side} for side in (old, new))
    yield from ((before[key], after[key]) for key in before if key in after)
    rest = {key: measured for key, measured in after.items() if key not in before}
    for key, measured in before.items():
        if key not in after:
            alike = [other for other in rest if other[:2] == key[:2]]
            alike.sort(key=lambda other: bool(_other_conditions(measured, rest[other])))  # the first that has none
            yield measured, rest.pop(alike[0]) if alike else None
    yield from ((None, measured) for measured in rest.values())


def _key(measured: Measured) -> tuple[str, str, tuple[Any, ...]]:
    return measured.phase, measured.backend, measured.conditions


def _row(before: Measured | None, after: Measured | None, names: tuple[str, str]) -> Row:
    """One pair's row; `p_value` is in it where there is one."""
    either = after or before
    assert either is not None
    row: Row = {"phase": either.phase, "backend": either.backend, "verdict": "not comparable", "changed": ""}
    row |= zip(CONDITIONS, either.conditions, strict=True)
    if before is None or after is None:
        return {**row, "reason": f"it is only in {names[before is None]}"}
    row |= {
        "rounds_old": before.rounds,
        "rounds_new": after.rounds,
        "changed": "; ".join(_differences(before.software, after.software)),
        "memory_change_percent": 100 * (after.memory_peak_bytes / before.memory_peak_bytes - 1),
    }
    if before.recipe == after.recipe:
        row["test_error_change"] = after.test_error_percent - before.test_error_percent
    if reason := _obstacle(before, after, names):
        return {**row, "reason": reason}
    row |= {"verdict": "no difference shown", "drift": after.reference_seconds / before.reference_seconds}
    if after.backend == REFERENCE:
        return {**row, "ratio": 1.0, "reason": "it is the yardstick: its own change is taken for the machine's drift"}
    unknown = [name for side, name in zip((before, after), names, strict=True) if not side.identity]
    doubt = f"the machine's identity is not recorded in {' and '.join(unknown)}; nothing says that it is another"
    between = run_to_run(before.identity if before.identity == after.identity else "")
    row |= {"reason": doubt if unknown else "", "run_to_run_percent": 100 * between}
    return {**row, **change(before.log_ratios, after.log_ratios, between=between)._asdict()}


def run_to_run(identity: str) -> float:
    """Return the deviation of a ratio's logarithm from one run to the next of the same on a machine.

    `lockstep machine` measures that of the reference beside itself. Other backends have more, by as much as they had
    where both were measured.
    """
    noise = kept_noise(cache_root(), identity) if identity else None
    return RUN_TO_RUN * max(noise.between, noise.within) / REFERENCE_RUN_TO_RUN if noise else RUN_TO_RUN


def _obstacle(before: Measured, after: Measured, names: tuple[str, str]) -> str:
    """Why the times of two are not comparable; nothing if they are."""
    if differing := _other_conditions(before, after):
        return f"measured under other conditions; {'; '.join(differing)}"
    if before.work != after.work:
        return f"measured on other work: {before.work}; {after.work}"
    for side, name in zip((before, after), names, strict=True):
        if side.failure:
            return f"in {name} {side.failure}"
    if changes := list(_differences(before.yardstick, after.yardstick)):
        return f"{REFERENCE}, the yardstick, changed as well: {'; '.join(changes)}"
    commits = {before.software["commit"], after.software["commit"]}
    is_same_code = len(commits) == 1 and commits.pop().isalnum()  # nothing where unknown, a remark where changed
    if not is_same_code and not all([*before.yardstick.values(), *after.yardstick.values()]):
        return f"whether {REFERENCE}, the yardstick, changed as well was not recorded"
    for side, name in zip((before, after), names, strict=True):
        if side.rounds < FEWEST:
            return f"in {name} it was timed in {counted(side.rounds, 'round')}: {FEWEST} are needed"
    return ""


def _other_conditions(before: Measured, after: Measured) -> list[str]:
    """In what the conditions of two differ; a machine's whole identity is asked for, where both have it."""
    found = [
        f"{name}: {one} and {other}"
        for name, one, other in zip(CONDITIONS, before.conditions, after.conditions, strict=True)
        if one != other and name != "machine"
    ]
    names = [measured.conditions[CONDITIONS.index("machine")] for measured in (before, after)]
    if before.identity and after.identity:
        if before.identity != after.identity:
            found.insert(0, f"machine: {before.identity} and {after.identity}")
    elif not may_be_one(*names):
        found.insert(0, f"machine: {names[0]} and {names[1]}")
    elif before.caches and after.caches and before.caches != after.caches:
        found.insert(0, f"machine: caches of {before.caches} and of {after.caches}")
    return found


def _differences(old: Software, new: Software) -> Iterator[str]:
    """What is of another version, as far as both were recorded."""
    for name in dict.fromkeys([*old, *new]):
        one, other = old.get(name, "none"), new.get(name, "none")
        if one and other and one != other:
            yield f"{name} {one} to {other}"


def write_csv(file: Path, changes: DataFrame) -> None:
    """Write all columns, rounded."""
    changes.round(DECIMALS).to_csv(file, index=False, lineterminator="\n", encoding="utf-8")


def fail_on_slower(changes: DataFrame, percent: float) -> None:
    """Pass where no backend is shown to be slower by more than so many percent.

    Raises:
        LockstepError: one is, or nothing but the reference was comparable, so that nothing could be shown.
    """
    slower = changes[(changes["verdict"] == "slower") & (changes["ratio"] > 1 + percent / 100)]
    if not slower.empty:
        names = "; ".join(f"{_who(row, changes)} {ratio_cell(row, 'ratio')}" for _, row in slower.iterrows())
        raise LockstepError(f"slower by more than {percent:g} %: {names}")
    if changes["ratio_low"].isna().all():
        raise LockstepError("nothing was comparable, so a slow-down would not have been seen: the reasons are above")


def page(changes: DataFrame, old: str, new: str) -> str:
    """The changes in Markdown: the answer in words, the table, what is to be known of single rows."""
    header, *rows = cells(changes)
    lines = [header, ["---"] * len(header), *rows]
    texts = [
        f"## {new} against {old}",
        answer(changes),
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        "\n".join(f"- {note}" for note in notes(changes)),
        METHOD,
    ]
    return "\n\n".join(filter(None, texts)) + "\n"


def answer(changes: DataFrame) -> str:
    """Which got slower or faster, and of which nothing is shown."""
    sentences = []
    for verdict in VERDICTS:
        found = [row for _, row in changes.iterrows() if row["verdict"] == verdict]
        ratios = [f" {ratio_cell(row, 'ratio')}" if verdict in ("slower", "faster") else "" for row in found]
        names = [f"{_who(row, changes)}{ratio}" for row, ratio in zip(found, ratios, strict=True)]
        sentences += [f"{verdict.capitalize()}: {'; '.join(names)}."] if names else []
    return " ".join(sentences)


def cells(changes: DataFrame) -> Iterator[list[str]]:
    """The table for people: its header, and a row for each of the changes."""
    yield ["backend", "verdict", "time, new over old", "test error (points)", "peak memory (%)"]
    for _, row in changes.iterrows():
        error, memory = row["test_error_change"], row["memory_change_percent"]
        yield [
            *(_who(row, changes), row["verdict"], ratio_cell(row, "ratio")),
            "" if pd.isna(error) else f"{error:+z.2f}",
            "" if pd.isna(memory) else f"{memory:+z.0f}",
        ]


def notes(changes: DataFrame) -> Iterator[str]:
    """By how much the machine drifted; why something is not comparable; what changed."""
    for phase, drift in changes.groupby("phase", sort=False)["drift"]:
        if drift.notna().any():
            times = " to ".join(dict.fromkeys(f"{end:.2f}" for end in (drift.min(), drift.max())))
            yield f"{REFERENCE}, the yardstick, took {times} times as long to {phase}: divided out as the machine's"
    for percent in changes["run_to_run_percent"].dropna().unique():
        source = "as built in" if percent == 100 * RUN_TO_RUN else "by what `lockstep machine` measured there"
        yield f"allowed for what differs from one run to the next: {percent:.1f} %, {source}"
    for column, says in (("reason", ""), ("changed", " changed: ")):
        for text, rows in changes[changes[column] != ""].groupby(column, sort=False):
            yield f"{', '.join(_who(row, changes) for _, row in rows.iterrows())}{says or ': '}{text}"


def _who(row: "Series[Any]", changes: DataFrame) -> str:
    """The backend, and what tells its row from others of it."""
    told = [column for column in ("phase", *CONDITIONS) if changes[column].nunique() > 1]
    return f"{row['backend']}" + (f" ({', '.join(_told(row, column) for column in told)})" if told else "")


def _told(row: "Series[Any]", column: str) -> str:
    return counted(row[column], "thread") if column == "threads" else str(row[column])
