"""The conditions of a run: the machine, the versions, the commit, the threads to be had."""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from lockstep_bench.harness.machine import conditions, cpus
from lockstep_bench.harness.machine.cpus import available_cpus
from lockstep_bench.harness.machine.identity import conditions_of_speed, cpu_model, gpus, identity

CHECKOUT = Path(__file__).resolve().parents[2]


def machine_details() -> dict[str, Any]:
    """What a reader needs to judge, or repeat, a run on this machine."""
    return {
        "identity": identity()._asdict(),
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
        **conditions_of_speed(),
        "distributions": distributions(),
    }


@cache
def distributions() -> dict[str, str]:
    """All that is installed in this environment, with versions."""
    found = {one.name: one.version for one in metadata.distributions() if one.name}
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


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
