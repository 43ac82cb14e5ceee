"""README and results/README.md say what the code and the committed results say."""

from pathlib import Path

from lockstep_bench.harness.contract import CHECKS
from lockstep_bench.harness.summary import answer, write_into
from lockstep_bench.harness.tables import COLUMNS, load

ROOT = Path(__file__).parent.parent


def test_every_column_is_explained() -> None:
    """results/README.md has an entry for each column of each CSV file."""
    text = (ROOT / "results" / "README.md").read_text()
    entries = {line for line in text.splitlines() if line.startswith("|")}
    for column in {column for columns in COLUMNS.values() for column in columns}:
        assert any(f"`{column}`" in line.rsplit("|", 3)[0] for line in entries), column


def test_readme_quotes_the_reference_results(tmp_path: Path) -> None:
    """`lockstep report results/standard --into README.md` changes nothing: its table is made, not typed."""
    readme = (ROOT / "README.md").read_text()
    (tmp_path / "README.md").write_text(readme)
    results = load(ROOT / "results" / "standard")
    write_into(tmp_path / "README.md", results)
    assert (tmp_path / "README.md").read_text() == readme
    assert answer(results) in (ROOT / "results" / "standard" / "summary.md").read_text()


def test_guide_and_readme_count_the_checks() -> None:
    """As many as the contract has."""
    for name in ("README.md", "docs/adding-a-backend.md"):
        assert f"{len(CHECKS)} checks of" in (ROOT / name).read_text(), name
