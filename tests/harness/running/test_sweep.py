"""A sweep says how cost grows: what is planted is found, what is noise is not claimed, and the raw files say it all."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.machine.floor import floor_seconds
from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.records.format import Block, Event, ExtraEvent, Plan, PlannedBackend, PlannedDataset
from lockstep_bench.harness.records.raw_files import write_record
from lockstep_bench.harness.records.sweep_grid import (
    FILE,
    NOMINAL,
    Point,
    Sweep,
    call_point,
    folder_of,
    points,
    read_sweep,
)
from lockstep_bench.harness.report.sweep_summary import page
from lockstep_bench.harness.report.write import write_sweep_report
from lockstep_bench.harness.running.plan import make_plan
from lockstep_bench.harness.running.schedule import epoch_rounds
from lockstep_bench.harness.running.sweep import BACKENDS, BATCH_SIZES, HIDDEN, make_sweep, plan_of, swept_again
from lockstep_bench.harness.tables.results import load
from lockstep_bench.harness.tables.scaling import crossings, exponent, overhead, plausible_logs
from lockstep_bench.harness.tables.sweep_tables import SweepResults, load_sweep
from support.command import LOCKSTEP, files
from support.hand_made import end, evaluation, floor, turn, write
from support.hand_made import make_plan as make_plan_by_hand

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
    bad_moment: int | None = None,
    failed: tuple[str, int] | None = None,
    batch_size: tuple[int, ...] = BATCH_SIZES,
    hidden: tuple[int, ...] = HIDDEN,
    train_images: tuple[int, ...] = (60_000,),
    threads: tuple[int, ...] = (1,),
) -> SweepResults:
    """A sweep's raw files with such times; a call costs `calls` seconds; `failed`: who, from what batch size on.

    On `bad_moment` threads a call was measured as ten times as much as it costs.
    """
    sweep = Sweep(
        lockstep="0.1.0",
        python="3.14",
        commit=None,
        commit_clean=None,
        command="lockstep sweep",
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
        blocks = []
        for block in plan.blocks:
            drifts = np.exp(10 * noise * random.standard_normal(1 + ROUNDS))
            took = {
                name: 10 * seconds(name, point, block.threads) * drifts * np.exp(noise * random.standard_normal(9))
                + (calls or {}).get(name, 0.0)
                for name in backends
                if not (failed and failed[0] == name and point.batch_size >= failed[1])
            }
            factor = 10 if block.threads == bad_moment else 1
            seen = {name: factor * cost for name, cost in (calls or {}).items()}
            blocks.append(list(made_events(sweep, point, took, seen)))
        write(folder_of(folder, point), plan, *blocks, on=MACHINE)
    return load_sweep(folder)


def made_plan(sweep: Sweep, point: Point) -> Plan:
    """As `sweep.plan_of` would have it."""
    return make_plan_by_hand(
        commit=None,
        commit_clean=None,
        command="",
        problem=Problem(hidden=point.hidden, batch_size=point.batch_size, epochs=1),
        dataset=PlannedDataset(name="mnist", sha256="5ha", train_images=point.train_images, test_images=10_000),
        backends=sweep.backends,
        blocks=[Block(id=f"threads-{count}", seed=0, threads=count) for count in sweep.threads],
        slice_steps=10,
        fixed_steps=10 * (1 + sweep.rounds),
        machine=MACHINE,
    )


def made_events(
    sweep: Sweep, point: Point, took: dict[str, NDArray[np.float64]], calls: dict[str, float]
) -> Iterator[Event]:
    """A block's, with the seconds of every backend's turns of ten steps, the first of them fifty times as slow."""
    images = 10 * point.batch_size
    for number in range(1, 2 + ROUNDS):
        yield floor(number, 1e12, 1e12)
        start = (number - 1) * images
        for name, seconds in took.items():
            now = seconds[number - 1] * (50 if number == 1 else 1)
            yield turn(name, 1, number, now, start=start, stop=start + images, steps=10)
    for backend in sweep.backends:
        if backend.name not in took:
            yield end(backend.name, "error", "out of memory")
            continue
        yield evaluation(backend.name, 1, 80.0)
        if point == call_point(sweep):
            yield ExtraEvent(backend=backend.name, latency_seconds=[], call_seconds=calls.get(backend.name, 0.0))
        yield end(backend.name)
    yield end(None)


def linear(name: str, point: Point, threads: int) -> float:
    """NumPy has half the overhead of Keras and four thirds of its work: they cross at 120 images, at every width."""
    base, work = {"numpy": (1e-3, 20e-6), "keras": (1.6e-3, 15e-6)}[name]
    return (base + work * point.batch_size) * point.hidden / 784 / threads


def power(_: str, point: Point, threads: int) -> float:
    """A step's time as powers of the axes."""
    return float(1e-4 * point.batch_size**0.7 * (point.hidden / 784) ** 1.3 / threads)


