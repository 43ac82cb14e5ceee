"""summary.md, summary.tex and the answer in a document: sentences and rows as a reader finds them."""

from pathlib import Path

import pytest

from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.problem import Defaults, Problem
from lockstep_bench.harness.records.format import BuildEvent, EvaluationEvent, Event
from lockstep_bench.harness.report.summary import answer, cells, write_into, write_latex
from lockstep_bench.harness.tables.results import load
from support.hand_made import begin, end, evaluation, floor, make_plan, turn, whole_run, write, write_all


def test_the_page_says_what_the_data_say(tmp_path: Path) -> None:
    """Same network, error, and time per step, in two sentences; keras takes half of numpy's time."""
    *keras, end_of_keras = whole_run("keras", 2, 0.5, 2, 0.5)
    keras = [event for event in keras if not isinstance(event, EvaluationEvent)]
    keras += [evaluation("keras", 2, 5.52, 4), end_of_keras]
    write_all(write(tmp_path, make_plan("numpy", "keras"), [*whole_run("numpy", 4, 1, 4, 1), *keras]))
    page = (tmp_path / "summary.md").read_text()
    assert page.startswith("# lockstep: MNIST on this machine\n")
    assert (
        "Both backends stayed the same network (at most 4 of 10,000 test images predicted differently, 5 allowed) and "
        "ended at 5.50 to 5.52 % test error. Fastest: keras. Time per step relative to it: numpy 2.00. "
        "The notebook reports 7.21 %: 1 of 1 seed ended at or below it.\n"
    ) in page
    assert (
        "| numpy | idiomatic | ok | 1 | 1,500,000 | 1.00 | 2.00 |  | 0.00 | 10 | 10 | 1 of 1 | 5.50 | 0 | 95 |" in page
    )
    assert "commit c0ffee\n" in page
    assert "NOT MNIST" not in page


def test_the_page_says_what_failed_and_warns_of_other_data(tmp_path: Path) -> None:
    """A failure has its reason, other data a loud warning, a dirty checkout its mention."""
    plan = make_plan("numpy", "keras", dataset="digits").model_copy(update={"commit_clean": False})
    events = [*whole_run("numpy", 4, 1, 4, 1), *begin("keras"), end("keras", "timeout", "a turn took over 300 s")]
    write_all(write(tmp_path, plan, events))
    page = (tmp_path / "summary.md").read_text()
    assert "**THESE ARE NOT MNIST NUMBERS:**" in page
    assert "# lockstep: digits (not MNIST) on" in page
    assert "- **keras: timeout** after 0 of 2 epochs, seed 0: a turn took over 300 s" in page
    assert "Both" not in page.split("##")[0]
    assert "with uncommitted changes" in page


def test_the_page_of_the_native_profile_says_what_each_trained_with(tmp_path: Path) -> None:
    """First that the networks are not identical; then defaults, errors by epoch and times, and nothing of a gate."""
    plan = make_plan("numpy", "torch", "keras").model_copy(update={"profile": "native"})
    own = Defaults("fan-in-uniform", epsilon=1e-8, epsilon_placement="corrected", l2=1e-4)._asdict()
    torch = [
        event.model_copy(update=own) if isinstance(event, BuildEvent) else event
        for event in whole_run("torch", 2, 0.5, 2, 0.5, errors=(6.0, 4.5))
    ]
    events = [*whole_run("numpy", 4, 1, 4, 1), *torch, end("keras", "error", "it broke")]
    blind = [
        event.model_copy(update={"disagreements": None}) if isinstance(event, EvaluationEvent) else event
        for event in events
    ]
    results = write_all(write(tmp_path, plan, blind))
    page = (tmp_path / "summary.md").read_text()
    assert page.startswith("# lockstep, native defaults, networks not identical: MNIST on this machine\n")
    assert answer(results).startswith("**The networks are not identical: each backend has its framework's own initial ")
    assert "2 of 3 backends came through: they ended at 4.50 to 5.50 % test error. Fastest: torch." in page
    assert (
        "| backend | style | status | initial weights | epsilon | added to | L2 | test error after epoch 1 (%) "
        "| test error after epoch 2 (%) | time per step (µs) | ratio to numpy |" in page
    )
    assert "| numpy | idiomatic | ok | glorot-uniform | 1e-07 | √v | 0 | 9.00 | 5.50 | 1,500,000 | 1.00 |" in page
    assert "| fan-in-uniform | 1e-08 | √(v / (1 - β₂ᵗ)) | 0.0001 | 6.00 | 4.50 | 750,000 | 0.50 |" in page
    assert "| keras | idiomatic | error |  |  |  |  |  |  |  |  |" in page
    for phrase in ("same network", "identically", "disagree", "predicted differently", "notebook"):
        assert phrase not in page
    assert (tmp_path / "runs.csv").read_text().count("fan-in-uniform,1e-08,corrected,0.0001") == 1


