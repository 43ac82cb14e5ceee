"""The grid of a sweep: by hand."""

from pathlib import Path

import pytest

from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.machine.floor import floor_seconds
from lockstep_bench.harness.problem import Problem
from lockstep_bench.harness.records.format import PlannedBackend
from lockstep_bench.harness.records.raw_files import write_record
from lockstep_bench.harness.records.sweep_grid import NOMINAL, Point, Sweep, call_point, folder_of, points, read_sweep

SWEEP = Sweep(
    lockstep="1.0.0",
    python="3.11.7",
    commit=None,
    commit_clean=None,
    command="lockstep sweep",
    dataset="digits",
    dataset_sha256="5" * 64,
    backends=[PlannedBackend(name="numpy", style="idiomatic", spec="numpy", versions={})],
    batch_size=[15, 60],
    hidden=[784, 1568],
    train_images=[100, 200],
    threads=[1],
    seed=0,
    rounds=8,
    machine="A Machine",
)


def test_grid_goes_through_its_axes_in_order() -> None:
    """Widths first, then batch sizes, then images."""
    assert [tuple(point) for point in points(SWEEP)] == [
        *((784, 15, 100), (784, 15, 200), (784, 60, 100), (784, 60, 200)),
        *((1568, 15, 100), (1568, 15, 200), (1568, 60, 100), (1568, 60, 200)),
    ]


def test_each_problem_has_a_folder_of_its_name() -> None:
    """Below the sweep's."""
    assert folder_of(Path("out"), Point(784, 15, 100)) == Path("out/problems/hidden-784-batch-15-images-100")


def test_calls_are_measured_where_steps_are_shortest() -> None:
    """The smallest network and batch; of several images, the first."""
    assert call_point(SWEEP) == (784, 15, 100)
    shuffled = SWEEP.model_copy(update={"hidden": [1568, 784], "batch_size": [60, 15], "train_images": [200, 100]})
    assert call_point(shuffled) == (784, 15, 200)


def test_a_slice_is_a_fifth_of_a_second_within_bounds() -> None:
    """At the floor of the nominal machine, one step at least and 150 at most."""
    point = Point(1568, 60, 100)
    assert point.step_seconds == floor_seconds(Problem(hidden=1568, batch_size=60), NOMINAL)
    assert point.slice_steps == round(0.2 / point.step_seconds)
    assert Point(10**6, 960, 100).slice_steps == 1
    assert Point(1, 1, 100).slice_steps == 150


def test_sweep_is_read_back_equal(tmp_path: Path) -> None:
    """Nothing where there is none; what is none is refused by its file."""
    assert read_sweep(tmp_path) is None
    write_record(tmp_path / "sweep.json", SWEEP)
    assert read_sweep(tmp_path) == SWEEP
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(LockstepError, match=r"sweep\.json is not a sweep: lockstep: Field required; restore it"):
        read_sweep(tmp_path)
