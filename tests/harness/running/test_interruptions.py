"""A conductor that is ended at any moment leaves no worker behind, and what it began is completed by --resume."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from lockstep_bench.backends import registered
from lockstep_bench.harness import run as lockstep_run
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.machine import identity
from lockstep_bench.harness.records.format import EndEvent, Plan
from lockstep_bench.harness.records.raw_files import block_path, plan_path, read_block, read_plan
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.running.plan import make_plan
from lockstep_bench.harness.tables.results import load
from support.command import LOCKSTEP, lockstep, lockstep_process
from support.once import once

KILLS = int(os.environ.get("LOCKSTEP_TEST_KILLS", "4"))
"""200 in `tox -e endurance`."""
SECONDS = 120.0
"""For anything to happen on a slow machine."""
PLAN: dict[str, Any] = {"epochs": 2, "train_images": 150, "slice_steps": 4, "threads": 1, "seeds": (0, 1)}
SHORT = """
import sys
from pathlib import Path
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.running.plan import make_plan

digits = find_dataset("digits")
plan = make_plan(digits, ["numpy"], aa=True, **{options})
conduct(plan, digits.folder, Path(sys.argv[1]), extras=False, resume=True)
"""
SAME = {
    "runs": ["backend", "seed", "status", "block", "reason", "epochs_done", "test_error_percent", "test_loss"],
    "epochs": ["backend", "seed", "epoch", "status", "block", "train_loss", "test_loss", "weights_difference"],
    "turns": ["backend", "seed", "epoch", "status", "block", "round", "start", "stop", "steps", "train_loss"],
    "summary": ["backend", "status", "runs", "runs_ok", "test_error_percent", "seeds", "disagreements"],
    "ratios": ["backend", "other", "rounds"],
}
"""Of each table what does not depend on time."""


def start(out: Path) -> "subprocess.Popen[bytes]":
    """A process that completes a short plan in a folder."""
    return subprocess.Popen([sys.executable, "-c", SHORT.replace("{options}", repr(PLAN)), str(out)])


def timeless(out: Path) -> dict[str, pd.DataFrame]:
    """The tables of a folder as far as they do not depend on time, and the arrays."""
    results = load(out)
    tables = {name: getattr(results, name)[columns] for name, columns in SAME.items()}
    return {name: table.sort_values(list(table.columns[:6])).reset_index(drop=True) for name, table in tables.items()}


def workers_in(folder: Path) -> list[psutil.Process]:
    """The worker processes that write their log into a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(f"/proc/{process.pid}/fd/1").readlink().is_relative_to(folder):
                found.append(process)
    return found


def see_that_no_worker_is_left(folder: Path) -> None:
    """They end by themselves, soon after the conductor."""
    late = time.monotonic() + SECONDS
    while workers_in(folder):
        assert time.monotonic() < late, workers_in(folder)
        time.sleep(0.05)


