"""Nothing that is inherited decides how fast a backend computes, unless it is kept by its name, recorded and said."""

import os
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.machine.variables import (
    decides,
    decides_for_all,
    environment_without,
    inherited,
    recordable,
)
from lockstep_bench.harness.records.format import Block, BuildEvent, EndEvent, Event, MachineEvent
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.running.plan import make_plan
from support.command import lockstep

BUILDS_ON_IT = """
import os

from lockstep_bench.backends.numpy import NumPy


class BuildsOnIt(NumPy):
    name = "builds-on-it"

    @classmethod
    def environment(cls, threads, device, dtype):
        return {"XLA_FLAGS": (os.environ.get("XLA_FLAGS", "") + " --own").strip()}
"""
SMALL = ["run", "numpy", "--dataset", "digits", "--epochs", "1", "--train-images", "120", "--slice-steps", "1"]
DECIDING = """
OPENBLAS_CORETYPE OPENBLAS_L2_SIZE GOTO_NUM_THREADS MKL_CBWR DNNL_MAX_CPU_ISA ONEDNN_VERBOSE BLIS_ARCH_TYPE
FLEXIBLAS ATEN_CPU_CAPABILITY NPY_DISABLE_CPU_FEATURES OMP_WAIT_POLICY GOMP_SPINCOUNT KMP_BLOCKTIME XLA_FLAGS
JAX_DISABLE_JIT JAX_COMPILATION_CACHE_DIR TF_XLA_FLAGS TF_ENABLE_ONEDNN_OPTS TF_NUM_INTRAOP_THREADS
KERAS_BACKEND TORCH_COMPILE_DISABLE NPROC TORCHINDUCTOR_FREEZING TORCHDYNAMO_DISABLE PYTORCH_ALLOC_CONF
NUMBA_DISABLE_JIT FLAGS_use_mkldnn MLX_DISABLE_COMPILE SKLEARN_ASSUME_FINITE CUDA_LAUNCH_BLOCKING
NVIDIA_TF32_OVERRIDE MALLOC_TRIM_THRESHOLD_ MALLOC_ARENA_MAX GLIBC_TUNABLES LD_PRELOAD PYTHONOPTIMIZE
PYTHONMALLOC PYTHONHASHSEED CXX CFLAGS DEBUG IMAGE BEAM NO_COLOR JIT DEFAULT_FLOAT
"""
PLACES = """
PATH HOME LANG TZ TMPDIR LD_LIBRARY_PATH PYTHONPATH PYTHONUNBUFFERED LOCKSTEP_MNIST KERAS_HOME TORCH_HOME
XDG_CACHE_HOME CUDA_HOME CUDA_VERSION TF_CLI_CONFIG_FILE TF_VAR_a
"""
TINYGRAD_PLACES = {
    *("BROWSER", "CUDA_PATH", "LD_LIBRARY_PATH", "PATH", "PORT", "PYTEST_XDIST_WORKER_COUNT", "ROCM_PATH"),
    *("REMOTE", "REMOTE_TIMEOUT", "APL_REMOTE_SOCK", "TINYFS_ENDPOINT", "TINYFS_TIMEOUT", "XDG_CACHE_HOME"),
}
"""Where something is: tinygrad reads these too."""


@pytest.mark.parametrize(
    "name",
    DECIDING.split(),
)
def test_what_decides_is_removed_and_only_kept_by_name(name: str) -> None:
    """Each by its own name, and by nothing like it."""
    environment = {name: "1", "PATH": "/bin", f"MY_{name}": "2"}
    assert inherited(environment) == ({name: "1"}, {})
    assert inherited(environment, ["PATH2", name.lower() + "2"]).removed == {name: "1"}
    assert inherited(environment, [name]) == ({}, {name: "1"})


@pytest.mark.parametrize(
    "name",
    PLACES.split(),
)
def test_what_says_where_something_is_stays(name: str) -> None:
    """Nor is it recorded: it is nobody's business."""
    assert inherited({name: "x"}) == ({}, {})


def test_the_choice_of_a_gpu_stays_and_is_recorded() -> None:
    """Without it a run would take a GPU that is somebody else's."""
    assert inherited({"CUDA_VISIBLE_DEVICES": "1"}) == ({}, {"CUDA_VISIBLE_DEVICES": "1"})


def test_of_paths_only_the_last_part_is_recorded() -> None:
    """Also where an option's value is one."""
    found = recordable({"LD_PRELOAD": "/home/someone/libfast.so", "XLA_FLAGS": "--xla_dump_to=/home/me/dump --xla_x=1"})
    assert found == {"LD_PRELOAD": "libfast.so", "XLA_FLAGS": "--xla_dump_to=dump --xla_x=1"}


def test_what_bears_on_the_reference_is_told_from_what_single_frameworks_read() -> None:
    """A differing `JAX_DISABLE_JIT` leaves the yardstick what it was, another kernel of its BLAS does not."""
    assert decides_for_all("OPENBLAS_CORETYPE")
    assert decides_for_all("MALLOC_TRIM_THRESHOLD_")
    assert not decides_for_all("JAX_DISABLE_JIT")


