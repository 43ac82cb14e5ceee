"""The nodes of a cluster: which can run a plan, and who lacks the data."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from lockstep_bench.harness.data import find
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.records.format import Plan
from lockstep_bench.harness.running import node
from lockstep_bench.harness.running.node import RESOURCE, Report
from lockstep_bench.harness.wording import counted

START_A_NODE: Final = f"dask worker SCHEDULER --nworkers 1 --nthreads 1 --resources {RESOURCE}=1"
"""What makes a machine a node."""
NODES_SECONDS = 600
"""How long to wait for a first node, which a batch system may take its time to start."""

Say = Callable[[str], None]


def fit_nodes(client: Any, plan: Plan, adapters: Mapping[str, str], allow_mixed: bool, say: Say) -> dict[str, Report]:
    """What the nodes say of themselves, by their addresses.

    Raises:
        UsageError: there are none, or one has other versions, or none can run the plan.
    """
    addresses = nodes_of(client)
    if not addresses:
        say(f"waiting for a node: {START_A_NODE}")
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=NODES_SECONDS)
        addresses = nodes_of(client)
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


def nodes_of(client: Any) -> list[str]:
    """The addresses of the workers that run one block at a time."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return [address for address, worker in workers.items() if worker["resources"].get(RESOURCE) == 1]


def send_data(client: Any, dataset: Dataset, addresses: list[str], say: Say) -> None:
    """Give these nodes the dataset; they pass it on to one another."""
    if not addresses:
        return
    say(f"sending {dataset.name} to {counted(len(addresses), 'node')} without it")
    sent = client.scatter(find.raw(dataset), workers=addresses, broadcast=True, hash=False)
    identity = (dataset.name, dataset.sha256, dataset.scale)
    tasks = [client.submit(node.take_data, *identity, sent, workers=[one], pure=False) for one in addresses]
    client.gather(tasks)
