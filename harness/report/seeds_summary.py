"""seeds.md: the answer to how a network's test error spreads over seeds, and how it was found."""

from collections.abc import Iterator
from math import isnan
from pathlib import Path

from lockstep_bench.harness.checks.equivalence import GATE_WEIGHTS, allowed_disagreements
from lockstep_bench.harness.problem import NOTEBOOK_ERROR_PERCENT
from lockstep_bench.harness.records.whole_files import write_whole
from lockstep_bench.harness.tables.results import dataset_title, each
from lockstep_bench.harness.tables.seeds_tables import QUANTILES, SeedsResults, Spread, checks, spread
from lockstep_bench.harness.wording import counted


def write_seeds_summary(folder: Path, results: SeedsResults) -> None:
    """Write seeds.md into a results folder."""
    write_whole(folder / "seeds.md", page(results))


def page(results: SeedsResults) -> str:
    """The page: what is missing or failed, the answer, a table of the epochs, how it was measured."""
    dataset = results.plan.dataset.name
    texts = [
        f"# lockstep seeds: {dataset_title(results.plan)}, {results.plan.problem.epochs} epochs",
        "" if dataset == "mnist" else f"**THESE ARE NOT MNIST NUMBERS:** they were measured on {dataset}.",
        "\n".join(f"- **{sentence}.**" for sentence in [*results.cut, *_failures(results)]),
        answer(results),
        "## How it was measured",
        "\n".join(f"- {line}" for line in _conditions(results)),
    ]
    return "\n\n".join(filter(None, texts)) + "\n"


def answer(results: SeedsResults) -> str:
    """The answer in words, and a row for each epoch."""
    return "\n\n".join(["\n".join(f"- {line}" for line in sentences(results)), "\n".join(_epoch_rows(results))])


def sentences(results: SeedsResults) -> Iterator[str]:
    """What the table says."""
    plan = results.plan
    found = spread(results, NOTEBOOK_ERROR_PERCENT)
    planned = "" if found and found.seeds == plan.count else f" of the {plan.count} that were planned"
    if not found:
        yield f"No seed{planned} came through, so there is nothing to say."
        return
    seeds, epochs = counted(found.seeds, "seed"), counted(plan.problem.epochs, "epoch")
    yield f"{seeds}{planned} came through {epochs} of {plan.slice_steps:,} steps."
    interval = "" if isnan(found.low) else f" (95 % interval {found.low:.2f} to {found.high:.2f})"
    deviation = "" if isnan(found.deviation) else f", standard deviation {found.deviation:.2f} over seeds"
    yield f"Final test error: mean {found.mean:.2f} %{interval}{deviation}, {found.least:.2f} to {found.most:.2f} %."
    quantiles = ", ".join(f"{share} % {error:.2f}" for share, error in zip(QUANTILES, found.quantiles, strict=True))
    yield f"Quantiles over seeds, in percent of test error: {quantiles}."
    if plan.dataset.name == "mnist":
        yield from _notebook(found)
    yield _checked(results)


def _notebook(found: Spread) -> Iterator[str]:
    """Where the notebook's error lies among the seeds'."""
    target = f"{NOTEBOOK_ERROR_PERCENT} %"
    share = f"{found.share:.1f} % (exact 95 % interval {found.share_low:.1f} to {found.share_high:.1f} %)"
    low, high = 100 - found.share_high, 100 - found.share_low
    yield (
        f"At or below the notebook's {target} ended {found.reached} of {found.seeds}: {share}. Above it ended "
        f"{found.seeds - found.reached}: a seed as unlucky as that has a chance of {low:.1f} to {high:.1f} %."
    )
    if not isnan(found.distance):
        side = "above" if found.distance >= 0 else "below"
        yield f"{target} is {abs(found.distance):.1f} standard deviations {side} the mean of the final errors."
    half = "never" if found.half_reached is None else f"by the end of epoch {found.half_reached}"
    within = "after no epoch" if found.first is None else f"after epochs {found.first} to {found.last}"
    yield (
        f"Half of the seeds had been at or below {target} {half}; the errors after epoch {found.nearest} look most "
        f"like it (median {found.nearest_median:.2f} %), and {within} it is within the range of the seeds."
    )


def _checked(results: SeedsResults) -> str:
    """What the gate found."""
    rows, plan = checks(results), results.plan
    if rows.empty:
        return "No seed was held against another backend."
    seeds = list(dict.fromkeys(rows["seed"]))
    images, failed = plan.dataset.test_images, rows[rows["status"] == "not-identical"]["seed"].nunique()
    were = "were" if len(seeds) > 1 else "was"
    return (
        f"{counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))}) {were} trained by {plan.reference.name} too: "
        f"after any epoch at most {rows['disagreements'].max()} of {images:,} test images were predicted differently "
        f"({allowed_disagreements(images)} allowed), and the weights were at most "
        f"{rows['weights_difference'].max():.1g} of the way apart ({GATE_WEIGHTS:g} allowed); {failed} failed."
    )


def _failures(results: SeedsResults) -> Iterator[str]:
    """A sentence for each way in which seeds did not come through."""
    failed = results.table[results.table["status"] != "ok"]
    for (status, reason), own in failed.groupby(["status", "reason"], sort=False):
        seeds = ", ".join(map(str, dict.fromkeys(own["seed"])))
        yield f"seed {seeds}: {status}: {reason or 'no reason was recorded'}; it does not count"


def _epoch_rows(results: SeedsResults) -> Iterator[str]:
    """The spread by epoch."""
    yield "| epoch | mean test error (%) | standard deviation | least | median | most |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for epoch, own in results.ok.groupby("epoch")["test_error_percent"]:
        numbers = (own.mean(), own.std(), own.min(), own.median(), own.max())
        yield f"| {epoch} | {' | '.join('' if isnan(number) else f'{number:.2f}' for number in numbers)} |"


def _conditions(results: SeedsResults) -> Iterator[str]:
    """How it was measured, line by line."""
    plan, dataset, problem = results.plan, results.plan.dataset, results.plan.problem
    machine = each(results.table["machine"]) if len(results.table) else plan.machine
    yield f"machine: {machine}; {counted(plan.threads[0], 'thread')}, device {plan.device}"
    yield f"dataset: {dataset.name}, {dataset.train_images:,} training and {dataset.test_images:,} test images"
    yield f"dataset SHA-256: {dataset.sha256}"
    length = f"{counted(problem.epochs, 'epoch')}, batch size {problem.batch_size}"
    yield f"training: {length}, {problem.dtype}, profile {plan.profile}"
    yield f"seeds: 0 to {plan.count - 1}, {plan.together} side by side; {len(plan.checked)} of them checked"
    if len(results.seconds):
        step = 1e6 * float(sorted(results.seconds)[len(results.seconds) // 2])
        whole = step / 1e6 * plan.slice_steps * problem.epochs
        yield f"training: {step:,.0f} µs per seed and step, so {whole:,.0f} s per seed, the median over blocks"
    for backend in plan.backends:
        versions = ", ".join(f"{name} {number}" for name, number in sorted(backend.versions.items()))
        yield f"{backend.name}: {versions}"
    changes = " with uncommitted changes" if plan.commit_clean is False else ""
    yield f"lockstep {plan.lockstep}" + (f", commit {plan.commit}{changes}" if plan.commit else "")
    yield f"command: `{plan.command}`"
