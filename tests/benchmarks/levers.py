"""Measures what each lever of the tuned backends brings, and writes it into docs/tuning.md.

    python tests/benchmarks/levers.py [BACKEND...]

A lever is a file in `levers/<backend>/`: the backend with one thing done otherwise, which its docstring names. All
levers of a backend are trained in lockstep with it, in turns, and through the gate.

Wants the machine for itself; about a minute for each backend, but two for PyTorch and five for tinygrad, which compile.
"""

import ast
import re
import sys
import tempfile
from pathlib import Path

from pandas import Series

from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.running.plan import make_plan
from lockstep_bench.harness.tables.results import load

LEVERS = Path(__file__).parent / "levers"
DOCUMENT = Path(__file__).parents[2] / "docs" / "tuning.md"
EPOCHS, IMAGES, SLICE_STEPS, THREADS = 2, 15_000, 100, 2
"""Twenty rounds."""


def main(names: list[str]) -> int:
    """Measure and write, backend by backend, so that what is done is not lost."""
    for folder in sorted(path for path in LEVERS.iterdir() if path.is_dir()):
        name = folder.name.replace("_", "-")
        if not names or name in names:
            table = measure(name, sorted(folder.glob("*.py")))
            print(f"{name}\n{table}\n", flush=True)
            write(name, table)
    return 0


def measure(name: str, files: list[Path]) -> str:
    """The table of one backend: a row for each lever, the fastest first."""
    dataset = find_dataset("mnist")
    plan = make_plan(
        dataset,
        [name, *map(str, files)],
        preset="standard",
        epochs=EPOCHS,
        train_images=IMAGES,
        slice_steps=SLICE_STEPS,
        threads=THREADS,
    )
    with tempfile.TemporaryDirectory() as folder:
        conduct(plan, dataset.folder, Path(folder), extras=False)
        results = load(folder)
    levers = (planned for planned in plan.backends if planned.spec.endswith(".py"))
    what = {lever.name: ast.get_docstring(ast.parse(Path(lever.spec).read_text())) for lever in levers}
    ratios = results.ratios[results.ratios["other"] == name].set_index("backend")
    startup = results.runs.set_index("backend")["startup_seconds"]
    rows = [
        f"| {what[lever]} | {_ratio(ratios.loc[lever])} | {startup[lever]:.1f} |"
        for lever in ratios.sort_values("ratio").index
        if lever in what
    ]
    failed = results.runs[(results.runs["status"] != "ok") & results.runs["backend"].isin(what)]
    rows += [f"| {what[row.backend]} | {row.status}: {row.reason} | |" for row in failed.itertuples()]
    own = results.summary.set_index("backend").loc[name]
    head = [
        f"`{name}` itself: {own['microseconds_per_step']:,.0f} µs a step, {own['floor_multiple']:.1f} times the dense "
        f"floor, {startup[name]:.1f} s to start up; {plan.machine}, {THREADS} threads, commit {str(plan.commit)[:10]}.",
        "",
        "| instead | time per step, over its own | start-up (s) |",
        "| --- | ---: | ---: |",
    ]
    return "\n".join(head + rows)


def _ratio(row: "Series[float]") -> str:
    return f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"


def write(name: str, table: str) -> None:
    """Put a table between the backend's two marker lines."""
    text = DOCUMENT.read_text(encoding="utf-8")
    place = re.compile(rf"(<!-- levers of {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not place.search(text):
        sys.exit(f"{DOCUMENT} has no place for {name}: put <!-- levers of {name} --> and <!-- end --> where it belongs")
    DOCUMENT.write_text(place.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LockstepError as error:  # docs/tuning.md is of MNIST, and there is none
        sys.exit(str(error))
