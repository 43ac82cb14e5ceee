"""The harness: data, schedule, clock, checks, records and reports.

`run`, `load`, `compare` and `verify` are the command line's work as functions that return DataFrames:

    from lockstep_bench.harness import compare, load, run, verify
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a worker imports this package too, and must not pay for what only its conductor needs
    import pandas as pd

    from lockstep_bench.backends.base import Dtype
    from lockstep_bench.harness.tables.results import Results

__all__ = ["compare", "load", "run", "verify"]


def run(
    *backends: str,
    out: Path | str,
    dataset: str = "auto",
    data: Path | str | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    cluster: str | None = None,
    allow_mixed: bool = False,
    **options: Any,
) -> "Results":
    """Train backends in lockstep, write the results folder `out` with all its tables and charts, and return the tables.

    Args:
        *backends: names or files; none for all that are installed.
        out: the results folder, new or empty.
        dataset: `auto`, `mnist`, `digits`, or a folder of IDX files.
        data: the folder that holds MNIST; none to look in the usual places.
        resume: go on with the run that `out` holds, if it was asked for in the same way.
        retry_failed: then run the blocks again in which a backend failed.
        cluster: run the blocks on the nodes of this Dask cluster, by its scheduler's address, or `local:N`.
        allow_mixed: then nodes may have other versions than this machine.
        **options: as `plan.make_plan` takes them: preset, profile, seeds, epochs, train_images, threads, ...

    Raises:
        LockstepError: the data cannot be had, or what was asked for cannot be done.
    """
    from lockstep_bench.harness.data.find import find_dataset
    from lockstep_bench.harness.report.write import write_report
    from lockstep_bench.harness.running import resuming
    from lockstep_bench.harness.running.cluster import conduct_on_cluster
    from lockstep_bench.harness.running.conductor import conduct
    from lockstep_bench.harness.running.plan import make_plan

    found = find_dataset(dataset, Path(data) if data else None, print)
    plan = make_plan(found, backends, **options)
    if resume:
        plan = resuming.continued(plan, Path(out))
    if cluster is None:
        conduct(plan, found.folder, Path(out), resume=resume, retry_failed=retry_failed)
    else:
        how: Any = {"allow_mixed": allow_mixed, "resume": resume, "retry_failed": retry_failed}
        conduct_on_cluster(plan, found, Path(out), cluster, say=print, **how)
    return write_report(Path(out))


def load(folder: Path | str) -> "Results":
    """The plan and the tables of a results folder, derived from its raw files; nothing is written."""
    from lockstep_bench.harness.tables import results

    return results.load(folder)


def compare(old: Path | str, new: Path | str) -> "pd.DataFrame":
    """What got faster or slower from one result to another: a row per backend, as `changes.compare` says.

    Args:
        old: a results folder, or a JSON file of this project's pytest-benchmark suite.
        new: another.

    Raises:
        LockstepError: one of them is neither, or is damaged.
    """
    from lockstep_bench.harness.report import changes

    return changes.compare(old, new)


def verify(
    *backends: str,
    dtype: "Dtype" = "float32",
    device: str = "cpu",
    dataset: str = "auto",
    data: Path | str | None = None,
) -> "pd.DataFrame":
    """The acceptance test of backends: a row per backend and check.

    Every backend is checked for the contract, then for identity with the float64 oracle over 150 steps, and in float32
    runs a few epochs in lockstep with the reference.

    Columns are `backend`; `part`, one of `contract`, `identity` and `lockstep`; `check`; `difference` and `tolerance`,
    numbers for identity alone; `passed`; and `detail`, which says of a check that failed what was expected, what came,
    and the usual causes.

    A backend that could not be checked, or not to the end, has a row that did not pass with the reason as its check.
    """
    import pandas as pd

    from lockstep_bench.harness.data.find import find_dataset
    from lockstep_bench.harness.running.verification import Row, Verifier

    verifier = Verifier(find_dataset(dataset, Path(data) if data else None, print), dtype, device=device)
    rows = [row for verification in verifier.verify_all(backends) for row in verification.rows()]
    return pd.DataFrame(rows, columns=Row._fields)
