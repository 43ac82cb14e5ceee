"""`lockstep machine`."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lockstep_bench.harness.cli.terminal import PLAIN, console, say

if TYPE_CHECKING:
    from lockstep_bench.harness.records.noise import Noise
    from lockstep_bench.harness.tables.results import Results

PAIRS, ROUNDS, SLICE_STEPS = 6, 30, 50
"""Six pairs of processes in 30 rounds of 50 steps: three quarters of a minute on two cores, most of it training."""
RUNS: Final = {"quick": 12, "standard": 160}
"""The rounds of a run on MNIST."""
REPLICATES: Final = 4


def machine(
    threads: Annotated[int | None, typer.Option(help="CPU threads; as many as a run has if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Keep the run in this folder, with its report to be made.")] = None,
) -> None:
    """Is this machine fit, and how small a difference can it show? The reference beside itself, within a minute.

    The answer is kept for `lockstep compare`.

    Example: `lockstep machine`
    """
    from lockstep_bench.harness.data.cache import cache_root
    from lockstep_bench.harness.data.find import find_dataset
    from lockstep_bench.harness.records.noise import keep_noise
    from lockstep_bench.harness.running.conductor import conduct
    from lockstep_bench.harness.running.plan import make_plan
    from lockstep_bench.harness.running.progress import Pulse
    from lockstep_bench.harness.tables.noise import noise_of
    from lockstep_bench.harness.tables.results import load

    for line in describe():
        console.print(line, **PLAIN)
    found = find_dataset("digits", None, say)  # a step's cost is that of MNIST's
    plan = make_plan(
        found,
        ["numpy"],
        aa=True,
        replicates=PAIRS,
        threads=threads,
        slice_steps=SLICE_STEPS,
        fixed_steps=ROUNDS * SLICE_STEPS,
        command="lockstep machine",
    )
    with tempfile.TemporaryDirectory() as folder, Pulse(console) as pulse:
        results_folder = out or Path(folder, "run")
        conduct(plan, found.folder, results_folder, heartbeat=pulse.heartbeat, extras=False)
        results = load(results_folder)
    noise = noise_of(results)
    keep_noise(cache_root(), noise)
    for line in judge(results, noise):
        console.print(line, **PLAIN)


def describe() -> Iterator[str]:
    """Yield what is known of the machine without measuring."""
    from lockstep_bench.harness.machine.environment import machine_details
    from lockstep_bench.harness.machine.identity import described, machine_name
    from lockstep_bench.harness.machine.variables import inherited

    details = machine_details()
    yield f"machine: {machine_name()}"
    yield f"identity: {described(details['identity'])}"
    quota = "none" if details["cpu_quota"] is None else f"{details['cpu_quota']:g} CPUs"
    cpus = ", ".join(map(str, details["pinned_first"])) or "not pinned here"
    yield f"limits: quota {quota}; workers take CPUs in the order {cpus}"
    facts = {
        "governor": details["governor"],
        "boost": _yes(details["boost"]),
        "SMT": _yes(details["smt"]),
        "hypervisor": details["hypervisor"],
        "microcode": details["microcode"],
        "transparent huge pages": details["transparent_hugepages"],
        "caches": ", ".join(f"{name} {size}" for name, size in details["caches"].items()),
    }
    yield "; ".join(f"{name} {fact or 'not told'}" for name, fact in facts.items())
    variables = inherited(os.environ)
    yield f"variables that workers start without: {', '.join(variables.removed) or 'none'}"


def judge(results: "Results", noise: "Noise") -> Iterator[str]:
    """Yield the noise, whether the machine is fit, and the smallest differences."""
    from lockstep_bench.harness.tables.noise import POWER, smallest_difference

    one = noise.within * (noise.rounds / RUNS["standard"]) ** 0.5
    yield (
        f"noise of numpy beside itself, {noise.pairs} pairs of processes, {noise.threads} threads: "
        f"{100 * one:.2f} % within a run of {RUNS['standard']} rounds, at most {100 * noise.between:.2f} % from one "
        "pair to the next"
    )
    reasons = sorted({reason for reason in results.summary["unstable"] if reason})
    yield f"fit: no, {'; '.join(reasons)}" if reasons else "fit: yes, no rule for unstable times is broken"
    for preset, rounds in RUNS.items():
        alone, several = (100 * smallest_difference(noise, rounds, count) for count in (1, REPLICATES))
        yield (
            f"{preset}: differences below {alone:.1f} % will not show here, {several:.1f} % with "
            f"--replicates {REPLICATES} (what is as large shows in {POWER:.0%} of runs)"
        )


def _yes(fact: bool | None) -> str:
    return "" if fact is None else "on" if fact else "off"
