"""The conductor with real workers: turns, the gate, and what becomes of a backend that fails."""

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from lockstep_bench.backends import registered
from lockstep_bench.harness import load
from lockstep_bench.harness import run as lockstep_run
from lockstep_bench.harness.checks.equivalence import allowed_disagreements
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.machine import cpus
from lockstep_bench.harness.machine.cpus import available_cpus
from lockstep_bench.harness.machine.variables import THREAD_VARIABLES
from lockstep_bench.harness.problem import Defaults
from lockstep_bench.harness.records.format import (
    Block,
    BuildEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    ExtraEvent,
    FloorEvent,
    StartEvent,
    TurnEvent,
)
from lockstep_bench.harness.records.raw_files import blocks_left, read_block, read_plan
from lockstep_bench.harness.running.block_conductor import EXTRA_PART
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.running.plan import make_plan
from lockstep_bench.harness.running.process_guard import guard
from lockstep_bench.harness.running.worker_process import WorkerProcess
from support.once import once
from support.small_mnist import write_folder

BROKEN = Path(__file__).parents[2] / "broken"
SMALL: dict[str, Any] = {"epochs": 2, "train_images": 300, "slice_steps": 8, "turn_timeout": 60.0}

Adapter = Callable[[str, str], str]


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    """Make the file of an adapter that is NumPy's but for one method; it counts its calls to `train`."""

    def make(name: str, body: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(
            "import os, signal, time\n"
            "import numpy as np\n"
            "from lockstep_bench.backends.numpy import NumPy\n\n\n"
            "class Faulty(NumPy):\n"
            f"    name = '{name}'\n"
            "    turns = 0\n\n"
            "    def train(self, order):\n"
            "        self.turns += 1\n"
            "        return super().train(order)\n\n"
            f"{body}\n"
        )
        return str(path)

    return make


def method(signature: str, *lines: str) -> str:
    """The source of a method."""
    return "\n".join([f"    def {signature}:", *(f"        {line}" for line in lines)])


def run(dataset: Dataset, out: Path, *backends: str, **options: Any) -> list[Event]:
    """Conduct a small run and read its events back."""
    return run_for_extras(dataset, out, *backends, **options, extra_part=EXTRA_PART)


def run_for_extras(dataset: Dataset, out: Path, *backends: str, extra_part: float = inf, **options: Any) -> list[Event]:
    """Conduct a small run whose extras have time, however little is trained, and read its events back."""
    plan = make_plan(dataset, backends, **{**SMALL, **options})
    conduct(plan, dataset.folder, out, extra_part=extra_part)
    return events_of(out)


def events_of(out: Path) -> list[Event]:
    """The events of all blocks of a results folder."""
    return [event for block in read_plan(out).blocks for event in read_block(out, block).events]


def workers() -> list[psutil.Process]:
    """The worker processes, in the order of their start."""
    children = psutil.Process().children()
    return sorted((one for one in children if one.pid != guard().process.pid), key=lambda one: one.create_time())


def ends(events: list[Event]) -> dict[str | None, EndEvent]:
    """How each backend, and the block, ended."""
    return {event.backend: event for event in events if isinstance(event, EndEvent)}


@pytest.fixture(scope="module")
def everyone(mnist: Dataset, compiled: Path, shared: Path) -> Path:
    """The results of a run of all backends on MNIST, with one thread and all its test images."""

    def make(out: Path) -> None:
        plan = make_plan(mnist, epochs=2, train_images=3000, with_slow=True, slice_steps=48, threads=1)
        conduct(plan, mnist.folder, out, extras=False, caches=compiled)

    return once(shared / "everyone", make)


@pytest.mark.frameworks
@pytest.mark.mnist
@pytest.mark.timeout(900)  # the fixture's time is in it: every framework starts, and some compile
def test_all_backends_stay_in_lockstep(everyone: Path) -> None:
    """Every backend starts from the same weights, trains on every slice, and predicts what the reference predicts."""
    events, names = events_of(everyone), set(registered())
    assert {name: end.status for name, end in ends(events).items()} == dict.fromkeys([*names, None], "ok")
    assert {event.backend for event in events if isinstance(event, StartEvent)} == names
    assert len({event.weights_sha256 for event in events if isinstance(event, BuildEvent)}) == 1
    turns = [(turn.backend, turn.round, turn.start, turn.stop) for turn in events if isinstance(turn, TurnEvent)]
    slices = [(start, min(start + 720, 3000)) for start in range(0, 3000, 720)]
    expected = [(number, *slice_) for number, slice_ in enumerate(2 * slices, start=1)]
    for name in names:
        assert [turn[1:] for turn in turns if turn[0] == name] == expected
    evaluations = [event for event in events if isinstance(event, EvaluationEvent)]
    assert len(evaluations) == 2 * len(names)
    assert max(evaluation.disagreements or 0 for evaluation in evaluations) <= allowed_disagreements(10_000)
    assert len({(evaluation.epoch, evaluation.order_sha256) for evaluation in evaluations}) == 2


@pytest.mark.frameworks
@pytest.mark.mnist
@pytest.mark.timeout(900)
def test_waiting_workers_leave_the_cpu_to_the_others(everyone: Path) -> None:
    """Every framework uses under 1 % of a CPU while others have their turns; no dense step is faster than the floor."""
    runs = load(everyone).runs.set_index("backend")
    assert (runs["waiting_percent"] < 1).all(), runs["waiting_percent"].to_dict()
    assert (runs["floor_multiple"].drop("numba-sparse") > 1).all(), runs["floor_multiple"].to_dict()


def test_a_worker_that_spins_while_it_waits_is_seen(digits: Dataset, tmp_path: Path, adapter: Adapter) -> None:
    """A thread that never sleeps for long shows in the turns of the others, and makes its backend unstable by name."""
    spin = method("build(self, *arguments)", "super().build(*arguments)", "import threading, time", "def spin():")
    spin += "\n            while True: sum(range(20_000)), time.sleep(1e-3)"
    spin += "\n        threading.Thread(target=spin, daemon=True).start()"
    run(digits, tmp_path / "out", adapter("spins", spin), train_images=1500, slice_steps=50)
    results = load(tmp_path / "out")
    assert results.runs.set_index("backend")["waiting_percent"].to_dict()["spins"] > 10
    assert "waiting_percent" in results.summary.set_index("backend")["unstable"]["spins"]


def test_phases_conditions_and_floor_are_recorded(digits: Dataset, tmp_path: Path) -> None:
    """Of a real run no column of any table stays empty, but those that it has no occasion for."""
    run_for_extras(digits, tmp_path / "out", "scikit-learn", epochs=3, train_images=900, slice_steps=30, aa=True)
    results = load(tmp_path / "out")
    unreached = {"epochs_to_target", "train_seconds_to_target", "own_seconds_to_target", "device_memory_peak_bytes"}
    assert results.runs.columns[results.runs.isna().any()].tolist() == [c for c in results.runs if c in unreached]
    without = {"throttled_seconds"} if cpus.quota() is None else set()
    assert set(results.turns.columns[results.turns.isna().any()]) == without
    assert not results.ratios.isna().any().any()
    runs = results.runs.set_index("backend")
    assert (runs["own_seconds"] > runs["train_seconds"] + runs["evaluation_seconds"]).all()
    assert (runs["start_seconds"] > runs["import_seconds"]).all()
    assert (runs["memory_peak_bytes"] >= runs["memory_build_bytes"]).all()
    assert (runs["cpus_used"] == runs["threads"]).all()
    assert (runs["threads_used"] <= runs["threads"]).all()
    assert results.turns["cpu_per_second"].between(0.05, 1.1 * results.turns["threads"]).all()


def test_a_run_goes_on_without_its_floor(digits: Dataset, tmp_path: Path) -> None:
    """When the worker that measures it dies, the others end well, with no floor from then on."""

    def kill_floor(_: Block, event: Event) -> None:
        if isinstance(event, EvaluationEvent) and event.epoch == 1:
            workers()[-1].kill()

    plan = make_plan(digits, ["numpy"], **SMALL)
    conduct(plan, digits.folder, tmp_path / "out", kill_floor)
    events = read_block(tmp_path / "out", plan.blocks[0]).events
    assert {end.status for end in ends(events).values()} == {"ok"}
    assert [event.round for event in events if isinstance(event, FloorEvent)] == [1, 2, 3]
    assert len([event for event in events if isinstance(event, TurnEvent)]) == 6


def extras_of(events: list[Event], name: str) -> ExtraEvent:
    """What was measured of a backend after the last epoch."""
    [extra] = [event for event in events if isinstance(event, ExtraEvent) and event.backend == name]
    return extra


def test_the_cost_of_a_call_is_told_from_its_steps(digits: Dataset, tmp_path: Path, adapter: Adapter) -> None:
    """A backend that sleeps for 200 ms in every call of `train` is found out; test_extras.py has exact figures."""
    slow = adapter("slow-call", "    def synchronize(self):\n        time.sleep(0.2)")
    events = run_for_extras(digits, tmp_path / "out", slow, epochs=1, train_images=1500, slice_steps=30, threads=1)
    extra = extras_of(events, "slow-call")
    assert extra.call_seconds == pytest.approx(0.2, abs=0.1)
    assert len(extra.latency_seconds) >= 20
    assert min(extra.latency_seconds) > 0
    assert (extra.latency_reason, extra.call_reason) == (None, None)


def test_extras_take_a_part_of_the_training_time(digits: Dataset, tmp_path: Path, adapter: Adapter) -> None:
    """A backend that predicts slowly is asked for few single predictions, and the reason is in the record."""
    slow = adapter("slow", method(
        "predict(self, images)", "time.sleep(0.05 if len(images) == 1 else 0)", "return super().predict(images)"
    ))  # fmt: skip
    events = run(digits, tmp_path / "out", slow, epochs=1, train_images=300, slice_steps=10)
    extra, trained = extras_of(events, "slow"), [turn.train_seconds for turn in events if isinstance(turn, TurnEvent)]
    assert ends(events)["slow"].status == "ok"
    assert sum(extra.latency_seconds) < sum(trained) + 0.1  # the call that was begun before the limit is ended
    assert "there were for it" in str(extra.latency_reason)


@pytest.mark.parametrize(
    ("slice_steps", "reason"), [(1, "a slice is one step"), (100, "there is no second slice of 100 steps")]
)
def test_a_cost_that_cannot_be_known_has_a_reason(
    digits: Dataset, tmp_path: Path, slice_steps: int, reason: str
) -> None:
    """One that needs slices of two lengths, or a slice beside the first, which may compile."""
    events = run_for_extras(digits, tmp_path / "out", "numpy", epochs=1, train_images=60, slice_steps=slice_steps)
    extra = extras_of(events, "numpy")
    assert extra.call_seconds is None
    assert reason in str(extra.call_reason)


def test_fewer_test_images_than_predictions_are_no_error(tmp_path: Path) -> None:
    """Seven test images are predicted in turn, by a framework that refuses to predict nothing."""
    dataset = find_dataset(str(write_folder(tmp_path / "few")))
    events = run_for_extras(
        dataset, tmp_path / "out", "scikit-learn", epochs=1, train_images=12, batch_size=4, slice_steps=1
    )
    assert {end.status for end in ends(events).values()} == {"ok"}
    for name in ("numpy", "scikit-learn"):
        assert len(extras_of(events, name).latency_seconds) >= 20
        assert min(extras_of(events, name).latency_seconds) > 0


def test_an_interrupt_among_the_extras_keeps_the_block(digits: Dataset, tmp_path: Path, adapter: Adapter) -> None:
    """All that was trained is complete: nothing is left to be run again, and the records say what is missing."""
    name = adapter("predicts-alone", method(
        "predict(self, images)",
        "if len(images) == 1: os.kill(os.getppid(), signal.SIGINT); time.sleep(600)",
        "return super().predict(images)",
    ))  # fmt: skip
    plan = make_plan(digits, [name], **SMALL)
    with pytest.raises(KeyboardInterrupt):
        conduct(plan, digits.folder, tmp_path / "out", extra_part=inf)
    recorded = read_block(tmp_path / "out", plan.blocks[0])
    assert recorded.complete
    assert {end.status for end in ends(recorded.events).values()} == {"ok"}
    extra = extras_of(recorded.events, "predicts-alone")
    assert (extra.latency_seconds, extra.call_seconds) == ([], None)
    assert extra.latency_reason == extra.call_reason == "the run was interrupted by SIGINT"
    assert blocks_left(tmp_path / "out", plan, retry_failed=False) == []
    assert workers() == []


def test_extras_can_be_left_out(digits: Dataset, tmp_path: Path) -> None:
    """For who wants to know how a run ends, and nothing else."""
    seen: list[Event] = []
    plan = make_plan(digits, ["numpy"], **{**SMALL, "epochs": 1})
    conduct(plan, digits.folder, tmp_path / "out", lambda _, event: seen.append(event), extras=False)
    assert ends(seen)["numpy"].status == "ok"
    assert not [event for event in seen if isinstance(event, ExtraEvent)]


@pytest.mark.frameworks
@pytest.mark.mnist
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", registered())
def test_threads_are_what_was_asked_for(everyone: Path, name: str) -> None:
    """With one thread asked for, no library of any framework has more, and one CPU is all that it may use."""
    events = [event for event in events_of(everyone) if getattr(event, "backend", None) == name]
    [build] = [event for event in events if isinstance(event, BuildEvent)]
    assert {pool["num_threads"] for pool in build.pools} <= {1}
    assert {build.variables[variable] for variable in THREAD_VARIABLES} == {"1"}
    assert {len(event.affinity) for event in events if isinstance(event, EvaluationEvent)} == {1}


@pytest.mark.usefixtures("all_cpus")
def test_numbers_of_threads_and_replicates_are_blocks(digits: Dataset, tmp_path: Path) -> None:
    """Two numbers of threads, twice each: four blocks, each with its own workers, in tables apart."""
    counts = (1, available_cpus())
    run(digits, tmp_path / "out", "numpy", threads=counts, replicates=2, epochs=1)
    results = load(tmp_path / "out")
    assert results.runs[["threads", "replicate"]].to_numpy().tolist() == [[n, r] for n in counts for r in (1, 2)]
    assert results.runs["cpus_used"].tolist() == [n for n in counts for _ in (1, 2)]
    assert results.summary[["threads", "runs_ok"]].to_numpy().tolist() == [[n, 2] for n in counts]


@pytest.mark.mnist
def test_gate_catches_one_skipped_step_in_a_hundred(mnist: Dataset, tmp_path: Path) -> None:
    """Two epochs with every 100th step left out are enough for the gate; the run goes on to its end."""
    events = run(mnist, tmp_path / "out", str(BROKEN / "skipped_steps.py"), train_images=3000, slice_steps=200)
    end = ends(events)["skipped-steps"]
    assert end.status == "not-identical"
    assert end.reason is not None
    assert "5 are allowed" in end.reason
    assert len([e for e in events if isinstance(e, EvaluationEvent) and e.backend == "skipped-steps"]) == 2


def test_backend_that_fails_the_gate_is_not_identical(digits: Dataset, tmp_path: Path) -> None:
    """A different epsilon shows in the predictions, and its end says after which epoch."""
    out = tmp_path / "out"
    events = run(digits, out, str(BROKEN / "epsilon_1e_8.py"), train_images=1500, slice_steps=100)
    end = ends(events)["epsilon-1e-8"]
    assert end.status == "not-identical"
    assert str(end.reason).startswith("after epoch 1 it predicted ")
    assert ends(events)["numpy"].status == "ok"
    assert "not-identical" in (out / "blocks" / f"{read_plan(out).blocks[0].id}.jsonl").read_text()


def test_backend_that_failed_the_gate_stays_not_identical_whatever_comes_later(
    digits: Dataset, tmp_path: Path, adapter: Adapter
) -> None:
    """Neither a crash nor an interruption afterwards hides that it was another network."""
    wrong = method("predict(self, images)", "return np.roll(super().predict(images), self.turns > 0, axis=1)")
    crash = method("synchronize(self)", "if self.turns == 4: os._exit(3)")
    plan = make_plan(digits, [adapter("crashes", f"{wrong}\n\n{crash}"), adapter("interrupted", wrong)], **SMALL)

    def interrupt(_: Block, event: Event) -> None:
        if isinstance(event, EvaluationEvent) and event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conduct(plan, digits.folder, tmp_path / "out", interrupt)
    found = ends(read_block(tmp_path / "out", plan.blocks[0]).events)
    assert {name: end.status for name, end in found.items()} == {
        "numpy": "interrupted",
        "crashes": "not-identical",
        "interrupted": "not-identical",
        None: "interrupted",
    }
    assert "; then error: exited with code 3" in str(found["crashes"].reason)
    assert "; then interrupted" in str(found["interrupted"].reason)


def test_backends_whose_reference_is_gone_are_not_called_identical(digits: Dataset, tmp_path: Path) -> None:
    """When the reference dies the others finish, but nobody can say that they were the same network."""

    def kill_reference(_: Block, event: Event) -> None:
        if isinstance(event, EvaluationEvent) and event.backend == "scikit-learn" and event.epoch == 1:
            workers()[0].kill()

    plan = make_plan(digits, ["scikit-learn"], **SMALL)
    conduct(plan, digits.folder, tmp_path / "out", kill_reference)
    found = ends(read_block(tmp_path / "out", plan.blocks[0]).events)
    assert found["numpy"].status == "killed"
    assert found["scikit-learn"].status == "error"
    assert found["scikit-learn"].reason == "from epoch 2 on not checked: the reference was gone"


def test_slices_do_not_change_what_is_learnt(digits: Dataset, tmp_path: Path) -> None:
    """The reference's final weights are the same to the last bit, however the epoch is cut."""
    weights = []
    for slice_steps in (1, 7, 1000):
        out = tmp_path / str(slice_steps)
        run(digits, out, "numpy", slice_steps=slice_steps)
        with np.load(out / "blocks" / f"{read_plan(out).blocks[0].id}.npz", allow_pickle=False) as arrays:
            assert arrays["predicted/numpy"].shape == (2, 297)
            weights.append(arrays["weights/hidden_kernel"])
    assert np.array_equal(weights[0], weights[1])
    assert np.array_equal(weights[0], weights[2])


def test_results_of_others_are_never_overwritten(digits: Dataset, tmp_path: Path) -> None:
    """A folder that holds anything is refused, and left as it was."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other things already"):
        run(digits, tmp_path, "numpy")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.frameworks
def test_native_profile_trains_each_with_its_own_defaults(digits: Dataset, tmp_path: Path) -> None:
    """Recorded and shown as it was trained; not checked, so all are ok however far apart, and the twin is the twin."""
    out = tmp_path / "out"
    options: Any = {"dataset": "digits", "profile": "native", "aa": True, **SMALL}
    results = lockstep_run("numpy", "scikit-learn", "pytorch", out=out, **options)
    assert results.plan.profile == "native"
    assert read_plan(out) == results.plan
    runs = results.runs.set_index("backend")
    assert runs[list(Defaults._fields)].to_dict("index") == {
        name: registered()[name.removesuffix("-aa")].native_defaults()._asdict() for name in runs.index
    }
    assert set(runs["status"]) == {"ok"}
    assert set(runs["profile"]) == {"native"}
    assert runs["disagreements"].isna().all()
    hashes = {event.backend: event.weights_sha256 for event in events_of(out) if isinstance(event, BuildEvent)}
    assert hashes["numpy-aa"] == hashes["numpy"]
    assert len(set(hashes.values())) == 3
    last = results.epochs[results.epochs["epoch"] == 2].set_index("backend")["test_loss"]
    assert last["numpy-aa"] == last["numpy"]
    assert last.nunique() == 3
    text = (out / "summary.md").read_text() + "".join(path.read_text() for path in out.glob("charts/*.svg"))
    assert text.splitlines()[0].startswith("# lockstep, native defaults, networks not identical: digits")
    assert "| fan-in-uniform | 1e-08 | √(v / (1 - β₂ᵗ)) | 0 |" in text
    assert all(
        "The networks are not identical" in path.read_text() for path in (out / "summary.md", *out.glob("charts/*.svg"))
    )
    for phrase in ("same network", "disagree", "predicted differently", "coincide"):
        assert phrase not in text


def test_native_epsilon_reaches_the_backend(digits: Dataset, tmp_path: Path, adapter: Adapter) -> None:
    """From the reference's weights, but with an epsilon of its own, a backend learns otherwise."""
    lines = ("from lockstep_bench.backends.base import Defaults", "return Defaults(epsilon=1e-2)")
    events = run(digits, tmp_path / "out", adapter("slow", method("native_defaults(self)", *lines)), profile="native")
    builds = {event.backend: event for event in events if isinstance(event, BuildEvent)}
    assert builds["slow"].weights_sha256 == builds["numpy"].weights_sha256
    assert (builds["slow"].epsilon, builds["numpy"].epsilon) == (1e-2, 1e-7)
    losses = {event.backend: event.test_loss for event in events if isinstance(event, EvaluationEvent)}
    assert losses["slow"] > losses["numpy"] + 0.01


def test_defaults_that_there_are_not_end_the_run_of_their_backend(
    digits: Dataset, tmp_path: Path, adapter: Adapter
) -> None:
    """An initializer that nobody knows is named; the others finish."""
    lines = ("from lockstep_bench.backends.base import Defaults", "return Defaults('ones')")
    faulty = adapter("ones", method("native_defaults(self)", *lines))
    events = run(digits, tmp_path / "out", faulty, profile="native")
    assert {name: end.status for name, end in ends(events).items()} == {"numpy": "ok", "ones": "error", None: "ok"}
    assert "there is no initializer ones: take one of glorot-uniform" in str(ends(events)["ones"].reason)


def test_order_is_checked_in_the_native_profile_too(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that trained on another order than the first is out."""
    ask = WorkerProcess.ask

    def forged(self: WorkerProcess, do: str, **arguments: Any) -> dict[str, Any]:
        reply = ask(self, do, **arguments)
        return reply | {"order_sha256": "other"} if (do, self.spec) == ("evaluate", "scikit-learn") else reply

    monkeypatch.setattr(WorkerProcess, "ask", forged)
    end = ends(run(digits, tmp_path / "out", "scikit-learn", profile="native"))["scikit-learn"]
    assert (end.status, end.reason) == ("error", "its images of epoch 1 are not those of the others")


def test_every_seed_is_a_block_with_an_order_of_its_own(digits: Dataset, tmp_path: Path) -> None:
    """Two seeds give two raw files, from different weights, and a row per run."""
    events = run(digits, tmp_path / "out", "numpy", seeds=(3, 5), epochs=1)
    assert len({event.weights_sha256 for event in events if isinstance(event, BuildEvent)}) == 2
    assert list(load(tmp_path / "out").runs["seed"]) == [3, 5]


def test_what_a_framework_prints_goes_to_its_log(digits: Dataset, tmp_path: Path, adapter: Adapter) -> None:
    """Standard output and error of a worker end in its own log file and disturb nothing."""
    loud = adapter("loud", method("synchronize(self)", "os.write(1, b'to stdout')", "os.write(2, b'to stderr')"))
    events = run(digits, tmp_path / "out", loud)
    assert ends(events)["loud"].status == "ok"
    [log] = (tmp_path / "out" / "logs").glob("*/loud.log")
    assert "to stdoutto stderr" in log.read_text()
