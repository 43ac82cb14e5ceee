"""The package works on this Python: what `tox -e py312` and `tox -e py313` run beside the tests of the core."""

from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import lockstep_bench.backends
import lockstep_bench.harness
from lockstep_bench.harness import load
from support.command import lockstep_process

MODULES = [
    module.name
    for package in (lockstep_bench.backends, lockstep_bench.harness)
    for module in walk_packages(package.__path__, f"{package.__name__}.")
]


def test_the_modules_are_all_there() -> None:
    """As many as there are files, so that none is left out below."""
    folders = (Path(package.__path__[0]) for package in (lockstep_bench.backends, lockstep_bench.harness))
    files = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(MODULES) == len(files) - 2  # the packages themselves


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_imported(name: str) -> None:
    """Without any framework but the core's."""
    import_module(name)


def test_a_run_is_made_and_reported(tmp_path: Path) -> None:
    """From the command to the page: two backends, checked against each other."""
    small = ("--dataset", "digits", "--epochs", "2", "--train-images", "150", "--slice-steps", "2")
    ran = lockstep_process("run", "numpy", "scikit-learn", *small, "--out", "out", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    runs = load(tmp_path / "out").runs
    assert dict(zip(runs["backend"], runs["status"], strict=True)) == {"numpy": "ok", "scikit-learn": "ok"}
    assert list(runs["disagreements"]) == [0, 0]
    assert {"summary.md", "report.html", "charts"} <= {path.name for path in (tmp_path / "out").iterdir()}