def test_plan_of_a_point_has_whole_batches_and_a_round_to_warm_up(digits: Dataset) -> None:
    """As many slices as rounds and one more, all alike; and a plan without fixed steps is as it was."""
    sweep = make_sweep(digits, ["numpy"], batch_size=[7], hidden=[30], threads=[1], rounds=6)
    [point] = points(sweep)
    plan = plan_of(sweep, point, digits)
    rounds = list(
        epoch_rounds(["numpy"], seed=0, epoch=1, images=plan.epoch_images, batch_size=7, slice_steps=plan.slice_steps)
    )
    assert {round_.stop - round_.start for round_ in rounds} == {7 * plan.slice_steps}
    assert len(rounds) == 7
    assert (plan.problem.hidden, plan.problem.epochs) == (30, 1)
    assert make_plan(digits, ["numpy"]).epoch_images == 1500


def test_slices_take_about_as_long_in_every_problem_of_the_default_grid() -> None:
    """By the floor: none longer than a step and the aim, none shorter than half of it."""
    for hidden in HIDDEN:
        for batch in BATCH_SIZES:
            point = Point(hidden, batch, 60_000)
            seconds = point.slice_steps * floor_seconds(Problem(hidden=hidden, batch_size=batch), NOMINAL)
            assert 0.1 < seconds < 0.2 + point.step_seconds


def test_exponent_is_found_and_its_interval_holds_it() -> None:
    """Of 200 made-up lines with process luck and noise as assumed, about 95 % cover the truth; groups are their own."""
    random = np.random.default_rng(1)
    values, groups = np.array([15.0, 60, 240, 960] * 2), np.repeat([0, 1], 4)
    covered = 0
    for number in range(200):
        truth = 0.7 * np.log(values) + np.where(groups, 5.0, -1.0) + 0.031 * random.standard_normal(8)
        samples = truth[:, None] + 0.05 * random.standard_normal((8, 8))
        logs = np.median(samples, axis=1)
        drawn = np.stack([plausible_logs([own], seed=8 * number + at, resamples=500) for at, own in enumerate(samples)])
        found = exponent(values, groups, logs, drawn)
        assert found.exponent == pytest.approx(0.7, abs=0.06)
        covered += found.low <= 0.7 <= found.high
    assert 180 <= covered <= 199


def test_overhead_and_work_are_told_apart() -> None:
    """Without noise exactly; where there is no overhead 0, and without growth never."""
    sizes = np.array([15.0, 60, 240, 960])
    for times, least, most in (
        (1e-3 + 2e-5 * sizes, 49.999, 50.001),
        (2e-5 * sizes, 0.0, 1e-6),
        (2e-5 * sizes**1.2, 0.0, 0.0),
        (1e-3 * sizes**0, 1e6, np.inf),
        (1e-3 * sizes**-0.1, np.inf, np.inf),
    ):
        found = overhead(sizes, np.log(times), np.repeat(np.log(times)[:, None], 3, axis=1))
        assert all(least <= value <= most for value in (found.half, found.low, found.high))
        assert min(found.overhead, found.work) >= 0
    found = overhead(sizes, np.log(1e-3 + 2e-5 * sizes), np.zeros((4, 1)))
    assert found.overhead == pytest.approx(1e-3)
    assert found.work == pytest.approx(2e-5)


def test_crossings_are_where_both_sides_are_shown() -> None:
    """Interpolated between the neighbours of the change; a change of which a side is noise is none."""
    values = np.array([10.0, 100, 1000, 10_000])
    logs = np.array([-1.0, -0.1, 0.1, 1.0])
    [found] = crossings(values, logs, np.array([-1, 0, 0, 1]))
    assert (found.below, found.above, found.first_is_faster) == (10, 10_000, True)
    assert found.at == pytest.approx(np.sqrt(100 * 1000))
    [found] = crossings(values, -logs, np.array([1, 1, -1, -1]))
    assert (found.below, found.above, found.first_is_faster) == (100, 1000, False)
    for shown in ([-1, 0, 0, 0], [-1, -1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]):
        assert not list(crossings(values, logs, np.array(shown)))


