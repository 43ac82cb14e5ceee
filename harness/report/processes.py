"""Run functions in forked processes while this one goes on, with no more processes than CPUs.

A forked process has all that was imported and read so far, and shares its memory. It prints nothing and imports nothing
new, so it waits for no lock that another thread of its parent held. If a process cannot be forked, dies, or meets an
exception, its function runs in this process. So an exception is raised as if there were only one process.
"""

import gc
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Final, Generic, NoReturn, Self, TypeVar

T = TypeVar("T")

MOST: Final = 4
"""Processes beyond which there is little left to gain in a report, and each takes some 100 MB."""
NUMBER_BYTES: Final = 2
MANY: Final = 10_000
"""Functions whose numbers a pipe may not hold any more; they are run one after the other."""


def cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "process_cpu_count"):  # since Python 3.13, which lets a user ask for fewer
        return int(os.process_cpu_count() or 1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Ahead(Generic[T]):
    """The result of a function that another process may be running already."""

    def __init__(self, function: Callable[[], T], child: "_Child[T] | None" = None) -> None:
        self._function = function
        self._child = child
        self._result: list[T] = []

    def result(self) -> T:
        """Wait for the result, or run the function here if no process has delivered it."""
        if self._child and not self._child.ended:
            self._result = self._child.wait()
        if not self._result:
            self._result = [self._function()]
        return self._result[0]

    def is_running(self) -> bool:
        """Return whether a process is still at work on the function; take its result over if it has ended."""
        if self._child and self._child.is_done():
            self._result = self._child.wait()
        return self._child is not None and not self._child.ended

    def stop(self) -> None:
        """End the process."""
        if self._child:
            self._child.kill()


class Processes:
    """Several processes for functions; none is left at the end of a `with` statement, whatever has ended it."""

    def __init__(self, most: int | None = None) -> None:
        """Allow `most` processes, this one included; by default one per CPU, up to MOST.

        Only Linux forks safely. Elsewhere a library of the system may not survive it, so there is one process.
        """
        self.most = most or (min(cpus(), MOST) if sys.platform == "linux" else 1)
        self._started: list[Ahead[object]] = []

    def __enter__(self) -> Self:
        gc.freeze()  # what was imported need not be looked through again, and its pages stay shared
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for ahead in self._started:
            ahead.stop()
        gc.unfreeze()

    def has_room(self) -> bool:
        """Return whether one more process may be started."""
        return 1 + sum(ahead.is_running() for ahead in self._started) < self.most

    def start(self, function: Callable[[], T]) -> Ahead[T]:
        """Run a function in a process of its own, if there is room for one; what it returns is pickled."""
        ahead = Ahead(function, _Child.of(function) if self.has_room() else None)
        self._started.append(ahead)  # type: ignore[arg-type] # which is asked for no result
        return ahead

    def map(self, functions: Sequence[Callable[[], T]], begin: Callable[[int], None] = lambda _: None) -> list[T]:
        """Return the results of functions in their order; every process, this one included, takes the next function.

        `begin` is called with the number of each function that begins in this process. All functions before it have
        begun.
        """
        if self.most == 1 or len(functions) > MANY:
            return [_begun(function, number, begin) for number, function in enumerate(functions)]
        done: dict[int, T] = {}
        helpers: list[Ahead[dict[int, T]]] = []
        with _queue(len(functions)) as queue:
            for number in queue:
                while number + 1 < len(functions) and self.has_room():
                    helpers.append(self.start(lambda: _work(functions, queue)))
                    if not helpers[-1].is_running():
                        break  # no process could be forked
                done[number] = _begun(functions[number], number, begin)
            for helper in helpers:
                done |= helper.result()
        return [done[number] if number in done else function() for number, function in enumerate(functions)]


def _begun(function: Callable[[], T], number: int, begin: Callable[[int], None]) -> T:
    begin(number)
    return function()


def _work(functions: Sequence[Callable[[], T]], queue: Iterator[int]) -> dict[int, T]:
    """Run functions as long as there are any; what raises an exception is left to the parent."""
    done: dict[int, T] = {}
    parent = os.getppid()
    for number in queue:
        if os.getppid() != parent:
            break  # it was killed, and nobody waits for the rest
        with suppress(Exception):
            done[number] = functions[number]()
    return done


@contextmanager
def _queue(length: int) -> Iterator[Iterator[int]]:
    """Yield an iterator over the numbers from 0 that processes share: each number goes to one process.

    The numbers are in a pipe, from which the kernel gives each byte once. A killed process cannot block it, as it could
    a lock.
    """
    reading, writing = os.pipe()
    try:
        os.write(writing, b"".join(number.to_bytes(NUMBER_BYTES) for number in range(length)))
    finally:
        os.close(writing)
    try:
        yield iter(lambda: int.from_bytes(os.read(reading, NUMBER_BYTES) or b"\xff" * NUMBER_BYTES), 0xFFFF)
    finally:
        os.close(reading)


class _Child(Generic[T]):
    """A forked process that sends back what a function returned."""

    def __init__(self, pid: int, results: Connection) -> None:
        self._pid = pid
        self._results = results
        self.ended = False

    @classmethod
    def of(cls, function: Callable[[], T]) -> "_Child[T] | None":
        """Fork a process that runs a function; none where no more can be forked."""
        reading, writing = os.pipe()
        results = Connection(reading, writable=False)
        try:
            with _signals_held(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there are threads: see the top of this file
                pid = os.fork()
                if pid == 0:
                    _be_child(function, Connection(writing, readable=False))
        except OSError:
            results.close()
            return None
        finally:
            os.close(writing)
        return cls(pid, results)

    def is_done(self) -> bool:
        """Return whether the process has something to deliver, or has died."""
        return not self.ended and self._results.poll()

    def wait(self) -> list[T]:
        """Wait, and return the function's result in a list, or an empty list if there is none."""
        try:
            return [pickle.loads(self._results.recv_bytes())]  # noqa: S301 - of our own process
        except (EOFError, OSError):  # it has died, perhaps while it was sending
            return []
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once; one that has delivered is at its end anyway."""
        if self.ended:
            return
        self.ended = True
        self._results.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # somebody else has waited for all processes
            os.waitpid(self._pid, 0)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back signals, so that none calls a handler of this process in one that is just being forked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_child(function: Callable[[], object], results: Connection) -> NoReturn:
    """Send what a function returns, and end: by a signal at once, and without what a process does at its end."""
    with suppress(BaseException):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        gc.disable()  # it ends soon, and leaves the pages alone that it shares with its parent
        results.send_bytes(pickle.dumps(function()))
    os._exit(0)
