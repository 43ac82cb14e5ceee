"""A worker as the conductor sees it: start it, ask it for a turn, and know what became of it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Self

from lockstep_bench.backends import load
from lockstep_bench.harness.machine.cpus import fastest_first
from lockstep_bench.harness.machine.variables import THREAD_VARIABLES, environment_without, inherited
from lockstep_bench.harness.problem import Dtype, Problem, Profile
from lockstep_bench.harness.records.format import Status
from lockstep_bench.harness.running.process_guard import guard

WORKER = "lockstep_bench.harness.worker.worker"
"""The module that a worker process runs."""
OPENBLAS_IDLE = {"OPENBLAS_THREAD_TIMEOUT": "4"}
"""OpenBLAS's threads sleep 2**4 cycles after their work, not 2**26: waiting workers leave the CPU to the others.

Nobody pays for waking them that it shows: 2**4, 2**20, 2**22 and 2**24 cycles made no difference to NumPy's steps.
"""
COMPILE_CACHES = (
    "CUDA_CACHE_PATH",
    "NUMBA_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "XDG_CACHE_HOME",
)
"""Folders of compiled code: a new worker's are empty, so that its start-up cost is not that of an earlier run."""
FIRST_CPU = "LOCKSTEP_FIRST_CPU"
HEARTBEAT_SECONDS = 4.0
"""How often a turn that lasts is noticed: often enough for a terminal, too seldom to be seen in what is timed."""
EXIT_SECONDS = 5.0
"""How long a worker may take to exit once its connection is closed."""
REPLY_BYTES = 1 << 20
"""The longest reply: ten times what the most test images and threads make of it."""
REASON_CHARACTERS = 2_000
"""How much of a reason is recorded: an exception can hold a whole array."""
LOG_BYTES = 1 << 20
"""Of a log, so much of its beginning and of its end is kept."""


