"""The conditions of a run: the machine, the versions, the commit, the threads to be had."""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from lockstep_bench.harness.machine import conditions, cpus
from lockstep_bench.harness.machine.cpus import available_cpus
from lockstep_bench.harness.wording import counted

CHECKOUT = Path(__file__).resolve().parents[2]


@cache
def cpu_model() -> str:
    """The CPU's brand, as it calls itself."""
    import cpuinfo

    return str(cpuinfo.get_cpu_info().get("brand_raw") or platform.machine())


def machine_name(device: str = "cpu") -> str:
    """What the tables call this machine: CPU, CPUs and their quota, memory; never its host name, which is private.

    For a run on `cuda` the first GPU's name is in it too.
    """
    gibibytes = round(psutil.virtual_memory().total / 2**30)
    gpu = f", {gpus()[0].partition(',')[0]}" if device == "cuda" and gpus() else ""
    limit = cpus.quota()
    quota = "" if limit is None else f" (quota {limit:g})"
    return f"{cpu_model()}, {counted(available_cpus(), 'CPU')}{quota}, {gibibytes} GiB{gpu}"


def machine_details() -> dict[str, Any]:
    """What a reader needs to judge, or repeat, a run on this machine."""
    return {
        "cpu": cpu_model(),
        "architecture": platform.machine(),
        "cpus": available_cpus(),
        "affinity": cpus.affinity(),
        "pinned_first": cpus.fastest_first(cpus.affinity()),
        "cpu_quota": cpus.quota(),
        "cores": psutil.cpu_count(logical=False),
        "hardware_threads": psutil.cpu_count(logical=True),
        "caches": cpus.caches(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": conditions.thread_pools(),
        "gpus": gpus(),
        "load_average": list(os.getloadavg()),
    }


def gpus() -> list[str]:
    """Name, memory and driver of every NVIDIA GPU, as its own tool lists them; none where the tool is missing."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def lockstep_version() -> str:
    """The version of the installed distribution."""
    return version("lockstep-bench")


def commit() -> tuple[str | None, bool | None]:
    """The git commit of the checkout that this code runs from and whether all of it was committed; nothing elsewhere.

    Untracked files do not count, nor does anything in results/: it is no part of what runs.
    """
    if not (CHECKOUT / ".git").exists():  # installed as a package: whatever repository lies around it is another's
        return None, None
    try:
        head = _git("rev-parse", "HEAD")
        return head, not _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(*arguments: str) -> str:
    # Inside a git hook GIT_DIR names the repository of the hook, which may be another.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(CHECKOUT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=variables).stdout.strip()
