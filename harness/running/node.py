"""What a node of a cluster does for a run: says what it has, takes data that it lacks, and runs one block at a time.

Dask calls all of this in the node's worker process, which is the conductor of its blocks. What has to be known of a
node before its versions are compared goes as plain values, which any version of lockstep can read.
"""

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from numpy.typing import NDArray

from lockstep_bench.backends import REFERENCE, BackendNotFoundError, load, why_not
from lockstep_bench.harness.data.cache import check_dataset
from lockstep_bench.harness.data.find import at_hand, keep_sent
from lockstep_bench.harness.data.sources import Raw
from lockstep_bench.harness.machine import cpus, environment, identity
from lockstep_bench.harness.records.format import Event, Plan
from lockstep_bench.harness.running.block_conductor import BlockConductor
from lockstep_bench.harness.running.worker_process import FIRST_CPU
from lockstep_bench.harness.wording import counted

RESOURCE = "lockstep"
"""A node offers one of it, and a block takes one: so there is one block at a time on a node."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Unfit(Exception):  # noqa: N818 - an outcome: the block goes elsewhere
    """A node that cannot run this plan: its address, and what is different there, in one line."""


class NoData(Exception):  # noqa: N818 - an outcome: it is sent there, and the block again
    """A node that lacks the dataset: its address."""


class Abandoned(Exception):  # noqa: N818 - an outcome that nobody waits for
    """Nobody wants this block of this node any more."""


class Found(NamedTuple):
    """A backend as a node has it; `missing` is why it cannot run there, empty if it can."""

    versions: dict[str, str]
    source_sha256: str
    missing: str


class Report(NamedTuple):
    """What a node says of itself.

    Attributes:
        machine: as the tables call it.
        host: the same for all nodes of one machine, and for no others.
        cpus: how many it may use.
        software: lockstep and Python by name, their versions.
        backends: of every spec that was asked for.
        has_data: whether the dataset is in its cache.
    """

    machine: str
    host: str
    cpus: int
    software: dict[str, str]
    backends: dict[str, Found]
    has_data: bool


class Outcome(NamedTuple):
    """A block that came to its end on a node: every event as JSON, its arrays, and what its workers printed."""

    attempt: str
    events: list[str]
    arrays: dict[str, NDArray[Any]]
    logs: dict[str, bytes]


def describe(specs: Sequence[str], adapters: Mapping[str, str], device: str, dataset: str, data_sha256: str) -> Report:
    """What this node has.

    Args:
        specs: the plan's backends, each as a name or the path of a file on the client.
        adapters: the text of each such file.
        device: where they are to train.
        dataset: its name.
        data_sha256: its hash.
    """
    return Report(
        machine=identity.machine_name(device),
        host=BOOT_ID.read_text().strip() if BOOT_ID.exists() else platform.node(),
        cpus=cpus.available_cpus(),
        software={"lockstep": environment.lockstep_version(), "python": platform.python_version()},
        backends={spec: _found(spec, adapters, device) for spec in specs},
        has_data=at_hand(dataset, data_sha256) is not None,
    )


def _found(spec: str, adapters: Mapping[str, str], device: str) -> Found:
    try:
        backend = load(_here(spec, adapters))
    except BackendNotFoundError as error:
        return Found({}, "", str(error))
    own = device if device in backend.devices or spec != REFERENCE else "cpu"  # as it was planned
    return Found(backend.versions(), backend.source_sha256(), why_not(backend, own) or "")


def _here(spec: str, adapters: Mapping[str, str]) -> str:
    """What loads a backend on this node: its name, or the file that its text was written to."""
    if spec not in adapters:
        return spec
    text = adapters[spec].encode()
    folder = Path(tempfile.gettempdir()) / f"lockstep-adapters-{os.getuid()}" / sha256(text).hexdigest()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / Path(spec).name
    partial = path.with_suffix(f".{uuid4().hex}")
    partial.write_bytes(text)
    partial.replace(path)
    return str(path)


def unfit(plan: Plan, report: Report, allow_mixed: bool = False) -> list[str]:
    """Why this node cannot run this plan; what is only of another version does not count if that is allowed."""
    found = [
        f"{backend.name} cannot run: {report.backends[backend.spec].missing}"
        for backend in plan.backends
        if not backend.skip and report.backends[backend.spec].missing
    ]
    if report.cpus < max(plan.threads):
        found.append(f"it has {counted(report.cpus, 'CPU')} for {counted(max(plan.threads), 'thread')}")
    return found if found or allow_mixed else other_versions(plan, report)


def other_versions(plan: Plan, report: Report) -> list[str]:
    """What of a node's software is not what was planned with."""
    planned = {"lockstep": plan.lockstep, "python": plan.python or ""}
    found = dict(report.software)
    for backend in plan.backends:
        if not backend.skip:
            own = report.backends[backend.spec]
            planned |= {**backend.versions, f"{backend.name}'s adapter": (backend.source_sha256 or "")[:10]}
            found |= {**own.versions, f"{backend.name}'s adapter": own.source_sha256[:10]}
    return [
        f"{name} {found.get(name, 'none')} instead of {planned.get(name, 'none')}"
        for name in dict.fromkeys([*planned, *found])
        if found.get(name) != planned.get(name)
    ]


def take_data(name: str, data_sha256: str, scale: int, sent: Raw) -> None:
    """Make this node's cache of a dataset out of what was sent.

    Raises:
        LockstepError: it is not the dataset of that hash, or the cache cannot be written.
    """
    if at_hand(name, data_sha256) is None:
        keep_sent(name, data_sha256, scale, sent)


def run_block(
    plan: Plan, block: str, adapters: Mapping[str, str], topic: str, key: str, allow_mixed: bool = False
) -> Outcome:
    """Run one block here, and send every event as it comes; `key` is the task's own.

    Raises:
        Unfit: this node came after the others were looked at, and cannot run the plan.
        NoData: the same, and it lacks the dataset.
        Abandoned: nobody waits for it any more.
    """
    from distributed import get_worker

    worker, attempt = get_worker(), uuid4().hex
    specs = [backend.spec for backend in plan.backends]
    report = describe(specs, adapters, plan.device, plan.dataset.name, plan.dataset.sha256)
    if reasons := unfit(plan, report, allow_mixed):
        raise Unfit(worker.address, "; ".join(reasons))
    dataset = at_hand(plan.dataset.name, plan.dataset.sha256)
    if dataset is None:
        raise NoData(worker.address)
    check_dataset(dataset.folder, plan.dataset.sha256)
    backends = [backend.model_copy(update={"spec": _here(backend.spec, adapters)}) for backend in plan.backends]
    here = plan.model_copy(update={"machine": report.machine, "backends": backends})
    events: list[str] = []

    def emit(event: Event) -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state != "executing" or worker.status.name != "running":
            raise Abandoned(key)
        text = event.model_dump_json()
        place = {"attempt": attempt, "number": len(events), "address": worker.address, "host": report.host}
        worker.log_event(topic, {"block": block, "event": text, **place})
        events.append(text)

    [own] = (one for one in plan.blocks if one.id == block)
    if isinstance(worker.name, int):  # a local cluster numbers its nodes: each takes CPUs of its own as far as they go
        os.environ[FIRST_CPU] = str(worker.name * own.threads)
    with tempfile.TemporaryDirectory(prefix="lockstep-logs-") as logs:
        conductor = BlockConductor(here, own, dataset.folder, Path(logs), emit)
        if interrupt := conductor.run():
            raise interrupt
        printed = {path.name: path.read_bytes() for path in Path(logs).iterdir()}
    return Outcome(attempt, events, conductor.arrays, printed)
