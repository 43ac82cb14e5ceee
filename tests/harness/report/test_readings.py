"""Every sentence under a chart says what the tables say."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep_bench.harness.report.page.plots import CHARTS
from lockstep_bench.harness.report.readings import READINGS
from lockstep_bench.harness.tables import views
from lockstep_bench.harness.tables.results import Results
from support.committed import committed

MakeResults = Callable[..., Results]


@pytest.fixture(scope="module")
def standard() -> Results:
    """The committed reference results."""
    return committed("standard")


def test_every_chart_of_the_page_has_a_reading() -> None:
    """And no reading is without a chart: `time_and_error` is among the files alone."""
    assert {draw.__name__ for draw, *_ in CHARTS} == set(READINGS) - {"time_and_error"}


def test_sentences_are_those_of_the_reference_results(standard: Results) -> None:
    """Held against the tables."""
    summary, epochs = standard.summary.set_index("backend"), standard.epochs
    fastest, slowest = summary.index[0], summary.index[-1]
    said = {name: reading(standard) for name, reading in READINGS.items()}
    steps = summary["microseconds_per_step"]
    assert f"A step takes {fastest} {steps[fastest]:,.0f} µs" in said["step_time"]
    assert f"{summary['floor_multiple'][fastest]:.1f} times the dense floor" in said["step_time"]
    assert f"{slowest} {steps[slowest]:,.0f} µs" in said["step_time"]
    seconds = summary["train_seconds_to_target"].drop("numpy-aa")
    assert f"{seconds.idxmin()} reached 7.21 % first, after {seconds.min():,.0f} s" in said["error_by_seconds"]
    assert f"{seconds.idxmax()} last, after {seconds.max():,.0f} s" in said["error_by_seconds"]
    last = epochs[(epochs["backend"] == "numpy") & (epochs["epoch"] == 20)].iloc[0]
    assert f"{last['train_loss']:.3f} on the images" in said["loss"]
    assert f"{last['test_loss']:.3f} on the test" in said["loss"]
    assert f"{100 - last['test_error_percent']:.2f} % on the test" in said["accuracy"]
    worst = epochs.iloc[int(epochs["disagreements"].astype("int64").argmax())]
    assert f"At most {worst['disagreements']} of 10,000" in said["disagreements"]
    assert f"({worst['backend']}, epoch {worst['epoch']})" in said["disagreements"]
    peaks = summary["memory_peak_bytes"].drop("numpy-aa") / 2**20
    assert f"{peaks.idxmin()} held {peaks.min():,.0f} MiB and {peaks.idxmax()} {peaks.max():,.0f} MiB" in said["memory"]
    assert "Curves coincide" in said["error_by_epoch"]
    assert "6.06 to 6.07 %" in said["error_by_seed"]
    own = standard.turns[standard.turns["backend"] == "numpy"]["microseconds_per_step"]
    assert f"took {own.min():,.0f} to {own.max():,.0f} µs" in said["ratio_by_round"]


def test_phases_and_memory_add_up_to_what_the_tables_have(standard: Results) -> None:
    """Nothing is left out and nothing counted twice; the reference's twin is not shown."""
    runs = standard.runs.set_index("backend")
    phases, memory = views.phases(standard), views.memory(standard)
    assert set(phases.index) == set(runs.index) - {"numpy-aa"} == set(memory.index)
    shown = runs.loc[phases.index]
    assert phases.sum(axis=1).tolist() == pytest.approx(shown["own_seconds"].tolist())
    shown = runs.loc[memory.index]
    assert (memory.sum(axis=1) * 2**20).tolist() == pytest.approx(shown["memory_peak_bytes"].tolist())


def test_rounds_of_all_seeds_follow_each_other(tmp_path: Path, make_results: MakeResults) -> None:
    """In the order they were run; a backend that failed has no column."""
    results = make_results(tmp_path, epochs=2, rounds=3, seeds=2, failed=("keras", "error", "it broke", 1))
    table = views.rounds(results)
    assert list(table) == ["numpy", "pytorch"]
    assert list(table.index) == list(range(1, 13))
    assert (table["pytorch"] / table["numpy"]).tolist() == [3.0] * 12


def test_nothing_is_claimed_of_results_with_nothing_in_them(tmp_path: Path, make_results: MakeResults) -> None:
    """Every sentence is one, and none has a number that is missing."""
    cases: list[dict[str, Any]] = [{"begun": False}, {"failed": ("numpy", "killed", "signal 9", 1)}, {"epochs": 1}]
    for number, case in enumerate(cases):
        results = make_results(tmp_path / str(number), **case)
        for reading in READINGS.values():
            assert not re.search(r"\b(nan|NaN|None|inf)\b", reading(results))
            assert reading(results).endswith(".")


def test_what_was_not_checked_is_not_said_to_be_alike(tmp_path: Path, make_results: MakeResults) -> None:
    """The reference died after the first of three epochs."""
    results = make_results(tmp_path, failed=("numpy", "killed", "signal 9", 1))
    said = READINGS["disagreements"](results)
    assert "After every epoch that was checked, up to 1, all backends predicted" in said


def test_who_did_not_reach_the_target_is_counted(tmp_path: Path, make_results: MakeResults) -> None:
    """20 / 3 = 6.67 % for the first, more for the others; times of less than ten seconds have two digits."""
    said = READINGS["error_by_seconds"](make_results(tmp_path / "one", apart=0.5))
    assert "numpy reached 7.21 % first, after 3 s of training, keras last, after 6 s; 1 of 3 backends did not" in said
    said = READINGS["error_by_seconds"](make_results(tmp_path / "none", epochs=2))
    assert said == "No backend reached 7.21 % test error."
    said = READINGS["error_by_seconds"](make_results(tmp_path / "several", epochs=2, seeds=2))
    assert said == "No backend reached 7.21 % test error in more than half of its runs."


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([193, 321, 4716], [200, 500, 1000, 2000, 5000]),
        ([1100, 1900], [900, 1000, 1500, 2000]),
        ([0.97, 1.02], [0.8, 0.9, 1]),
        ([float("nan")], []),
    ],
)
def test_logarithmic_axes_have_three_numbers_at_least(values: list[float], ticks: list[float]) -> None:
    """The roundest that there are between the values and a little beyond them."""
    assert views.log_ticks(values) == ticks


@pytest.mark.parametrize(
    ("most", "step"), [(1, 1), (5, 1), (10, 1), (11, 2), (20, 2), (50, 5), (120, 20), (10_000, 1000)]
)
def test_whole_steps_make_ten_at_most(most: float, step: int) -> None:
    """Epochs and images are whole."""
    assert views.whole_step(most) == step
