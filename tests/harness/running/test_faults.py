"""Whatever becomes of a worker, its record says it, the others finish, and no process is left."""

from collections import Counter
from pathlib import Path
from textwrap import indent
from typing import Any

import psutil
import pytest

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.records.format import EndEvent, EvaluationEvent
from lockstep_bench.harness.records.raw_files import Recorded, read_block
from lockstep_bench.harness.running import worker_process
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.running.plan import make_plan
from lockstep_bench.harness.running.process_guard import guard
from lockstep_bench.harness.running.worker_process import LOG_BYTES, WorkerProcess

PHASES = ("build", "first-turn", "later-turn", "evaluation", "exit")
ADAPTER = """
import atexit, os, resource, signal, subprocess, sys, time
import numpy as np
from lockstep_bench.backends.numpy import NumPy


class Faulty(NumPy):
    name = "{phase}"
    turns = 0

    def fault(self):
{fault}

    def build(self, *arguments):
        super().build(*arguments)
        if self.name == "build":
            self.fault()
        elif self.name == "exit":
            atexit.register(self.fault)

    def train(self, order):
        self.turns += 1
        if (self.name, self.turns) in (("first-turn", 1), ("later-turn", {later})):
            self.fault()
        return super().train(order)

    def predict(self, images):
        if self.name == "evaluation":
            self.fault()
        return super().predict(images)
"""
LATER = 3
"""The turn to train in which an adapter fails later."""
AMPLE, HANGS = 60.0, 0.3
"""Seconds for a turn: more than any import takes on a slow machine, and what a worker is given that hangs for ever."""
DO = {"build": "build", "first-turn": "train", "later-turn": "train", "evaluation": "evaluate"}
FAULTS: dict[str, tuple[str, str, str, str | None]] = {
    "raises": ("raise RuntimeError('out of luck')", "error", "in its turn to {do}: RuntimeError: out of luck", None),
    "exits": ("os._exit(3)", "error", "exited with code 3 in its turn to {do}", "it exited with code 3"),
    "killed": (
        "os.kill(os.getpid(), signal.SIGKILL)",
        "killed",
        "killed by SIGKILL in its turn to {do}",
        "it killed by SIGKILL",
    ),
    "segmentation-fault": (
        "import ctypes; ctypes.string_at(0)",
        "killed",
        "killed by SIGSEGV in its turn to {do}",
        "it killed by SIGSEGV",
    ),
    "out-of-memory": (
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33)); np.ones(1 << 32)",
        "error",
        "in its turn to {do}: MemoryError: Unable to allocate",
        None,
    ),
    "loops": (
        "while True: pass",
        "timeout",
        f"no reply within {HANGS:g} s in its turn to {{do}}",
        "ran on and was killed",
    ),
    "stopped": (
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "timeout",
        f"no reply within {HANGS:g} s in its turn to {{do}}",
        "ran on and was killed",
    ),
    "leaves-a-child": (
        "subprocess.Popen(['sleep', '600']); os.kill(os.getpid(), signal.SIGKILL)",
        "killed",
        "killed by SIGKILL in its turn to {do}",
        "it killed by SIGKILL",
    ),
    "closes-its-pipe": (
        "os.close(int(sys.argv[1]))",
        "error",
        "exited with code 1 in its turn to {do}",
        None,
    ),
    "half-a-line": (
        "os.write(int(sys.argv[1]), b'{half')",
        "error",
        "what it sent in its turn to {do} is no reply",
        None,
    ),
    "a-line-too-long": (
        "[os.write(int(sys.argv[1]), b'x' * 65536) for _ in range(40)]",
        "error",
        "is no reply: it is longer than",
        None,
    ),
    "another-object": (
        "os.write(int(sys.argv[1]), b'{}\\n')",
        "error",
        "what it sent is no",
        None,
    ),
    "floods": (
        "[os.write(stream, b'flood ' * 10_000) for _ in range(900) for stream in (1, 2)]",
        "ok",
        "",
        None,
    ),
}
"""What an adapter does, the status that it gets, the reason, and what is said of it at exit, when all was done."""


def run(dataset: Dataset, out: Path, *adapters: str) -> Recorded:
    """A small run of these beside NumPy and NumPy again."""
    sizes: dict[str, Any] = {"epochs": 2, "train_images": 300, "slice_steps": 8, "threads": 1}
    plan = make_plan(dataset, ["numpy", *adapters], aa=True, turn_timeout=AMPLE, **sizes)
    conduct(plan, dataset.folder, out, extras=False)
    return read_block(out, plan.blocks[0])


def ends(recorded: Recorded) -> dict[str | None, EndEvent]:
    """How each backend ended, and the block."""
    return {event.backend: event for event in recorded.events if isinstance(event, EndEvent)}