class WorkerFailed(Exception):  # noqa: N818 - an outcome that is recorded, not an error of the harness
    """The worker's backend is out of the run: how it ended, and why in one line."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status: Status = status
        # Whatever an exception said, it can be recorded.
        self.reason = reason[:REASON_CHARACTERS].encode(errors="backslashreplace").decode()


class WorkerProcess:
    """A process of its own group, its affinity and environment set before it imports anything.

    Args:
        spec: the name or file of its backend.
        dtype: the arithmetic that it will be asked for.
        device: where it will train.
        threads: how many threads it may use, and CPUs, where the system can pin it.
        log: the file that gets what it prints.
        timeout: how many seconds a turn may take.
        caches: the folder of what it compiles; an empty one, removed at its end, if none.
        keep: the deciding variables (`variables.py`) that it inherits; it starts without the others.
        module: the worker that it runs.
        heartbeat: called with the kind of a turn when it begins, and every HEARTBEAT_SECONDS while it lasts.

    Raises:
        WorkerFailed: the adapter's `environment` raises, or returns what is no environment.
    """

    def __init__(
        self,
        spec: str,
        *,
        dtype: Dtype,
        device: str,
        threads: int,
        log: Path,
        timeout: float,
        caches: Path | None = None,
        keep: Collection[str] = (),
        module: str = WORKER,
        heartbeat: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.spec, self.device, self.threads, self.timeout = spec, device, threads, timeout
        self.heartbeat = heartbeat
        self.caches = TemporaryDirectory(prefix="lockstep-", ignore_cleanup_errors=True)
        try:
            with environment_without(inherited(os.environ, keep).removed):  # an adapter may build on what it finds
                adapter = load(spec).environment(threads, device, dtype)
            environment = worker_environment(adapter, threads, caches or Path(self.caches.name), keep)
        except Exception as error:  # it is the adapter's code
            raise WorkerFailed("error", f"in its environment: {type(error).__name__}: {error}") from error
        ours, theirs = socket.socketpair()
        self.connection, self.received, self.log = ours, b"", log
        self.started = perf_counter()
        log.parent.mkdir(parents=True, exist_ok=True)
        with theirs, log.open("ab") as output, _affinity(threads):
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C at the terminal is the conductor's to handle
                env=environment,
            )
        guard().watch(self.process.pid, self.caches.name)

    def start(self) -> dict[str, Any]:
        """Have it import its framework; `start_seconds` counts from the start of the process."""
        reply = self.ask("start", backend=self.spec)
        return {"start_seconds": perf_counter() - self.started, **reply}

    def contract(self, problem: Problem, dataset: Path) -> dict[str, str | None]:
        """Have it check that its backend keeps to the contract; a failure, or none, by each check's name."""
        return self.ask(
            "contract", problem=asdict(problem), dataset=str(dataset), device=self.device, threads=self.threads
        )

    def build(
        self,
        problem: Problem,
        seed: int,
        dataset: Path,
        train_images: int,
        profile: Profile = "identical",
        fixed_steps: int | None = None,
    ) -> dict[str, Any]:
        """Have it stand at step 0, for training on the first images of a cached dataset, for that many steps if so."""
        whom = {"seed": seed, "profile": profile, "fixed_steps": fixed_steps}
        return self.build_for(problem, dataset, train_images, do="build", **whom)

    def build_for(self, problem: Problem, dataset: Path, train_images: int, *, do: str, **whom: Any) -> dict[str, Any]:
        """The same for a seed in a profile, or for as many seeds as a worker for many takes."""
        return self.ask(
            do,
            problem=asdict(problem),
            dataset=str(dataset),
            train_images=train_images,
            device=self.device,
            threads=self.threads,
            **whom,
        )

    def floor(self, problem: Problem) -> dict[str, Any]:
        """Have it measure what the machine can do at best, with its threads."""
        return self.ask("floor", problem=asdict(problem), threads=self.threads)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Give the worker a turn and wait for its reply.

        Raises:
            WorkerFailed: it raised, died, hung or diverged, or what it sent is no reply.
        """
        self.heartbeat(do)
        deadline = perf_counter() + self.timeout
        try:
            self._see_that_nothing_waits()
            self.connection.settimeout(self.timeout)
            self.connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            reply = json.loads(self._line(deadline, do))
            if not isinstance(reply, dict):
                raise ValueError("it is not an object")
        except TimeoutError:
            self.close(at_once=True)
            raise WorkerFailed("timeout", f"no reply within {self.timeout:g} s in its turn to {do}") from None
        except ConnectionError as error:
            raise self._death(do) from error
        except (ValueError, RecursionError) as error:
            self.close(at_once=True)
            raise WorkerFailed("error", f"what it sent in its turn to {do} is no reply: {error}") from error
        if "diverged" in reply:
            raise WorkerFailed("diverged", str(reply["diverged"]))
        if "error" in reply:
            raise WorkerFailed("error", f"in its turn to {do}: {reply['error']}")
        return reply

    def _see_that_nothing_waits(self) -> None:
        """What an adapter sends by itself must not pass for a reply."""
        self.connection.setblocking(False)
        with suppress(BlockingIOError):
            if self.received or self.connection.recv(1, socket.MSG_PEEK):
                raise ValueError("it came before it was asked for")

    def _line(self, deadline: float, do: str) -> bytes:
        """The next line that the worker sends, with a heartbeat while there is none."""
        while b"\n" not in self.received:
            remaining = deadline - perf_counter()
            if remaining <= 0:
                raise TimeoutError
            if len(self.received) > REPLY_BYTES:
                raise ValueError(f"it is longer than {REPLY_BYTES:,} bytes")
            self.connection.settimeout(min(remaining, HEARTBEAT_SECONDS))
            try:
                part = self.connection.recv(1 << 16)
            except TimeoutError:
                self.heartbeat(do)
                continue
            if not part:
                raise ConnectionResetError
            self.received += part
        line, _, self.received = self.received.partition(b"\n")
        return line

    def _death(self, do: str) -> WorkerFailed:
        """What a broken connection means, by how the process ended."""
        status, how = ending(self.close())
        return WorkerFailed(status, f"{how} in its turn to {do}")

    def let_go(self) -> None:
        """Have the worker begin to exit: `close` then waits for less."""
        self.connection.close()

    def close(self, at_once: bool = False) -> int | None:
        """Let the worker exit, or kill it; what it started itself is killed in any case.

        Returns:
            Its exit code, negative for a signal; none where it had to be killed here.
        """
        self.heartbeat("close")
        self.let_go()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0 if at_once else EXIT_SECONDS)
        code = self.process.returncode
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        guard().forget(self.process.pid)
        self.caches.cleanup()
        _shorten(self.log)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        self.close(at_once=failed is not None)


def ending(code: int | None) -> tuple[Status, str]:
    """How a process ended, by what `WorkerProcess.close` returned."""
    if code is None:
        return "error", "broke off the connection, ran on and was killed"
    if code >= 0:
        return "error", f"exited with code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return "killed", f"killed by {names.get(-code, f'signal {-code}')}"


def worker_environment(
    adapter: Mapping[str, str], threads: int, caches: Path, keep: Collection[str] = ()
) -> dict[str, str]:
    """The variables of a worker process.

    They are this process's without those that decide, then thread counts and caches, then those kept, then the
    adapter's own.

    Args:
        adapter: what its `environment` returned.
        threads: how many threads it may use.
        caches: an empty folder, for what it compiles.
        keep: names of deciding variables to inherit.

    Raises:
        TypeError: the adapter's are not texts.
    """
    if not all(isinstance(text, str) for pair in adapter.items() for text in pair):
        raise TypeError(f"variables must be texts, not {dict(adapter)}")
    deciding = inherited(os.environ, keep)
    others = {name: value for name, value in os.environ.items() if name not in deciding.removed}
    counts = dict.fromkeys(THREAD_VARIABLES, str(threads))
    folders = {name: str(caches / name.lower()) for name in COMPILE_CACHES}
    return {**others, **counts, **OPENBLAS_IDLE, **folders, **deciding.kept, **adapter}


def _shorten(log: Path) -> None:
    """Leave out the middle of a log that is too long to keep."""
    with suppress(FileNotFoundError), log.open("r+b") as file:
        left_out = file.seek(0, os.SEEK_END) - 2 * LOG_BYTES
        if left_out > 0:
            file.seek(-LOG_BYTES, os.SEEK_END)
            end = file.read()
            file.seek(LOG_BYTES)
            file.write(f"\n[{left_out:,} bytes are left out here]\n".encode() + end)
            file.truncate()


@contextmanager
def _affinity(count: int) -> Iterator[None]:
    """Within it, this thread runs on `count` of the CPUs that it may use, and what it starts inherits that.

    They are of as many cores as there are, the fastest first.

    Where several runs share a machine, as tests and the nodes of a local cluster do, each begins with another CPU: its
    place among them is in FIRST_CPU. Pinning is Linux's: elsewhere nothing is done.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    first = int(os.environ.get(FIRST_CPU, "0")) % len(before)
    ordered = fastest_first(before)
    os.sched_setaffinity(0, [*ordered[first:], *ordered[:first]][:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
