"""What the cluster's engine costs per block, and how many nodes one client can take, without any training.

    python tests/benchmarks/cluster_scale.py [--nodes 1000] [--faster 1 2 4 8 16]

The scheduler, the client and the nodes are real, all on this machine; a block is fake: its node sends the events of a
block that was recorded, with the pauses that they had divided by `--faster`, and trains nothing. Each line of the table
is one more block per node. A client that keeps up has written an event soon after it was sent: where that lags more and
more, the limit is reached. With one node and no pauses at all, the time is what the engine costs per block.
"""

import argparse
import asyncio
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psutil

from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.records.format import Block
from lockstep_bench.harness.records.raw_files import read_block, read_plan, write_plan
from lockstep_bench.harness.running import node
from lockstep_bench.harness.running.cluster_run import ClusterRun
from lockstep_bench.harness.running.node import RESOURCE, Outcome

RECORDED = Path(__file__).parent.parent.parent / "results" / "standard"
NODES_PER_PROCESS = 250
SECONDS = 60.0
"""Of every line of the table, at most: the first events of a block are as many a second as all of them."""


@cache  # once for all nodes of a process, which would do little else
def recorded_events() -> list[tuple[float, str]]:
    """The events of the recorded block, each with the seconds after the block's begin at which it was sent."""
    plan = read_plan(RECORDED)
    at, found = 0.0, []
    for event in read_block(RECORDED, plan.blocks[0]).events[:-1]:
        at = max(at, getattr(event, "at_seconds", 0.0) + getattr(event, "train_seconds", 0.0))
        found.append((at, event.model_dump_json()))
    return found


def fake_block(plan: Any, block: str, adapters: Any, topic: str, key: str, allow_mixed: bool = False) -> Outcome:
    """In place of `node.run_block`; the seconds that a block lasted are divided by what `adapters` says."""
    from distributed import get_worker

    worker, attempt, events = get_worker(), uuid4().hex, []
    faster, seconds = adapters["faster"], adapters["seconds"]
    begin = time.monotonic()
    for number, (at, text) in enumerate(recorded_events()):
        if faster:
            if at / faster > seconds:
                break
            time.sleep(max(0.0, begin + at / faster - time.monotonic()))
        place = {"attempt": attempt, "number": number, "address": worker.address, "host": worker.address}
        worker.log_event(topic, {"block": block, "event": text, "sent": time.time(), **place})
        events.append(text)
    if faster:
        return Outcome(attempt, events, {}, {})
    with np.load(next((RECORDED / "blocks").glob("*.npz"))) as arrays:
        return Outcome(attempt, events, dict(arrays), {})


def be_nodes(address: str, count: int) -> None:
    """A process of so many nodes, until it is ended."""

    async def serve() -> None:
        from distributed import Worker

        options: Any = {"nthreads": 1, "resources": {RESOURCE: 1}, "dashboard": False}
        nodes = [Worker(address, **options) for _ in range(count)]
        await asyncio.gather(*nodes)
        await asyncio.gather(*(one.finished() for one in nodes))

    asyncio.run(serve())


@contextmanager
def nodes(address: str, count: int) -> Iterator[None]:
    """So many nodes, in processes of 250."""
    spawn = multiprocessing.get_context("spawn")
    sizes = [min(NODES_PER_PROCESS, count - begun) for begun in range(0, count, NODES_PER_PROCESS)]
    processes = [spawn.Process(target=be_nodes, args=(address, size), daemon=True) for size in sizes]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


class Watched(ClusterRun):
    """A run that notes how long after they were sent its events are written."""

    def _event(self, message: dict[str, Any]) -> None:
        sent = message.pop("sent")
        super()._event(message)
        self.lags.append(time.time() - sent)

    lags: list[float]


def used(scheduler: psutil.Process) -> np.ndarray[Any, Any]:
    """CPU seconds of the scheduler and of this process, the client."""
    return np.array([sum(process.cpu_times()[:2]) for process in (scheduler, psutil.Process())])


def line(client: Any, scheduler: psutil.Process, count: int, faster: float) -> None:
    """One block on every node: a line of the table."""
    plan = read_plan(RECORDED)
    blocks = [Block(id=f"seed-{seed}", seed=seed, threads=2) for seed in range(count)]
    plan = plan.model_copy(update={"blocks": blocks})
    dataset = find_dataset("digits")
    with tempfile.TemporaryDirectory() as folder:
        write_plan(Path(folder), plan)
        adapters: Any = {"faster": faster, "seconds": SECONDS}
        run = Watched(client, plan, dataset, Path(folder), adapters, {}, lambda *_: None, print, False)
        run.lags = []
        begin, before = time.monotonic(), used(scheduler)
        run.run(blocks)
        seconds = time.monotonic() - begin
    spent = 100 * (used(scheduler) - before) / seconds
    lags = np.array(run.lags)
    first, last = np.median(lags[: len(lags) // 2]), np.median(lags[len(lags) // 2 :])
    memory = scheduler.memory_info().rss / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"| {count:,} | {faster or 'no pauses'} | {len(lags):,} | {seconds:.1f} | {len(lags) / seconds:,.0f} "
        f"| {first:.2f} | {last:.2f} | {spent[0]:.0f} | {spent[1]:.0f} | {memory[0]:,.0f} | {memory[1]:,.0f} |",
        flush=True,
    )


def be_scheduler(port: int) -> None:
    """A scheduler's process."""

    async def serve() -> None:
        from distributed import Scheduler

        async with Scheduler(host="127.0.0.1", port=port, dashboard=False) as scheduler:
            await scheduler.finished()

    asyncio.run(serve())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--faster", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0, 16.0])
    arguments = parser.parse_args()
    os.environ["DASK_LOGGING__DISTRIBUTED"] = "warning"  # a thousand nodes that say hello hide the table
    node.run_block = fake_block
    from distributed import Client

    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=be_scheduler, args=(8799,), daemon=True)
    process.start()
    address = "tcp://127.0.0.1:8799"
    events = recorded_events()
    turns = sum('"event":"turn"' in text for _, text in events)
    print(f"a recorded block: {len(events):,} events, {turns:,} of them turns, in {events[-1][0]:,.0f} s\n")
    print(
        "| nodes | faster | events | seconds | events a second | lag, first half (s) | lag, second half (s) "
        "| scheduler (% of a CPU) | client (% of a CPU) | scheduler (MiB) | client (MiB) |"
    )
    print("|" + " ---: |" * 11)
    with Client(address, timeout=60, set_as_default=False) as client:
        for count, speeds in ((1, [0.0]), (arguments.nodes, arguments.faster)):
            with nodes(address, count):
                client.wait_for_workers(count, timeout=600)
                for faster in speeds:
                    line(client, psutil.Process(process.pid), count, faster)
            while client.scheduler_info(n_workers=-1)["workers"]:
                time.sleep(0.5)
    process.kill()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