def test_a_start_that_took_no_time_is_not_shown_as_less_than_none(tmp_path: Path) -> None:
    """A first slice a hair faster than the others is noise: 0.00, not -0.00."""
    results = write_all(write(tmp_path, make_plan("numpy"), [*whole_run("numpy", 4, 1, 4, 1)]))
    header, _, row = cells(results._replace(summary=results.summary.assign(startup_seconds=-0.004)))
    assert row[header.index("start-up (s)")] == "0.00"


def test_the_answer_is_put_into_a_document(tmp_path: Path) -> None:
    """Between the two lines, again and again, and nothing else is touched; without them it is refused."""
    results = write_all(write(tmp_path / "run", make_plan("numpy", "keras"), [*whole_run("numpy", 4, 1, 4, 1)]))
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- lockstep report: begin -->\nold\n<!-- lockstep report: end -->\nafter\n")
    write_into(document, results)
    text = document.read_text()
    assert text.startswith(
        "before\n<!-- lockstep report: begin -->\nnumpy ended at 5.50 % test error; there is no other"
    )
    assert "old" not in text
    assert text.endswith("<!-- lockstep report: end -->\nafter\n")
    write_into(document, results)
    assert document.read_text() == text
    document.write_text("no place")
    with pytest.raises(UsageError, match="put the lines"):
        write_into(document, results)
    assert document.read_text() == "no place"


def test_latex_takes_every_sign_for_text(tmp_path: Path) -> None:
    """In names, units and formulas; of the native profile the caption says that networks are not identical."""
    results = load(Path(__file__).parents[3] / "results" / "native")
    named = results.summary.replace({"keras": r"my_&%$#{}~^\backend"})
    write_latex(tmp_path, results._replace(summary=named))
    text = (tmp_path / "summary.tex").read_text()
    assert text.isascii()
    assert r"time per step (\textmu{}s)" in text
    assert r"$\surd$(v / (1 - $\beta$$_2$$^t$))" in text
    assert r"my\_\&\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}backend" in text
    assert "The networks are not identical" in text


@pytest.mark.parametrize(("multiple", "said"), [(0.8, True), (1.2, False)])
def test_a_floor_that_a_step_beats_is_said_to_be_at_fault(tmp_path: Path, multiple: float, said: bool) -> None:
    """And the kernels that its products came from are named."""
    operations = 4 * 15 * 784 * 784 + 6 * 15 * 784 * 10
    blas = {"user_api": "blas", "internal_api": "openblas", "version": "0.3.31", "architecture": "Haswell"}
    events: list[Event] = [floor(number, 1e7) for number in (1, 2, 3)]
    events += begin("numpy", pools=[blas])
    events += [turn("numpy", 1, number, 2 * operations * 1e-7 * multiple) for number in (1, 2, 3)]
    events += [evaluation("numpy", 1, 6.0), end("numpy"), end(None)]
    write_all(write(tmp_path, make_plan("numpy", problem=Problem(epochs=1)), events))
    page = (tmp_path / "summary.md").read_text()
    assert ("steps were faster than the dense floor: numpy 0.80 times" in page) == said
    assert "µs per step, the median over rounds; the kernels of its products: openblas 0.3.31 Haswell" in page
