"""summary.md: what the tables say, for people."""

from collections.abc import Iterator
from math import isnan
from pathlib import Path
from typing import Any, Final

import pandas as pd
from pandas import DataFrame, Series

from lockstep_bench.harness.checks.equivalence import allowed_disagreements
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.problem import NOTEBOOK_ERROR_PERCENT
from lockstep_bench.harness.records.whole_files import write_whole
from lockstep_bench.harness.tables.comparisons import NODES, RULES
from lockstep_bench.harness.tables.results import NOT_IDENTICAL, Part, Results, each, parts, title
from lockstep_bench.harness.tables.views import came_through, dense_floor
from lockstep_bench.harness.wording import counted

BEGIN: Final = "<!-- lockstep report: begin -->"
END: Final = "<!-- lockstep report: end -->"
"""Lines of a document that have the answer and its table between them."""
FEW_ROUNDS: Final = 20
"""Below this the intervals from the samples' order are shown beside the bootstrap's."""
NOTABLE_CALL_PERCENT: Final = 1.0
"""Of a slice: a call that costs more is mentioned."""
SHOWN_EPOCHS: Final = (1, 3, 10)
"""Of the native profile the test error after these is shown, and after the last."""
NATIVE: Final = (
    f"**{NOT_IDENTICAL}** Seeds, order, batch size and learning rate are the same for all. The errors say what the "
    "defaults alone do, not which framework learns better."
)
SHARED: Final = (
    "Several nodes shared the machine: nobody is ranked, for the times are of a machine that was busy with others. The "
    "errors count."
)
TEXT_COLUMNS: Final = ("backend", "status", "initial weights", "added to")
LEFT_OUT_IF_NARROW: Final = ("style", "rank", "ratio to the fastest", "start-up", "training to", "runs that", "peak")
LATEX: Final = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "µ": r"\textmu{}"}
    | {"√": r"$\surd$", "β": r"$\beta$", "₂": "$_2$", "ᵗ": "$^t$"}
)
"""Signs that LaTeX takes for something else, or has under another name."""
METHOD: Final = (
    "A ratio is the median over rounds, in which all train the same slice seconds apart, and its 95 % interval a "
    "bootstrap over blocks of neighbouring rounds. Where that contains 1, no difference is shown. Rank is 1 and the "
    "number of backends shown to be faster, Holm's correction for many comparisons applied. A backend is called "
    "unstable where"
)


def write_summary(folder: Path, results: Results) -> None:
    """Write summary.md into a results folder."""
    write_whole(folder / "summary.md", page(results))


def write_latex(folder: Path, results: Results) -> None:
    """Write summary.tex into a results folder: a table for each part, for a document that uses the package booktabs."""
    texts = []
    for part in parts(results):
        header, *rows = narrow_cells(part.results)
        caption = ", ".join(filter(None, (" on ".join(title(part.results)), part.name)))
        caption += f". {NOT_IDENTICAL}" if results.plan.profile == "native" else ""
        layout = "".join("l" if name in TEXT_COLUMNS else "r" for name in header)
        names, *texts_of_rows = [[cell.translate(LATEX) for cell in row] for row in (header, *rows)]
        table = DataFrame(texts_of_rows, columns=names)
        caption = caption.translate(LATEX)
        texts.append(table.to_latex(index=False, escape=False, column_format=layout, caption=caption, position="tbp"))
    write_whole(folder / "summary.tex", "\n".join(texts))


def narrow_cells(results: Results) -> Iterator[list[str]]:
    """As many of the columns of `cells` as a printed page or a terminal is wide: a header, a row per backend."""
    header, _, *rows = cells(results)
    kept = [place for place, name in enumerate(header) if not name.startswith(LEFT_OUT_IF_NARROW)]
    kept = [place for place in kept if header[place] != "status" or any(row[place] != "ok" for row in rows)]
    for row in (header, *rows):
        yield [row[place] for place in kept]


def write_into(file: Path, results: Results) -> None:
    """Put the answer and its table into a document; as `put_into`."""
    put_into(file, answer(results))


def put_into(file: Path, text: str) -> None:
    """Put a text into a document, between its two marker lines, in place of what is there.

    Raises:
        UsageError: the document has not both of them once, in order.
    """
    before, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not (begin and end):
        raise UsageError(f"{file} has no place for the results: put the lines {BEGIN} and {END} where they belong")
    file.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8", newline="\n")


