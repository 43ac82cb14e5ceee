"""Changes one thing at a time in the modules that everything rests on, and lists the changes that no test notices.

    python tests/mutation.py FOLDER

mutmut wants a package that lies as it is imported, so it works on a copy in FOLDER; what was found there before is
kept, and only what changed since is tried again.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
MUTATED: Final = ("statistics.py", "problem.py", "checks/equivalence.py", "records/*.py")
TESTS: Final = (
    *("test_statistics.py", "test_problem.py", "checks/test_equivalence.py", "records"),
    *("tables/test_runs.py", "tables/test_comparisons.py", "tables/test_results.py", "report/test_summary.py"),
    *("running/test_plan.py", "running/test_schedule.py"),
)
LEFT_OUT: Final = (
    "covers",  # simulates tens of thousands of runs; other tests have the same arithmetic by hand
    *("never_imported", "folder_without_results", "two_runs"),  # start processes, in which mutmut does not work
    "latex_takes_every_sign",  # needs the committed results
)


def main(folder: Path) -> int:
    """Copy, mutate, list what survived."""
    for source, target in (
        ("backends", "lockstep_bench/backends"),
        ("harness", "lockstep_bench/harness"),
        ("tests", "tests"),
    ):
        shutil.copytree(
            ROOT / source, folder / target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    pytest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    chosen = [f"tests/harness/{name}" for name in TESTS]
    skipped = " or ".join(LEFT_OUT)
    lines = [
        "[tool.mutmut]",
        'source_paths = ["lockstep_bench"]',
        f"only_mutate = {[f'lockstep_bench/harness/{name}' for name in MUTATED]}",
        f"pytest_add_cli_args_test_selection = {chosen}",
        f"pytest_add_cli_args = {['-m', 'not frameworks', '-k', f'not ({skipped})']}",
        "[tool.pytest.ini_options]",
        *(f"{name} = {value!r}" for name, value in pytest.items()),
    ]
    (folder / "pyproject.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "mutants").mkdir(exist_ok=True)  # what is not there when Python starts is never looked into
    environment = {**os.environ, "PYTHONPATH": str(folder / "mutants")}
    for command in (["run"], ["results"]):
        subprocess.run([sys.executable, "-m", "mutmut", *command], cwd=folder, env=environment, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
