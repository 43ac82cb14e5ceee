"""What a result says of each backend, as far as another result can be held against it.

A result is a folder of `lockstep run`, or a JSON file of this project's pytest-benchmark suite. In both the reference
took a turn beside every backend, round by round: a backend's time is kept as its ratio to the reference's.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame
from pydantic import BaseModel, PositiveFloat, ValidationError

from lockstep_bench.backends import REFERENCE
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.machine.conditions import blas
from lockstep_bench.harness.machine.identity import described
from lockstep_bench.harness.machine.variables import decides_for_all
from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.records.raw_files import first_error
from lockstep_bench.harness.tables.comparisons import CONDITIONS
from lockstep_bench.harness.tables.results import Results, each, load

Software = Mapping[str, str]
"""What a result was measured with, by name; an empty text is what was not recorded."""


class Measured(NamedTuple):
    """What a result has of one backend under one set of conditions.

    Attributes:
        phase: `train`; of a benchmark also `predict` or `start`.
        backend: its name.
        conditions: as in CONDITIONS, in that order.
        work: what the time of a round is the time of.
        log_ratios: of its times to the reference's by round, (rounds,), a series per process.
        reference_seconds: the reference's own times, the median over rounds.
        recipe: what the error depends on beside `work`.
        test_error_percent, memory_peak_bytes: not a number where there is none.
        software: what it was measured with.
        yardstick: the same of the reference.
        identity: of the machine, in words; empty where it was not recorded.
        caches: of the machine, in words; likewise.
        failure: why its times do not count; empty if they do.
    """

    phase: str
    backend: str
    conditions: tuple[Any, ...]
    work: str
    log_ratios: Sequence[NDArray[np.float64]]
    reference_seconds: float
    recipe: str
    test_error_percent: float
    memory_peak_bytes: float
    software: Software
    yardstick: Software
    identity: str
    caches: str
    failure: str

    @property
    def rounds(self) -> int:
        """In how many it was timed."""
        return sum(map(len, self.log_ratios))


def read(path: Path) -> list[Measured]:
    """All that a results folder or a JSON file has.

    Raises:
        UsageError: it is neither.
        LockstepError: it is damaged, or not of this project; the message says where.
    """
    if path.is_dir():
        return list(_of_results(load(path)))
    if path.suffix == ".json" and path.is_file():
        return list(_of_benchmarks(path))
    raise UsageError(f"{path} is neither a results folder nor a pytest-benchmark JSON file: give one or the other")


def _of_results(results: Results) -> Iterator[Measured]:
    plan, problem, dataset = results.plan, results.plan.problem, results.plan.dataset
    images = _images(dataset.train_images, dataset.sha256)
    work = f"slices of {plan.slice_steps} steps, batches of {problem.batch_size}, {images}"
    work += f", {problem.hidden} hidden units" if problem.hidden != Problem().hidden else ""
    turns = results.turns[results.turns["status"] == "ok"]
    times = turns.pivot(index=["block", "round"], columns="backend", values="train_seconds")
    references = results.runs[results.runs["backend"] == REFERENCE].set_index("block")
    for key, runs in results.runs.groupby(["backend", *CONDITIONS], sort=False, dropna=False):
        backend, *conditions = key
        reference = references.loc[runs["block"]].reset_index()
        failed = [run for table in (runs, reference) for run in table.itertuples() if run.status != "ok"]
        blocks = [
            times.loc[block][[backend, REFERENCE]].dropna().to_numpy(np.float64).T
            for block in runs["block"]
            if not failed
        ]
        yield Measured(
            phase="train",
            backend=str(backend),
            conditions=tuple(conditions),
            work=work,
            log_ratios=[np.log(own / other) for own, other in blocks],
            reference_seconds=float(np.median(np.concatenate([other for _, other in blocks]))) if blocks else np.nan,
            recipe=f"{problem.epochs} epochs, seeds {sorted(set(runs['seed']))}",
            test_error_percent=float(runs["test_error_percent"].mean()),
            memory_peak_bytes=float(runs["memory_peak_bytes"].astype("float64").max()),
            software={
                "commit": _commit(plan.commit, plan.commit_clean is False),
                **_software(runs),
                **_variables(runs),
            },
            yardstick={
                **_software(reference),
                "BLAS": each(reference["blas"]),
                **{name: value for name, value in _variables(reference).items() if decides_for_all(name)},
            },
            identity=each(runs["machine_identity"]),
            caches=each(runs["caches"]),
            failure=f"{failed[0].backend} ended as {failed[0].status}: {failed[0].reason}" if failed else "",
        )


def _software(runs: DataFrame) -> dict[str, str]:
    """The versions of Python and of a backend's distributions, and its own code."""
    parts = (part.rpartition(" ") for part in ", ".join(filter(None, runs["versions"].unique())).split(", "))
    versions = {name: version for name, _, version in parts if name}
    return {"Python": each(runs["python"]), **versions, "adapter": each(runs["source_sha256"])[:10]}


