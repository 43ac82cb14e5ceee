"""What is recorded of a worker and of a turn must be what happened."""

import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from lockstep_bench.harness import conditions
from lockstep_bench.harness.conditions import Watch

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
    done = threading.Event()

    def work() -> None:
        until = time.thread_time() + 0.4
        while time.thread_time() < until:
            np.multiply(left, right)
        done.wait()

    threads = [threading.Thread(target=work) for _ in range(2)] + [threading.Thread(target=done.wait)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    while sum(conditions.thread_seconds().values()) < sum(before.values()) + 0.7:
        time.sleep(0.05)
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
    assert conditions.peak_memory_bytes() >= held - 5_000_000


def test_variables_that_bear_on_speed_are_recorded_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thread counts as they are, of a path its last part, and nothing that is none of its business."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("LD_PRELOAD", "/home/someone/libfast.so")
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", "/home/someone/else")
    monkeypatch.setenv("MY_OMP_SECRET", "1")
    found = conditions.speed_variables()
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["LD_PRELOAD"] == "libfast.so"
    assert not {"TF_CLI_CONFIG_FILE", "MY_OMP_SECRET"} & set(found)


def test_pools_name_their_library_and_threads() -> None:
    """NumPy's BLAS is one, and no path is among what is told."""
    pools = conditions.thread_pools()
    assert any(pool["user_api"] == "blas" and pool["num_threads"] >= 1 for pool in pools)
    assert not any("/" in str(value) for pool in pools for value in pool.values())
