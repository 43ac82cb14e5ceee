"""summary.md: what the tables say, for people."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pandas as pd

from lockstep_bench.harness.equivalence import allowed_disagreements
from lockstep_bench.harness.tables import Results, each, title

CAUTION: Final = (
    "Times per step are medians over turns; a ratio is the median over rounds, in which all train the same slice "
    "seconds apart. **These times have no interval yet: differences of a few percent may be noise.**"
)


def write_summary(folder: Path, results: Results) -> None:
    """Write summary.md into a results folder."""
    (folder / "summary.md").write_text(page(results), encoding="utf-8", newline="\n")


def page(results: Results) -> str:
    """The page: the answer in a sentence, what failed and why, the summary as a table, how it was measured."""
    plan, runs = results.plan, results.runs
    other = f"**THESE ARE NOT MNIST NUMBERS:** they were measured on another dataset, {plan.dataset.name}."
    failed = runs[runs["status"] != "ok"].groupby(["backend", "status", "epochs_done", "reason"], sort=False)["seed"]
    failures = (
        f"- **{backend}: {status}** after {done} of {plan.problem.epochs} epochs, "
        f"seed {', '.join(map(str, seeds))}: {reason or 'no reason was recorded'}"
        for (backend, status, done, reason), seeds in failed
    )
    parts = [
        f"# lockstep: {' on '.join(title(results))}",
        "" if plan.dataset.name == "mnist" else other,
        _answer(results),
        "\n".join(failures),
        "\n".join(f"| {' | '.join(cells)} |" for cells in _cells(results)),
        CAUTION,
        "## How it was measured",
        "\n".join(f"- {line}" for line in _conditions(results)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _answer(results: Results) -> str:
    """What the tables say, in one sentence."""
    plan, total, images = results.plan, len(results.summary), results.plan.dataset.test_images
    ok = results.summary[results.summary["status"] == "ok"].sort_values("ratio_to_reference", kind="stable")
    if ok.empty:
        return "No backend came through, so there is nothing to compare."
    low, high = (f"{error:.2f}" for error in ok["test_error_percent"].agg(["min", "max"]))
    ended = f"ended at {low if low == high else f'{low} to {high}'} % test error"
    best = ok.iloc[0]
    if len(ok) == 1:
        return f"{best['backend']} {ended}; there is no other backend to compare it with."
    who = f"All {total} backends" if len(ok) == total else f"{len(ok)} of {total} backends came through: they"
    differ = f"at most {ok['disagreements'].max()} of {images:,} test images predicted differently"
    same = f"stayed the same network ({differ}, {allowed_disagreements(images)} allowed)"
    if pd.isna(best["ratio_to_reference"]):
        return f"{who} {ended}; there is no reference to compare them with."
    others = ok[ok["backend"] != plan.reference.name]
    took = (f"{row['backend']} {row['ratio_to_reference']:.2f}" for _, row in others.iterrows())
    return f"{who} {same} and {ended}. Time per step relative to {plan.reference.name}: {', '.join(took)}."


def _cells(results: Results) -> Iterator[list[str]]:
    """The summary for people: a header, the line that Markdown wants below it, a row per backend."""
    target = f"{results.plan.target_error_percent:g} %"
    shown = {
        "microseconds_per_step": ("time per step (µs)", ",.0f"),
        "ratio_to_reference": (f"ratio to {results.plan.reference.name}", ".2f"),
        "train_seconds": ("training (s)", ",.1f"),
        "test_error_percent": ("test error (%)", ".2f"),
        "disagreements": ("images predicted differently", "d"),
        "target_reached": (f"runs that reached {target}", "s"),
        "epochs_to_target": (f"epochs to {target}", ".3g"),
        "train_seconds_to_target": (f"training to {target} (s)", ",.1f"),
    }
    yield ["backend", "status", *(header for header, _ in shown.values())]
    yield ["---", "---", *("---:" for _ in shown)]
    for _, row in results.summary.iterrows():
        numbers = ("" if pd.isna(row[column]) else format(row[column], form) for column, (_, form) in shown.items())
        yield [row["backend"], row["status"], *numbers]


def _conditions(results: Results) -> Iterator[str]:
    plan, runs, dataset, problem = results.plan, results.runs, results.plan.dataset, results.plan.problem
    yield f"machine: {each(runs['machine'])}; {' and '.join(map(str, plan.threads))} threads, device {plan.device}"
    yield f"dataset: {dataset.name}, {dataset.train_images:,} training and {dataset.test_images:,} test images"
    yield f"dataset SHA-256: {dataset.sha256}"
    yield f"training: {problem.epochs} epochs, batch size {problem.batch_size}, {problem.dtype}, profile {plan.profile}"
    yield f"seeds: {', '.join(str(block.seed) for block in plan.blocks)}"
    yield f"turns: slices of {plan.slice_steps} steps, one backend at a time, each in a process of its own"
    for backend, versions in runs.groupby("backend", sort=False)["versions"]:
        yield f"{backend}: {each(versions) or 'no version recorded'}"
    changes = " with uncommitted changes" if plan.commit_clean is False else ""
    yield f"lockstep {plan.lockstep}" + (f", commit {plan.commit}{changes}" if plan.commit else "")
    yield f"command: `{plan.command}`"
