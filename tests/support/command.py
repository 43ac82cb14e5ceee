"""The command, as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

LOCKSTEP: Final = [sys.executable, "-c", "from lockstep_bench.harness.cli import main; main()"]


def lockstep(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run it to its end in a folder, in a wide terminal, without MNIST; it never ends with a traceback."""
    inherited = {name: value for name, value in os.environ.items() if name != "LOCKSTEP_MNIST"}
    process = subprocess.run(
        [*LOCKSTEP, *map(str, arguments)],
        cwd=cwd,
        env={**inherited, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in process.stdout + process.stderr, process.stdout + process.stderr
    return process


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
