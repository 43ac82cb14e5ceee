"""A plan over many machines: its blocks are tasks of a Dask cluster, one at a time on each node.

The unit is the block: all its backends take their turns on one node, so every ratio stays paired on its machine. Events
come back as they happen, to be shown and written; a block's result has all of them once more, so that nothing hangs on
a message that was lost. What a node had done of a block when it died stays in the raw file as an interrupted attempt.
"""

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final
from uuid import uuid4

from lockstep_bench.harness.data import find
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.records.format import EVENT, Block, EndEvent, Event, MachineEvent, Plan
from lockstep_bench.harness.records.raw_files import BlockFile, remove_arrays, write_arrays
from lockstep_bench.harness.running import node
from lockstep_bench.harness.running.conductor import Observer, results_folder
from lockstep_bench.harness.running.node import RESOURCE, NoData, Outcome, Report, Unfit

START_A_NODE: Final = f"dask worker SCHEDULER --nworkers 1 --nthreads 1 --resources {RESOURCE}=1"
"""What makes a machine a node."""
LOCAL: Final = "local:"
CONNECT_SECONDS, NODES_SECONDS = 10, 600
"""How long to wait for a scheduler, and then for a first node, which a batch system may take its time to start."""
POLL_SECONDS = 1.0
"""How often to look for a signal and a lost scheduler while no message comes."""
REASON_CHARACTERS = 500

Say = Callable[[str], None]