def page(results: Results) -> str:
    """The page: the answer, what is missing or failed, the rules, a table for each part, how it was measured."""
    plan = results.plan
    other = f"**THESE ARE NOT MNIST NUMBERS:** they were measured on another dataset, {plan.dataset.name}."
    native = ", native defaults, networks not identical" if plan.profile == "native" else ""
    texts = [
        f"# lockstep{native}: {' on '.join(title(results))}",
        "" if plan.dataset.name == "mnist" else other,
        "\n".join(f"- **{sentence}.**" for sentence in results.cut),
        "\n".join(f"- **{backend}: {status}** {rest}" for backend, status, rest in failures(results)),
        METHOD + "\n\n" + "\n".join(f"- {rule.meaning}," for rule in RULES).rstrip(",") + ".",
        answer(results),
        "\n".join(f"- {line}" for part in parts(results) for line in remarks(part)),
        "## How it was measured",
        "\n".join(f"- {line}" for line in conditions(results)),
    ]
    return "\n\n".join(filter(None, texts)) + "\n"


def failures(results: Results) -> Iterator[tuple[str, str, str]]:
    """Yield backends, status, and how far and why, for each way in which runs failed."""
    runs = results.runs[results.runs["status"] != "ok"]
    epochs = results.plan.problem.epochs
    ways: dict[tuple[str, str], list[str]] = {}
    for (backend, status, done, reason), group in runs.groupby(
        ["backend", "status", "epochs_done", "reason"], sort=False
    ):
        seeds = ", ".join(map(str, dict.fromkeys(group["seed"])))
        why = reason or "no reason was recorded"
        rest = why if status == "skipped" else f"after {done} of {epochs} epochs, seed {seeds}: {why}"
        ways.setdefault((str(status), str(rest)), []).append(str(backend))
    for (status, rest), backends in ways.items():
        yield ", ".join(backends), status, rest


def answer(results: Results) -> str:
    """The answer in words and its table, for each machine and number of threads."""
    texts = []
    for part in parts(results):
        own = part.results
        texts += [f"## {part.name}"] if part.name else []
        rows = "\n".join(f"| {' | '.join(row)} |" for row in cells(own))
        texts += [" ".join(sentences(own)), rows]
    if len(parts(results)) > 1:
        rows = "\n".join(f"| {' | '.join(row)} |" for row in side_by_side(results))
        texts += ["## Side by side", f"Time per step relative to {results.plan.reference.name}'s.", rows]
    return "\n\n".join(texts)


def side_by_side(results: Results) -> Iterator[list[str]]:
    """Every backend's ratio to the reference on each machine and with each number of threads: a column for each."""
    columns = {
        part.name: {row["backend"]: ratio_cell(row, "ratio_to_reference") for _, row in part.results.summary.iterrows()}
        for part in parts(results)
    }
    yield ["backend", *columns]
    yield ["---", *("---:" for _ in columns)]
    for planned in results.plan.backends:
        yield [planned.name, *(cells[planned.name] for cells in columns.values())]


def sentences(results: Results) -> Iterator[str]:
    """What the tables say."""
    plan, images = results.plan, results.plan.dataset.test_images
    native = plan.profile == "native"
    if native:
        yield NATIVE
    twin, ok = plan.twin.name if plan.twin else None, came_through(results)
    if ok.empty:
        yield "No backend came through, so there is nothing to compare."
        return
    low, high = (f"{error:.2f}" for error in ok["test_error_percent"].agg(["min", "max"]))
    ended = f"ended at {low if low == high else f'{low} to {high}'} % test error"
    total = sum(backend.skip is None for backend in plan.backends) - (twin is not None)
    if len(ok) == 1:
        yield f"{ok.iloc[0]['backend']} {ended}; there is no other backend to compare it with."
    else:
        everyone = "Both backends" if total == 2 else f"All {total} backends"
        who = everyone if len(ok) == total else f"{len(ok)} of {total} backends came through: they"
        differ = f"at most {ok['disagreements'].max()} of {images:,} test images predicted differently"
        same = f"stayed the same network ({differ}, {allowed_disagreements(images)} allowed)"
        if native:
            yield f"{who} {ended}."
        elif pd.isna(ok["disagreements"].max()):
            yield f"{who} {ended}; there is no reference to compare them with."
        else:
            yield f"{who} {same} and {ended}."
        yield SHARED if ok[NODES.column].max() > NODES.limit else _fastest(ok)
    for _, row in results.summary[results.summary["backend"] == twin].iterrows():
        yield from _noise(row)
    if plan.dataset.name == "mnist" and not native:
        yield _notebook(ok.iloc[0])


def _fastest(ok: DataFrame) -> str:
    first, others = ok.iloc[0], ok.iloc[1:]
    took = (
        f"{row['backend']} {ratio_cell(row, 'ratio_to_fastest')}"
        + (", no difference shown" if row["ratio_to_fastest_low"] <= 1 <= row["ratio_to_fastest_high"] else "")
        for _, row in others.iterrows()
    )
    return f"Fastest: {first['backend']}. Time per step relative to it: {'; '.join(took)}."


