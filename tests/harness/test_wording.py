"""A number and its noun agree."""

import pytest

from lockstep_bench.harness.wording import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 seeds"), (1, "1 seed"), (2, "2 seeds"), (1000, "1,000 seeds")])
def test_one_of_something_has_no_s(number: int, said: str) -> None:
    """And thousands are set off."""
    assert counted(number, "seed") == said
