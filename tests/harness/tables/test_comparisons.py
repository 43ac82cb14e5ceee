"""How backends compare: every number here is computed by hand from hand-made events."""

import math
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from lockstep_bench.harness.records.format import Block, Status
from lockstep_bench.harness.tables.results import Results, load
from support.hand_made import (
    STEADY,
    begin,
    end,
    evaluation,
    long_run,
    make_plan,
    run_of,
    summary_of,
    times,
    turn,
    whole_run,
    write,
    write_all,
)


def test_the_ratio_is_paired_by_round(pair: Results) -> None:
    """Rounds of 8/4, 1/1, 12/4, 4/1: the median logarithm lies between those of 2 and 3; totals would give 2.5."""
    assert summary_of(pair, "keras")["ratio_to_reference"] == pytest.approx(math.sqrt(2 * 3), rel=1e-12)
    assert summary_of(pair, "numpy")["ratio_to_reference"] == 1.0


def test_seeds_are_paired_within_their_block_and_averaged(tmp_path: Path) -> None:
    """Both blocks have rounds 1 to 4, with ratios of 2 in one and 8 in the other: half way, in logarithms, is 4."""
    first = [*whole_run("numpy", 4, 1, 4, 1), *whole_run("keras", 8, 2, 8, 2)]
    second = [*whole_run("numpy", 4, 1, 4, 1, errors=(9.0, 5.0)), *whole_run("keras", 32, 8, 32, 8, errors=(7.0, 5.0))]
    results = load(write(tmp_path, make_plan("numpy", "keras", seeds=(0, 1)), first, second))
    keras = summary_of(results, "keras")
    assert keras["ratio_to_reference"] == pytest.approx(4.0, rel=1e-12)
    assert keras[["train_seconds", "test_error_percent"]].tolist() == [50.0, 5.25]
    assert keras[["epochs_to_target", "train_seconds_to_target"]].tolist() == [1.5, 30.0]  # 2 and 1; 20 s and 40 s
    assert keras[["runs", "runs_ok", "target_reached"]].tolist() == [2, 2, "2 of 2"]
    assert results.epochs["seed"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_target_that_is_never_reached_is_empty(tmp_path: Path) -> None:
    """No number stands in for it, and the summary says 0 of 1."""
    results = load(write(tmp_path, make_plan("numpy"), whole_run("numpy", 4, 1, 4, 1, errors=(9.0, 7.22))))
    run = run_of(results, "numpy")
    assert run[["epochs_to_target", "train_seconds_to_target", "own_seconds_to_target"]].isna().all()
    assert summary_of(results, "numpy")["target_reached"] == "0 of 1"
    assert math.isnan(summary_of(results, "numpy")["train_seconds_to_target"])


@pytest.mark.parametrize(("errors", "epochs"), [((7.0, 8.0, 7.1), 1.0), ((7.0, 8.0), None), ((7.0, 8.0, 9.0), None)])
def test_runs_that_never_reach_the_target_count_as_infinitely_late(
    tmp_path: Path, errors: tuple[float, ...], epochs: float | None
) -> None:
    """The median over runs is there while more than half get there; how many did is said in any case."""
    blocks = [long_run("numpy", *times(1), error=error) for error in errors]
    row = summary_of(load(write(tmp_path, make_plan("numpy", seeds=tuple(range(len(errors)))), *blocks)), "numpy")
    assert row["target_reached"] == f"{sum(error <= 7.21 for error in errors)} of {len(errors)}"
    assert row["epochs_to_target"] == epochs if epochs else math.isnan(row["epochs_to_target"])


@pytest.mark.parametrize("status", [status for status in get_args(Status) if status != "ok"])
def test_a_run_that_is_not_ok_is_shown_and_not_compared(tmp_path: Path, status: Status) -> None:
    """Its rows are there with status and reason; in the summary it is last and has no time and no error."""
    keras = [*whole_run("keras", 1, 1, 1, 1)[:-1], end("keras", status, "as it\n  \x1bwere")]
    results = load(write(tmp_path, make_plan("keras", "numpy"), [*keras, *whole_run("numpy", 4, 1, 4, 1)]))
    assert run_of(results, "keras")[["status", "reason"]].tolist() == [status, "as it were"]
    assert set(results.turns.loc[results.turns["backend"] == "keras", "status"]) == {status}
    assert len(results.epochs) == 4
    assert results.summary["backend"].tolist() == ["numpy", "keras"]
    last = results.summary.iloc[1]
    assert last[["status", "runs", "runs_ok", "target_reached"]].tolist() == [status, 1, 0, "0 of 0"]
    assert last[["microseconds_per_step", "ratio_to_reference", "train_seconds", "test_error_percent"]].isna().all()
    assert math.isnan(summary_of(results, "numpy")["ratio_to_reference"])  # the reference failed


def test_one_failed_seed_makes_a_backend_failed_and_leaves_its_other_seed(tmp_path: Path) -> None:
    """The status is that of the failed run, the numbers are of the one that is ok; it comes last, though fastest."""
    plan = make_plan("numpy", "keras", seeds=(0, 1))
    first = [*whole_run("numpy", 4, 1, 4, 1), *begin("keras"), turn("keras", 1, 1, 99), end("keras", "killed")]
    second = [*whole_run("numpy", 4, 1, 4, 1), *whole_run("keras", 2, 0.5, 2, 0.5)]
    results = load(write(tmp_path, plan, first, second))
    keras = summary_of(results, "keras")
    assert keras[["status", "runs", "runs_ok", "train_seconds"]].tolist() == ["killed", 2, 1, 5.0]
    assert keras["ratio_to_reference"] == pytest.approx(0.5, rel=1e-12)
    assert results.summary["backend"].tolist() == ["numpy", "keras"]


def test_every_pair_is_compared_and_the_fastest_is_first(tmp_path: Path) -> None:
    """Keras takes half of numpy's time, torch three times as long; nobody is faster than keras, one than numpy."""
    events = [*long_run("numpy", *times(1)), *long_run("keras", *times(0.5)), *long_run("torch", *times(3))]
    results = load(write(tmp_path, make_plan("numpy", "keras", "torch"), events))
    assert results.summary["backend"].tolist() == ["keras", "numpy", "torch"]
    assert results.summary["rank"].tolist() == [1, 2, 3]
    assert results.summary["ratio_to_reference"].tolist() == pytest.approx([0.5, 1, 3])
    assert results.summary["ratio_to_fastest"].tolist() == pytest.approx([1, 2, 6])
    assert results.summary["ratio_to_fastest_low"].isna().tolist() == [True, False, False]
    assert len(results.ratios) == 6
    pair = results.ratios[(results.ratios["backend"] == "torch") & (results.ratios["other"] == "keras")].iloc[0]
    assert pair[["rounds", "verdict"]].tolist() == [8, "slower"]
    assert pair["ratio"] == pytest.approx(6)


def test_backends_that_cannot_be_told_apart_share_a_rank(tmp_path: Path) -> None:
    """Keras is as often faster as slower, by up to 30 %: both are first, though one has the lower median."""
    mixed = [each * factor for each, factor in zip(STEADY, (1.3, 0.7, 1.2, 0.8, 1.1, 0.9, 1.25, 0.8), strict=True)]
    results = load(
        write(tmp_path, make_plan("numpy", "keras"), [*long_run("numpy", *STEADY), *long_run("keras", *mixed)])
    )
    assert results.summary["rank"].tolist() == [1, 1]
    assert set(results.ratios["verdict"]) == {"no difference shown"}


def test_the_references_twin_shows_the_noise_and_is_not_ranked(tmp_path: Path) -> None:
    """It has a row and a ratio, no rank, and is never the fastest."""
    plan = make_plan("numpy", "keras")
    plan = plan.model_copy(
        update={"backends": [*plan.backends, plan.reference.model_copy(update={"name": "numpy-aa"})]}
    )
    events = [*long_run("numpy", *times(1)), *long_run("keras", *times(3)), *long_run("numpy-aa", *times(0.9))]
    results = write_all(write(tmp_path, plan, events))
    assert results.summary["backend"].tolist() == ["numpy-aa", "numpy", "keras"]
    assert results.summary["rank"].isna().tolist() == [True, False, False]
    assert results.summary["rank"].tolist()[1:] == [1, 2]
    assert summary_of(results, "keras")["ratio_to_fastest"] == pytest.approx(3)
    page = (tmp_path / "summary.md").read_text()
    assert "Both backends" in page
    assert "Fastest: numpy." in page
    assert "ratio to numpy" in page
    assert "ratio to the fastest" not in page  # the same twice
    assert "The reference against itself (numpy-aa) came to 0.900 (0.900 to 0.900): one process is not" in page
    assert "differences of up to 11 % as noise" in page


def test_replicates_are_pooled_as_series_of_their_own(tmp_path: Path) -> None:
    """Two blocks of 8 rounds, ratios of 2 and 8: half of 16 rounds each; both runs end at the same error: one seed."""
    plan = make_plan("numpy", "keras")
    blocks = [Block(id=f"seed-0-{place}", seed=0, threads=2, replicate=place) for place in (1, 2)]
    plan = plan.model_copy(update={"blocks": blocks})
    first = [*long_run("numpy", *times(1)), *long_run("keras", *times(2))]
    second = [*long_run("numpy", *times(1)), *long_run("keras", *times(8))]
    results = load(write(tmp_path, plan, first, second))
    assert results.runs["replicate"].tolist() == [1, 1, 2, 2]
    keras = summary_of(results, "keras")
    assert keras[["runs", "seeds", "notebook_reached"]].tolist() == [2, 1, "1 of 1"]
    assert keras["ratio_to_reference"] == pytest.approx(4)
    assert results.ratios["rounds"].tolist() == [16, 16]


def test_numbers_of_threads_are_tables_of_their_own(tmp_path: Path) -> None:
    """With one thread keras takes twice as long, with two four times: no ratio crosses."""
    plan = make_plan("numpy", "keras")
    blocks = [Block(id=f"threads-{count}", seed=0, threads=count) for count in (1, 2)]
    plan = plan.model_copy(update={"blocks": blocks})
    first = [*long_run("numpy", *times(2)), *long_run("keras", *times(4))]
    second = [*long_run("numpy", *times(1)), *long_run("keras", *times(4))]
    results = write_all(write(tmp_path, plan, first, second))
    assert results.summary[["threads", "backend"]].to_numpy().tolist() == [
        [1, "numpy"],
        [1, "keras"],
        [2, "numpy"],
        [2, "keras"],
    ]
    assert results.summary["ratio_to_reference"].tolist() == pytest.approx([1, 2, 1, 4])
    assert results.ratios["threads"].tolist() == [1, 1, 2, 2]
    page = (tmp_path / "summary.md").read_text()
    assert (
        page.index("## 1 thread\n") < page.index("keras 2.00") < page.index("## 2 threads") < page.index("keras 4.00")
    )


@pytest.mark.parametrize(
    ("conditions", "column"),
    [
        ({"steal_percent": 2.5}, "steal_percent"),
        ({"load_average": 3.5}, "foreign_load"),
        ({"waiting_seconds": {"keras": 0.02}}, "waiting_percent"),
    ],
)
def test_times_under_bad_conditions_are_called_unstable(
    tmp_path: Path, conditions: dict[str, Any], column: str
) -> None:
    """2.5 % steal, a load of 3.5 with 2 threads, 2 % used while waiting: each by name, and only where it was."""
    quick: dict[str, Any] = {"weights_seconds": (0.1, 0.1)}
    numpy = [*long_run("numpy", *times(1), **conditions)[:-2], evaluation("numpy", 1, 5.5, **quick), end("numpy")]
    keras = [*long_run("keras", *times(2))[:-2], evaluation("keras", 1, 5.5, **quick), end("keras")]
    results = write_all(write(tmp_path, make_plan("numpy", "keras"), [*numpy, *keras]))
    guilty, other = ("keras", "numpy") if column == "waiting_percent" else ("numpy", "keras")
    assert summary_of(results, guilty)["unstable"].startswith(f"{column} ")
    assert summary_of(results, other)["unstable"] == ""
    page = (tmp_path / "summary.md").read_text()
    assert re.search(rf"^- unstable, because .*: {guilty} [\d.]+ \(`{column}`\)\. Advice: ", page, re.MULTILINE)
    assert f"| {guilty} | idiomatic | ok, unstable |" in page


def test_wide_spread_and_work_put_off_are_called_unstable(tmp_path: Path) -> None:
    """Ratios that swing by half; a first `weights()` that takes 0.2 s more than the second, of slices of 1 s."""
    swing = [each * factor for each, factor in zip(STEADY, (1.5, 0.7) * 4, strict=True)]
    results = load(
        write(tmp_path, make_plan("numpy", "keras"), [*long_run("numpy", *STEADY), *long_run("keras", *swing)])
    )
    assert summary_of(results, "numpy")["unstable"] == "put_off_percent 20"
    assert summary_of(results, "keras")["unstable"].startswith("spread_percent ")
    assert summary_of(results, "keras")["put_off_percent"] == pytest.approx(100 * 0.2 / 0.8, rel=0.2)


def test_over_seeds_there_is_a_mean_with_its_interval_and_range(tmp_path: Path) -> None:
    """Errors of 6, 7 and 8 %: mean 7, Student's interval 7 +/- 4.303 / sqrt(3); two are at or below 7.21 %."""
    blocks = [long_run("numpy", *times(1), error=error) for error in (6.0, 7.0, 8.0)]
    results = write_all(write(tmp_path, make_plan("numpy", seeds=(0, 1, 2)), *blocks))
    row = summary_of(results, "numpy")
    assert row[["test_error_percent", "test_error_min", "test_error_max", "seeds"]].tolist() == [7, 6, 8, 3]
    assert row[["test_error_low", "test_error_high"]].tolist() == pytest.approx([4.516, 9.484], abs=1e-3)
    assert row["notebook_reached"] == "2 of 3"
    assert (
        "The notebook reports 7.21 %: 2 of 3 seeds ended at or below it, between 6.00 and 8.00 %, 7.00 % on average "
        "(95 % interval 4.52 to 9.48)."
    ) in (tmp_path / "summary.md").read_text()