def _noise(twin: "Series[Any]") -> Iterator[str]:
    """What the reference shows against itself."""
    if pd.isna(twin["ratio_to_reference"]):
        return
    low, high = twin["ratio_to_reference_low"], twin["ratio_to_reference_high"]
    came = f"The reference against itself ({twin['backend']}) came to {ratio_cell(twin, 'ratio_to_reference', 3)}"
    if low > 1 or high < 1:
        far = 100 * (max(high, 1 / low) - 1)
        yield f"{came}: one process is not as lucky as another, so read differences of up to {far:.0f} % as noise."
    else:
        yield f"{came}: that is noise alone."


def _notebook(row: "Series[Any]") -> str:
    """Where the notebook's error lies among those seen; all backends are the same network, so one row tells."""
    seen = f"{row['notebook_reached']} seed{'s' if row['seeds'] > 1 else ''} ended at or below it"
    if row["seeds"] == 1:
        return f"The notebook reports {NOTEBOOK_ERROR_PERCENT} %: {seen}."
    return (
        f"The notebook reports {NOTEBOOK_ERROR_PERCENT} %: {seen}, between {row['test_error_min']:.2f} and "
        f"{row['test_error_max']:.2f} %, {row['test_error_percent']:.2f} % on average (95 % interval "
        f"{row['test_error_low']:.2f} to {row['test_error_high']:.2f})."
    )


def ratio_cell(row: "Series[Any]", column: str, digits: int = 2) -> str:
    """A ratio with its interval, where there is one; one below 0.1, as of a GPU, with two digits more."""
    ratio, low, high = (row[name] for name in (column, f"{column}_low", f"{column}_high"))
    if pd.isna(ratio):
        return ""
    digits += 2 * (ratio < 0.1)
    return f"{ratio:.{digits}f}" + ("" if pd.isna(low) else f" ({low:.{digits}f} to {high:.{digits}f})")


def cells(results: Results) -> Iterator[list[str]]:
    """The table for people: a header, the line that Markdown wants below it, a row per backend."""
    return _native_cells(results) if results.plan.profile == "native" else _cells(results)


def _cells(results: Results) -> Iterator[list[str]]:
    """Speed, error and memory."""
    reference, target = results.plan.reference.name, f"{results.plan.target_error_percent:g} %"
    numbers = {
        "microseconds_per_step": ("time per step (µs)", ",.0f"),
        "ratio_to_reference": (f"ratio to {reference}", ""),
        "ratio_to_fastest": ("ratio to the fastest", ""),
        "floor_multiple": ("times the floor", ",.1f"),
        "startup_seconds": ("start-up (s)", "z,.2f"),
        "train_seconds": ("training (s)", ",.0f"),
        "train_seconds_to_target": (f"training to {target} (s)", ",.0f"),
        "target_reached": (f"runs that reached {target}", "s"),
        "test_error_percent": ("test error (%)", ".2f"),
        "disagreements": ("images predicted differently", "d"),
        "memory_peak_mebibytes": ("peak memory (MiB)", ",.0f"),
    }
    if results.summary["ratio_to_fastest"].equals(results.summary["ratio_to_reference"]):
        del numbers["ratio_to_fastest"]
    yield ["backend", "style", "status", "rank", *(header for header, _ in numbers.values())]
    yield ["---", "---", "---", "---:", *("---:" for _ in numbers)]
    table = results.summary.assign(memory_peak_mebibytes=results.summary["memory_peak_bytes"].astype("float64") / 2**20)
    for _, row in table.iterrows():
        cells = [row["backend"], row["style"], row["status"] + (", unstable" if row["unstable"] else "")]
        cells.append("" if pd.isna(row["rank"]) else str(row["rank"]))
        for column, (_, form) in numbers.items():
            if column.startswith("ratio"):
                cells.append(ratio_cell(row, column))
            else:
                cells.append("" if pd.isna(row[column]) else format(row[column], form))
        yield cells


def _native_cells(results: Results) -> Iterator[list[str]]:
    """What each backend trained with, what came of it after some of the epochs, and how long its steps took."""
    last = results.plan.problem.epochs
    epochs = [*(epoch for epoch in SHOWN_EPOCHS if epoch < last), last]
    ok = results.epochs[results.epochs["status"] == "ok"]
    errors = ok.groupby(["backend", "epoch"])["test_error_percent"].mean()
    built = results.runs[results.runs["initializer"].notna()].groupby("backend").first()
    texts = ["backend", "style", "status", "initial weights", "epsilon", "added to"]
    numbers = ["L2", *(f"test error after epoch {epoch} (%)" for epoch in epochs), "time per step (µs)"]
    yield [*texts, *numbers, f"ratio to {results.plan.reference.name}"]
    yield [*("---" for _ in texts), *("---:" for _ in numbers), "---:"]
    for _, row in results.summary.iterrows():
        name, step = row["backend"], row["microseconds_per_step"]
        trained_with = ["", "", "", ""]
        if name in built.index:
            own = built.loc[name]
            place = "√(v / (1 - β₂ᵗ))" if own["epsilon_placement"] == "corrected" else "√v"
            trained_with = [own["initializer"], f"{own['epsilon']:g}", place, f"{own['l2']:g}"]
        yield [
            *(name, row["style"], row["status"] + (", unstable" if row["unstable"] else "")),
            *trained_with,
            *(f"{errors[name, epoch]:.2f}" if (name, epoch) in errors.index else "" for epoch in epochs),
            *("" if pd.isna(step) else f"{step:,.0f}", ratio_cell(row, "ratio_to_reference")),
        ]


