"""The pytest-benchmark suite, run as a user runs it, with two backends and few rounds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from lockstep_bench.harness import compare
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.machine.cpus import available_cpus
from lockstep_bench.harness.machine.identity import machine_name
from support.command import nowhere_to_get_mnist
from support.once import once

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]


def suite(*arguments: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it with a storage of its own."""
    inherited = {name: text for name, text in os.environ.items() if "XDIST" not in name}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "tests/benchmarks", "--benchmark-only", "-p", "no:cacheprovider"),
            *(f"--benchmark-storage=file://{folder / 'saved'}", *map(str, arguments)),
        ],
        cwd=ROOT,
        # Of a run that has several processes nothing is timed: this one is a run of its own.
        env={**inherited, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def without_mnist(folder: Path) -> dict[str, str]:
    """Variables with which the suite takes the digits: a tenth of the images."""
    return {"LOCKSTEP_MNIST": "", **nowhere_to_get_mnist(folder / "home")}


@pytest.fixture(scope="module")
def measured(shared: Path, digits: Dataset) -> Path:
    """The folder of a run of two backends on the digits, saved in every way that pytest-benchmark has.

    The digits lie in its cache beforehand: to read them loads scikit-learn's libraries, which the record would have.
    """

    def make(folder: Path) -> None:
        copytree(digits.folder, folder / "home" / "cache" / digits.folder.name)
        done = suite(
            *("--backends", "numpy,scikit-learn", "--rounds", "6", f"--benchmark-json={folder / 'a.json'}"),
            *("--benchmark-save=first", f"--benchmark-histogram={folder / 'times'}"),
            folder=folder,
            **without_mnist(folder),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "6 passed" in done.stdout

    return once(shared / "benchmarks", make)


def benchmarks(file: Path) -> dict[str, Any]:
    """A JSON file's benchmarks by name."""
    return {benchmark["name"]: benchmark for benchmark in json.loads(file.read_text())["benchmarks"]}


def group(name: str) -> str:
    """The phase that a benchmark is named after."""
    return name.partition("[")[0].removeprefix("test_")


def test_every_phase_of_every_backend_is_a_benchmark(measured: Path) -> None:
    """Grouped by phase, with as many rounds as asked for; a histogram for each group."""
    found = benchmarks(measured / "a.json")
    names = ("numpy", "scikit-learn")
    assert list(found) == [f"test_{phase}[{name}]" for phase in ("train", "predict", "start") for name in names]
    for name, benchmark in found.items():
        assert benchmark["group"] == group(name)
        assert len(benchmark["stats"]["data"]) == benchmark["stats"]["rounds"] == 6
        assert benchmark["stats"]["iterations"] == 1
    assert {path.name for path in measured.glob("*.svg")} == {
        f"times-{phase}.svg" for phase in ("train", "predict", "start")
    }


def test_extra_info_says_what_was_measured_and_that_it_is_the_network(measured: Path) -> None:
    """Error, identity, versions, threads, device; a time of the reference for each of the backend's."""
    for name, benchmark in benchmarks(measured / "a.json").items():
        info = benchmark["extra_info"]
        assert f"[{info['backend']}]" in name
        assert info["backend"] in info["versions"]
        assert (info["threads"], info["device"], info["profile"]) == (available_cpus(), "cpu", "identical")
        assert info["identical"] is True
        assert info["disagreements"] <= info["disagreements_allowed"]
        assert info["weights_difference"] <= 1e-3
        assert 0 < info["test_error_percent"] < 60
        assert len(info["reference_seconds"]) == 6
        assert all(seconds > 0 for seconds in info["reference_seconds"])
        epoch = info["train_images"] // info["batch_size"]
        assert info["steps"] == {"train": 7 * epoch, "predict": epoch, "start": 1 + epoch}[group(name)]


def test_machine_info_is_the_harness_s_own(measured: Path) -> None:
    """Without the host's name; with what decides about speed."""
    machine = json.loads((measured / "a.json").read_text())["machine_info"]
    assert machine["name"] == machine_name()
    assert "node" not in machine
    assert {"cpu", "caches", "libraries", "python"} <= set(machine)


TIMELESS = """
import sys
from lockstep_bench.backends.numpy import NumPy


class Timeless(NumPy):
    name = "timeless"
    now = 0.0

    def build(self, *arguments):
        super().build(*arguments)
        sys.modules["__main__"].perf_counter = lambda: self.now

    def train(self, order):
        self.now += 2.0
        return super().train(order)

    def predict(self, images):
        self.now += 0.5
        return super().predict(images)
"""


def test_the_clock_sees_the_work_alone(tmp_path: Path) -> None:
    """In a worker whose clock moves in `train` and `predict` alone, nothing else is in a benchmark's time."""
    (tmp_path / "timeless.py").write_text(TIMELESS)
    done = suite(
        *("--backends", tmp_path / "timeless.py", "--rounds", "2", "-k", "train or predict"),
        f"--benchmark-json={tmp_path / 'a.json'}",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = benchmarks(tmp_path / "a.json")
    assert found["test_train[timeless]"]["stats"]["data"] == [2.0] * 2
    assert found["test_predict[timeless]"]["stats"]["data"] == [0.5] * 2


def test_a_saved_run_is_compared_by_pytest_benchmark_and_by_lockstep(measured: Path) -> None:
    """The next run shows the first one beside itself; of the same machine, so without a warning."""
    done = suite(
        *("--backends", "numpy", "--rounds", "2", "-k", "predict", "--benchmark-compare"),
        folder=measured,
        **without_mnist(measured),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_predict[numpy] (0001_first)" in done.stdout
    assert "test_predict[numpy] (NOW)" in done.stdout
    assert "machine_info is different" not in done.stdout + done.stderr
    changes = compare(measured / "a.json", measured / "a.json")
    assert len(changes) == 6
    assert set(changes["verdict"]) == {"no difference shown"}


def test_what_cannot_run_is_skipped_with_its_reason_and_what_is_unknown_refused(tmp_path: Path) -> None:
    """As everywhere else."""
    adapter = tmp_path / "mine.py"
    adapter.write_text(
        "from lockstep_bench.backends.numpy import NumPy\n\n\n"
        "class Mine(NumPy):\n    name = 'mine'\n    modules = ('not_to_be_had',)\n    extra = ''\n"
    )
    done = suite("--backends", adapter, "-rs", folder=tmp_path)
    assert "3 skipped" in done.stdout
    assert "not_to_be_had is not installed; install it with: pip install not_to_be_had" in done.stdout
    unknown = suite("--backends", "numpi", folder=tmp_path)
    assert unknown.returncode == 4
    assert "there is no backend numpi: did you mean numpy?" in unknown.stdout + unknown.stderr
    assert suite("--rounds", "0", folder=tmp_path).returncode == 4


def test_without_mnist_it_says_first_that_it_takes_digits(tmp_path: Path) -> None:
    """Times of digits are nobody's MNIST times."""
    options = ("--backends", "numpy", "--rounds", "1", "-k", "predict")
    done = suite(*options, folder=tmp_path, **without_mnist(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    before, _, after = done.stdout.partition("nothing here is an MNIST result")
    assert "stand in for MNIST" in before
    assert "test_predict[numpy]" in after


def test_where_no_mnist_is_to_be_found_it_ends_in_a_sentence(tmp_path: Path) -> None:
    """And with the exit code of what was asked for wrongly; no benchmark fails for it."""
    done = suite("--backends", "numpy", folder=tmp_path, LOCKSTEP_MNIST=str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert f"lockstep: {tmp_path / 'nothing'} is not a folder; name one that holds the IDX files" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_backend_that_is_another_network_fails(tmp_path: Path) -> None:
    """Its times are of no use, and `extra_info` says so."""
    broken = ROOT / "tests" / "broken" / "l2_1e_4.py"
    done = suite(
        *("--backends", broken, "--rounds", "1", "-k", "train", f"--benchmark-json={tmp_path / 'a.json'}"),
        folder=tmp_path,
    )
    assert done.returncode == 1
    assert "test images differently from numpy; 5 are allowed" in done.stdout


def test_a_backend_that_shows_other_weights_fails_too(tmp_path: Path) -> None:
    """The gate is that of a run: predictions alone are not enough."""
    (tmp_path / "other.py").write_text(
        "from lockstep_bench.backends.numpy import NumPy\n\n\n"
        "class Other(NumPy):\n    name = 'other'\n\n"
        "    def weights(self):\n        weights = super().weights()\n"
        "        return weights._replace(hidden_kernel=2 * weights.hidden_kernel)\n"
    )
    done = suite("--backends", tmp_path / "other.py", "--rounds", "1", "-k", "predict", folder=tmp_path)
    assert done.returncode == 1
    assert "of numpy's way from numpy's; 0.1 is allowed" in done.stdout


def test_plain_pytest_does_not_time_anything() -> None:
    """The suite is collected only where it is named."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "tests/benchmarks" not in done.stdout
    assert "tests/harness/records/test_records.py" in done.stdout