def see_that_the_others_finished(recorded: Recorded) -> None:
    """All epochs of them, the block, and no process but the guard."""
    assert recorded.complete
    for name in ("numpy", "numpy-aa"):
        assert ends(recorded)[name].status == "ok"
        epochs = [
            event.epoch for event in recorded.events if isinstance(event, EvaluationEvent) and event.backend == name
        ]
        assert epochs == [1, 2]
    left = [one for one in psutil.Process().children(recursive=True) if one.pid != guard().process.pid]
    assert left == []
    sleeping = [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "600"]]
    assert sleeping == []


def give_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait briefly for the reply that never comes, and for the exit that does not: for all else amply."""
    asked, ask, close = Counter[tuple[str, str]](), WorkerProcess.ask, WorkerProcess.close

    def ask_briefly(self: WorkerProcess, do: str, **arguments: Any) -> dict[str, Any]:
        phase = Path(self.spec).stem
        asked[phase, do] += 1
        hangs = do == DO.get(phase) and asked[phase, do] == (LATER if phase == "later-turn" else 1)
        self.timeout = HANGS if hangs else AMPLE
        return ask(self, do, **arguments)

    def close_briefly(self: WorkerProcess, at_once: bool = False) -> int | None:
        with monkeypatch.context() as patch:
            if Path(self.spec).stem == "exit":
                patch.setattr(worker_process, "EXIT_SECONDS", HANGS)
            return close(self, at_once)

    monkeypatch.setattr(WorkerProcess, "ask", ask_briefly)
    monkeypatch.setattr(WorkerProcess, "close", close_briefly)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_s_fault_is_recorded_at_every_phase(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """At build, in the first turn, in a later one, in evaluation and at exit: what happened, and in which turn."""
    body, status, reason, at_exit = FAULTS[fault]
    for phase in PHASES:
        text = ADAPTER.format(phase=phase, later=LATER, fault=indent(body, " " * 8))
        (tmp_path / f"{phase}.py").write_text(text)
    adapters = [str(tmp_path / f"{phase}.py") for phase in PHASES]
    if status == "timeout":
        give_up_soon(monkeypatch)
    recorded = run(digits, tmp_path / "out", *adapters)
    see_that_the_others_finished(recorded)
    found = ends(recorded)
    for phase in PHASES[:-1]:
        assert found[phase].status == status, found[phase]
        assert reason.format(do=DO[phase]) in str(found[phase].reason or "")
    assert found["exit"].status == "ok"
    assert (at_exit or "") in str(found["exit"].reason or "")
    assert bool(found["exit"].reason) == bool(at_exit)
    assert all(log.stat().st_size < 2 * LOG_BYTES + 100 for log in tmp_path.glob("out/logs/*/*.log"))


METHODS = {
    "nan-loss": ("train", "float('nan')", "diverged", "the training loss is nan in epoch 1"),
    "infinite-loss": ("train", "float('inf')", "diverged", "the training loss is inf in epoch 1"),
    "no-loss": ("train", "None", "error", "in its turn to train: TypeError"),
    "loss-in-words": ("train", "'small'", "error", "in its turn to train: ValueError: could not convert"),
    "nan-prediction": ("predict", "np.full((len(given), 10), np.nan)", "diverged", "probabilities are not finite"),
    "infinite-prediction": ("predict", "np.full((len(given), 10), np.inf)", "diverged", "probabilities are not finite"),
    "wrong-shape": ("predict", "np.zeros((3, 10))", "error", "shape (3, 10) for 297 images"),
    "sums-to-two": ("predict", "2 * super().predict(given)", "error", "a row adds up to 1 only within 1"),
    "negative": ("predict", "-super().predict(given)", "error", "predict must return probabilities"),
    "words": ("predict", "'zero'", "error", "in its turn to evaluate: "),
}


def test_an_answer_that_is_none_is_recorded(digits: Dataset, tmp_path: Path) -> None:
    """Losses and predictions that are not numbers, not finite, of another shape, or no probabilities."""
    for name, (method, value, _, _) in METHODS.items():
        (tmp_path / f"{name}.py").write_text(
            "import numpy as np\nfrom lockstep_bench.backends.numpy import NumPy\n\n\nclass Faulty(NumPy):\n"
            f"    name = '{name}'\n\n    def {method}(self, given):\n        return {value}\n"
        )
    recorded = run(digits, tmp_path / "out", *(str(tmp_path / f"{name}.py") for name in METHODS))
    see_that_the_others_finished(recorded)
    for name, (_, _, status, reason) in METHODS.items():
        assert ends(recorded)[name].status == status, ends(recorded)[name]
        assert reason in str(ends(recorded)[name].reason)
