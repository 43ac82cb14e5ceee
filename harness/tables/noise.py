"""What a run of the reference beside itself says of its machine: its noise, and how small a difference it can show."""

from datetime import UTC, datetime
from math import exp, sqrt
from typing import Final

import numpy as np
from scipy import special

from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.records.noise import Noise
from lockstep_bench.harness.statistics import LEVEL, estimate
from lockstep_bench.harness.tables.results import Results

POWER: Final = 0.8
"""A difference is shown in so many of all runs where it is as large as is promised."""


def noise_of(results: Results) -> Noise:
    """Return the noise of a run of the reference beside itself in several replicates.

    Raises:
        LockstepError: not all of it came through.
    """
    plan, runs = results.plan, results.runs
    if plan.twin is None or not (runs["status"] == "ok").all():
        raise LockstepError("not every process came through, so nothing can be said of this machine: run it again")
    times = results.turns.pivot(index=["block", "round"], columns="backend", values="train_seconds")
    ratios = times[plan.twin.name] / times[plan.reference.name]
    pairs = [estimate(np.log(own.to_numpy(np.float64))) for _, own in ratios.groupby("block")]
    deviations = [(pair.high - pair.low) / 2 / special.ndtri((1 + LEVEL) / 2) for pair in pairs]
    within = float(np.mean(np.square(deviations)) ** 0.5)
    freedom = len(pairs) - 1
    total = np.var([pair.median for pair in pairs], ddof=1) * freedom / special.chdtri(freedom, POWER)
    return Noise(
        lockstep=plan.lockstep,
        commit=plan.commit,
        identity=str(runs["machine_identity"].iloc[0]),
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        threads=plan.threads[0],
        rounds=len(ratios) // len(pairs),
        pairs=len(pairs),
        within=within,
        between=sqrt(max(0.0, float(total) - within**2)),
    )


def smallest_difference(noise: Noise, rounds: int, replicates: int = 1) -> float:
    """Return by which part the times of two backends must differ for a run to show it in POWER of all cases.

    Args:
        noise: of the machine.
        rounds: of the run, in each replicate.
        replicates: of the run.
    """
    variance = noise.within**2 * noise.rounds / (rounds * replicates) + noise.between**2 / replicates
    return exp((special.ndtri((1 + LEVEL) / 2) + special.ndtri(POWER)) * sqrt(variance)) - 1
