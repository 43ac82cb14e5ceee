"""A process that outlives its conductor for a moment, to end the workers that it leaves.

A worker that waits sees its connection close and ends by itself; one that computes, hangs or is stopped does not. The
conductor tells its guard of every worker's process group and temporary folder, as `+GROUP FOLDER`, and when it has
ended, as `-GROUP`, a line each, on standard input. When that closes, the conductor is gone, however it went, and the
guard kills the groups that are left and removes their folders.
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache


class Guard:
    """The conductor's end of it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends a terminal's processes must not end it before the conductor
        )

    def watch(self, group: int, folder: str) -> None:
        """Kill this process group when the conductor is gone, and remove what it leaves in its folder."""
        self._tell(f"+{group} {folder}\n")

    def forget(self, group: int) -> None:
        """It has ended: its number may become another's."""
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # somebody killed it: the run goes on without
            os.write(self.process.stdin.fileno(), line.encode())


@cache
def guard() -> Guard:
    """This process's guard, started when it is first needed."""
    return Guard()


def main() -> None:
    """Take note of groups until standard input closes, then kill those that are left."""
    folders: dict[int, str] = {}
    for line in sys.stdin:
        group, _, folder = line[1:].rstrip("\n").partition(" ")
        if line.startswith("+"):
            folders[int(group)] = folder
        else:
            folders.pop(int(group), None)
    for number in folders:
        with suppress(ProcessLookupError):
            os.killpg(number, signal.SIGKILL)
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