@pytest.mark.timeout(7200)
def test_a_plan_killed_at_any_moment_is_completed_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Killed at random moments, then resumed: no worker is left, and the tables, timings aside, are those of one go.

    Blocks that had come to their end stay byte for byte, and nothing is counted twice.
    """
    moments = random.Random(7)
    undisturbed = tmp_path / "undisturbed"
    begin = time.monotonic()
    assert start(undisturbed).wait() == 0
    whole = time.monotonic() - begin
    expected = timeless(undisturbed)
    for number in range(KILLS):
        out = tmp_path / f"killed-{number}"
        process = start(out)
        time.sleep(moments.uniform(0.1, 1.0) * whole)
        process.kill()
        process.wait()
        see_that_no_worker_is_left(out)
        before = {path: path.read_bytes() for path in out.glob("blocks/*.jsonl")}
        complete = [block.id for block in read_plan(out).blocks if read_block(out, block).complete] if before else []
        assert start(out).wait() == 0
        for path, content in before.items():
            now = path.read_bytes()
            assert now == content if path.stem in complete else now.startswith(content[: content.rfind(b"\n") + 1])
        found = timeless(out)
        for name, table in expected.items():
            pd.testing.assert_frame_equal(found[name], table, obj=f"{name} after kill {number}")
        for block in read_plan(out).blocks:
            ours, theirs = (np.load(block_path(folder, block, "npz")) for folder in (out, undisturbed))
            assert sorted(ours.files) == sorted(theirs.files)
            assert all(np.array_equal(ours[array], theirs[array]) for array in ours.files)


Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin_run(tmp_path: Path) -> Iterator[Begin]:
    """Begin `lockstep run` into the folder `out`, as its own process group's leader; it has its first turn behind it.

    Whatever becomes of the test, the run does not outlive it.
    """
    begun: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*LOCKSTEP, "run", "numpy", *arguments, "--dataset", "digits", "--epochs", "500", "--out", "out"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heed_signals,
        )
        begun.append(process)
        late = time.monotonic() + SECONDS
        while '"event":"turn"' not in "".join(path.read_text() for path in (tmp_path / "out").glob("blocks/*.jsonl")):
            assert time.monotonic() < late
            assert process.poll() is None
            time.sleep(0.05)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def heed_signals() -> None:
    """Let signals end a process that a shell in the background, or `nohup`, would have ignore them."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("state", ["computing", "stopped", "hanging in a turn"])
def test_workers_end_when_their_conductor_is_killed(begin_run: Begin, tmp_path: Path, state: str) -> None:
    """Whatever they are doing: one that computes, one that is stopped, and one that never comes back."""
    hang = "while self.turns == 2: pass" if state == "hanging in a turn" else "pass"
    adapter = tmp_path / "mine.py"
    adapter.write_text(
        "from lockstep_bench.backends.numpy import NumPy\n\n\nclass Mine(NumPy):\n    name = 'mine'\n    turns = 0\n\n"
        f"    def train(self, order):\n        self.turns += 1\n        {hang}\n        return super().train(order)\n"
    )
    out = tmp_path / "out"
    process = begin_run(str(adapter))
    if state == "stopped":
        for worker in workers_in(out):
            worker.suspend()
    assert len(workers_in(out)) == 3
    process.kill()
    process.communicate()
    see_that_no_worker_is_left(out)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_run_in_order(begin_run: Begin, tmp_path: Path, name: str) -> None:
    """Exit code 1, one sentence that says how to go on, the workers gone, and the record names the signal."""
    process = begin_run("--no-report")
    process.send_signal(signal.Signals[name])
    see_that_no_worker_is_left(tmp_path / "out")
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "go on with: lockstep run --resume --out out" in errors
    assert "Traceback" not in errors
    recorded = read_block(tmp_path / "out", read_plan(tmp_path / "out").blocks[0])
    found = {event.backend: (event.status, event.reason) for event in recorded.events if isinstance(event, EndEvent)}
    assert found == dict.fromkeys(["numpy", None], ("interrupted", f"the run was interrupted by {name}"))


INTERRUPTS = """
import os, signal, time
from pathlib import Path

from lockstep_bench.backends.numpy import NumPy


def interrupt():
    if not Path("interrupted").exists():
        Path("interrupted").touch()
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(600)


class Interrupts(NumPy):
    name = "interrupts"

    def PHASE(self, *arguments):
        if CONDITION:
            interrupt()
        return super().PHASE(*arguments)
"""


