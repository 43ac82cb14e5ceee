"""A plan over many machines: its blocks are tasks of a Dask cluster, one at a time on each node.

The unit is the block: all its backends take their turns on one node, so every ratio stays paired on its machine. Events
come back as they happen, to be shown and written; a block's result has all of them once more, so that nothing hangs on
a message that was lost. What a node had done of a block when it died stays in the raw file as an interrupted attempt.
"""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.machine.variables import environment_without
from lockstep_bench.harness.records.format import Plan
from lockstep_bench.harness.running.cluster_nodes import Say, fit_nodes, send_data
from lockstep_bench.harness.running.cluster_run import ClusterRun
from lockstep_bench.harness.running.conductor import Observer, results_folder
from lockstep_bench.harness.running.node import RESOURCE

LOCAL: Final = "local:"
CONNECT_SECONDS = 10
"""How long to wait for a scheduler."""


def conduct_on_cluster(
    plan: Plan,
    dataset: Dataset,
    out: Path,
    cluster: str,
    observe: Observer = lambda *_: None,
    say: Say = lambda _: None,
    *,
    beat: Callable[[], None] = lambda: None,
    allow_mixed: bool = False,
    resume: bool = False,
    retry_failed: bool = False,
) -> None:
    """Run every block of a plan on the nodes of a cluster, into a results folder of this machine.

    Args:
        plan: what to run.
        dataset: goes to every node that lacks it, once.
        out: the results folder, as for `conductor.conduct`.
        cluster: the address of a Dask scheduler, or `local:N` for N nodes on this machine.
        observe: is told every event with its block, after it is on the disk.
        say: is told what a user has to know of nodes.
        beat: is called every second while no event comes.
        allow_mixed: whether nodes may have other versions than this machine.
        resume: as for `conductor.conduct`.
        retry_failed: likewise.

    Raises:
        UsageError: there is no such cluster, or no node in it that can run the plan; nothing was written.
        LockstepError: the scheduler was lost; what was complete is kept.
        KeyboardInterrupt: after a signal that ends a run, when the nodes were told.
    """
    adapters = {spec: Path(spec).read_text() for spec in {one.spec for one in plan.backends} if spec.endswith(".py")}
    with connected(cluster) as client:
        reports = fit_nodes(client, plan, adapters, allow_mixed, say)
        send_data(client, dataset, [address for address, report in reports.items() if not report.has_data], say)
        hosts = {address: report.host for address, report in reports.items()}
        with results_folder(out, plan, resume, retry_failed) as left:
            ClusterRun(client, plan, dataset, out, adapters, hosts, observe, say, allow_mixed, beat).run(left)


@contextmanager
def connected(cluster: str) -> Iterator[Any]:
    """A client of the cluster, which is started and ended here if it is a local one."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise UsageError("--cluster needs Dask: pip install 'lockstep-bench[cluster]'") from error
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(
            ("asyncio", "distributed", "tornado")
        ):  # what is to be known of a lost connection is said here
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with environment_without(), ExitStack() as stack:  # Dask's nannies set variables here, for their workers
        address: Any = cluster
        if cluster.startswith(LOCAL):
            count = cluster.removeprefix(LOCAL)
            if not (count.isdigit() and int(count)):
                raise UsageError(f"--cluster {cluster}: give {LOCAL} and how many nodes, such as {LOCAL}2")
            nodes = {"n_workers": int(count), "threads_per_worker": 1, "resources": {RESOURCE: 1}, "processes": True}
            # A node that is ended while it tells the scheduler that it lives logs a traceback: dask/distributed#7105.
            quiet = {"silence_logs": logging.CRITICAL, "dashboard_address": None}
            any_free_port = {"dashboard_address": "127.0.0.1:0"}  # else 8787, and a warning where that is taken
            with _deaf_to_ctrl_c():
                address = stack.enter_context(LocalCluster(**nodes, **quiet, scheduler_kwargs=any_free_port))
        elif "://" not in cluster:
            raise UsageError(f"--cluster {cluster}: give a scheduler's address, such as tcp://HOST:8786, or {LOCAL}2")
        try:
            client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS, set_as_default=False))
        except (OSError, ValueError) as error:
            raise UsageError(f"no scheduler answers at {cluster}: {error}; start it by `dask scheduler`") from error
        yield client


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started within leave a Ctrl-C at the terminal to this one, which ends them in order."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # only the main thread can
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
