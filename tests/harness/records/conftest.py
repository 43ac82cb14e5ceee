"""What the tests of records share."""

from pathlib import Path

import pytest

from lockstep_bench.harness.tables.results import Results, write_tables


@pytest.fixture
def quick_report(monkeypatch: pytest.MonkeyPatch) -> list[Results]:
    """Reports without pictures and page, which have tests of their own and take seconds; what they are made from."""
    made: list[Results] = []

    def tables_too(folder: Path) -> Results:
        made.append(write_tables(folder))
        return made[-1]

    monkeypatch.setattr("lockstep_bench.harness.report.write.write_tables", tables_too)
    monkeypatch.setattr("lockstep_bench.harness.report.write.write_charts", lambda *_: None)
    monkeypatch.setattr("lockstep_bench.harness.report.write.write_page", lambda *_: None)
    return made
