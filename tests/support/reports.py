"""Results to be damaged, and reports of them."""

import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lockstep_bench.harness import cli
from lockstep_bench.harness.cli.terminal import console
from lockstep_bench.harness.tables.results import Results

MakeResults = Callable[..., Results]


def change_plan(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Damage the plan of a results folder."""
    plan = json.loads((folder / "plan.json").read_text())
    change(plan)
    (folder / "plan.json").write_text(json.dumps(plan))


def is_one_sentence(text: str) -> bool:
    """Whether this is a single line of reasonable length."""
    return 0 < len(text) < 1000 and "\n" not in text and all(sign.isprintable() for sign in text)


@contextmanager
def no_more_than(limit: int) -> Iterator[None]:
    """See that what is done within takes no more memory than that at any time, in bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def report_code(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of `lockstep report`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["lockstep", "report", *map(str, arguments)])
    monkeypatch.setattr(console, "width", 200)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)