def remarks(part: Part) -> Iterator[str]:
    """Yield what a reader of a part's table has to know: a line for each reason, naming the backends it concerns."""
    where = f" ({part.name})" if part.name else ""
    summary, plan = part.results.summary, part.results.plan
    for rule in RULES:
        over = summary[summary[rule.column] > rule.limit]
        if not over.empty:
            values = ", ".join(f"{row['backend']} {row[rule.column]:.3g}" for _, row in over.iterrows())
            yield f"unstable{where}, because {rule.meaning}: {values} (`{rule.column}`). Advice: {rule.advice}"
    costly = summary[summary["call_percent"] > NOTABLE_CALL_PERCENT]
    if not costly.empty:
        costs = ", ".join(
            f"{row['backend']} {row['call_percent']:.1f} % ({_milliseconds(row['call_milliseconds'])})"
            for _, row in costly.iterrows()
        )
        yield f"each call of `train` costs time beside its steps{where}. Part of a slice due to the slicing: {costs}"
    faster = summary[summary["floor_multiple"] < 1]
    if not faster.empty:
        multiples = ", ".join(f"{row['backend']} {row['floor_multiple']:.2f}" for _, row in faster.iterrows())
        yield (
            f"steps were faster than the dense floor{where}: {multiples} times. A backend that leaves out arithmetic "
            "may be; else the floor is at fault, for the machine can do more than its products showed"
        )
    ratios = part.results.ratios
    few = ratios[(ratios["rounds"] < FEW_ROUNDS) & ratios["order_low"].notna()]
    for rounds, group in few[few["other"] == plan.reference.name].groupby("rounds"):
        intervals = ", ".join(
            f"{row['backend']} {row['order_low']:.2f} to {row['order_high']:.2f}" for _, row in group.iterrows()
        )
        yield (
            f"{rounds} rounds are few{where}. The order of the ratios to {plan.reference.name} alone gives these "
            f"intervals: {intervals}"
        )


def _milliseconds(cost: float) -> str:
    return f"{cost:{'.0f' if cost >= 1 else '.2f'}} ms"


def conditions(results: Results) -> Iterator[str]:
    """How it was measured, line by line."""
    plan, runs, dataset, problem = results.plan, results.runs, results.plan.dataset, results.plan.problem
    threads = " and ".join(counted(count, "thread") for count in plan.threads)
    unknown = "" if runs["machine_identity"].any() else " (its identity was not recorded)"
    yield f"machine: {each(runs['machine'])}{unknown}; {threads}, device {plan.device}"
    if identity := each(runs["machine_identity"]):
        yield f"its identity: {identity}"
    yield f"dataset: {dataset.name}, {dataset.train_images:,} training and {dataset.test_images:,} test images"
    yield f"dataset SHA-256: {dataset.sha256}"
    length = f"{counted(problem.epochs, 'epoch')}, batch size {problem.batch_size}"
    yield f"training: {length}, {problem.dtype}, profile {plan.profile}"
    replicates = max(block.replicate for block in plan.blocks)
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(block.seed for block in plan.blocks))
    yield f"seeds: {seeds}" + (f", {replicates} replicates of each" if replicates > 1 else "")
    yield f"turns: slices of {plan.slice_steps} steps, one backend at a time, each in a process of its own"
    floor, name = dense_floor(results)
    if not isnan(floor):
        kernels = each(runs[runs["backend"] == plan.reference.name]["blas"])
        products = f"; the kernels of its products: {kernels}" if kernels else ""
        yield f"{name}: {floor:,.0f} µs per step, the median over rounds{products}"
    if kept := each(runs["variables_kept"]):
        yield f"environment variables that workers inherited: `{kept}`"
    if removed := each(runs["variables_removed"]):
        yield f"environment variables that they started without: `{removed}`"
    for backend, versions in runs.groupby("backend", sort=False)["versions"]:
        yield f"{backend}: {each(versions) or 'no version recorded'}"
    changes = " with uncommitted changes" if plan.commit_clean is False else ""
    yield f"lockstep {plan.lockstep}" + (f", commit {plan.commit}{changes}" if plan.commit else "")
    yield from results.again
    yield f"command: `{plan.command}`"
