"""`lockstep new-backend`: what it writes works as it is, and nothing is ever overwritten."""

from pathlib import Path

import pandas as pd
import pytest

from lockstep_bench.backends import load, registered
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.new_backend import next_steps, write_backend
from support.command import lockstep


@pytest.mark.usefixtures("undrawn")
def test_new_backend_is_verified_and_runs_as_written(tmp_path: Path) -> None:
    """By the commands that it prints: the whole acceptance test, and a run beside the reference."""
    written = lockstep("new-backend", "my-frame.work", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["my_frame_work.py"]
    verify, run = ([*line.split()[1:], "--dataset", "digits"] for line in written.stdout.splitlines()[1:3])
    verified = lockstep(*verify, cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.count("ok     my-frame.work: ") == 3
    ran = lockstep(*run, "--epochs", "1", "--train-images", "150", "--out", "out", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert dict(zip(runs["backend"], runs["status"], strict=True)) == {"numpy": "ok", "my-frame.work": "ok"}


def test_template_is_no_backend() -> None:
    """It lies among them and is not listed."""
    assert not {"template", "my-backend"} & registered().keys()


def test_name_and_nothing_else_is_replaced(tmp_path: Path) -> None:
    """The file says what to replace; its backend has the name that was asked for."""
    path = write_backend("mine", tmp_path)
    assert load(str(path)).name == "mine"
    assert "my-backend" not in path.read_text()
    assert path.read_text().count("REPLACE") > 5


def test_last_step_is_said_by_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout the folder to move it to; elsewhere the entry point too."""
    monkeypatch.chdir(tmp_path)
    *_, head, entry = next_steps("a-b", Path("a_b.py"))
    assert (head.strip(), entry.strip()) == ('[project.entry-points."lockstep.backends"]', 'a-b = "a_b:MyBackend"')
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "base.py").touch()
    assert list(next_steps("a-b", Path("a_b.py")))[2].startswith("mv a_b.py backends/ ")


def test_file_is_never_overwritten(tmp_path: Path) -> None:
    """The second time is wrong usage, and the file stays as its owner made it."""
    path = write_backend("mine", tmp_path)
    path.write_text("mine, with much work in it")
    process = lockstep("new-backend", "mine", cwd=tmp_path)
    assert process.returncode == 2
    assert "there is a file mine.py already: nothing was written" in process.stderr
    assert path.read_text() == "mine, with much work in it"


@pytest.mark.parametrize("name", ["../mine", "", "two words", "-mine", "mine/", "größer"])
def test_name_that_no_backend_can_have_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing is written."""
    with pytest.raises(UsageError, match="a backend cannot be called"):
        write_backend(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*registered(), "scikit_learn", "base", "template"])
def test_name_that_is_taken_is_refused(tmp_path: Path, name: str) -> None:
    """By a backend, or by a file that it would replace where it is moved to."""
    with pytest.raises(UsageError, match=f"{name} is taken"):
        write_backend(name, tmp_path)
    assert not list(tmp_path.iterdir())