def _variables(runs: DataFrame) -> dict[str, str]:
    """The deciding environment variables that the workers inherited."""
    pairs = (text.partition("=") for kept in runs["variables_kept"].unique() for text in shlex.split(kept))
    return {name: value for name, _, value in pairs}


def _images(count: int, sha256: str) -> str:
    return f"the first {count:,} images of data {sha256[:10]}"


def _commit(commit: str | None, is_dirty: bool | None) -> str:
    return f"{(commit or '')[:10]}{' with uncommitted changes' if is_dirty else ''}"


class WorkerInfo(BaseModel):
    """What a benchmark says of a worker."""

    versions: dict[str, str]
    source_sha256: str

    @property
    def software(self) -> dict[str, str]:
        """The versions, and the adapter's own code."""
        return {**self.versions, "adapter": self.source_sha256[:10]}


class ReferenceInfo(WorkerInfo):
    """And of the reference's."""

    pools: list[dict[str, Any]]


class ExtraInfo(WorkerInfo):
    """A benchmark's `extra_info`, as far as it is needed here; tests/benchmarks/test_backends.py writes it."""

    backend: str
    threads: int
    device: str
    profile: str
    dataset: str
    dataset_sha256: str
    train_images: int
    batch_size: int
    seed: int
    steps: int
    test_error_percent: float
    memory_peak_bytes: int
    identical: bool
    reference: ReferenceInfo
    reference_seconds: list[PositiveFloat]


class Stats(BaseModel):
    """A benchmark's times; without `--benchmark-json` or `--benchmark-save-data` they are not kept one by one."""

    data: list[PositiveFloat] | None = None


class Benchmark(BaseModel):
    """One benchmark of a JSON file."""

    group: Literal["train", "predict", "start"]
    extra_info: ExtraInfo
    stats: Stats


class MachineInfo(BaseModel):
    """The machine of a JSON file."""

    name: str
    python: str
    identity: dict[str, Any] = {}
    caches: dict[str, str] = {}


class CommitInfo(BaseModel):
    """The commit of a JSON file."""

    id: str
    dirty: bool


class BenchmarkFile(BaseModel):
    """A JSON file of pytest-benchmark, as far as it is needed here."""

    machine_info: MachineInfo
    commit_info: CommitInfo
    benchmarks: list[Benchmark]


def _of_benchmarks(path: Path) -> Iterator[Measured]:
    try:
        file = BenchmarkFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise LockstepError(
            f"{path} is not of `pytest tests/benchmarks --benchmark-json FILE`: {first_error(error)}; make it by that"
        ) from error
    python = {"Python": file.machine_info.python}
    for benchmark in file.benchmarks:
        info, data = benchmark.extra_info, benchmark.stats.data
        failure = "" if info.identical else f"{info.backend} was not identical to {REFERENCE}"
        if data is None or len(data) != len(info.reference_seconds):
            failure = "the single times are missing: save them by --benchmark-json or --benchmark-save-data"
        ratios = [np.log(data) - np.log(info.reference_seconds)] if data and not failure else []
        yield Measured(
            phase=benchmark.group,
            backend=info.backend,
            conditions=(file.machine_info.name, info.dataset, info.threads, info.device, info.profile),
            work=f"batches of {info.batch_size}, {_images(info.train_images, info.dataset_sha256)}",
            log_ratios=ratios,
            reference_seconds=float(np.median(info.reference_seconds)),
            recipe=f"{info.steps} steps, seed {info.seed}",
            test_error_percent=info.test_error_percent,
            memory_peak_bytes=info.memory_peak_bytes,
            software={"commit": _commit(file.commit_info.id, file.commit_info.dirty), **python, **info.software},
            yardstick={**python, **info.reference.software, "BLAS": blas(info.reference.pools)},
            identity=described(file.machine_info.identity),
            caches=", ".join(f"{name} {size}" for name, size in file.machine_info.caches.items()),
            failure=failure,
        )
