"""A worker's environment: threads as asked for, caches that are empty, nothing of an earlier run."""

from pathlib import Path

import pytest

from lockstep_bench.harness.machine.variables import THREAD_VARIABLES
from lockstep_bench.harness.running.worker_process import (
    COMPILE_CACHES,
    WorkerProcess,
    worker_environment,
)


def test_thread_counts_and_caches_come_before_the_adapters_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the user's environment says of them does not count, what the adapter says does."""
    for name in (*THREAD_VARIABLES, *COMPILE_CACHES, "JAX_COMPILATION_CACHE_DIR", "UNRELATED"):
        monkeypatch.setenv(name, "the user's")
    found = worker_environment({"OMP_NUM_THREADS": "7", "OWN": "yes"}, 3, tmp_path)
    assert {found[name] for name in THREAD_VARIABLES if name != "OMP_NUM_THREADS"} == {"3"}
    assert (found["OMP_NUM_THREADS"], found["OWN"], found["UNRELATED"]) == ("7", "yes", "the user's")
    assert {Path(found[name]).parent for name in COMPILE_CACHES} == {tmp_path}
    assert len({found[name] for name in COMPILE_CACHES}) == len(COMPILE_CACHES)
    assert "JAX_COMPILATION_CACHE_DIR" not in found


def test_every_worker_has_caches_of_its_own_that_go_with_it(tmp_path: Path) -> None:
    """Two workers never share compiled code, and leave none."""
    folders = []
    for place in range(2):
        log = tmp_path / f"{place}.log"
        with WorkerProcess("numpy", dtype="float32", device="cpu", threads=1, log=log, timeout=60.0) as worker:
            worker.start()
            folders.append(Path(worker.caches.name))
            assert folders[-1].is_dir()
            assert not list(folders[-1].iterdir())
    assert folders[0] != folders[1]
    assert not any(folder.exists() for folder in folders)