def test_an_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is set, changed or deleted within."""
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("REMOVED", "2")
    before = dict(os.environ)
    with environment_without(["REMOVED", "NEVER_THERE"]):
        assert "REMOVED" not in os.environ
        os.environ |= {"KEPT": "other", "NEW": "3"}
        del os.environ["PATH"]
    assert dict(os.environ) == before


@pytest.mark.frameworks
def test_every_variable_that_tinygrad_reads_is_known() -> None:
    """Its names have no prefix, so the list has them one by one: a new version may read more."""
    found = find_spec("tinygrad")
    assert found
    assert found.submodule_search_locations
    read: set[str] = set()
    for folder in found.submodule_search_locations:
        for file in Path(folder).rglob("*.py"):
            pattern = r"""(?:getenv\(|ContextVar\(|environ\.get\(|environ\[)["']([A-Z][A-Z0-9_]*)["']"""
            read |= set(re.findall(pattern, file.read_text()))
    assert len(read) > 100
    assert {name for name in read if not decides(name)} <= TINYGRAD_PLACES


def test_no_worker_inherits_one_by_any_way(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from the process nor through an adapter that builds on what it finds; the block says what was there."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    monkeypatch.setenv("XLA_FLAGS", "--theirs")
    monkeypatch.delenv("KMP_DUPLICATE_LIB_OK", raising=False)
    monkeypatch.delitem(sys.modules, "threadpoolctl", raising=False)
    adapter = tmp_path / "builds_on_it.py"
    adapter.write_text(BUILDS_ON_IT)
    for keep in ([], ["XLA_FLAGS"]):
        events: list[Event] = []

        def observe(_: Block, event: Event, to: list[Event] = events) -> None:
            to.append(event)

        plan = make_plan(digits, [str(adapter)], epochs=1, train_images=60, slice_steps=4, threads=1, keep=keep)
        conduct(plan, digits.folder, tmp_path / str(len(keep)), observe, extras=False)
        [machine] = (event for event in events if isinstance(event, MachineEvent))
        builds = {event.backend: event.variables for event in events if isinstance(event, BuildEvent)}
        assert {event.status for event in events if isinstance(event, EndEvent)} == {"ok"}
        assert machine.variables_removed is not None
        assert machine.variables_removed["MALLOC_ARENA_MAX"] == "7"
        assert "KMP_DUPLICATE_LIB_OK" not in machine.variables_removed  # threadpoolctl sets it where it is imported
        assert machine.variables_kept == ({"XLA_FLAGS": "--theirs"} if keep else {})
        assert builds["builds-on-it"]["XLA_FLAGS"] == ("--theirs --own" if keep else "--own")
        assert builds["numpy"].get("XLA_FLAGS") == ("--theirs" if keep else None)
        assert not any("MALLOC_ARENA_MAX" in variables for variables in builds.values())


def run(out: Path, *options: str, **variables: str) -> Any:
    """A short run by the command."""
    done = lockstep(*SMALL, *options, "--no-report", "--out", out, cwd=out.parent, **variables)
    assert done.returncode == 0, done.stderr
    return done


def test_a_run_says_what_it_removed_and_kept_and_compare_names_it(tmp_path: Path) -> None:
    """At its start, in runs.csv and summary.md; two runs that differ in what was kept are told apart."""
    variables = {"NPY_PROMOTION_STATE": "weak", "MALLOC_ARENA_MAX": "7"}
    removed = run(tmp_path / "removed", **variables)
    [said] = (line for line in removed.stderr.splitlines() if "workers start without" in line)
    assert all(f"{name}={value}" in said for name, value in variables.items())
    kept = run(tmp_path / "kept", "--keep", "MALLOC_ARENA_MAX", **variables)
    assert "workers inherit MALLOC_ARENA_MAX=7" in kept.stderr
    for folder in ("removed", "kept"):
        assert lockstep("report", tmp_path / folder, cwd=tmp_path).returncode == 0
    rows = {folder: pd.read_csv(tmp_path / folder / "runs.csv").iloc[0] for folder in ("removed", "kept")}
    assert "MALLOC_ARENA_MAX=7" in shlex.split(rows["removed"]["variables_removed"])
    assert rows["kept"]["variables_kept"] == "MALLOC_ARENA_MAX=7"
    summary = (tmp_path / "kept" / "summary.md").read_text()
    assert "- environment variables that workers inherited: `MALLOC_ARENA_MAX=7`\n" in summary
    assert "- environment variables that they started without: `" in summary
    assert "MALLOC_ARENA_MAX=7" in (tmp_path / "kept" / "report.html").read_text()
    compared = lockstep("compare", tmp_path / "removed", tmp_path / "kept", cwd=tmp_path)
    assert "MALLOC_ARENA_MAX none to 7" in compared.stdout
