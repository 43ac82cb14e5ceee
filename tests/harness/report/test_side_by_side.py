"""Several results in one folder: every number stays that of its own results."""

from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest

from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.records.format import MachineEvent
from lockstep_bench.harness.records.raw_files import read_plan
from lockstep_bench.harness.report.side_by_side import write_side_by_side
from lockstep_bench.harness.tables.results import COLUMNS, load

RESULTS = Path(__file__).parents[3] / "results"
NATIVE, IDENTICAL = RESULTS / "native", RESULTS / "native-identical"


def test_tables_of_all_are_together_and_ratios_as_they_were(tmp_path: Path) -> None:
    """Each row with its results' name; the page has a column for each, a chart is drawn."""
    each = {folder: load(folder) for folder in (NATIVE, IDENTICAL)}
    write_side_by_side(tmp_path / "both", each)
    for table in COLUMNS:
        found = pd.read_csv(tmp_path / "both" / f"{table}.csv", dtype=str, keep_default_na=False)
        assert list(found) == ["results", *COLUMNS[table]]
        for folder in each:
            own = found[found["results"] == folder.name].drop(columns="results").to_csv(index=False)
            assert own == pd.read_csv(folder / f"{table}.csv", dtype=str, keep_default_na=False)[
                list(COLUMNS[table])
            ].to_csv(index=False)
    page = (tmp_path / "both" / "summary.md").read_text()
    assert "| backend | native | native-identical |" in page
    for results in each.values():
        ratio = results.summary.set_index("backend")["ratio_to_reference"]["keras"]
        assert f"{ratio:.2f} (" in next(line for line in page.splitlines() if line.startswith("| keras |"))
    assert (tmp_path / "both" / "charts" / "ratios.png").stat().st_size > 10_000
    assert "native-identical" in (tmp_path / "both" / "charts" / "ratios.svg").read_text()


def test_what_failed_has_its_status_in_page_and_chart(tmp_path: Path) -> None:
    """It is in no ratio, and yet it is not left out."""
    folder = Path(copytree(IDENTICAL, tmp_path / "failed"))
    [raw] = (folder / "blocks").glob("*.jsonl")
    end = '{"event":"end","backend":"scikit-learn","status":'
    before, after = raw.read_text().split(end + '"ok","reason":null}')
    raw.write_text(before + end + '"killed","reason":"by signal 9"}' + after)
    write_side_by_side(tmp_path / "both", {path: load(path) for path in (NATIVE, folder)})
    page = (tmp_path / "both" / "summary.md").read_text()
    assert next(line for line in page.splitlines() if line.startswith("| scikit-learn |")).endswith("| killed |")
    chart = (tmp_path / "both" / "charts" / "ratios.svg").read_text()
    assert "Time per step over the reference" in chart
    assert chart.count(">killed<") == 1


def test_machines_in_one_folder_are_compared_within_themselves(tmp_path: Path) -> None:
    """A block that was copied here from another machine has its own ratios, tables and charts."""
    folder = Path(copytree(IDENTICAL, tmp_path / "two"))
    plan = read_plan(folder)
    [block] = plan.blocks
    other = block.model_copy(update={"id": "elsewhere", "replicate": 2})
    (folder / "plan.json").write_text(plan.model_copy(update={"blocks": [block, other]}).model_dump_json())
    first, *lines = (folder / "blocks" / f"{block.id}.jsonl").read_text().splitlines(keepends=True)
    elsewhere = MachineEvent.model_validate_json(first).model_copy(update={"machine": "Another CPU"})
    slower = [line.replace('"train_seconds":', '"train_seconds":1') for line in lines if '"backend":"keras"' in line]
    rest = [line for line in lines if '"backend":"keras"' not in line]
    ends, events = (
        [line for line in rest if '"event":"end"' in line],
        [line for line in rest if '"event":"end"' not in line],
    )
    text = "".join([elsewhere.model_dump_json() + "\n", *events, *slower, *ends])
    (folder / "blocks" / "elsewhere.jsonl").write_text(text)
    results, alone = load(folder), load(IDENTICAL)
    assert results.cut == ()
    ratios = results.ratios[results.ratios["other"] == "numpy"].set_index(["machine", "backend"])["ratio"]
    here = plan.machine
    expected = alone.ratios[alone.ratios["other"] == "numpy"].set_index("backend")["ratio"]
    assert ratios[here].to_dict() == expected.to_dict()
    assert ratios["Another CPU"]["keras"] > 5 * expected["keras"]
    assert ratios["Another CPU"]["pytorch"] == expected["pytorch"]
    assert results.summary["machine"].unique().tolist() == [here, "Another CPU"]


def test_what_would_overwrite_or_confuse_is_refused(tmp_path: Path) -> None:
    """A folder with results of its own, and two folders of one name."""
    results = load(NATIVE)
    with pytest.raises(UsageError, match="holds results of its own"):
        write_side_by_side(NATIVE, {NATIVE: results})
    with pytest.raises(UsageError, match="two of the folders are called native"):
        write_side_by_side(tmp_path / "both", {NATIVE: results, tmp_path / "native": results})
    assert not (tmp_path / "both").exists()
