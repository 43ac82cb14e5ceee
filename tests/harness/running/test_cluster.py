"""A plan over the nodes of a cluster: a real scheduler, real nodes on loopback, and what happens when they die."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.data.find import at_hand, raw
from lockstep_bench.harness.problem import digest
from lockstep_bench.harness.records.format import EndEvent, MachineEvent
from lockstep_bench.harness.records.raw_files import block_path, read_block, read_plan
from lockstep_bench.harness.report.summary import answer
from lockstep_bench.harness.running.node import RESOURCE, Found, Report, unfit
from lockstep_bench.harness.running.plan import make_plan
from lockstep_bench.harness.tables.results import load
from support.command import LOCKSTEP, lockstep_process

DASK = [sys.executable, "-m", "dask"]
RUN = ["run", "numpy", "scikit-learn-tuned", "--dataset", "digits", "--threads", "1", "--slice-steps", "10"]
RESUME = ["run", "--resume", "--no-report", "--out", "out"]
SHORT = [*RUN, "--no-report", "--epochs", "1", "--train-images", "150", "--seeds", "0,1"]
LONG = [*RUN, "--no-report", "--epochs", "10", "--train-images", "300", "--seeds", "0"]
MARK = "LOCKSTEP_TEST_CLUSTER"
SECONDS = 120.0
"""For anything to happen."""


def wait_until(happened: Callable[[], object], process: "subprocess.Popen[str] | None" = None) -> None:
    """Look again and again; fails if it never comes, or the process that should bring it about has ended."""
    late = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < late
        assert process is None or process.poll() is None, process.communicate() if process else ""
        time.sleep(0.05)


class Cluster:
    """A scheduler and its nodes, each a process of its own, with logs in a folder."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack, self.nodes = folder, stack, list[subprocess.Popen[bytes]]()
        self.scheduler = self._start("scheduler", "scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
        wait_until(lambda: self._found(self.folder / "scheduler.log", r"tcp://127\.0\.0\.1:\d+"))
        self.address = str(self._found(self.folder / "scheduler.log", r"tcp://127\.0\.0\.1:\d+"))

    @staticmethod
    def _found(log: Path, pattern: str) -> str | None:
        match = re.search(pattern, log.read_text())
        return match[0] if match else None

    def _start(self, name: str, *arguments: str, **variables: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*DASK, *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**os.environ, MARK: str(self.folder), **variables},
                start_new_session=True,
            )
        self.stack.callback(end, process)
        return process

    def add(self, nanny: str = "--no-nanny", **variables: str) -> "subprocess.Popen[bytes]":
        """One more node; with `nanny="--nanny"` a process watches it, and starts another in its place."""
        name = f"node-{len(self.nodes)}"
        arguments = ("--nworkers", "1", "--nthreads", "1", "--no-dashboard", "--resources", f"{RESOURCE}=1", nanny)
        node = self._start(name, "worker", self.address, *arguments, **variables)
        wait_until(lambda: self._found(self.folder / f"{name}.log", "Registered to"))
        self.nodes.append(node)
        return node


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process with all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler without nodes."""
    with ExitStack() as stack:
        (tmp_path / "cluster").mkdir()
        yield Cluster(tmp_path / "cluster", stack)


@contextmanager
def started(folder: Path, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """The command, running."""
    process = subprocess.Popen(
        [*LOCKSTEP, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def turns_in(out: Path) -> int:
    """How many turns the raw files of a run have."""
    return sum(path.read_text().count('"event":"turn"') for path in out.glob("blocks/*.jsonl"))


def training_in(folder: Path) -> list[psutil.Process]:
    """Every process that trains for the nodes of a cluster, by a variable that they inherit."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            is_worker = "lockstep_bench.harness.worker.worker" in (process.info["cmdline"] or [])
            if is_worker and process.environ().get(MARK) == str(folder):
                found.append(process)
    return found


def errors_of(out: Path) -> pd.DataFrame:
    """What does not depend on time or place."""
    runs = load(out).runs[["backend", "seed", "status", "epochs_done", "test_error_percent", "test_loss"]]
    return runs.sort_values(["seed", "backend"]).reset_index(drop=True)


LOGS_AN_ERROR = """
import logging, os
from lockstep_bench.harness.running.cluster import connected
before = dict(os.environ)
with connected("local:1") as client:
    client.run(logging.getLogger("distributed.worker").error, "Failed to communicate with scheduler")
assert dict(os.environ) == before, "what nannies set has stayed"
"""