@pytest.mark.parametrize(
    ("phase", "method", "condition"),
    [
        ("starting", "build", "True"),
        ("training", "train", "True"),
        ("evaluating", "weights", "True"),
        ("measuring", "predict", "len(arguments[0]) == 1"),
    ],
)
def test_an_interrupt_in_any_phase_names_it_and_the_run_is_completed(
    tmp_path: Path, phase: str, method: str, condition: str
) -> None:
    """One sentence, exit code 1; `--resume` completes it, and after training there is nothing left to be run."""
    source = INTERRUPTS.replace("PHASE", method).replace("CONDITION", condition)
    (tmp_path / "interrupts.py").write_text(source)
    options = ["./interrupts.py", "--dataset", "digits", "--epochs", "1", "--no-report", "--out", "out"]
    interrupted = lockstep_process("run", *options, cwd=tmp_path)
    assert interrupted.returncode == 1
    sentence = f"interrupted while {phase}: what was done is in out; go on with: lockstep run --resume --out out"
    assert sentence in interrupted.stderr
    assert read_block(tmp_path / "out", read_plan(tmp_path / "out").blocks[0]).complete is (phase == "measuring")
    resumed = lockstep_process("run", *options, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert load(tmp_path / "out").runs["status"].tolist() == ["ok", "ok"]


def test_an_interrupt_in_the_report_says_how_to_make_it(tmp_path: Path) -> None:
    """All that was measured is there; `lockstep report` makes the rest."""
    process = subprocess.Popen(
        [*LOCKSTEP, "run", "numpy", "--dataset", "digits", "--epochs", "1", "--out", "out"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("writing the report"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted while writing the report: all that was measured is in out" in errors
    assert "Traceback" not in errors
    assert lockstep("report", "out", cwd=tmp_path).returncode == 0


def test_a_closed_terminal_ends_a_run_in_order(begin_run: Begin, tmp_path: Path) -> None:
    """SIGHUP with nobody left to read what is printed: what was done is recorded all the same."""
    process = begin_run()
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=SECONDS) == 1
    see_that_no_worker_is_left(tmp_path / "out")
    recorded = read_block(tmp_path / "out", read_plan(tmp_path / "out").blocks[0])
    assert recorded.events[-1] == EndEvent(
        backend=None, status="interrupted", reason="the run was interrupted by SIGHUP"
    )
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_run_whose_reader_goes_away_goes_on(tmp_path: Path) -> None:
    """`lockstep run | head` ends the reader, not the run."""
    run = subprocess.Popen(
        [*LOCKSTEP, "run", "numpy", "--dataset", "digits", "--train-images", "150", "--epochs", "3", "--out", "out"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout
    run.stdout.close()
    _, errors = run.communicate(timeout=SECONDS)
    assert b"Traceback" not in errors
    assert load(tmp_path / "out").runs["status"].tolist() == ["ok"]
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.fixture(scope="module")
def broken_off(digits: Dataset, shared: Path) -> Path:
    """The results of a run of NumPy with two seeds, the second of which breaks off."""

    def make(out: Path) -> None:
        plan = make_plan(digits, ["numpy"], **{**PLAN, "epochs": 1})
        conduct(plan, digits.folder, out, extras=False)
        last = block_path(out, plan.blocks[-1], "jsonl")
        last.write_bytes(last.read_bytes()[:-200])

    return once(shared / "broken-off", make)


@pytest.fixture
def cut_short(broken_off: Path, tmp_path: Path) -> Path:
    """A copy of those results."""
    return Path(copytree(broken_off, tmp_path / "out"))


@pytest.mark.usefixtures("undrawn")
def test_a_run_is_resumed_by_its_folder_alone(cut_short: Path, tmp_path: Path) -> None:
    """`lockstep run --resume --out out` takes the plan from there; the page says that a block was run again."""
    out = cut_short
    first = block_path(out, read_plan(out).blocks[0], "jsonl").read_bytes()
    done = lockstep("run", "--resume", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert load(out).runs["status"].tolist() == ["ok", "ok"]
    assert block_path(out, read_plan(out).blocks[0], "jsonl").read_bytes() == first
    assert "seed-1-threads-1-cpu was run again: 1 attempt before" in (out / "summary.md").read_text()


def changed_backend(plan: Plan, **change: Any) -> Plan:
    """The plan with something else in its last backend."""
    return plan.model_copy(update={"backends": [*plan.backends[:-1], plan.backends[-1].model_copy(update=change)]})


OTHERS: dict[str, Callable[[Plan], Plan]] = {
    "lockstep 0.0.1": lambda plan: plan.model_copy(update={"lockstep": "0.0.1"}),
    "python 3.11.0": lambda plan: plan.model_copy(update={"python": "3.11.0"}),
    "backends numpy versions numpy 1.0": lambda plan: changed_backend(plan, versions={"numpy": "1.0"}),
    "backends numpy source_sha256 55": lambda plan: changed_backend(plan, source_sha256="55"),
    "dataset sha256 55": lambda plan: plan.model_copy(
        update={"dataset": plan.dataset.model_copy(update={"sha256": "55"})}
    ),
    "slice_steps 9": lambda plan: plan.model_copy(update={"slice_steps": 9}),
    "blocks more id more": lambda plan: plan.model_copy(
        update={"blocks": [*plan.blocks, plan.blocks[0].model_copy(update={"id": "more"})]}
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_not_the_same_any_more_is_not_resumed(cut_short: Path, what: str) -> None:
    """After an upgrade, with other data or another plan: refused with what differs, and nothing is written."""
    plan_path(cut_short).write_text(OTHERS[what](read_plan(cut_short)).model_dump_json())
    before = {path: path.read_bytes() for path in cut_short.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=f"was begun with {what}"):
        lockstep_run("numpy", out=cut_short, dataset="digits", resume=True, **{**PLAN, "epochs": 1})
    assert {path: path.read_bytes() for path in cut_short.rglob("*") if path.is_file()} == before


def test_blocks_that_failed_are_run_again_only_when_asked_for(digits: Dataset, tmp_path: Path) -> None:
    """A failed backend's block is complete; --retry-failed runs it again below, and keeps what it was."""
    adapter = tmp_path / "mine.py"
    source = "from lockstep_bench.backends.numpy import NumPy\nfrom pathlib import Path\n\n\nclass Mine(NumPy):\n"
    source += (
        f"    name = 'mine'\n\n    def train(self, order):\n        assert Path({str(tmp_path / 'good')!r}).exists()\n"
    )
    adapter.write_text(source + "        return super().train(order)\n")
    out, options = tmp_path / "out", {**PLAN, "epochs": 1, "seeds": (0,)}
    plan = make_plan(digits, [str(adapter)], **options)
    conduct(plan, digits.folder, out, extras=False)
    first = block_path(out, plan.blocks[0], "jsonl").read_bytes()
    conduct(plan, digits.folder, out, extras=False, resume=True)
    assert block_path(out, plan.blocks[0], "jsonl").read_bytes() == first
    (tmp_path / "good").touch()
    conduct(plan, digits.folder, out, extras=False, resume=True, retry_failed=True)
    assert load(out).runs["status"].tolist() == ["ok", "ok"]
    assert block_path(out, plan.blocks[0], "jsonl").read_bytes().startswith(first)


def test_a_block_names_the_machine_that_it_ran_on(digits: Dataset, tmp_path: Path) -> None:
    """Not that of the plan: the folder was begun elsewhere, and what is run here is kept apart."""
    plan = make_plan(digits, ["numpy"], **PLAN).model_copy(update={"machine": "another, 2 CPUs, 4 GiB"})
    conduct(plan, digits.folder, tmp_path / "out", extras=False)
    assert set(load(tmp_path / "out").runs["machine"]) == {identity.machine_name()}


def test_a_cache_of_another_dataset_is_not_trained_on(digits: Dataset, tmp_path: Path) -> None:
    """The dataset is held against the plan's hash before every block."""
    plan = make_plan(digits, ["numpy"], **PLAN)
    other = plan.model_copy(update={"dataset": plan.dataset.model_copy(update={"sha256": "5" * 64})})
    with pytest.raises(LockstepError, match="is not what was planned with"):
        conduct(other, digits.folder, tmp_path / "out", extras=False)
    assert read_block(tmp_path / "out", plan.blocks[0]).events == []


def test_every_registered_backend_is_planned_with_its_source() -> None:
    """So that a resumed run can see that an adapter has changed."""
    assert all(backend.source_sha256() for backend in registered().values())
