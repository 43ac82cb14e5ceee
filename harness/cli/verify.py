"""`lockstep verify`."""

from enum import StrEnum
from typing import Annotated

import typer

from lockstep_bench.harness.cli.activity import activity
from lockstep_bench.harness.cli.terminal import (
    PLAIN,
    BackendsArgument,
    DataOption,
    DatasetOption,
    console,
    say,
    say_refused,
)
from lockstep_bench.harness.errors import LockstepError


class Dtype(StrEnum):
    """The arithmetic of `lockstep verify`."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


def verify(
    backends: BackendsArgument = None,
    dtype: Annotated[Dtype, typer.Option(help="The backends' arithmetic; the oracle's is float64.")] = Dtype.FLOAT32,
    device: Annotated[str, typer.Option(help="Where the backends run: cpu or cuda; the oracle is on the CPU.")] = "cpu",
    dataset: DatasetOption = "auto",
    data: DataOption = None,
) -> None:
    """The acceptance test of backends: the contract, identity with the float64 oracle, a short run in lockstep.

    In float64 there is no run, since runs are in float32.

    Example: `lockstep verify keras ./mine.py`
    """
    from lockstep_bench.harness.data.find import find_dataset
    from lockstep_bench.harness.running.verification import Verifier

    say_refused(backends)
    found = find_dataset(dataset, data, say)
    all_passed = True
    with activity("verifying") as stage:
        for verification in Verifier(found, dtype.value, device=device).verify_all(backends or [], stage):
            all_passed &= verification.passed or (verification.backend.skip is not None)
            for line in verification.lines():
                console.print(line, **PLAIN)
    if not all_passed:
        raise LockstepError(
            "a backend did not pass: the lines marked FAILED say what was expected, what came, and the usual causes"
        )
