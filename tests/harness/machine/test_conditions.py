"""What is recorded of a worker and of a turn must be what happened."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from lockstep_bench.harness import load
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.machine import conditions
from lockstep_bench.harness.machine.conditions import Watch
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.running.plan import make_plan

SPIN = "print(flush=True)\nwhile True: pass"
SLEEP = "import time; print(flush=True); time.sleep(60)"


def process(code: str) -> "subprocess.Popen[bytes]":
    """A Python process that has got to its work."""
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert started.stdout is not None
    started.stdout.readline()
    return started


def test_a_process_that_spins_while_it_waits_is_seen() -> None:
    """It uses a notable part of the time, another that sleeps nothing, one that has died is left out."""
    spinning, sleeping, dead = process(SPIN), process(SLEEP), process(SLEEP)
    try:
        watch = Watch({"spins": spinning.pid, "sleeps": sleeping.pid, "dies": dead.pid})
        dead.kill()
        dead.wait()
        time.sleep(1.0)
        found = watch.conditions()
    finally:
        for each in (spinning, sleeping):
            each.kill()
            each.communicate()
        dead.communicate()
    assert found["waiting_seconds"]["spins"] > 0.1
    assert found["waiting_seconds"]["sleeps"] < 0.01
    assert "dies" not in found["waiting_seconds"]
    assert found["load_average"] >= 0
    assert found["steal_percent"] is None or 0 <= found["steal_percent"] <= 100


def test_the_clock_of_another_process_is_its_cpu_time() -> None:
    """As psutil has it, in hundredths of a second; a process that is gone has none."""
    spinning = process(SPIN)
    time.sleep(0.3)
    seconds = conditions.cpu_seconds(spinning.pid)
    times = psutil.Process(spinning.pid).cpu_times()
    spinning.kill()
    spinning.communicate()
    assert seconds == pytest.approx(times.user + times.system, abs=0.1)
    assert conditions.cpu_seconds(spinning.pid) is None


def test_threads_that_work_are_counted() -> None:
    """Two besides this one, which waits; one that only sleeps is not among them."""
    before = conditions.thread_seconds()
    left, right = np.random.default_rng(0).standard_normal((2, 400_000))
    worked, done = threading.Semaphore(0), threading.Event()

    def work() -> None:
        until = time.thread_time() + 0.4
        while time.thread_time() < until:
            np.multiply(left, right)
        worked.release()
        done.wait()

    threads = [threading.Thread(target=work) for _ in range(2)] + [threading.Thread(target=done.wait)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        worked.acquire()
    used = conditions.busy_threads(before)
    done.set()
    for thread in threads:
        thread.join()
    assert used == 2


def test_peak_memory_is_the_most_and_stays() -> None:
    """100 MB that were given back are in the peak, to within what Linux counts late, and not in what is held."""
    before = conditions.memory_bytes()
    block = np.ones(12_500_000)
    held = conditions.memory_bytes()
    del block
    assert held >= before + 90_000_000
    assert conditions.memory_bytes() <= held - 90_000_000
    peak = conditions.peak_memory_bytes()
    assert peak is not None
    assert peak >= held - 5_000_000


def test_pools_name_their_library_and_threads() -> None:
    """NumPy's BLAS is one, and no path is among what is told."""
    pools = conditions.thread_pools()
    assert any(pool["user_api"] == "blas" and pool["num_threads"] >= 1 for pool in pools)
    assert not any("/" in str(value) for pool in pools for value in pool.values())


def test_a_turn_in_which_the_machine_was_suspended_is_marked(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour between the two clocks in the fourth turn: it is in that turn's row, and makes its backend unstable."""
    asked = 0

    def clock() -> float:
        nonlocal asked
        asked += 1
        return 3600.0 if asked > 7 else 0.0  # it is asked before and after each turn

    monkeypatch.setattr(conditions, "suspended_seconds", clock)
    plan = make_plan(digits, ["numpy"], epochs=2, train_images=300, slice_steps=4, threads=1)
    conduct(plan, digits.folder, tmp_path, extras=False)
    results = load(tmp_path)
    assert results.turns["suspended_seconds"].tolist() == [0, 0, 0, 3600, *[0] * 6]
    assert "suspended_seconds 3.6e+03" in results.summary["unstable"][0]


def test_a_machine_that_stays_awake_is_not_called_suspended() -> None:
    """The two clocks are read one after the other, and differ by no more than that."""
    watch = Watch({})
    time.sleep(0.2)
    assert watch.conditions()["suspended_seconds"] == 0
    assert conditions.suspended_seconds() > -1e-3


def test_a_wall_clock_that_jumps_changes_nothing(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day back, in the worker and in the conductor: seconds are as ever, none negative, and the run ends ok."""
    adapter = tmp_path / "jumps.py"
    adapter.write_text(
        "import time\nfrom lockstep_bench.backends.numpy import NumPy\n\n\nclass Jumps(NumPy):\n    name = 'jumps'\n\n"
        "    def train(self, order):\n        now = time.time()\n        time.time = lambda: now - 86_400\n"
        "        return super().train(order)\n"
    )
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400 * (int(real() * 10) % 2))
    plan = make_plan(digits, [str(adapter)], epochs=2, train_images=300, slice_steps=4, threads=1)
    conduct(plan, digits.folder, tmp_path / "out", extras=False)
    results = load(tmp_path / "out")
    assert set(results.runs["status"]) == {"ok"}
    assert results.turns["train_seconds"].between(0, 10).all()
    assert results.turns["at_seconds"].between(0, 120).all()
