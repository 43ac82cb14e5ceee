"""README, results/README.md and docs say what the code and the committed results say."""

import re
import tomllib
from pathlib import Path

import pandas as pd

from lockstep_bench.backends import registered
from lockstep_bench.harness.checks.contract import CHECKS
from lockstep_bench.harness.report.seeds_summary import answer as seeds_answer
from lockstep_bench.harness.report.summary import answer, put_into, write_into
from lockstep_bench.harness.tables.results import COLUMNS, Results
from lockstep_bench.harness.tables.seeds_tables import load_seeds
from lockstep_bench.harness.tables.sweep_tables import COLUMNS as SWEEP_COLUMNS
from support.committed import committed

ROOT = Path(__file__).parent.parent
STRETCHES = 8


def test_every_column_is_explained() -> None:
    """results/README.md has an entry for each column of each CSV file."""
    text = (ROOT / "results" / "README.md").read_text()
    entries = {line for line in text.splitlines() if line.startswith("|")}
    for column in {column for tables in (COLUMNS, SWEEP_COLUMNS) for columns in tables.values() for column in columns}:
        assert any(f"`{column}`" in line.rsplit("|", 3)[0] for line in entries), column


def test_readme_quotes_the_reference_results(tmp_path: Path) -> None:
    """`lockstep report results/standard --into README.md` changes nothing: its table is made, not typed."""
    readme = (ROOT / "README.md").read_text()
    (tmp_path / "README.md").write_text(readme)
    results = committed("standard")
    write_into(tmp_path / "README.md", results)
    assert (tmp_path / "README.md").read_text() == readme
    assert answer(results) in (ROOT / "results" / "standard" / "summary.md").read_text()


def test_luck_is_quoted_from_the_results(tmp_path: Path) -> None:
    """`lockstep report results/seeds --into docs/seeds.md` changes nothing, and the command is the one that was run."""
    document = (ROOT / "docs" / "seeds.md").read_text()
    (tmp_path / "seeds.md").write_text(document)
    results = load_seeds(ROOT / "results" / "seeds")
    put_into(tmp_path / "seeds.md", seeds_answer(results))
    assert (tmp_path / "seeds.md").read_text() == document
    assert results.plan.command in document
    assert set(results.table["status"]) == {"ok"}
    entries = (ROOT / "results" / "README.md").read_text()
    assert all(f"`{column}`" in entries for column in results.table.columns)


def test_every_backend_has_been_run() -> None:
    """A folder of the standard job has it, and there it came through the gate."""
    folders = [path.name for path in (ROOT / "results").glob("standard*")]
    runs = pd.concat(committed(name).runs for name in folders)
    assert set(registered()) == set(runs["backend"]) - {"numpy-aa"}
    assert set(runs["status"]) == {"ok"}
    for page in (ROOT / "README.md", ROOT / "results" / "README.md"):
        assert not [name for name in folders if name not in page.read_text()]


def test_guide_and_readme_count_the_checks() -> None:
    """As many as the contract has."""
    for name in ("README.md", "docs/adding-a-backend.md"):
        assert f"{len(CHECKS)} checks of" in (ROOT / name).read_text(), name


def test_native_defaults_are_quoted_as_measured() -> None:
    """The table of docs/native-defaults.md has the numbers of the two results folders that it names."""
    text = (ROOT / "docs" / "native-defaults.md").read_text()
    native, identical = (committed(name) for name in ("native", "native-identical"))
    assert (native.plan.profile, identical.plan.profile) == ("native", "identical")
    assert identical.runs["disagreements"].max() == 0
    for backend in (planned.name for planned in native.plan.backends):
        errors = native.epochs[native.epochs["backend"] == backend]["test_error_percent"]
        aligned = identical.runs.set_index("backend")["test_error_percent"][backend]
        ratios = " | ".join(_ratio(results, backend) for results in (native, identical))
        assert f"| {backend} | {', '.join(errors.map('{:.2f}'.format))} | {aligned:.2f} | {ratios} |" in text
        for results in (native, identical):
            assert results.plan.command in text


def test_drift_is_quoted_as_measured() -> None:
    """docs/method.md: medians of eight stretches of results/standard, of the reference and of its ratio to its twin."""
    turns = committed("standard").turns
    times = turns.pivot_table(index="round", columns="backend", values="microseconds_per_step")
    size = len(times) // STRETCHES
    rows = []
    for first in range(0, STRETCHES * size, size):
        own = times.iloc[first : first + size]
        ratio = (own["numpy-aa"] / own["numpy"]).median()
        rows.append(f"| {first + 1} to {first + size} | {own['numpy'].median():,.0f} | {ratio:.3f} |")
    text = (ROOT / "docs" / "method.md").read_text()
    assert "\n".join(rows) + "\n<!-- end -->" in text


def test_every_document_is_on_the_readme_s_list() -> None:
    """And every link between documents leads to a file that there is."""
    readme = (ROOT / "README.md").read_text()
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "results" / "README.md",
        *(ROOT / "docs").glob("*.md"),
    ]
    assert [page.name for page in pages if page.parent.name == "docs" and f"(docs/{page.name})" not in readme] == []
    for page in pages:
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        assert [target for target in targets if not (page.parent / target).exists()] == [], page.name


def test_version_is_the_same_everywhere() -> None:
    """In pyproject.toml, in the citation, and at the top of the changelog's releases."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(heading for heading in headings if heading != "Unreleased") == version


def _ratio(results: Results, backend: str) -> str:
    """Time per step over the reference's, with its interval."""
    row = results.summary.set_index("backend").loc[backend]
    low, high = row["ratio_to_reference_low"], row["ratio_to_reference_high"]
    return f"{row['ratio_to_reference']:.2f}" + ("" if pd.isna(low) else f" ({low:.2f} to {high:.2f})")


def test_every_fault_names_a_test_that_there_is() -> None:
    """docs/reliability.md: each row has a test's name, and a function of that name is in that file."""
    rows = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if line.startswith("| ")]
    faults = [row for row in rows if not row.endswith("| test |")]
    assert len(faults) > 50
    for row in faults:
        named = re.search(r"`(tests/\S+\.py)::(test_\w+)(?:\[[\w-]+\])?` \|$", row)
        assert named, row
        assert f"def {named[2]}(" in (ROOT / named[1]).read_text(), row