def test_planted_crossing_and_overhead_are_named(tmp_path: Path) -> None:
    """At 120 images on every width, with the right one faster below; the page says so in words, first."""
    results = make_up(tmp_path, linear)
    found = results.crossings
    assert list(found["axis"]) == ["batch_size"] * 3
    assert list(found["hidden"]) == list(HIDDEN)
    assert set(zip(found["faster_below"], found["faster_above"], found["below"], found["above"], strict=True)) == {
        ("numpy", "keras", 60, 240)
    }
    assert found["crossing"].between(100, 140).all()
    halves = results.exponents.dropna(subset="half_batch_size").groupby("backend")["half_batch_size"].median()
    assert halves["numpy"] == pytest.approx(50, rel=0.1)
    assert halves["keras"] == pytest.approx(1600 / 15, rel=0.1)
    text = page(results)
    assert re.search(r"- Below batch size 1[0-3]\d to 1[0-3]\d numpy beats keras, above it keras beats numpy", text)
    assert re.search(r"On 1 thread overhead outweighs work up to batch size: numpy \d\d to \d\d, keras", text)


def test_no_crossing_is_claimed_where_there_is_noise_alone(tmp_path: Path) -> None:
    """Two backends that are alike, noisy by a tenth, in 48 cells."""
    results = make_up(tmp_path, power, noise=0.1, threads=(1, 2), train_images=(15_000, 60_000))
    assert len(results.cells) == 96
    assert results.crossings.empty
    assert "No crossing point is shown" in page(results)


def test_exponents_of_a_sweep_are_found(tmp_path: Path) -> None:
    """Over all cells and along every line, within intervals; the first round, fifty times as slow, does not count."""
    results = make_up(tmp_path, power)
    for axis, truth in (("batch_size", 0.7), ("hidden", 1.3)):
        own = results.exponents[results.exponents["axis"] == axis]
        assert len(own) == 2 * (1 + (3 if axis == "batch_size" else 4))
        assert (own["exponent"] - truth).abs().max() < 0.1
        assert ((own["exponent_low"] <= truth) & (truth <= own["exponent_high"])).mean() > 0.7
    assert set(results.cells["rounds"]) == {ROUNDS}


def test_what_a_call_costs_is_taken_off(tmp_path: Path) -> None:
    """Ten steps a turn, and 5 ms a call: without it every step would have half a millisecond more overhead.

    That on one number of threads it seemed to be ten times as much changes nothing.
    """
    results = make_up(tmp_path, linear, noise=0.0, calls={"keras": 0.005}, bad_moment=2, threads=(1, 2))
    for _, row in results.cells.iterrows():
        expected = 1e6 * linear(row["backend"], Point(row["hidden"], row["batch_size"], 60_000), row["threads"])
        assert row["microseconds_per_step"] == pytest.approx(expected, rel=1e-6)
        assert row["microseconds_per_image"] == pytest.approx(expected / row["batch_size"], rel=1e-6)


def test_failed_cells_are_shown_and_not_compared(tmp_path: Path) -> None:
    """In the table with status and reason, in words, in every chart; the others are as they were."""
    make_up(tmp_path, linear, failed=("keras", 960))
    results = write_sweep_report(tmp_path)
    failed = results.cells[results.cells["status"] != "ok"]
    assert set(failed["batch_size"]) == {960}
    assert set(failed["reason"]) == {"out of memory"}
    assert failed["microseconds_per_step"].isna().all()
    assert "- **keras: error in 3 of 12 cells (batch size 960, width 784 and 2 more): out of memory**" in page(results)
    assert "keras (error)" in (tmp_path / "charts" / "time_by_batch_size.svg").read_text()


def test_damage_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    """A Problem whose plan is another's, or no plan, or not there: its rows say so, and no number is made of it."""
    make_up(tmp_path, linear)
    folders = [folder_of(tmp_path, Point(width, 15, 60_000)) for width in HIDDEN]
    shutil.copy(folders[1] / "plan.json", folders[0] / "plan.json")
    (folders[1] / "plan.json").write_text("{}")
    shutil.rmtree(folders[2])
    results = load_sweep(tmp_path)
    lost = results.cells[results.cells["batch_size"] == 15].groupby("hidden").first()
    assert list(lost["status"]) == ["error", "error", "skipped"]
    assert "is that of hidden-1568-batch-15-images-60000; restore the file" in lost["reason"].iloc[0]
    assert "is not a plan" in lost["reason"].iloc[1]
    assert results.is_damaged
    assert (results.cells[results.cells["batch_size"] > 15]["status"] == "ok").all()
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(LockstepError, match=r"sweep\.json is not a sweep"):
        load_sweep(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 5}, "--rounds 5 are too few for an interval"),
        ({"batch_size": [15, 0]}, "batch size must be at least 1, not 0"),
        ({"hidden": [0]}, "hidden must be at least 1, not 0"),
        ({"train_images": [100, 1501]}, "--train-images 1501 is not between 1 and the 1,500 that digits has"),
        ({"threads": [1, 100_000]}, "--threads 100000 is more than the"),
        ({"backends": ["nmpy"]}, "did you mean numpy?"),
    ],
)
def test_what_cannot_be_swept_is_refused(digits: Dataset, options: dict[str, Any], message: str) -> None:
    """In a sentence, before anything is begun."""
    with pytest.raises(UsageError, match=re.escape(message)):
        make_sweep(digits, **options)