def conduct_on_cluster(
    plan: Plan,
    dataset: Dataset,
    out: Path,
    cluster: str,
    observe: Observer = lambda *_: None,
    say: Say = lambda _: None,
    *,
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
        allow_mixed: whether nodes may have other versions than this machine.
        resume: as for `conductor.conduct`.
        retry_failed: likewise.

    Raises:
        UsageError: there is no such cluster, or no node in it that can run the plan; nothing was written.
        LockstepError: the scheduler was lost; what was complete is kept.
        KeyboardInterrupt: after a signal that ends a run, when the nodes were told.
    """
    adapters = {spec: Path(spec).read_text() for spec in {one.spec for one in plan.backends} if spec.endswith(".py")}
    with _connected(cluster) as client:
        reports = _fit_nodes(client, plan, adapters, allow_mixed, say)
        _send_data(client, dataset, [address for address, report in reports.items() if not report.has_data], say)
        hosts = {address: report.host for address, report in reports.items()}
        with results_folder(out, plan, resume, retry_failed) as left:
            ClusterRun(client, plan, dataset, out, adapters, hosts, observe, say, allow_mixed).run(left)


@contextmanager
def _connected(cluster: str) -> Iterator[Any]:
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
    with ExitStack() as stack:
        address: Any = cluster
        if cluster.startswith(LOCAL):
            count = cluster.removeprefix(LOCAL)
            if not (count.isdigit() and int(count)):
                raise UsageError(f"--cluster {cluster}: give {LOCAL} and how many nodes, such as {LOCAL}2")
            options = {"n_workers": int(count), "threads_per_worker": 1, "resources": {RESOURCE: 1}}
            with _deaf_to_ctrl_c():
                address = stack.enter_context(LocalCluster(**options, processes=True, dashboard_address=None))
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


def _fit_nodes(client: Any, plan: Plan, adapters: Mapping[str, str], allow_mixed: bool, say: Say) -> dict[str, Report]:
    """What the nodes say of themselves, by their addresses.

    Raises:
        UsageError: there are none, or one has other versions, or none can run the plan.
    """
    addresses = _nodes(client)
    if not addresses:
        say(f"waiting for a node: {START_A_NODE}")
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=NODES_SECONDS)
        addresses = _nodes(client)
    if not addresses:
        raise UsageError(f"the cluster has no node that offers {RESOURCE}=1: start some by `{START_A_NODE}`")
    specs = [backend.spec for backend in plan.backends]
    arguments = (specs, adapters, plan.device, plan.dataset.name, plan.dataset.sha256)
    found = client.run(node.describe, *arguments, workers=addresses, on_error="return")
    fit, unfit, mixed = {}, {}, {}
    for address, report in found.items():
        if isinstance(report, BaseException):
            unfit[address] = [f"it cannot say what it has: {type(report).__name__}: {report}"]
        elif reasons := node.unfit(plan, report, allow_mixed=True):
            unfit[address] = reasons
        else:
            fit[address] = report
            mixed[address] = node.other_versions(plan, report)
    for address, reasons in unfit.items():
        say(f"node {address} is left out: {'; '.join(reasons)}")
    other = [f"node {address} has {', '.join(versions)}" for address, versions in mixed.items() if versions]
    for line in other:
        say(line)
    if other and not allow_mixed:
        raise UsageError(f"{other[0]}: install the same on all of them, or give --allow-mixed to run on mixed versions")
    if not fit:
        raise UsageError(f"no node can run this plan: {'; '.join(next(iter(unfit.values())))}")
    return fit


def _nodes(client: Any) -> list[str]:
    """The addresses of the workers that run one block at a time."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return [address for address, worker in workers.items() if worker["resources"].get(RESOURCE) == 1]


def _send_data(client: Any, dataset: Dataset, addresses: list[str], say: Say) -> None:
    """Give these nodes the dataset; they pass it on to one another."""
    if not addresses:
        return
    say(f"sending {dataset.name} to {len(addresses)} node{'s' if len(addresses) > 1 else ''} without it")
    sent = client.scatter(find.raw(dataset), workers=addresses, broadcast=True, hash=False)
    identity = (dataset.name, dataset.sha256, dataset.scale)
    tasks = [client.submit(node.take_data, *identity, sent, workers=[one], pure=False) for one in addresses]
    client.gather(tasks)


class ClusterRun:
    """The blocks of one run on their way.

    Args:
        client: of the cluster.
        plan: what is run.
        dataset: what it is run on.
        out: the results folder, which this run holds.
        adapters: the text of each adapter that comes from a file, by its path.
        hosts: of every node the machine that it is on.
        observe, say, allow_mixed: as for `conduct_on_cluster`.
    """

    def __init__(
        self,
        client: Any,
        plan: Plan,
        dataset: Dataset,
        out: Path,
        adapters: Mapping[str, str],
        hosts: dict[str, str],
        observe: Observer,
        say: Say,
        allow_mixed: bool,
    ) -> None:
        self.client, self.plan, self.dataset, self.out = client, plan, dataset, out
        self.adapters, self.hosts = adapters, hosts
        self.observe, self.say, self.allow_mixed = observe, say, allow_mixed
        self.inbox: SimpleQueue[Any] = SimpleQueue()
        self.topic = f"lockstep-{uuid4().hex}"
        self.left_out: set[str] = set()
        self.waiting: dict[Any, Block] = {}
        self.begun: dict[str, Attempt] = {}

    def run(self, left: list[Block]) -> None:
        """Until every block has come to its end, or nobody can run it."""
        self.client.subscribe_topic(self.topic, lambda event: self.inbox.put(event[1]))
        self.blocks = {block.id: block for block in left}
        try:
            for block in left:
                self._submit(block)
            while self.waiting:
                self._take()
        except BaseException as error:
            self._interrupt(error)
            raise
        finally:
            self.client.cancel(list(self.waiting), force=True)
            self.client.unsubscribe_topic(self.topic)
            for attempt in self.begun.values():
                attempt.file.close()

    def _submit(self, block: Block) -> None:
        nodes = None
        if self.left_out:
            nodes = [address for address in _nodes(self.client) if address not in self.left_out]
            if not nodes:
                raise LockstepError("no node that could run this plan is left: go on with --resume once there is one")
        key = f"{self.topic}-{block.id}-{uuid4().hex}"
        future = self.client.submit(
            node.run_block,
            *(self.plan, block.id, self.adapters, self.topic, key, self.allow_mixed),
            key=key,
            resources={RESOURCE: 1},
            workers=nodes,
        )
        self.waiting[future] = block
        future.add_done_callback(self.inbox.put)

    def _take(self) -> None:
        """One message: an event, or a block that has come to its end."""
        try:
            message = self.inbox.get(timeout=POLL_SECONDS)
        except Empty:
            if self.client.status != "running":
                raise _lost() from None
            return
        if isinstance(message, dict):
            self._event(message)
        elif block := self.waiting.pop(message, None):
            self._done(message, block)

    def _event(self, message: dict[str, Any]) -> None:
        """Write what is next of a block's attempt; what is not comes with the block's result."""
        block = self.blocks[message["block"]]
        self.hosts[message["address"]] = message["host"]
        if message["number"] == 0:
            self._begin(block, message["attempt"], message["host"])
        attempt = self.begun.get(block.id)
        if attempt and (attempt.name, attempt.written) == (message["attempt"], message["number"]):
            self._write(attempt, message["event"])

    def _begin(self, block: Block, name: str, host: str = "") -> None:
        """An attempt at a block, which may have been begun before, on a node that is gone."""
        if before := self.begun.pop(block.id, None):
            before.file.close()
            self.say(f"{block.id} is run again, on another node: the one that had it is gone")
        remove_arrays(self.out, block)
        nodes = max(1, list(self.hosts.values()).count(host))
        self.begun[block.id] = Attempt(block, name, nodes, BlockFile(self.out, block))

    def _write(self, attempt: "Attempt", text: str) -> None:
        event = EVENT.validate_json(text)
        if isinstance(event, MachineEvent):
            event = event.model_copy(update={"nodes": attempt.nodes})
        self._append(attempt, event)
        attempt.written += 1

    def _append(self, attempt: "Attempt", event: Event) -> None:
        attempt.file.append(event)
        self.observe(attempt.block, event)

    def _done(self, future: Any, block: Block) -> None:
        """A block's task has ended: with its result, or with why there is none."""
        if future.cancelled():
            raise _lost()
        if error := future.exception():
            self._failed(block, error)
            return
        outcome: Outcome = future.result()
        attempt = self.begun.get(block.id)
        if attempt is None or attempt.name != outcome.attempt:
            self._begin(block, outcome.attempt)
            attempt = self.begun[block.id]
        for text in outcome.events[attempt.written :]:
            self._write(attempt, text)
        for name, printed in outcome.logs.items():
            path = self.out / "logs" / block.id / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(printed)
        write_arrays(self.out, block, outcome.arrays)
        self._append(attempt, EndEvent(backend=None, status="ok"))
        self.begun.pop(block.id).file.close()

    def _failed(self, block: Block, error: BaseException) -> None:
        """A node that came later may lack the data or be unfit; a block that ended several nodes is given up."""
        if isinstance(error, NoData):
            _send_data(self.client, self.dataset, list(error.args), self.say)
            self._submit(block)
        elif isinstance(error, Unfit):
            address, reason = error.args
            self.say(f"node {address} is left out: {reason}")
            self.left_out.add(address)
            self._submit(block)
        else:
            reason = f"given up: {type(error).__name__}: {' '.join(str(error).split())[:REASON_CHARACTERS]}"
            self.say(f"{block.id} is {reason}")
            if attempt := self.begun.pop(block.id, None):
                self._append(attempt, EndEvent(backend=None, status="interrupted", reason=reason))
                attempt.file.close()

    def _interrupt(self, error: BaseException) -> None:
        """Say in the raw files why the blocks that are under way have no end."""
        reason = str(error)
        if isinstance(error, KeyboardInterrupt):
            reason = f"the run was interrupted by {next(iter(error.args), 'SIGINT')}"
        for attempt in self.begun.values():
            with suppress(LockstepError):
                self._append(attempt, EndEvent(backend=None, status="interrupted", reason=reason))


class Attempt:
    """A block as it is written: the name of this attempt, the nodes on its machine, and how many events there are."""

    def __init__(self, block: Block, name: str, nodes: int, file: BlockFile) -> None:
        self.block, self.name, self.nodes, self.file, self.written = block, name, nodes, file, 0


def _lost() -> LockstepError:
    return LockstepError("the scheduler is gone; what was complete is kept: go on with --resume once it is back")
