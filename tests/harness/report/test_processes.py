"""Functions run in several processes return what they would in one, fail as in one, and leave no process behind."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep_bench.harness.report import processes
from lockstep_bench.harness.report.processes import Processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there are processes forked")


def children() -> str:
    """The processes that this one has started and not waited for, by number."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()


def numbered(number: int) -> Callable[[], tuple[int, int]]:
    """A function that returns its number and the process that ran it."""
    return lambda: (number, os.getpid())


@pytest.mark.parametrize("most", [1, 2, 4])
def test_results_are_in_order_and_from_no_more_processes_than_asked_for(most: int) -> None:
    """One process runs all by itself."""
    with Processes(most) as some:
        results = some.map([numbered(number) for number in range(50)])
    assert [number for number, _ in results] == list(range(50))
    assert 1 <= len({process for _, process in results}) <= most
    assert children() == ""


def test_several_processes_are_at_work_at_a_time() -> None:
    """Each of two functions waits for what the other does."""
    (first_reading, first), (second_reading, second) = os.pipe(), os.pipe()

    def meet(reading: int, writing: int) -> int:
        os.write(writing, b".")
        os.read(reading, 1)
        return os.getpid()

    with Processes(2) as some:
        here, there = some.map([lambda: meet(first_reading, second), lambda: meet(second_reading, first)])
    assert here != there
    assert here == os.getpid() or there == os.getpid()


def test_an_exception_is_the_one_that_the_function_raises() -> None:
    """Whichever process came upon it first, with its own message."""

    def fail() -> int:
        raise ValueError("this chart cannot be drawn")

    with Processes(2) as some, pytest.raises(ValueError, match="this chart cannot be drawn"):
        some.map([lambda: 1, fail, lambda: 2, lambda: 3])
    assert children() == ""


def test_what_a_process_that_dies_had_to_do_is_done_here() -> None:
    """As when the kernel ends it for want of memory."""
    here = os.getpid()
    reading, writing = os.pipe()

    def die() -> bytes:
        if os.getpid() != here:
            os.write(writing, b".")
            os.kill(os.getpid(), signal.SIGKILL)
        return b"here"

    with Processes(2) as some:
        assert some.start(die).result() == b"here"
        assert os.read(reading, 1) == b"."
        assert some.map([lambda: os.read(reading, 1), die, die]) == [b".", b"here", b"here"]


def test_without_room_for_a_process_a_function_is_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one CPU, and where the system forks no more."""
    with Processes(1) as one:
        assert one.start(os.getpid).result() == os.getpid()
    monkeypatch.setattr(os, "fork", lambda: (_ for _ in ()).throw(BlockingIOError("no more processes")))
    with Processes(4) as some:
        assert some.start(os.getpid).result() == os.getpid()
        assert set(some.map([os.getpid] * 9)) == {os.getpid()}


def test_there_are_never_more_processes_than_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is at work already counts."""
    monkeypatch.setattr(processes, "cpus", lambda: 2)
    reading, writing = os.pipe()
    with Processes() as some:
        busy = some.start(lambda: os.read(reading, 1))
        assert not some.has_room()
        assert set(some.map([os.getpid] * 9)) == {os.getpid()}
        os.write(writing, b".")
        assert busy.result() == b"."
        assert some.has_room()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_no_process_is_left_when_the_work_is_interrupted(kind: type[BaseException]) -> None:
    """Ctrl-C, as well as a chart that fails, ends a process that would take for ever."""
    reading, _writing = os.pipe()

    def work() -> None:
        with Processes(2) as some:
            some.start(lambda: os.read(reading, 1))
            assert children() != ""
            raise kind

    with pytest.raises(kind):
        work()
    assert children() == ""


def test_other_threads_of_the_caller_are_in_nobodys_way() -> None:
    """A thread that holds a lock, and one that starts, works and ends all the time."""
    ended = threading.Event()
    others = [threading.Thread(target=ended.wait), threading.Thread(target=lambda: [str(n) for n in range(10**6)])]
    for other in others:
        other.start()
    try:
        with Processes(3) as some:
            results = some.map([numbered(number) for number in range(100)])
    finally:
        ended.set()
        for other in others:
            other.join()
    assert [number for number, _ in results] == list(range(100))


def test_each_function_that_is_begun_here_is_told() -> None:
    """In order, with those that other processes took left out."""
    begun: list[int] = []
    with Processes(2) as some:
        results = some.map([numbered(number) for number in range(30)], begun.append)
    assert begun == sorted(begun)
    assert set(begun) == {number for number, process in results if process == os.getpid()}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_process_at_once_and_without_a_word(name: str) -> None:
    """Ctrl-C reaches all processes of a terminal: only the one that was called handles it, as it always does."""
    code = (
        "import os, signal\n"
        "from lockstep_bench.harness.report.processes import Processes\n"
        f"signal.signal(signal.{name}, lambda *_: print('handled', flush=True))\n"
        "reading, _ = os.pipe()\n"
        "with Processes(2) as some:\n"
        "    busy = some.start(lambda: os.read(reading, 1))\n"
        f"    os.killpg(0, signal.{name})\n"
        "    while busy.is_running():\n"
        "        pass\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True, timeout=60
    )
    assert (ended.stdout, ended.stderr) == ("handled\n", "")
