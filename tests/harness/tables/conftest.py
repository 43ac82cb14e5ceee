"""What the tests of tables share."""

from pathlib import Path

import pytest

from lockstep_bench.harness.tables.results import Results, load
from support.hand_made import end, make_plan, whole_run, write


@pytest.fixture
def pair(tmp_path: Path) -> Results:
    """Two backends that are ok: numpy in 4, 1, 4, 1 s and keras in 8, 1, 12, 4 s."""
    events = [*whole_run("numpy", 4, 1, 4, 1), *whole_run("keras", 8, 1, 12, 4), end(None)]
    return load(write(tmp_path, make_plan("numpy", "keras"), events))
