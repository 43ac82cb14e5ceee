"""The CPUs that this process may use: which, in what order, and how much of their time a container leaves it.

A fact that the system does not tell is missing, never an error: containers, virtual machines and other systems have
only some of these files.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

CPUS = Path("/sys/devices/system/cpu")
CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def affinity() -> list[int]:
    """The CPUs that this process may use; empty where the system does not pin."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def available_cpus() -> int:
    """How many CPUs this process may use, whatever part of their time it may have."""
    return len(affinity()) or os.cpu_count() or 1


def default_threads() -> int:
    """How many threads the CPUs can run at the same time: whole CPUs that the quota pays for, and at least one."""
    limit = quota()
    return available_cpus() if limit is None else max(1, min(available_cpus(), int(limit)))


def fastest_first(cpus: Iterable[int]) -> list[int]:
    """CPUs in the order in which to take them: one of each core before the second of any, the fastest cores first.

    Threads that share a core share its arithmetic: two of one core are hardly faster than one.
    """
    cores: dict[str, list[int]] = defaultdict(list)
    for cpu in sorted(cpus):
        core = text_of(CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list")
        cores[core or f"cpu {cpu}"].append(cpu)
    places = {cpu: place for siblings in cores.values() for place, cpu in enumerate(siblings)}
    return sorted(places, key=lambda cpu: (places[cpu], -_speed(cpu), cpu))


def _speed(cpu: int) -> int:
    """A number that is larger for a faster core of the same machine; 0 where nothing tells."""
    folder = CPUS / f"cpu{cpu}"
    for path in (folder / "cpu_capacity", folder / "cpufreq" / "cpuinfo_max_freq"):
        text = text_of(path)
        if text.isdecimal():
            return int(text)
    return 0


def caches() -> dict[str, str]:
    """The sizes of one CPU's caches, as Linux knows them: `{"L1 Data": "32K", ...}`; nothing elsewhere."""
    found = {}
    for folder in sorted((CPUS / "cpu0" / "cache").glob("index*")):
        level, kind, size = (text_of(folder / name) for name in ("level", "type", "size"))
        if level and kind and size:
            found[f"L{level} {kind}"] = size
    return found


class Group(NamedTuple):
    """A control group that limits this process's CPU time: its folder, and whether it is of version 2."""

    folder: Path
    is_second: bool


def quota() -> float | None:
    """How many CPUs' time this process may have, by its control groups; none where nothing limits it."""
    limits = [limit for group in _groups() if (limit := _limit(group)) is not None]
    return min(limits, default=None)


def throttled_seconds() -> float | None:
    """For how long this process's control groups have been held back so far; none where nothing limits them.

    It is summed over CPUs, and the largest of the groups', as each of them may hold the process back.
    """
    seconds = []
    for group in _groups():
        name, unit = ("throttled_usec", 1e-6) if group.is_second else ("throttled_time", 1e-9)
        counts = dict(line.split(maxsplit=1) for line in text_of(group.folder / "cpu.stat").splitlines() if " " in line)
        if _limit(group) is not None and counts.get(name, "").isdecimal():
            seconds.append(unit * int(counts[name]))
    return max(seconds, default=None)


def _limit(group: Group) -> float | None:
    if group.is_second:
        texts = text_of(group.folder / "cpu.max").split()
    else:
        texts = [text_of(group.folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    if len(texts) != 2 or not all(text.isdecimal() and int(text) for text in texts):  # `max`, or -1, is no limit
        return None
    return int(texts[0]) / int(texts[1])


def _groups() -> Iterator[Group]:
    """The groups of this process that control CPU time, with those above them.

    A container often sees its own group as the topmost folder, under a path that exists outside only.
    """
    for line in text_of(MEMBERSHIP).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            mount = CGROUPS / "unified" if (CGROUPS / "unified").exists() else CGROUPS
        elif "cpu" in controllers.split(","):
            mount = next((folder for name in (controllers, "cpu") if (folder := CGROUPS / name).exists()), CGROUPS)
        else:
            continue
        folder = mount / path.strip("/")
        for one in (folder, *folder.parents):
            yield Group(one, controllers == "")
            if one == mount:
                break


def text_of(path: Path) -> str:
    """What a file of the system says, without its line end; empty where it cannot be read."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return ""
