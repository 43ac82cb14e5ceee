"""The command line as a user meets it: exit codes, files, and not one traceback; in processes where those matter."""

import gzip
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from struct import pack

import pandas as pd
import psutil
import pytest

from lockstep_bench.backends import registered
from lockstep_bench.harness.cli import activity
from support.command import LOCKSTEP, files, lockstep, lockstep_process, nowhere_to_get_mnist

BROKEN = Path(__file__).parents[2] / "broken"
COMMITTED = Path(__file__).parents[3] / "results" / "native-identical"
SMALL_RUN = ["run", "--dataset", "digits", "--epochs", "2", "--train-images", "300", "--slice-steps", "10"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A small run of the core's two backends, by the command."""
    folder = tmp_path_factory.mktemp("run")
    process = lockstep_process(
        *SMALL_RUN, "numpy", "scikit-learn", "--out", "results/mine", cwd=folder, LOCKSTEP_CACHE=str(cache)
    )
    assert process.returncode == 0, process.stderr
    assert "epoch 2/2  scikit-learn: loss" in process.stdout
    return folder / "results" / "mine"


def test_run_leaves_tables_charts_and_a_summary(results: Path) -> None:
    """A run ends with every table, the summary, and each chart as PNG and SVG."""
    names = set(files(results))
    assert {"plan.json", "runs.csv", "epochs.csv", "turns.csv", "summary.csv", "ratios.csv", "summary.md"} <= names
    assert {f"charts/loss.{kind}" for kind in ("png", "svg")} <= names
    runs = pd.read_csv(results / "runs.csv")
    assert dict(zip(runs["backend"], runs["status"], strict=True)) == {"numpy": "ok", "scikit-learn": "ok"}
    assert "digits" in (results / "summary.md").read_text().splitlines()[0]


def test_report_makes_every_derived_file_again_byte_for_byte(results: Path, tmp_path: Path) -> None:
    """Without its derived files a results folder is the same again after `lockstep report`."""
    before = files(results)
    for name in before:
        if not name.startswith(("blocks/", "logs/", "plan.json")):
            (results / name).unlink()
    assert lockstep_process("report", results, cwd=tmp_path).returncode == 0
    assert files(results) == before


def test_report_shows_the_table_and_draws_for_papers(results: Path, tmp_path: Path) -> None:
    """Every backend's row, where the page is; `--format pdf` draws every chart as that too, `summary.tex` is LaTeX."""
    copy = Path(shutil.copytree(results, tmp_path / "papers"))
    process = lockstep("report", copy, "--format", "pdf", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    # The status is a column only where there is more to say than ok: on a busy machine a backend may be unstable.
    assert re.search(r"^scikit-learn +(ok.*)?[\d,]+ ", process.stdout, re.MULTILINE)
    assert f"{copy / 'report.html'}: lockstep open" in process.stdout
    drawn = {path.name for path in (copy / "charts").iterdir()}
    assert drawn == {f"{Path(name).stem}.{suffix}" for name in drawn for suffix in ("png", "svg", "pdf")}
    latex = (copy / "summary.tex").read_text()
    assert latex.count("\\begin{tabular}") == 1
    assert "scikit-learn &" in latex


def test_open_shows_the_page_in_a_browser_and_makes_it_first(results: Path, tmp_path: Path) -> None:
    """The browser that BROWSER names gets its address; without any browser, the page is named."""
    copy = Path(shutil.copytree(results, tmp_path / "mine"))
    (copy / "report.html").unlink(missing_ok=True)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    assert lockstep_process("open", "mine", cwd=tmp_path, BROWSER=f"{browser} %s").returncode == 0
    assert (tmp_path / "opened").read_text().strip() == (copy / "report.html").as_uri()
    process = lockstep_process("open", "mine", cwd=tmp_path, BROWSER="false", PATH="/nowhere")
    assert process.returncode == 1
    assert "open mine/report.html in one" in process.stderr
    assert lockstep("open", "nothing", cwd=tmp_path).returncode == 1


@pytest.mark.usefixtures("undrawn")
def test_report_puts_its_table_into_a_document(results: Path, tmp_path: Path) -> None:
    """Between its marker lines; a document without them is wrong usage and stays as it was."""
    document = tmp_path / "page.md"
    document.write_text("mine\n<!-- lockstep report: begin -->\n<!-- lockstep report: end -->\n")
    assert lockstep("report", results, "--into", document, cwd=tmp_path).returncode == 0
    assert "| scikit-learn | idiomatic | ok" in document.read_text()
    document.write_text("mine")
    process = lockstep("report", results, "--into", document, cwd=tmp_path)
    assert process.returncode == 2
    assert "put the lines" in process.stderr
    assert document.read_text() == "mine"


@pytest.mark.usefixtures("undrawn")
def test_report_of_a_file_that_breaks_off_says_so_and_keeps_the_rest(results: Path, tmp_path: Path) -> None:
    """On standard error and in summary.md; the last whole line counts, and exit code and tables are a report's."""
    copy = Path(shutil.copytree(results, tmp_path / "cut"))
    [raw] = (copy / "blocks").glob("*.jsonl")
    raw.write_bytes(raw.read_bytes()[:-300])
    process = lockstep("report", copy, cwd=tmp_path)
    assert process.returncode == 0
    assert f"lockstep: {raw.name} breaks off in line" in process.stderr
    assert f"- **{raw.name} breaks off in line" in (copy / "summary.md").read_text()
    assert len(pd.read_csv(copy / "turns.csv")) == len(pd.read_csv(results / "turns.csv"))


@pytest.mark.usefixtures("undrawn")
def test_report_of_several_is_side_by_side(results: Path, tmp_path: Path) -> None:
    """Each is made again, and together they are in a folder of their own; --into takes one alone."""
    other = Path(shutil.copytree(results, tmp_path / "other"))
    (other / "runs.csv").unlink()
    process = lockstep("report", results, other, "--out", "both", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert (other / "runs.csv").is_file()
    assert "| backend | mine | other |" in (tmp_path / "both" / "summary.md").read_text()
    assert lockstep("report", results, other, "--into", "page.md", cwd=tmp_path).returncode == 2


def test_compare_prints_writes_and_fails_as_asked(tmp_path: Path) -> None:
    """Against itself nothing is slower; what is no result is wrong usage."""
    files = ("--csv", "changes.csv", "--markdown", "changes.md")
    process = lockstep("compare", COMMITTED, COMMITTED, *files, "--fail-on-slower", "5", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("No difference shown: numpy; pytorch; scikit-learn; keras.")
    assert set(pd.read_csv(tmp_path / "changes.csv")["verdict"]) == {"no difference shown"}
    assert "| scikit-learn | no difference shown | 1.00 (" in (tmp_path / "changes.md").read_text()
    process = lockstep("compare", COMMITTED, "nowhere", cwd=tmp_path)
    assert process.returncode == 2
    assert "neither a results folder nor a pytest-benchmark JSON file" in process.stderr


def test_compare_fails_where_nothing_could_be_seen(results: Path, tmp_path: Path) -> None:
    """A check that had nothing to check has not passed."""
    copy = Path(shutil.copytree(results, tmp_path / "elsewhere"))
    [raw] = (copy / "blocks").glob("*.jsonl")
    first, rest = raw.read_text().split("\n", 1)
    raw.write_text(json.dumps(json.loads(first) | {"machine": "Another CPU"}) + "\n" + rest)
    process = lockstep("compare", results, copy, "--fail-on-slower", "5", cwd=tmp_path)
    assert process.returncode == 1
    assert process.stdout.startswith("Not comparable: numpy")
    assert "nothing was comparable" in process.stderr


@pytest.mark.usefixtures("all_cpus")
def test_run_twice_against_itself_on_several_numbers_of_threads(tmp_path: Path, cache: Path) -> None:
    """`--aa`, `--threads` and `--replicates` by the command: every run is there, charts and tables apart."""
    process = lockstep(
        *SMALL_RUN,
        *["numpy", "--aa", "--threads", "1,2", "--replicates", "2", "--out", "out"],
        cwd=tmp_path,
        LOCKSTEP_CACHE=str(cache),
    )
    assert process.returncode == 0, process.stderr
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert len(runs) == 8
    assert set(runs["backend"]) == {"numpy", "numpy-aa"}
    assert {"charts/1-1-thread/loss.png", "charts/2-2-threads/loss.svg"} <= set(files(tmp_path / "out"))
    page = (tmp_path / "out" / "summary.md").read_text()
    assert page.index("## 1 thread\n") < page.index("## 2 threads\n")
    assert page.count("The reference against itself (numpy-aa) came to") == 2


@pytest.mark.usefixtures("undrawn")
def test_run_in_the_native_profile_says_that_networks_are_not_identical(tmp_path: Path, cache: Path) -> None:
    """By the command: planned so, done, and said first; networks that differ are no failure."""
    process = lockstep(
        *SMALL_RUN,
        *["numpy", "scikit-learn", "--profile", "native", "--out", "out"],
        cwd=tmp_path,
        LOCKSTEP_CACHE=str(cache),
    )
    assert process.returncode == 0, process.stderr
    assert "seed 0, native profile on" in process.stdout
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["profile"] == "native"
    assert "networks not identical" in (tmp_path / "out" / "summary.md").read_text().splitlines()[0]


def test_run_into_a_folder_with_results_is_refused(results: Path, tmp_path: Path) -> None:
    """The second run into one folder is wrong usage and changes nothing."""
    before = files(results)
    process = lockstep(*SMALL_RUN, "numpy", "--out", results, cwd=tmp_path)
    assert process.returncode == 2
    assert "holds other things already" in process.stderr
    assert files(results) == before


@pytest.mark.usefixtures("undrawn")
def test_run_without_mnist_says_loudly_that_it_takes_digits(tmp_path: Path) -> None:
    """Where MNIST cannot be had, the default dataset is the digits, and standard error says so."""
    process = lockstep(
        *["run", "numpy", "--epochs", "1", "--train-images", "150", "--out", "out"],
        cwd=tmp_path,
        **nowhere_to_get_mnist(tmp_path),
    )
    assert process.returncode == 0, process.stderr
    assert "digits" in process.stderr
    assert "digits" in (tmp_path / "out" / "summary.md").read_text().splitlines()[0]


NOT_INSTALLED = """
from lockstep_bench.backends.numpy import NumPy


class Missing(NumPy):
    name = "missing"
    modules = ("no_such_framework",)
    extra = "missing"
"""

# A framework, or a library that has no part in a list of names.
SLOW_TO_IMPORT = {"keras", "matplotlib", "pandas", "scipy", "sklearn", "tensorflow", "torch"}

WRONG_USAGE = {
    "unknown backend": (["nmpy"], "did you mean numpy?"),
    "unknown file": (["./nothing.py"], "there is no file nothing.py"),
    "not installed": (["./missing.py"], "install it with: pip install 'lockstep-bench[missing]'"),
    "batch size": (["--batch-size", "0"], "batch size must be at least 1, not 0"),
    "epochs": (["--epochs", "0"], "epochs must be at least 1, not 0"),
    "too many images": (["--train-images", "1501"], "not between 1 and the 1,500 that digits has"),
    "no images": (["--train-images", "0"], "not between 1 and the 1,500 that digits has"),
    "slice": (["--slice-steps", "0"], "--slice-steps must be more than 0"),
    "threads": (["--threads", "100000"], "--threads 100000 is more than the"),
    "no threads": (["--threads", "1,0"], "--threads must be more than 0, not 0"),
    "threads in words": (["--threads", "all"], "--threads takes whole numbers separated by commas, such as 1,2"),
    "replicates": (["--replicates", "0"], "--replicates must be more than 0"),
    "timeout": (["--turn-timeout", "1e10"], "give a smaller one"),
    "seeds": (["--seeds", "one"], "--seeds takes whole numbers"),
    "negative seed": (["--seeds", "-1"], "--seeds takes whole numbers"),
    "retry without resume": (["--retry-failed"], "--retry-failed goes with --resume: give both"),
    "file for a folder": (["numpy", "--out", "missing.py"], "missing.py is a file: give another --out"),
    "device": (["numpy", "--device", "abacus"], "does not run on abacus, only on cpu"),
    "option": (["--no-such-option"], "No such option"),
}


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_what_is_gone_on_with_has_to_be_named(tmp_path: Path, command: str) -> None:
    """There may be several."""
    process = lockstep(command, "--resume", cwd=tmp_path)
    assert process.returncode == 2
    assert "--resume needs --out" in process.stderr


@pytest.mark.parametrize("case", WRONG_USAGE)
def test_wrong_usage_is_one_sentence_and_exit_code_2(tmp_path: Path, case: str) -> None:
    """What cannot be done is refused before anything is written."""
    (tmp_path / "missing.py").write_text(NOT_INSTALLED)
    arguments, message = WRONG_USAGE[case]
    process = lockstep("run", "--dataset", "digits", "--out", "out", *arguments, cwd=tmp_path)
    assert process.returncode == 2
    assert message in re.sub(r"\s+", " ", process.stderr)
    assert not (tmp_path / "out").exists()


def test_too_little_memory_is_one_sentence(tmp_path: Path) -> None:
    """A legal file that unpacks to more than there is."""
    count, folder = 1_000_000, tmp_path / "large"
    folder.mkdir()
    for name, shape in (("train-images-idx3", (count, 28, 28)), ("train-labels-idx1", (count,))):
        with gzip.open(folder / f"{name}-ubyte.gz", "wb", compresslevel=1) as file:
            file.write(pack(f">{1 + len(shape)}I", 0x800 + len(shape), *shape))
            for _ in range(100):
                file.write(bytes(math.prod(shape) // 100))
        (folder / f"{name.replace('train', 't10k')}-ubyte.gz").symlink_to(folder / f"{name}-ubyte.gz")
    process = subprocess.run(
        ["prlimit", f"--as={1 << 30}", *LOCKSTEP, "data", "--dataset", folder],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.startswith("lockstep: this machine has too little memory for that: ")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "numpy", "--dataset", "digits", "--out", "taken/results"],
        ["data", "--dataset", "digits", "--figures", "taken"],
    ],
)
def test_place_that_cannot_be_written_is_named(tmp_path: Path, arguments: list[str]) -> None:
    """The system's refusal is a sentence too."""
    (tmp_path / "taken").write_text("a file, not a folder")
    process = lockstep(*arguments, cwd=tmp_path)
    assert process.returncode == 1
    assert "lockstep: taken" in process.stderr


@pytest.mark.parametrize("arguments", [["report", "."], ["report", "nowhere"]])
def test_report_on_what_are_no_results_fails(tmp_path: Path, arguments: list[str]) -> None:
    """A folder without a plan is named, with exit code 1."""
    process = lockstep(*arguments, cwd=tmp_path)
    assert process.returncode == 1
    assert "plan.json is missing" in process.stderr


def test_named_folder_without_mnist_is_refused(tmp_path: Path) -> None:
    """A folder that is named and bad is an error, never a fall-through to other sources."""
    process = lockstep("data", "--data", tmp_path, cwd=tmp_path)
    assert process.returncode == 2
    assert str(tmp_path) in process.stderr


def test_data_describes_the_dataset_and_draws_it(tmp_path: Path) -> None:
    """Shapes, pixel ranges, counts and the hash are printed, and four figures written."""
    process = lockstep("data", "--dataset", "digits", "--figures", "figures", cwd=tmp_path)
    assert process.returncode == 0
    assert "(1500, 28, 28)" in process.stdout
    assert "0 to 16" in process.stdout
    assert "0.0 to 1.0" in process.stdout
    assert len(list((tmp_path / "figures").glob("*.png"))) == 4


def test_another_dataset_than_mnist_does_not_mind_where_mnist_is(tmp_path: Path) -> None:
    """LOCKSTEP_MNIST stays set in people's shells; only --data together with another dataset is a contradiction."""
    assert lockstep("data", "--dataset", "digits", cwd=tmp_path, LOCKSTEP_MNIST="/nowhere").returncode == 0
    assert lockstep("data", "--dataset", "digits", "--data", "nowhere", cwd=tmp_path).returncode == 2


@pytest.mark.mnist
def test_data_describes_mnist(tmp_path: Path) -> None:
    """MNIST has the shapes and the range that everybody knows."""
    process = lockstep("data", "--data", os.environ["LOCKSTEP_MNIST"], cwd=tmp_path)
    assert process.returncode == 0
    for expected in ("(60000, 28, 28)", "(10000, 28, 28)", "0 to 255", "0.0 to 1.0"):
        assert expected in process.stdout


def test_backends_lists_all_of_them_and_imports_none(tmp_path: Path) -> None:
    """Every backend is listed; no framework and no large library is imported for it."""
    process = lockstep("backends", cwd=tmp_path)
    assert process.returncode == 0
    assert all(name in process.stdout for name in registered())
    code = (
        "import sys; sys.argv = ['lockstep', 'backends']\n"
        "from lockstep_bench.harness.cli import app; app(standalone_mode=False)\n"
        f"print(sorted({SLOW_TO_IMPORT} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "[]"


def test_verify_passes_the_same_network_and_fails_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0 for the reference; 1 for an adapter with another epsilon, and the lines say what differs.

    While it lasts it says whom it is about.
    """
    monkeypatch.setattr(activity, "REPEAT_SECONDS", 0.1)
    passed = lockstep("verify", "numpy", "--dataset", "digits", cwd=tmp_path)
    assert passed.returncode == 0
    assert "verifying: numpy, " in passed.stdout
    process = lockstep("verify", BROKEN / "epsilon_1e_8.py", "--dataset", "digits", cwd=tmp_path)
    assert process.returncode == 1
    assert "FAILED epsilon-1e-8: losses: expected at most 2e-06 from the oracle; came" in process.stdout
    assert "Adam's epsilon" in process.stdout


def test_run_with_a_backend_that_is_not_identical_exits_1(tmp_path: Path) -> None:
    """The results are kept and the outcome is shown, but the command fails."""
    broken = str(BROKEN / "epsilon_1e_8.py")
    process = lockstep("run", "--dataset", "digits", "--epochs", "1", "--out", "out", broken, cwd=tmp_path)
    assert process.returncode == 1
    assert "epsilon-1e-8 not-identical" in process.stderr
    assert "not-identical" in (tmp_path / "out" / "summary.md").read_text()
    assert (tmp_path / "out" / "charts" / "loss.png").is_file()


def test_interrupt_ends_cleanly_with_everything_so_far_reported(tmp_path: Path) -> None:
    """Ctrl-C in the middle: exit code 1, workers gone, turns on disk, every backend shown as interrupted."""
    process = subprocess.Popen(
        [*LOCKSTEP, "run", "--dataset", "digits", "--epochs", "1000", "numpy", "scikit-learn", "--out", "out"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them, and all that they start, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/1000  scikit-learn"):
            break
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) == 4  # one measures the dense floor, one guards the others
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert " while training: what was done is in out; go on with: lockstep run --resume --out out" in " ".join(
        errors.replace(" while evaluating", " while training").split()  # whichever of the two it was in
    )
    assert "Traceback" not in errors
    assert psutil.wait_procs(workers, timeout=5)[1] == []  # the guard ends after its conductor
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert list(runs["status"]) == ["interrupted", "interrupted"]
    assert len(pd.read_csv(tmp_path / "out" / "epochs.csv")) >= 2


def test_the_report_can_wait(tmp_path: Path) -> None:
    """With --no-report the raw records are all there is, and the exit code is the same."""
    process = lockstep(*SMALL_RUN, "numpy", "--no-report", "--out", "out", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "make the report by: lockstep report out" in process.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"plan.json", "blocks", "logs"}
    broken = str(BROKEN / "epsilon_1e_8.py")
    failed = lockstep("run", broken, "--dataset", "digits", "--epochs", "1", "--no-report", "--out", "b", cwd=tmp_path)
    assert failed.returncode == 1
    assert "epsilon-1e-8 not-identical; every outcome is in b" in failed.stderr
