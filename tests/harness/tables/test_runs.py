"""What a run did, as rows: every number here is computed by hand from hand-made events."""

import math
from pathlib import Path
from typing import Any

import pytest

from lockstep_bench.harness.problem import Defaults
from lockstep_bench.harness.records.format import ExtraEvent
from lockstep_bench.harness.records.raw_files import block_path
from lockstep_bench.harness.tables.results import Results, load
from support.hand_made import (
    SHORT,
    STEADY,
    begin,
    end,
    evaluation,
    floor,
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


def test_a_turn_is_a_row_with_its_time_per_step(pair: Results) -> None:
    """8 s for 2 steps are 4,000,000 microseconds per step."""
    row = pair.turns[pair.turns["backend"] == "keras"].iloc[0]
    assert row[["epoch", "round", "start", "stop", "steps"]].tolist() == [1, 1, 0, 30, 2]
    assert row[["at_seconds", "train_seconds", "microseconds_per_step"]].tolist() == [10.0, 8.0, 4e6]


def test_an_epochs_loss_is_the_mean_over_its_images(tmp_path: Path) -> None:
    """30 images at 2.0 and 5 at 0.25 have the mean (60 + 1.25) / 35 = 1.75."""
    events = [*begin("numpy"), turn("numpy", 1, 1, 4, 2.0), turn("numpy", 1, 2, 1, 0.25, **SHORT)]
    epoch = load(write(tmp_path, make_plan("numpy"), [*events, evaluation("numpy", 1, 9.0)])).epochs.iloc[0]
    assert epoch["train_loss"] == 1.75
    assert epoch["train_seconds"] == 5.0
    assert epoch[["train_error_percent", "test_loss", "test_error_percent"]].tolist() == [4.5, 0.9, 9.0]
    assert epoch[["disagreements", "predict_seconds"]].tolist() == [0, 1.0]


def test_an_epoch_sums_its_own_turns_only(pair: Results) -> None:
    """Numpy: 4 + 1 and 4 + 1 s; keras: 8 + 1 and 12 + 4 s."""
    assert pair.epochs["train_seconds"].tolist() == [5.0, 5.0, 9.0, 16.0]


def test_an_epoch_without_evaluation_keeps_its_turns(tmp_path: Path) -> None:
    """A crash in epoch 2: one epoch, three turns, all of which the run's training time counts."""
    results = load(
        write(tmp_path, make_plan("numpy"), [*whole_run("numpy", 4, 1, 4, 1)[:6], end("numpy", "error", "oh")])
    )
    assert (len(results.epochs), len(results.turns)) == (1, 3)
    assert run_of(results, "numpy")[["epochs_done", "train_seconds"]].tolist() == [1, 9.0]


def test_a_run_sums_its_turns_and_ends_on_its_last_evaluation(pair: Results) -> None:
    """keras: 8 + 1 + 12 + 4 s; steps of 4, 1, 6 and 4 s have the median 4 s."""
    keras = run_of(pair, "keras")
    assert keras[["train_seconds", "microseconds_per_step"]].tolist() == [25.0, 4e6]
    assert keras[["test_error_percent", "test_loss", "epochs_done", "disagreements"]].tolist() == [5.5, 0.55, 2, 0]
    assert keras["versions"] == "keras 1.0, a-library 2.0"
    assert keras[["machine", "status", "reason"]].tolist() == ["this machine", "ok", ""]


def test_the_target_is_reached_at_the_end_of_an_epoch(pair: Results) -> None:
    """In epoch 2: 25 s of training, and of its own 2 s start, 0.5 s build and twice 3 s evaluation as well."""
    keras = run_of(pair, "keras")
    assert keras["epochs_to_target"] == 2
    assert keras["train_seconds_to_target"] == 25.0
    assert keras["own_seconds_to_target"] == 33.5


def test_the_first_epoch_on_the_target_counts_and_nothing_after_it(tmp_path: Path) -> None:
    """Exactly 7.21 % after epoch 1 is on the target: 4 + 1 s, and 2 + 0.5 + 3 s of its own."""
    events = whole_run("numpy", 4, 1, 4, 1, errors=(7.21, 7.5))
    run = run_of(load(write(tmp_path, make_plan("numpy"), events)), "numpy")
    assert run[["epochs_to_target", "train_seconds_to_target", "own_seconds_to_target"]].tolist() == [1, 5.0, 10.5]


def test_a_block_that_was_not_begun_is_skipped(tmp_path: Path) -> None:
    """Every planned run has a row: of an unbegun block it is planned values and a reason."""
    results = load(write(tmp_path, make_plan("numpy", "keras", seeds=(0, 1)), whole_run("numpy", 4, 1, 4, 1)))
    assert len(results.runs) == 4
    run = run_of(results, "keras", seed=1)
    assert run[["status", "reason"]].tolist() == ["skipped", "the run ended before this block"]
    assert run[["machine", "versions", "epochs_done"]].tolist() == ["planned machine", "keras 0", 0]
    assert run[["train_seconds", "start_seconds", "test_error_percent", "disagreements"]].isna().all()


def test_a_backend_without_an_end_is_interrupted(tmp_path: Path) -> None:
    """The block was begun: what stopped it is the block's last line, where there is one."""
    plan = make_plan("numpy", "keras", seeds=(0, 1))
    first = [*whole_run("numpy", 4, 1, 4, 1), *begin("keras"), end(None, "interrupted", "Ctrl-C")]
    results = load(write(tmp_path, plan, first, begin("numpy")))
    assert run_of(results, "numpy")["status"] == "ok"
    assert run_of(results, "keras")[["status", "reason"]].tolist() == ["interrupted", "Ctrl-C"]
    assert run_of(results, "numpy", 1)[["status", "reason"]].tolist() == [
        "interrupted",
        "the records stop before its end",
    ]


@pytest.mark.parametrize("recorded", [True, False])
def test_a_backend_planned_as_skipped_says_why(tmp_path: Path, recorded: bool) -> None:
    """Also where its block was not begun."""
    folder = write(tmp_path, make_plan("numpy", "keras", skip="keras is missing"), *([[]] if recorded else []))
    assert run_of(load(folder), "keras")[["status", "reason"]].tolist() == ["skipped", "keras is missing"]


def test_records_from_before_the_native_profile_trained_with_the_problem_s_own(tmp_path: Path) -> None:
    """A build event without the fields is read, and its row says what all trained with then."""
    folder = write(tmp_path, make_plan("numpy"), whole_run("numpy", 4, 1, 4, 1))
    file = block_path(folder, make_plan("numpy").blocks[0], "jsonl")
    own = ',"initializer":"glorot-uniform","epsilon":1e-7,"epsilon_placement":"uncorrected","l2":0.0'
    assert file.read_text().count(own) == 1
    file.write_text(file.read_text().replace(own, ""))
    row = run_of(load(folder), "numpy")
    assert row[list(Defaults._fields)].to_dict() == Defaults()._asdict()


def test_phases_are_told_apart(tmp_path: Path) -> None:
    """Start 2 s, of which import 1; build 0.5; a first slice of 5 s where the later ones take 1: 4 s of start-up."""
    run = run_of(load(write(tmp_path, make_plan("numpy"), long_run("numpy", 5, 1, 0.9, 1.1))), "numpy")
    assert run[["start_seconds", "import_seconds", "build_seconds"]].tolist() == [2.0, 1.0, 0.5]
    assert run[["first_slice_seconds", "median_slice_seconds", "startup_seconds"]].tolist() == [5.0, 1.0, 4.0]
    assert run["train_seconds"] == 8.0
    assert run[["evaluation_seconds", "own_seconds"]].tolist() == [3.0, 13.5]  # 2 + 0.5 + 8 + 3
    assert run["microseconds_per_step"] == pytest.approx(1.05e6 / 2)
    assert run["images_per_second"] == pytest.approx((30 / 1 + 30 / 1.1) / 2)
    assert run[["weights_seconds", "weights_again_seconds", "predict_images_per_second"]].tolist() == [0.3, 0.1, 1e4]
    assert run[["memory_import_bytes", "memory_build_bytes"]].tolist() == [40_000_000, 50_000_000]
    assert run[["memory_peak_bytes", "cpus_used", "threads_used"]].tolist() == [100_000_001, 1, 2]


def test_single_predictions_and_calls_have_their_columns(tmp_path: Path) -> None:
    """200 calls of 1 ms to 200 ms: median 100.5, 99th percentile 198.01; a call of 50 ms is 5 % of a slice of 1 s."""
    latency = [place / 1000 for place in range(1, 201)]
    events = long_run("numpy", *times(1))
    events[-1:-1] = [ExtraEvent(backend="numpy", latency_seconds=latency, call_seconds=0.05)]
    run = run_of(load(write(tmp_path / "all", make_plan("numpy"), events)), "numpy")
    assert run["latency_milliseconds"] == pytest.approx(100.5)
    assert run["latency_p99_milliseconds"] == pytest.approx(198.01)
    assert run[["call_milliseconds", "call_percent"]].tolist() == pytest.approx([50, 5])
    events[-2] = ExtraEvent(backend="numpy", latency_seconds=latency[:199], call_seconds=None)
    run = run_of(load(write(tmp_path / "fewer", make_plan("numpy"), events)), "numpy")
    assert run["latency_milliseconds"] == pytest.approx(100.0)
    assert run[["latency_p99_milliseconds", "call_milliseconds", "call_percent"]].isna().all()


def test_the_floor_of_a_round_is_held_against_its_turns(tmp_path: Path) -> None:
    """37.6 million operations at 1e9 a second are a floor of 37.6 milliseconds; a round without one counts not."""
    operations = 4 * 15 * 784 * 784 + 6 * 15 * 784 * 10
    events = [
        floor(1, 1e9),
        floor(2, 5e8),
        *long_run("numpy", *(operations * 2e-9 * times for times in (10, 30, 99))),
    ]
    results = load(write(tmp_path, make_plan("numpy"), events))
    assert results.turns["floor_microseconds_per_step"].tolist()[:2] == pytest.approx([37584.9, 75169.9], rel=1e-4)
    assert results.turns["floor_microseconds_per_step"].isna().tolist() == [False, False, True]
    assert run_of(results, "numpy")["floor_multiple"] == pytest.approx((10 + 15) / 2)
    assert summary_of(results, "numpy")["floor_multiple"] == pytest.approx((10 + 15) / 2)


def test_who_trains_on_a_gpu_is_not_held_against_the_floor_of_the_cpu(tmp_path: Path) -> None:
    """A tenth of the floor is a step all the same; a first `weights()` copies what a second may find on the host."""
    plan = make_plan("numpy", "pytorch", device="cuda")
    plan.backends[0] = plan.backends[0].model_copy(update={"device": "cpu"})
    floors = [floor(number, 1e7) for number in range(1, 9)]  # 3.76 s
    events = [*floors, *long_run("numpy", *times(10)), *long_run("pytorch", *times(0.752))]
    results = write_all(write(tmp_path, plan, events))
    assert results.runs["status"].tolist() == ["ok", "ok"]
    assert run_of(results, "numpy")["floor_multiple"] == pytest.approx(5 / 3.76, rel=1e-3)
    assert summary_of(results, "numpy")["put_off_percent"] == pytest.approx(2)
    assert summary_of(results, "pytorch")[["floor_multiple", "put_off_percent"]].isna().all()
    assert summary_of(results, "pytorch")["unstable"] == ""
    page = (tmp_path / "summary.md").read_text()
    assert "- dense floor of the CPU: 3,758,496 µs per step" in page
    assert "| 376,000 | 0.0752 (0.0" in page
    on_cpu = load(write(tmp_path / "cpu", make_plan("numpy", "pytorch"), events))
    assert run_of(on_cpu, "pytorch")["status"] == "not-identical"


def test_nodes_that_share_a_machine_are_not_accused_of_hidden_work(tmp_path: Path) -> None:
    """A fifth of it: on a machine of its own that is hidden work, beside another node it accuses nobody."""
    events = [*(floor(number, 1e7) for number in range(1, 9)), *long_run("numpy", *times(0.752))]
    for nodes, status in ((1, "not-identical"), (2, "ok")):
        results = load(write(tmp_path / str(nodes), make_plan("numpy"), events, nodes=nodes))
        assert run_of(results, "numpy")["status"] == status


def test_conditions_of_a_turn_are_in_its_row(tmp_path: Path) -> None:
    """1.5 CPUs busy, and what the two who waited used; each has its own share of the turns it waited in."""
    conditions: dict[str, Any] = {
        "steal_percent": 0.5,
        "load_average": 2.5,
        "waiting_seconds": {"keras": 0.01, "_floor": 0.02},
    }
    events = [*long_run("numpy", *times(1), **conditions), *long_run("keras", *times(2))]
    results = load(write(tmp_path, make_plan("numpy", "keras"), events))
    row = results.turns[results.turns["backend"] == "numpy"].iloc[0]
    assert row[["cpu_per_second", "involuntary_switches", "steal_percent", "load_average"]].tolist() == [
        1.5,
        7,
        0.5,
        2.5,
    ]
    assert row["waiting_seconds"] == pytest.approx(0.03)
    assert run_of(results, "keras")["waiting_percent"] == pytest.approx(100 * 0.08 / sum(STEADY))
    assert math.isnan(run_of(results, "numpy")["waiting_percent"])


def test_outliers_are_marked_and_stay(tmp_path: Path) -> None:
    """One turn of 50 s among steady ones: marked, counted, and in the total."""
    results = load(write(tmp_path, make_plan("numpy"), long_run("numpy", *STEADY, 50)))
    assert results.turns["outlier"].tolist() == [""] * 8 + ["yes"]
    assert summary_of(results, "numpy")["outliers"] == 1
    assert run_of(results, "numpy")["train_seconds"] == pytest.approx(58.0)
