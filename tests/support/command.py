"""The command `lockstep`: called in this process, or as a process of its own."""

import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Final, NamedTuple
from unittest.mock import patch

from lockstep_bench.harness.cli import main

LOCKSTEP: Final = [sys.executable, "-c", "from lockstep_bench.harness.cli import main; main()"]


class Ended(NamedTuple):
    """How a command ended: its exit code and all that it printed."""

    returncode: int
    stdout: str
    stderr: str


def lockstep(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> Ended:
    """Call the command's entry point in this process, in a folder, in a wide terminal, without MNIST.

    To start Python and import the package takes seconds. A process is for tests of signals, memory or imports.
    What the command does to the environment, the folder and the arguments is undone. An exception that would be a
    traceback fails the test.
    """
    with (
        patch.dict(os.environ, _environment(variables), clear=True),
        patch.object(sys, "argv", ["lockstep", *map(str, arguments)]),
        chdir(cwd or Path.cwd()),
        redirect_stdout(StringIO()) as output,
        redirect_stderr(StringIO()) as errors,
    ):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    assert "Traceback" not in output.getvalue() + errors.getvalue(), output.getvalue() + errors.getvalue()
    return Ended(code, output.getvalue(), errors.getvalue())


def lockstep_process(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> Ended:
    """Run the command as a process to its end, in a folder, in a wide terminal, without MNIST."""
    process = subprocess.run(
        [*LOCKSTEP, *map(str, arguments)],
        cwd=cwd,
        env=_environment(variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in process.stdout + process.stderr, process.stdout + process.stderr
    return Ended(process.returncode, process.stdout, process.stderr)


def _environment(variables: dict[str, str]) -> dict[str, str]:
    """This process's variables with others, and without MNIST's folder."""
    inherited = {name: value for name, value in os.environ.items() if name != "LOCKSTEP_MNIST"}
    return {**inherited, "COLUMNS": "200", **variables}


def nowhere_to_get_mnist(home: Path) -> dict[str, str]:
    """The variables of a machine without MNIST and without a network, for which a proxy stands that refuses all."""
    return {
        "HOME": str(home),
        "KERAS_HOME": str(home / "keras"),
        "LOCKSTEP_CACHE": str(home / "cache"),
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    }


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
