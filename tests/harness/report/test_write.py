"""A report tells of its stages, and what interrupts it leaves neither processes nor half of a file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lockstep_bench.harness.data import figures
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.report.charts import cost
from lockstep_bench.harness.report.page import pictures
from lockstep_bench.harness.report.write import write_report
from lockstep_bench.harness.tables.results import Results

MakeResults = Callable[..., Results]


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by their paths."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stages_are_told_as_they_begin(tmp_path: Path, make_results: MakeResults) -> None:
    """The tables, the charts that this process draws, the page."""
    make_results(tmp_path, ["numpy"], epochs=1)
    told: list[str] = []
    write_report(tmp_path, ["svg"], told.append)
    first, *charts, last = told
    assert (first, last) == ("tables", "page")
    numbers = [int(line.removeprefix("charts: ").removesuffix(" of 11")) for line in charts]
    assert numbers[0] == 1
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("no such chart")])
def test_a_chart_that_fails_ends_the_report_with_its_own_exception(
    tmp_path: Path, make_results: MakeResults, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """No chart is written then, and no file in part."""

    def fail(_results: Results) -> None:
        raise error

    make_results(tmp_path, ["numpy"], epochs=1)
    monkeypatch.setattr(cost, "_ratio_by_round", fail)
    with pytest.raises(type(error) if isinstance(error, Exception) else KeyboardInterrupt):
        write_report(tmp_path, ["svg"])
    assert not [name for name in files(tmp_path) if name.startswith("charts/") or name.endswith(".partial")]


def test_figures_of_a_dataset_are_drawn_once(tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next report takes them from the cache; another version of what draws them draws them anew."""
    kept = replace(digits, folder=tmp_path)
    first = pictures.of_dataset(kept)
    (tmp_path / "components-000000000000.webp").touch()  # of an earlier version
    monkeypatch.setattr(figures, "FIGURES", {})
    assert pictures.of_dataset(kept) == first
    monkeypatch.undo()
    monkeypatch.setattr(pictures, "_drawn_by", lambda: "another")
    assert pictures.of_dataset(kept) == first
    assert sorted(files(tmp_path)) == [f"{name}-another.webp" for name in sorted(pictures.OF_DATASET)]


def test_figures_are_drawn_where_they_cannot_be_kept(tmp_path: Path, digits: Dataset) -> None:
    """In a cache that is gone or may not be written."""
    assert len(pictures.of_dataset(replace(digits, folder=tmp_path / "gone"))) == len(pictures.OF_DATASET)
