"""The live table: one block after another, several at a time, and a block that begins again."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from lockstep_bench.harness.records.format import Block, EndEvent, EvaluationEvent, Event, MachineEvent, TurnEvent
from lockstep_bench.harness.records.raw_files import read_block
from lockstep_bench.harness.running.progress import SHOWN_BLOCKS, Progress
from lockstep_bench.harness.tables.results import Results

MakeResults = Callable[..., Results]


class Followed:
    """A table that follows a plan of one epoch, with what is printed, and the events of the plan's first block."""

    def __init__(self, folder: Path, make_results: MakeResults, seeds: int, terminal: bool = True) -> None:
        plan = make_results(folder, ("numpy", "keras"), epochs=1, seeds=seeds).plan
        self.blocks, self.events = plan.blocks, read_block(folder, plan.blocks[0]).events
        self.printed = StringIO()
        self.progress = Progress(plan, Console(file=self.printed, force_terminal=terminal, width=120))

    def first(self, kind: type[Event]) -> Event:
        """The first event of a kind."""
        return next(event for event in self.events if isinstance(event, kind))

    def begin(self, block: Block, machine: str = "A Machine") -> None:
        """A block begins, and its first backend has its turn."""
        self.progress.observe(block, MachineEvent(machine=machine, started="2026-01-01T00:00:00+00:00", details={}))
        self.progress.observe(block, self.first(TurnEvent))

    def shown(self) -> str:
        """The table as text."""
        console = Console(file=StringIO(), width=120)
        with console.capture() as text:
            console.print(self.progress.table())
        return text.get()


def test_one_block_after_another_is_one_table(tmp_path: Path, make_results: MakeResults) -> None:
    """A block that has come to its end stays until the next begins, and then makes room for it."""
    followed = Followed(tmp_path, make_results, seeds=2)
    first, second = followed.blocks
    followed.begin(first)
    followed.progress.observe(first, EndEvent(backend=None, status="ok"))
    assert "seed 0 on A Machine" in followed.shown()
    followed.begin(second)
    assert "seed 1 on A Machine" in followed.shown()
    assert "seed 0" not in followed.shown()


def test_blocks_at_the_same_time_have_their_own_rows(tmp_path: Path, make_results: MakeResults) -> None:
    """Each under its heading, with its machine; of many, those that were heard of last."""
    followed = Followed(tmp_path, make_results, seeds=SHOWN_BLOCKS + 2)
    for block in followed.blocks:
        followed.begin(block, machine=f"machine {block.seed}")
    followed.progress.observe(followed.blocks[0], followed.first(EvaluationEvent))
    text = followed.shown()
    assert f"{SHOWN_BLOCKS + 2} blocks at the same time" in text
    assert "seed 0 on machine 0" in text
    assert "20.00" in text  # its test error
    assert "seed 1 on machine 1" not in text
    assert text.count("numpy") == SHOWN_BLOCKS


def test_an_attempt_that_begins_again_counts_once(tmp_path: Path, make_results: MakeResults) -> None:
    """What a node that died had done is not counted as done."""
    followed = Followed(tmp_path, make_results, seeds=2)
    first, second = followed.blocks
    for block in (first, second, first):
        followed.begin(block)
    done = followed.progress.forecast.done
    assert [done[block.id][TurnEvent, "numpy"] for block in (first, second)] == [1, 1]
    assert followed.shown().count("seed 0") == 1


@pytest.mark.parametrize(("differ", "apart", "says"), [(0, 0.5, "its weights were 0.5 of"), (9, 0.0, "it predicted 9")])
def test_the_whole_gate_is_applied_while_a_run_goes_on(
    tmp_path: Path, make_results: MakeResults, differ: int, apart: float, says: str
) -> None:
    """Also where every prediction is the reference's and the weights are not."""
    for terminal in (True, False):
        followed = Followed(tmp_path / str(terminal), make_results, seeds=1, terminal=terminal)
        [block] = followed.blocks
        followed.begin(block)
        parted = {"disagreements": differ, "weights_difference": apart}
        followed.progress.observe(block, followed.first(EvaluationEvent).model_copy(update=parted))
        followed.progress.observe(block, followed.first(TurnEvent))
        assert "not-identical" in followed.shown()
        assert terminal or f"numpy: not-identical, {says}" in followed.printed.getvalue()


@pytest.mark.parametrize(("blocks", "expected"), [(1, "numpy: ok"), (2, "seed 0: numpy: ok")])
def test_lines_name_their_block_where_there_are_several(
    tmp_path: Path, make_results: MakeResults, blocks: int, expected: str
) -> None:
    """Without a terminal: plain lines."""
    followed = Followed(tmp_path, make_results, seeds=2, terminal=False)
    for block in followed.blocks[:blocks]:
        followed.begin(block)
    followed.progress.observe(followed.blocks[0], EndEvent(backend="numpy", status="ok"))
    assert followed.printed.getvalue().splitlines()[-1] == expected