def test_kept_variables_are_those_of_every_problem(digits: Dataset) -> None:
    """Also where the sweep is planned again, to go on with."""
    sweep = make_sweep(digits, ["numpy"], keep=["MALLOC_ARENA_MAX", "MALLOC_ARENA_MAX"])
    assert sweep.keep == ["MALLOC_ARENA_MAX"]
    assert all(plan_of(sweep, point, digits).keep == sweep.keep for point in points(sweep))
    assert swept_again(sweep, digits).keep == sweep.keep


def test_defaults_are_what_dataset_and_machine_have(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the default axes what there is; the reference first."""
    monkeypatch.setattr("lockstep_bench.harness.machine.cpus.available_cpus", lambda: 1)
    sweep = make_sweep(digits)
    assert (sweep.train_images, sweep.threads) == ([1500], [1])
    assert (sweep.batch_size, sweep.hidden) == (list(BATCH_SIZES), list(HIDDEN))
    assert sweep.backends[0].name == "numpy"
    assert {backend.name for backend in sweep.backends} <= set(BACKENDS)


SMALL = ["numpy", "scikit-learn", "--dataset", "digits", "--batch-size", "40,80", "--hidden", "16", "--threads", "1"]


def lockstep(*arguments: str | Path, cwd: Path, cache: Path) -> subprocess.Popen[str]:
    """The command as a process."""
    return subprocess.Popen(
        [*LOCKSTEP, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "LOCKSTEP_CACHE": str(cache), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them, and all that they start, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Exit code and output."""
    output, errors = process.communicate(timeout=240)
    assert "Traceback" not in output + errors
    return process.returncode, output, errors


def test_sweep_that_is_interrupted_goes_on_and_is_reported_again_byte_for_byte(tmp_path: Path, cache: Path) -> None:
    """A real one of two backends: what was complete stays, the rest is done, and derived files follow from raw ones."""
    out = tmp_path / "growth"
    first = lockstep("sweep", *SMALL, "--rounds", "6", "--out", out, cwd=tmp_path, cache=cache)
    assert first.stdout is not None
    assert next(iter(first.stdout)).startswith("1/2  batch size")
    first.send_signal(signal.SIGINT)
    code, _, errors = ended(first)
    assert code == 1
    assert f"go on with: lockstep sweep --resume --out {out}" in errors
    done = {name: content for name, content in files(out).items() if name.endswith(".npz")}
    assert len(done) >= 1
    cells = pd.read_csv(out / "sweep.csv")
    assert set(cells["status"]) & {"interrupted", "skipped"}
    assert (cells["status"] == "ok").sum() == 2

    code, _, errors = ended(lockstep("sweep", "--resume", "--rounds", "7", "--out", out, cwd=tmp_path, cache=cache))
    assert code == 2
    assert "was begun with" in errors
    code, output, errors = ended(lockstep("sweep", "--resume", "--out", out, cwd=tmp_path, cache=cache))
    assert code == 0, errors
    assert "1/1  batch size" in output
    cells = pd.read_csv(out / "sweep.csv")
    assert list(cells["status"]) == ["ok"] * 4
    assert set(cells["rounds"]) == {6}
    assert cells["call_milliseconds"].notna().all()
    assert set(cells["disagreements"]) == {0}

    before = files(out)
    assert {"sweep.md", "exponents.csv", "crossings.csv", "charts/time_by_batch_size.png"} <= set(before)
    for name in before:
        if not name.startswith(("problems/", FILE)):
            (out / name).unlink()
    code, output, errors = ended(lockstep("report", out, cwd=tmp_path, cache=cache))
    assert code == 0, errors
    assert "Shortest time per step, of 2 cells" in output
    assert files(out) == before

    [point] = [point for point in points(read_sweep(out) or pytest.fail("no sweep")) if point.batch_size == 40]
    assert {*load(folder_of(out, point)).runs["status"]} == {"ok"}  # and each is an ordinary results folder
    code, _, errors = ended(lockstep("report", out, "--out", "both", cwd=tmp_path, cache=cache))
    assert (code, "is a sweep" in errors) == (2, True)
