"""The machine is described without naming whose it is, and the commit is this code's or none."""

import json
import os
import platform
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from lockstep_bench.harness.machine import environment
from lockstep_bench.harness.machine.identity import cpu_model, machine_name


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one committed file, in which the code seems to lie; nobody's settings matter."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    (tmp_path / "code.py").write_text("1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "first")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    """What git says, in that folder."""
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_of_a_clean_checkout(checkout: Path) -> None:
    """The full hash, and that all was committed."""
    assert environment.commit() == (git(checkout, "rev-parse", "HEAD"), True)
    assert len(environment.commit()[0] or "") == 40


def test_checkout_with_changes_is_not_clean(checkout: Path) -> None:
    """A changed file, staged or not, or a deleted one: the commit does not say what ran."""
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / "code.py").write_text("2\n")
    assert environment.commit() == (head, False)
    git(checkout, "add", "code.py")
    assert environment.commit() == (head, False)
    (checkout / "code.py").unlink()
    assert environment.commit() == (head, False)


def test_untracked_files_leave_a_checkout_clean(checkout: Path) -> None:
    """Results of earlier runs are such."""
    (checkout / "results.csv").write_text("1\n")
    assert environment.commit()[1] is True


def test_results_leave_a_checkout_clean(checkout: Path) -> None:
    """Committed ones that are made anew are deleted first: they are no part of what runs."""
    (checkout / "results").mkdir()
    (checkout / "results" / "runs.csv").write_text("1\n")
    git(checkout, "add", "results")
    git(checkout, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "second")
    (checkout / "results" / "runs.csv").unlink()
    assert environment.commit()[1] is True


def test_commit_outside_a_checkout_is_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed as a package in a folder of somebody's repository: that repository's commit is not this code's."""
    (checkout / "site-packages").mkdir()
    monkeypatch.setattr(environment, "CHECKOUT", checkout / "site-packages")
    assert environment.commit() == (None, None)


def test_commit_before_the_first_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a folder that only looks like a repository an error."""
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    assert environment.commit() == (None, None)


def test_commit_without_git_is_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no git can run all the same."""
    monkeypatch.setenv("PATH", str(checkout))
    assert environment.commit() == (None, None)


def test_this_code_s_checkout_is_where_its_project_file_is() -> None:
    """Run from a checkout, as the tests are, that is the folder of pyproject.toml."""
    assert (environment.CHECKOUT / "pyproject.toml").is_file()


def test_host_name_is_nowhere() -> None:
    """Neither in the machine's name nor among its details."""
    details = environment.machine_details()
    said = [machine_name(), *(value for value in details.values() if isinstance(value, str))]
    for host in {socket.gethostname(), platform.node(), socket.getfqdn()} - {""}:
        assert all(host not in value.split() for value in said)
        assert host not in machine_name()


def test_details_can_be_recorded() -> None:
    """They are JSON, and say what a reader needs: CPU, memory, kernel, Python, BLAS."""
    details = environment.machine_details()
    assert json.loads(json.dumps(details)) == details
    assert details["python"] == platform.python_version()
    assert details["memory_bytes"] == psutil.virtual_memory().total
    assert details["cpu"] == cpu_model() != ""
    assert len(details["load_average"]) == 3
    assert details["distributions"]["numpy"] == version("numpy")
    assert {"governor", "boost", "smt", "hypervisor", "microcode", "transparent_hugepages"} <= set(details)
