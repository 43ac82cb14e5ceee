"""What a turn and a worker went through: CPU time, memory, threads, and who else used the machine.

All of it is read off the clock, from counters that the system keeps anyway.
"""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from lockstep_bench.harness.machine import cpus
from lockstep_bench.harness.machine.variables import environment_without

STATUS = Path("/proc/self/status")
SUSPENDED = 0.5
"""Seconds that two clocks must have drifted apart: reading one after the other makes them differ by less."""
BUSY = 0.1
"""A thread has been used if it was busy for this part of the busiest one's CPU time."""


def memory_bytes() -> int:
    """What this process holds resident now; pages of the dataset that it has read are among it."""
    return int(psutil.Process().memory_info().rss)


def peak_memory_bytes() -> int | None:
    """The most that this process itself ever held resident; none where the system does not tell, as gVisor.

    Linux's getrusage counts what the process was before it became this program too, so its own record is read there.
    """
    if sys.platform == "linux":
        found = STATUS.read_text().partition("VmHWM:")[2].split()
        return 1024 * int(found[0]) if found else None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def thread_pools() -> list[dict[str, Any]]:
    """The BLAS and OpenMP libraries of this process, as threadpoolctl reports them."""
    with environment_without():  # it sets a variable when it is imported
        from threadpoolctl import threadpool_info

    keys = ("user_api", "internal_api", "version", "num_threads", "threading_layer", "architecture")
    return [{key: pool[key] for key in keys if key in pool} for pool in threadpool_info()]


def blas(pools: Iterable[Mapping[str, Any]]) -> str:
    """The BLAS libraries among these thread pools: name, version, and the kind of CPU that its kernels are for."""
    keys = ("internal_api", "version", "architecture")
    found = (
        " ".join(str(pool[key]) for key in keys if pool.get(key)) for pool in pools if pool.get("user_api") == "blas"
    )
    return ", ".join(dict.fromkeys(found))


def thread_seconds() -> dict[int, float]:
    """The CPU seconds so far of every thread of this process, by its number."""
    return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process().threads()}


def busy_threads(before: Mapping[int, float]) -> int:
    """How many threads have done notable work since `before`, `thread_seconds` of then."""
    spent = [seconds - before.get(number, 0.0) for number, seconds in thread_seconds().items()]
    return sum(seconds >= BUSY * max(spent) for seconds in spent) if max(spent) > 0 else 1


class Watch:
    """What happens on the machine during a turn, as the conductor sees it.

    Args:
        waiting: the processes that wait meanwhile, by the names of their backends.
    """

    def __init__(self, waiting: Mapping[str, int]) -> None:
        self.waiting = waiting
        self.times, self.seconds, self.suspended = psutil.cpu_times(), self._seconds(), suspended_seconds()
        self.throttled = cpus.throttled_seconds()

    def conditions(self) -> dict[str, Any]:
        """The fields of a turn's record: steal, load average, CPU seconds of those who waited, suspended, throttled."""
        suspended = suspended_seconds() - self.suspended
        throttled = cpus.throttled_seconds()
        return {
            "suspended_seconds": suspended if suspended > SUSPENDED else 0.0,
            "steal_percent": self._steal_percent(),
            "throttled_seconds": None
            if throttled is None or self.throttled is None
            else max(0.0, throttled - self.throttled),
            "load_average": os.getloadavg()[0],
            "waiting_seconds": {
                name: seconds - self.seconds[name]
                for name, seconds in self._seconds().items()
                if name in self.seconds  # else it died meanwhile
            },
        }

    def _steal_percent(self) -> float | None:
        """Of the machine's CPU time what its host gave to other guests; none where the system knows of no host."""
        spent = [after - before for after, before in zip(psutil.cpu_times(), self.times, strict=True)]
        steal = dict(zip(self.times._fields, spent, strict=True)).get("steal")
        return None if steal is None else 100 * steal / max(sum(spent), 0.01)  # it counts in hundredths of a second

    def _seconds(self) -> dict[str, float]:
        spent = {name: cpu_seconds(process) for name, process in self.waiting.items()}
        return {name: seconds for name, seconds in spent.items() if seconds is not None}


def suspended_seconds() -> float:
    """For how long the machine has been suspended since it was started; 0 where the system does not tell.

    It is the difference of two clocks that nobody can set, of which one stands still meanwhile, and so does the one
    that training is timed with.
    """
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC) - time.clock_gettime(time.CLOCK_UPTIME_RAW)
    return 0.0


def cpu_seconds(process: int) -> float | None:
    """The CPU time of another process; none if it is gone.

    Linux has a clock for every process, exact to the nanosecond, whose number follows from the process's: see
    clock_getcpuclockid(3). Elsewhere it is what psutil says, in hundredths of a second.
    """
    try:
        if sys.platform == "linux":
            return time.clock_gettime((~process << 3) | 2)
        times = psutil.Process(process).cpu_times()
        return float(times.user + times.system)
    except (OSError, psutil.Error):
        return None
