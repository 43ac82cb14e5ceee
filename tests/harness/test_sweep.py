"""A sweep says how cost grows: what is planted is found, what is noise is not claimed, and the raw files say it all."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lockstep_bench.harness.data import Dataset
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.floor import floor_seconds
from lockstep_bench.harness.problem import Problem, epoch_order, fixed_order
from lockstep_bench.harness.records import (
    Block,
    BlockFile,
    EndEvent,
    EvaluationEvent,
    Event,
    ExtraEvent,
    FloorEvent,
    MachineEvent,
    Plan,
    PlannedBackend,
    PlannedDataset,
    TurnEvent,
    write_plan,
    write_record,
)
from lockstep_bench.harness.report import write_sweep_report
from lockstep_bench.harness.scaling import crossings, exponent, overhead, plausible_logs
from lockstep_bench.harness.schedule import epoch_rounds
from lockstep_bench.harness.sweep import (
    BACKENDS,
    BATCH_SIZES,
    FILE,
    HIDDEN,
    NOMINAL,
    Point,
    Sweep,
    call_point,
    folder_of,
    make_sweep,
    plan_of,
    points,
    read_sweep,
)
from lockstep_bench.harness.sweep_summary import page
from lockstep_bench.harness.sweep_tables import SweepResults, load_sweep
from lockstep_bench.harness.tables import load

LOCKSTEP = [sys.executable, "-c", "from lockstep_bench.harness.cli import main; main()"]
MACHINE = "A Machine, 2 CPUs"
ROUNDS = 8
Seconds = Callable[[str, Point, int], float]
"""What a step of a backend takes, in a Problem, on so many threads."""


def make_up(
    folder: Path,
    seconds: Seconds,
    *,
    backends: tuple[str, ...] = ("numpy", "keras"),
    noise: float = 0.01,
    calls: dict[str, float] | None = None,
    failed: tuple[str, int] | None = None,
    batch_size: tuple[int, ...] = BATCH_SIZES,
    hidden: tuple[int, ...] = HIDDEN,
    train_images: tuple[int, ...] = (60_000,),
    threads: tuple[int, ...] = (1, 2),
) -> SweepResults:
    """A sweep's raw files with such times; `calls` cost seconds each; `failed`: who, at and above what batch size."""
    sweep = Sweep(
        **{"lockstep": "0.1.0", "python": "3.14", "commit": None, "commit_clean": None, "command": "lockstep sweep"},
        dataset="mnist",
        dataset_sha256="5ha",
        backends=[PlannedBackend(name=name, style="idiomatic", spec=name, versions={}) for name in backends],
        batch_size=list(batch_size),
        hidden=list(hidden),
        train_images=list(train_images),
        threads=list(threads),
        seed=0,
        rounds=ROUNDS,
        machine=MACHINE,
    )
    write_record(folder / FILE, sweep)
    random = np.random.default_rng(0)
    for point in points(sweep):
        plan = made_plan(sweep, point)
        write_plan(folder_of(folder, point), plan)
        for block in plan.blocks:
            with BlockFile(folder_of(folder, point), block) as file:
                for event in made_events(sweep, point, block, seconds, random, noise, calls or {}, failed):
                    file.append(event)
    return load_sweep(folder)


def made_plan(sweep: Sweep, point: Point) -> Plan:
    """As `sweep.plan_of` would have it."""
    return Plan(
        **{"lockstep": "0.1.0", "commit": None, "commit_clean": None, "command": "", "preset": None, "device": "cpu"},
        problem=Problem(hidden=point.hidden, batch_size=point.batch_size, epochs=1),
        dataset=PlannedDataset(name="mnist", sha256="5ha", train_images=point.train_images, test_images=10_000),
        backends=sweep.backends,
        blocks=[Block(id=f"threads-{count}", seed=0, threads=count) for count in sweep.threads],
        slice_steps=10,
        fixed_steps=10 * (1 + sweep.rounds),
        turn_timeout_seconds=300.0,
        target_error_percent=7.21,
        machine=MACHINE,
    )


def made_events(
    sweep: Sweep,
    point: Point,
    block: Block,
    seconds: Seconds,
    random: np.random.Generator,
    noise: float,
    calls: dict[str, float],
    failed: tuple[str, int] | None,
) -> Iterator[Event]:
    """A block's: in every round a machine that is faster or slower than before, the same for all; a slow first round."""
    yield MachineEvent(machine=MACHINE, started="2026-01-01T00:00:00+00:00", details={"python": "3.14"})
    broken = [failed[0]] if failed and point.batch_size >= failed[1] else []
    for number in range(1, sweep.rounds + 2):
        drift = np.exp(0.1 * random.standard_normal()) if noise else 1.0
        yield FloorEvent(round=number, at_seconds=0.0, flops_per_second=1e12, bytes_per_second=1e12)
        for backend in sweep.backends:
            if backend.name in broken:
                continue
            luck = drift * np.exp(noise * random.standard_normal())
            took = 10 * seconds(backend.name, point, block.threads) * luck + calls.get(backend.name, 0.0)
            yield TurnEvent(
                **{"backend": backend.name, "epoch": 1, "round": number, "steps": 10, "at_seconds": 0.0},
                start=10 * (number - 1) * point.batch_size,
                stop=10 * number * point.batch_size,
                train_seconds=took if number > 1 else 50 * took,
                **{"train_loss": 2.3, "cpu_seconds": took, "involuntary_switches": 0, "steal_percent": None},
                load_average=1.0,
                waiting_seconds={},
            )
    for backend in sweep.backends:
        if backend.name in broken:
            yield EndEvent(backend=backend.name, status="error", reason="out of memory")
            continue
        yield EvaluationEvent(
            **{"backend": backend.name, "epoch": 1, "weights_seconds": (0.01, 0.01), "predict_seconds": 0.1},
            **{"evaluate_seconds": 0.2, "train_error_percent": 80.0, "test_loss": 2.3, "test_error_percent": 80.0},
            **{"order_sha256": "o", "threads_used": 2, "affinity": [0], "peak_bytes": 1, "disagreements": 0},
        )
        if point == call_point(sweep):
            yield ExtraEvent(backend=backend.name, latency_seconds=[], call_seconds=calls.get(backend.name, 0.0))
        yield EndEvent(backend=backend.name, status="ok")
    yield EndEvent(backend=None, status="ok")