def test_a_local_cluster_prints_nothing_of_dasks() -> None:
    """Neither a heartbeat cut off when it ends, which is no error, nor the port of a dashboard that is not shown.

    And it leaves no variable behind in the environment of who called it.
    """
    with socket.socket() as other_dashboard:
        with suppress(OSError):  # somebody has it
            other_dashboard.bind(("127.0.0.1", 8787))
            other_dashboard.listen()
        done = subprocess.run([sys.executable, "-c", LOGS_AN_ERROR], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_nodes_that_share_a_machine_give_the_same_errors_and_no_ranks(tmp_path: Path) -> None:
    """`--cluster local:2`: the errors and predictions are those without a cluster, the times are marked."""
    for out, options in (("alone", []), ("both", ["--cluster", "local:2"])):
        done = lockstep_process(*SHORT, "--out", out, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    alone, both = tmp_path / "alone", tmp_path / "both"
    pd.testing.assert_frame_equal(errors_of(alone), errors_of(both))
    for block in read_plan(alone).blocks:
        ours, theirs = (np.load(block_path(out, block, "npz")) for out in (alone, both))
        assert sorted(ours.files) == sorted(theirs.files)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours.files)
    results = load(both)
    assert set(results.runs["machine"]) == {f"{read_plan(alone).machine}, shared by 2 nodes"}
    assert results.summary["rank"].isna().all()
    assert results.summary["unstable"].str.contains("nodes 2").all()
    assert "nobody is ranked" in answer(results)
    assert load(alone).summary["rank"].notna().all()
    assert results.runs["variables_removed"].str.contains("MALLOC_TRIM_THRESHOLD_=").all()  # it is the nannies'
    assert not results.runs["variables_kept"].any()
    assert {path.name for path in (both / "logs" / "seed-0-threads-1-cpu").iterdir()} == {
        "numpy.log",
        "scikit-learn-tuned.log",
        "_floor.log",
    }


def test_a_node_that_dies_has_its_block_run_again_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    """Killed in mid-block: the other node begins it anew, and what the first had done stays above, uncounted."""
    out = tmp_path / "out"
    first = cluster.add()
    with started(tmp_path, *LONG, "--out", "out", "--cluster", cluster.address) as run:
        wait_until(lambda: turns_in(out) > 3, run)
        cluster.add()
        first.kill()
        _, printed = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, printed
    assert "seed-0-threads-1-cpu is run again" in printed
    recorded = read_block(out, read_plan(out).blocks[0])
    assert (recorded.complete, recorded.before) == (True, 1)
    assert load(out).runs["status"].tolist() == ["ok", "ok"]
    assert load(out).runs["epochs_done"].tolist() == [10, 10]


def test_a_block_that_ends_every_node_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    """It is tried on as many as Dask allows; then the run ends, says so, and the other block is complete."""
    adapter = tmp_path / "mine.py"
    adapter.write_text(
        "import os, signal\nfrom lockstep_bench.backends.numpy import NumPy\n\n\nclass Mine(NumPy):\n"
        "    name = 'mine'\n\n    def train(self, order):\n"
        f"        if order[0] == {first_index(seed=1)}:\n            os.kill(os.getppid(), signal.SIGKILL)\n"
        "        return super().train(order)\n"
    )
    cluster.add("--nanny")
    short = [*SHORT[:1], "numpy", "mine.py", *SHORT[3:]]
    done = lockstep_process(*short, "--out", "out", "--cluster", cluster.address, cwd=tmp_path)
    assert done.returncode == 1
    assert "seed-1-threads-1-cpu is given up: KilledWorker" in done.stderr
    assert load(tmp_path / "out").runs["status"].tolist() == ["ok", "ok", "interrupted", "interrupted"]
    assert load(tmp_path / "out").runs["reason"].str.contains("given up: KilledWorker").sum() == 2


def first_index(seed: int) -> int:
    """What an epoch of a seed begins with."""
    from lockstep_bench.harness.problem import epoch_order

    return int(epoch_order(seed, 1, 150)[0])


def test_a_run_survives_the_loss_of_its_scheduler(cluster: Cluster, tmp_path: Path) -> None:
    """Exit code 1 and one sentence, nobody trains on, and --resume completes it on another cluster or on none."""
    out = tmp_path / "out"
    cluster.add()
    with started(tmp_path, *LONG, "--out", "out", "--cluster", cluster.address) as run:
        wait_until(lambda: turns_in(out) > 3, run)
        cluster.scheduler.kill()
        _, printed = run.communicate(timeout=SECONDS)
    assert run.returncode == 1
    assert "the scheduler is gone" in printed
    assert "Traceback" not in printed
    ends = [event for event in read_block(out, read_plan(out).blocks[0]).events if isinstance(event, EndEvent)]
    assert [event.status for event in ends] == ["interrupted"]
    wait_until(lambda: not training_in(cluster.folder))
    assert lockstep_process(*RESUME, cwd=tmp_path).returncode == 0
    assert load(out).runs["status"].tolist() == ["ok", "ok"]


def test_a_run_whose_client_was_killed_is_resumed(cluster: Cluster, tmp_path: Path) -> None:
    """The nodes notice that nobody waits, and run the block again when somebody does."""
    out = tmp_path / "out"
    cluster.add()
    with started(tmp_path, *LONG, "--out", "out", "--cluster", cluster.address) as run:
        wait_until(lambda: turns_in(out) > 3, run)
        run.kill()
        run.communicate()
    wait_until(lambda: not training_in(cluster.folder))
    done = lockstep_process(*RESUME, "--cluster", cluster.address, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    recorded = read_block(out, read_plan(out).blocks[0])
    assert (recorded.complete, recorded.before) == (True, 1)
    assert load(out).runs["epochs_done"].tolist() == [10, 10]


def test_a_signal_ends_a_run_on_a_cluster_in_order(cluster: Cluster, tmp_path: Path) -> None:
    """As without one: the raw file says what it was, and the nodes stop."""
    out = tmp_path / "out"
    cluster.add()
    with started(tmp_path, *LONG, "--out", "out", "--cluster", cluster.address) as run:
        wait_until(lambda: turns_in(out) > 3, run)
        run.terminate()
        _, printed = run.communicate(timeout=SECONDS)
    assert run.returncode == 1
    assert "go on with: lockstep run --resume --out out" in printed
    assert set(load(out).runs["reason"]) == {"the run was interrupted by SIGTERM"}
    wait_until(lambda: not training_in(cluster.folder))


@pytest.fixture
def own_images(digits: Dataset, tmp_path: Path) -> Path:
    """A dataset that no machine has unless it is sent there."""
    folder = tmp_path / "own-images"
    folder.mkdir()
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    for name, array in zip(names, raw(digits), strict=True):
        sizes = np.array(array.shape, ">u4").tobytes()
        (folder / name).write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    return folder


def test_data_goes_once_to_every_node_that_lacks_it(
    cluster: Cluster, tmp_path: Path, own_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked by its hash: a node with a cache of its own gets it, and a second run sends nothing."""
    for number in (0, 1):
        cluster.add(LOCKSTEP_CACHE=str(tmp_path / f"cache-{number}"))
    short = [*SHORT[:4], str(own_images), *SHORT[5:]]
    first = lockstep_process(*short, "--out", "first", "--cluster", cluster.address, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "sending own-images to 2 nodes without it" in first.stderr
    plan = read_plan(tmp_path / "first")
    for number in (0, 1):
        monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / f"cache-{number}"))
        sent = at_hand("own-images", plan.dataset.sha256)
        assert sent is not None
        assert digest(raw(sent)) == plan.dataset.sha256
    monkeypatch.undo()
    second = lockstep_process(*short, "--out", "second", "--cluster", cluster.address, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "sending" not in second.stderr


def test_a_node_that_comes_later_takes_part(cluster: Cluster, tmp_path: Path, own_images: Path) -> None:
    """It is looked at when it takes its first block, and gets the data then."""
    out = tmp_path / "out"
    cluster.add(LOCKSTEP_CACHE=str(tmp_path / "cache-0"))
    long = [*LONG[:4], str(own_images), *LONG[5:-1], "0,1"]
    with started(tmp_path, *long, "--out", "out", "--cluster", cluster.address) as run:
        wait_until(lambda: turns_in(out) > 3, run)
        cluster.add(LOCKSTEP_CACHE=str(tmp_path / "cache-1"))
        _, printed = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, printed
    assert printed.count("sending own-images to 1 node without it") == 2
    plan = read_plan(out)
    nodes = [
        event.nodes
        for block in plan.blocks
        for event in read_block(out, block).events
        if isinstance(event, MachineEvent)
    ]
    assert sorted(nodes) == [1, 2]  # the second block was begun when there were two on this machine


@pytest.fixture
def picky_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An adapter that runs on every node of this test but those that are started with PYTHONPATH empty."""
    (tmp_path / "mine.py").write_text(
        "from lockstep_bench.backends.numpy import NumPy\n\n\nclass Mine(NumPy):\n"
        "    name, modules, extra = 'mine', ('only_here',), 'mine'\n"
    )
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "only_here.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own"))
    return "mine.py"


LEFT_OUT = r"node tcp://\S+ is left out: mine cannot run: only_here is not installed"


def test_a_node_is_waited_for_and_left_out_if_it_lacks_a_framework(
    cluster: Cluster, tmp_path: Path, picky_adapter: str
) -> None:
    """A run begins before there is a node, and ends with the reason if none can run it; one that can is enough."""
    arguments = ["run", "numpy", picky_adapter, *SHORT[3:-1], "0", "--out", "out", "--cluster", cluster.address]
    with started(tmp_path, *arguments) as run:
        assert run.stderr is not None
        assert any("waiting for a node" in line for line in run.stderr)  # reads on until it is said
        cluster.add(PYTHONPATH="")
        _, printed = run.communicate(timeout=SECONDS)
    assert run.returncode == 2
    assert re.search(LEFT_OUT, printed)
    assert "no node can run this plan: mine cannot run: only_here is not installed" in printed
    assert not (tmp_path / "out").exists()
    cluster.add()
    done = lockstep_process(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(LEFT_OUT, done.stderr)
    assert load(tmp_path / "out").runs["status"].tolist() == ["ok", "ok"]


def test_a_node_that_comes_later_and_lacks_a_framework_is_left_out(
    cluster: Cluster, tmp_path: Path, picky_adapter: str
) -> None:
    """It says so when it is given its first block, which goes back to a node that can run it."""
    out = tmp_path / "out"
    cluster.add()
    arguments = ["run", "numpy", picky_adapter, *LONG[3:-1], "0,1", "--out", "out", "--cluster", cluster.address]
    with started(tmp_path, *arguments) as run:
        wait_until(lambda: turns_in(out) > 3, run)
        cluster.add(PYTHONPATH="")
        _, printed = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, printed
    assert re.search(LEFT_OUT, printed)
    assert load(out).runs["status"].tolist() == ["ok", "ok", "ok", "ok"]
    assert load(out).runs["epochs_done"].tolist() == [10, 10, 10, 10]


def test_mixed_versions_are_refused_unless_allowed(cluster: Cluster, tmp_path: Path) -> None:
    """Which node has what instead of what; nothing is written. If they are allowed, the record has the node's."""
    (tmp_path / "other" / "numpy-0.1.dist-info").mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: numpy\nVersion: 0.1\n"
    (tmp_path / "other" / "numpy-0.1.dist-info" / "METADATA").write_text(metadata)
    cluster.add(PYTHONPATH=str(tmp_path / "other"))
    arguments = [*SHORT[:-1], "0", "--out", "out", "--cluster", cluster.address]
    refused = lockstep_process(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert re.search(r"node tcp://\S+ has numpy 0\.1 instead of \d+\.\d+\.\d+", refused.stderr)
    assert not (tmp_path / "out").exists()
    allowed = lockstep_process(*arguments, "--allow-mixed", cwd=tmp_path)
    assert allowed.returncode == 0, allowed.stderr
    assert "numpy 0.1" in load(tmp_path / "out").runs["versions"][0]


@pytest.mark.parametrize(
    ("cluster_option", "message"),
    [
        ("tcp://127.0.0.1:1", "no scheduler answers at tcp://127.0.0.1:1"),
        ("local:none", "give local: and how many nodes, such as local:2"),
        ("nowhere", "--cluster nowhere: give a scheduler's address, such as tcp://HOST:8786"),
    ],
)
def test_a_cluster_that_is_none_is_an_error(tmp_path: Path, cluster_option: str, message: str) -> None:
    """One sentence, exit code 2, and nothing is written."""
    done = lockstep_process(*SHORT, "--out", "out", "--cluster", cluster_option, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def report(**found: object) -> Report:
    """A node with NumPy, and what else is asked for."""
    fields = {
        "machine": "A Machine",
        "host": "1",
        "cpus": 8,
        "software": {"lockstep": "0.1.0", "python": "3.11.7"},
        "backends": {"numpy": Found({"numpy": "2.0"}, "50", "")},
        "has_data": True,
    }
    return Report(**{**fields, **found})  # type: ignore[arg-type] # each test gives the right ones


def test_what_makes_a_node_unfit(digits: Dataset) -> None:
    """Too few CPUs and a backend that is missing always, other versions unless they are allowed."""
    made = make_plan(digits, ["numpy"], threads=1)
    known = {"lockstep": "0.1.0", "python": "3.11.7"}
    planned = made.backends[0].model_copy(update={"versions": {"numpy": "2.0"}, "source_sha256": "50"})
    plan = made.model_copy(update={**known, "backends": [planned]})
    assert unfit(plan, report()) == []
    assert unfit(plan, report(cpus=0)) == ["it has 0 CPUs for 1 thread"]
    missing = report(backends={"numpy": Found({}, "", "it is not installed")})
    assert unfit(plan, missing, allow_mixed=True) == ["numpy cannot run: it is not installed"]
    other = report(software={**known, "python": "3.12.0"}, backends={"numpy": Found({"numpy": "2.1"}, "51", "")})
    assert unfit(plan, other) == [
        "python 3.12.0 instead of 3.11.7",
        "numpy 2.1 instead of 2.0",
        "numpy's adapter 51 instead of 50",
    ]
    assert unfit(plan, other, allow_mixed=True) == []
