"""What several test processes of one session need, made by the first that asks for it."""

from collections.abc import Callable
from fcntl import LOCK_EX, flock
from pathlib import Path
from shutil import rmtree


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Have `make` make this folder and fill it, where no other process has; whoever comes meanwhile waits.

    If `make` raises, the next process tries again from the start.
    """
    done = folder.with_name(f"{folder.name}.done")
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not done.exists():
            rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder
