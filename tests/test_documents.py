"""README and results/README.md say what the code and the committed results say."""

from pathlib import Path

from lockstep_bench.harness.tables import COLUMNS

ROOT = Path(__file__).parent.parent


def test_every_column_is_explained() -> None:
    """results/README.md has an entry for each column of each CSV file."""
    text = (ROOT / "results" / "README.md").read_text()
    entries = {line for line in text.splitlines() if line.startswith("|")}
    for column in {column for columns in COLUMNS.values() for column in columns}:
        assert any(f"`{column}`" in line.rsplit("|", 3)[0] for line in entries), column


def test_readme_quotes_the_reference_results() -> None:
    """The README's answer and table are those of results/standard/summary.md, to the letter."""
    readme = (ROOT / "README.md").read_text()
    quoted = readme.split("results/standard/summary.md -->\n")[1].split("<!-- end -->")[0]
    assert quoted.strip()
    assert quoted in (ROOT / "results" / "standard" / "summary.md").read_text()
