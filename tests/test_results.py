"""The committed results are what their raw files say, whatever CPU the report is made on."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import numpy as np
import pytest

from lockstep_bench.harness.records.sweep_grid import FILE
from lockstep_bench.harness.report import write
from lockstep_bench.harness.report.write import write_report, write_seeds_report, write_sweep_report

pytestmark = pytest.mark.mnist  # the charts of mistakes show its images
RESULTS = Path(__file__).parents[1] / "results"
NAMES = sorted(path.parent.name for path in RESULTS.glob("*/plan.json"))
SWEEPS = sorted(path.parent.name for path in RESULTS.glob(f"*/{FILE}"))
DERIVED = ("*.csv", "summary.*", "sweep.md", "charts", "logs", "report.html")


def derived(folder: Path) -> dict[str, bytes]:
    """Every file of a results folder that is not raw and is tracked, by its path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    raw = ("plan.json", "seeds.json", "blocks/", "logs/", "report.html", FILE, "problems/")
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(raw)}


def raw_alone(name: str, folder: Path) -> Path:
    """A copy of committed results without anything derived."""
    return Path(copytree(RESULTS / name, folder / name, ignore=ignore_patterns(*DERIVED)))


def assert_same(found: dict[str, bytes], committed: dict[str, bytes]) -> None:
    """The same files, each with the same bytes; those that differ are named."""
    assert set(found) == set(committed)
    assert [name for name, content in committed.items() if found[name] != content] == []


@pytest.mark.parametrize("name", NAMES)
def test_committed_results_are_made_again_byte_for_byte(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All derived files, from a copy of the raw ones; and no others are committed."""
    monkeypatch.setattr(write, "write_page", lambda *_: None)  # the page is not committed, and takes half of the time
    copy = raw_alone(name, tmp_path)
    write_report(copy)
    assert_same(derived(copy), derived(RESULTS / name))


def test_committed_seeds_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    """The same for the folder of `lockstep seeds`."""
    copy = Path(copytree(RESULTS / "seeds", tmp_path / "seeds", ignore=ignore_patterns(*DERIVED, "*.md")))
    write_seeds_report(copy)
    assert_same(derived(copy), derived(RESULTS / "seeds"))


@pytest.mark.parametrize("name", SWEEPS)
def test_committed_sweeps_are_made_again_byte_for_byte(name: str, tmp_path: Path) -> None:
    """The same of the sweeps."""
    copy = raw_alone(name, tmp_path)
    write_sweep_report(copy)
    assert_same(derived(copy), derived(RESULTS / name))


def test_another_cpu_makes_the_same_report(tmp_path: Path) -> None:
    """NumPy without any of the vector instructions that it would choose here by the CPU."""
    copy = raw_alone("native", tmp_path)
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    assert found or os.uname().machine != "x86_64"
    variables = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found)}
    code = "import sys; from pathlib import Path; from lockstep_bench.harness.report.write import write_report; "
    subprocess.run([sys.executable, "-c", f"{code}write_report(Path(sys.argv[1]))", copy], check=True, env=variables)
    assert_same(derived(copy), derived(RESULTS / "native"))
