"""The conductor: runs the blocks of a plan one after another into a results folder, and ends in order when told to."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from numpy.typing import NDArray

from lockstep_bench.harness.data.cache import check_dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.records.format import Block, EndEvent, Event, Plan
from lockstep_bench.harness.records.raw_files import (
    BlockFile,
    blocks_left,
    locked,
    plan_path,
    remove_arrays,
    write_arrays,
    write_plan,
)
from lockstep_bench.harness.running.block_conductor import EXTRA_PART, BlockConductor, Heartbeat

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a run in order: Ctrl-C, a shutdown, a closed terminal."""

Observer = Callable[[Block, Event], None]


def conduct(
    plan: Plan,
    dataset: Path,
    out: Path,
    observe: Observer = lambda *_: None,
    *,
    heartbeat: Heartbeat = lambda *_: None,
    extras: bool = True,
    extra_part: float = EXTRA_PART,
    caches: Path | None = None,
    resume: bool = False,
    retry_failed: bool = False,
) -> None:
    """Run every block of a plan into a results folder.

    Args:
        plan: what to run.
        dataset: the folder of the cached dataset, `Dataset.folder`.
        out: the results folder; made, or empty.
        observe: is told every event with its block, between turns, after it is on the disk.
        heartbeat: is called when a turn begins, and every few seconds while it lasts.
        extras: whether to measure at the end what a prediction and a call cost; `lockstep verify` has no use for it.
        extra_part: the part of the training time that this may take.
        caches: a folder for what workers compile, to be used by others after them; each has an empty one if none.
        resume: go on with this plan where `out` holds it: blocks that came to their end stay as they are.
        retry_failed: then run those again in which a backend did not come through.

    Raises:
        UsageError: `out` holds other results, or another run writes into it.
        LockstepError: `out` cannot be written, or the dataset is not the plan's; what was complete is kept.
        KeyboardInterrupt: after SIGINT, SIGTERM or SIGHUP, when the workers are gone and what was done is recorded.
    """

    def conductor(block: Block, emit: Callable[[Event], None]) -> BlockConductor:
        return BlockConductor(
            plan, block, dataset, out / "logs" / block.id, emit, extras, caches, heartbeat, extra_part
        )

    conduct_blocks(plan, dataset, out, observe, conductor, resume=resume, retry_failed=retry_failed)


class Conductor(Protocol):
    """What runs one block, and fills the arrays that go into its .npz file."""

    arrays: dict[str, NDArray[Any]]

    def run(self) -> KeyboardInterrupt | None:
        """Do all of it, telling every event; what it raises ends the run, what it returns ends it after this block."""


def conduct_blocks(
    plan: Plan,
    dataset: Path,
    out: Path,
    observe: Observer,
    conductor: Callable[[Block, Callable[[Event], None]], Conductor],
    *,
    resume: bool,
    retry_failed: bool,
) -> None:
    """As `conduct`, each block by what `conductor` makes of it and of whom to tell its events."""
    with results_folder(out, plan, resume, retry_failed) as left:
        for block in left:
            check_dataset(dataset, plan.dataset.sha256)
            with BlockFile(out, block) as file:
                remove_arrays(out, block)

                def emit(event: Event, block: Block = block, file: BlockFile = file) -> None:
                    file.append(event)
                    observe(block, event)

                block_conductor = conductor(block, emit)
                try:
                    interrupt = block_conductor.run()
                finally:
                    if block_conductor.arrays:
                        write_arrays(out, block, block_conductor.arrays)
                emit(EndEvent(backend=None, status="ok"))
            if interrupt:
                raise interrupt


@contextmanager
def results_folder(out: Path, plan: Plan, resume: bool, retry_failed: bool) -> Iterator[list[Block]]:
    """Hold a results folder, begun with this plan, for a run; gives the blocks that are left to be run.

    Raises:
        UsageError: it holds other results, or another run writes into it.
    """
    with locked(out), _ended_in_order():
        path = plan_path(out, type(plan))
        if not (resume and path.exists()):
            if any(other != path.with_suffix(".json.partial") for other in out.iterdir()):
                raise UsageError(
                    f"{out} holds other things already: give another --out, or go on with its run by --resume; "
                    "nothing was overwritten"
                )
            write_plan(out, plan)
        yield blocks_left(out, plan, retry_failed)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Within it, signals that would end this process at once raise KeyboardInterrupt, with the signal's name.

    One that is ignored, as `nohup` has it, stays ignored; and only the main thread can be asked for this.
    """

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.signal(number, interrupt) for number in ENDING if signal.getsignal(number) in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
