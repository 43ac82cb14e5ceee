"""tests/experiments/time_to_answer.py: its ratios and intervals are right, and it runs two commits for real."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import exp, log, sqrt
from pathlib import Path

import pytest
from scipy.stats import t

from experiments import time_to_answer
from experiments.time_to_answer import ROOT, Measurement, Tree, compare, main, read, table

OLD, NEW = "1" * 40, "2" * 40
SCRIPT = ROOT / "tests" / "experiments" / "time_to_answer.py"


def pair(number: int, base: float, current: float, exit_code: int = 0) -> list[Measurement]:
    """The two measurements of a pair: CPU time is half of the wall time, and a second takes 10 MiB."""
    seconds = {"base": base, "current": current}
    return [
        Measurement("help", OLD, NEW, f"pair {number}", side, exit_code, wall, wall / 2, round(wall * 10) << 20)
        for side, wall in (seconds.items() if number % 2 == 0 else reversed(seconds.items()))
    ]


def test_ratio_is_the_geometric_mean_with_student_s_interval(tmp_path: Path) -> None:
    """From the lines of a file, whichever commit came first; half a pair and a pair that failed do not count."""
    measured = [
        *pair(0, 2, 1),
        *pair(1, 4, 2.2),
        *pair(2, 1, 0.5 / 1.1),
        *pair(3, 1, 9)[:1],
        *pair(4, 1, 9, exit_code=1),
    ]
    path = tmp_path / "measurements.jsonl"
    path.write_text("".join(json.dumps(measurement._asdict()) + "\n" for measurement in measured))
    assert read(path) == measured

    wall = compare(read(path))["help", OLD, NEW]["wall_seconds"]
    half = t.ppf(0.975, 2) * log(1.1) / sqrt(3)
    assert wall == pytest.approx((3, 0.5, 0.5 * exp(-half), 0.5 * exp(half), 2, 1))
    cpu = compare(read(path))["help", OLD, NEW]["cpu_seconds"]
    assert cpu == pytest.approx((3, 0.5, 0.5 * exp(-half), 0.5 * exp(half), 1, 0.5))


def test_two_pairs_have_no_interval() -> None:
    """Their ratio and the medians are shown alone, in seconds and MiB."""
    shown = table([*pair(0, 2, 1), *pair(1, 4, 2)]).splitlines()
    ratio = "0.500 (no interval)"
    medians = "3.00, 1.50 | 1.50, 0.75 | 30.00, 15.00"
    assert shown[2:] == [f"| help | 1111111, 2222222 | 2 | {ratio} | {ratio} | {ratio} | {medians} |"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_two_commits_are_measured(tmp_path: Path) -> None:
    """Both commands run, are written down one by one and compared, and no worktree is left."""
    path = tmp_path / "measurements.jsonl"
    command = [sys.executable, str(SCRIPT), "HEAD", "help", "--pairs", "1", "--append", str(path)]
    variables = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr
    base, current = read(path)
    assert (base.side, current.side, base.exit_code, current.exit_code) == ("base", "current", 0, 0)
    assert base.pair == current.pair
    assert 0 < min(base.cpu_seconds, current.cpu_seconds) < 10
    assert min(base.peak_pss_bytes, current.peak_pss_bytes) > 1 << 20
    assert done.stdout.strip() == table([base, current])
    worktrees = subprocess.check_output(["git", "-C", str(ROOT), "worktree", "list"], text=True)
    assert str(tmp_path) not in worktrees
    assert list(tmp_path.iterdir()) == [path]


def test_command_that_fails_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 1 and one sentence; its own exit code is kept."""
    program = tmp_path / "bin" / "lockstep"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho out of luck\nexit 3\n")
    program.chmod(0o755)
    (tmp_path / "results" / "standard").mkdir(parents=True)

    @contextmanager
    def checked_out(side: str, revision: str, _: Path) -> Iterator[Tree]:
        yield Tree(side, revision, tmp_path, tmp_path)

    path = tmp_path / "measurements.jsonl"
    monkeypatch.setattr(time_to_answer, "checked_out", checked_out)
    monkeypatch.setattr(sys, "argv", ["time_to_answer.py", "HEAD", "help", "--append", str(path)])
    assert main() == 1
    assert [(failed.side, failed.exit_code) for failed in read(path)] == [("base", 3)]
    _, *_, last = capsys.readouterr().err.splitlines()
    assert last == "time_to_answer: lockstep --help of base exited with 3: out of luck"


def test_commit_that_is_none_is_one_sentence() -> None:
    """Exit code 1, and nothing is measured."""
    done = subprocess.run([sys.executable, str(SCRIPT), "no-such-commit"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("time_to_answer: git exited with 128")
