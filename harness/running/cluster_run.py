"""A plan's blocks on their way over a cluster: handed out, written as they come, run again where a node dies."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.records.format import EVENT, Block, EndEvent, Event, MachineEvent, Plan
from lockstep_bench.harness.records.raw_files import BlockFile, remove_arrays, write_arrays
from lockstep_bench.harness.running import node
from lockstep_bench.harness.running.cluster_nodes import Say, nodes_of, send_data
from lockstep_bench.harness.running.conductor import Observer
from lockstep_bench.harness.running.node import RESOURCE, NoData, Outcome, Unfit

POLL_SECONDS = 1.0
"""How often to look for a signal and a lost scheduler while no message comes."""
REASON_CHARACTERS = 500


class ClusterRun:
    """The blocks of one run on their way.

    Args:
        client: of the cluster.
        plan: what is run.
        dataset: what it is run on.
        out: the results folder, which this run holds.
        adapters: the text of each adapter that comes from a file, by its path.
        hosts: of every node the machine that it is on.
        observe, say, beat, allow_mixed: as for `conduct_on_cluster`.
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
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.client, self.plan, self.dataset, self.out = client, plan, dataset, out
        self.adapters, self.hosts = adapters, hosts
        self.observe, self.say, self.beat, self.allow_mixed = observe, say, beat, allow_mixed
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
            nodes = [address for address in nodes_of(self.client) if address not in self.left_out]
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
            self.beat()
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
            send_data(self.client, self.dataset, list(error.args), self.say)
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
