"""lockstep installed from its wheel, where only what its core needs is installed; and a backend installed beside it."""

import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lockstep_bench.backends import registered
from lockstep_bench.harness.tables.results import load

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "adding-a-backend.md"
SOURCES = ("backends", "harness", "pyproject.toml", "README.md", "LICENSE")


def execute(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command without what the environment says of Python, pip and MNIST."""
    ours = ("PYTHON", "PIP_", "LOCKSTEP_MNIST")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )


def needed_by(name: str) -> set[str]:
    """The distributions that one needs without its extras, and those that they need, and so on."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for line in distribution(waiting.pop()).requires or ():
            requirement = Requirement(line)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and requirement.name not in found:
                found.add(requirement.name)
                waiting.append(requirement.name)
    return found


class Machine:
    """A machine without any framework: a virtual environment that is lent what the core needs by this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv")
        [packages] = (folder / "venv").glob("lib/python*/site-packages")
        for name in needed_by("lockstep-bench"):
            lent = distribution(name)
            for top in {file.parts[0] for file in lent.files or () if file.parts[0] not in ("..", "__pycache__")}:
                if not (packages / top).exists():
                    (packages / top).symlink_to(str(lent.locate_file(top)))

    def install(self, source: Path) -> None:
        """Build the wheel of a folder and install it, both without a network."""
        wheels = self.folder / f"{source.name}-wheel"
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        alone = ("--no-deps", "--no-index")
        built = execute(*pip, "wheel", *alone, "--no-build-isolation", "--wheel-dir", wheels, source, cwd=self.folder)
        assert built.returncode == 0, built.stdout + built.stderr
        python = self.folder / "venv" / "bin" / "python"
        done = execute(*pip, "--python", python, "install", *alone, *wheels.glob("*.whl"), cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def lockstep(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the installed command."""
        return execute(self.folder / "venv" / "bin" / "lockstep", *arguments, cwd=self.folder)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """With lockstep, as its wheel has it."""
    folder = tmp_path_factory.mktemp("machine")
    checkout = folder / "lockstep"
    checkout.mkdir()
    for name in SOURCES:  # building leaves things behind: not in the checkout
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    found = Machine(folder)
    found.install(checkout)
    return found


def test_backends_are_listed_with_what_to_install(machine: Machine) -> None:
    """All of them, each with the command."""
    listed = machine.lockstep("backends")
    assert listed.returncode == 0, listed.stderr
    for name, backend in registered().items():
        assert name in listed.stdout
        if backend.extra:
            assert f"install it with: pip install 'lockstep-bench[{backend.extra}]'" in listed.stdout


def test_verify_says_whom_it_skips_and_why(machine: Machine) -> None:
    """Asked for all backends: those that are here pass, each of the others has its line, and that is no failure."""
    verified = machine.lockstep("verify", "--dataset", "digits")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    for name, backend in registered().items():
        said = [line for line in verified.stdout.splitlines() if line.startswith((f"ok     {name}: ", f"{name}: "))]
        if backend.extra:
            assert len(said) == 1
            assert "is not installed; install it with: pip install 'lockstep-bench[" in said[0]
        else:
            assert len(said) == 3


def test_backend_of_the_guide_is_listed_verified_and_run(machine: Machine, tmp_path: Path) -> None:
    """The two files of docs/adding-a-backend.md, made into a wheel and installed, and the commands that it gives."""
    text = GUIDE.read_text()
    example = tmp_path / "lockstep-scipy"
    example.mkdir()
    for name, language in (("pyproject.toml", "toml"), ("lockstep_scipy.py", "python")):
        [block] = re.findall(rf"`{re.escape(name)}`:\n\n```{language}\n(.*?)```", text, re.DOTALL)
        (example / name).write_text(block)
    machine.install(example)

    assert re.search(r"\bscipy +\W idiomatic +\W cpu +\W scipy \d", machine.lockstep("backends").stdout)
    verified = machine.lockstep("verify", "scipy", "--dataset", "digits")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert verified.stdout.count("ok     scipy: ") == 3
    small = ("--dataset", "digits", "--epochs", "1", "--train-images", "150")
    ran = machine.lockstep("run", "numpy", "scipy", *small, "--no-report", "--out", "out")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    runs = load(machine.folder / "out").runs
    assert dict(zip(runs["backend"], runs["status"], strict=True)) == {"numpy": "ok", "scipy": "ok"}


def test_backend_is_written_where_only_the_package_is(machine: Machine, tmp_path: Path) -> None:
    """The template comes with the wheel."""
    written = execute(machine.folder / "venv" / "bin" / "lockstep", "new-backend", "mine", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "mine.py").is_file()


def test_page_is_made_where_only_the_package_is(machine: Machine) -> None:
    """Template, style and scripts come with the wheel, and plotly with the core."""
    small = ("--dataset", "digits", "--epochs", "1", "--train-images", "150")
    ran = machine.lockstep("run", "numpy", *small, "--out", "page")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    page = (machine.folder / "page" / "report.html").read_text()
    for name in ("report.css", "report.js", "first.js"):
        assert (ROOT / "harness" / "report" / "page" / name).read_text() in page
