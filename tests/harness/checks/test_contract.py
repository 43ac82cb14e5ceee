"""The contract: an honest backend passes every check, and each check fails for its own fault."""

from pathlib import Path

import pytest

from lockstep_bench.harness.checks.contract import CHECKS
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.problem import Dtype, Problem
from lockstep_bench.harness.running.worker_process import WorkerProcess

BROKEN = Path(__file__).parents[2] / "broken" / "contract"

# What is wrong, the check that must see it, and a word of what it must say.
CAUGHT_BY = {
    "forgets_moments": ("trains batch by batch as in one call", "moments or step count lost between calls"),
    "hands_out_its_weights": ("hands out copies of its weights", "views of the parameters"),
    "keeps_moments": ("builds afresh", "moments or step count kept from before"),
    "keeps_weights": ("builds afresh", "weights kept from before"),
    "loss_after_step": ("loss is that before the step", "a loss computed after the step"),
    "loss_of_last_batch": ("loss is the mean over the images", "the last batch's loss alone"),
    "loss_of_numpy": ("loss is a float", "came numpy.float64"),
    "mean_of_batch_means": ("loss is the mean over the images", "the mean of the batches' means"),
    "normalises_over_the_batch": ("predicts an image alone as among others", "something computed over the batch"),
    "predicting_counts_a_step": ("predicting trains nothing", "a step count"),
    "predicts_digits": ("predicts probabilities", "came int64 (15,)"),
    "predicts_logarithms": ("predicts probabilities", "logarithms"),
    "prints": ("prints nothing", "`train` to print nothing; came '31 images'"),
    "prints_below_python": ("prints nothing", "`predict` to print nothing; came 'I0000 cpu_feature_guard"),
    "read_only_weights": ("hands out copies of its weights", "read-only ones"),
    "rounded_start": ("starts from exactly the given weights", "hidden kernel"),
    "shares_the_given_weights": ("copies the given weights", "once the given arrays were written into"),
    "skips_short_orders": ("trains a batch of one image", "drop_last"),
    "sorts_the_order": ("takes read only arrays", "read-only (in train, line 13 of sorts_the_order.py)"),
    "trains_the_given_weights": ("copies the given weights", "arrays given to `build`"),
    "warns": ("prints nothing", "UserWarning: this will be removed"),
    "weights_in_float64": ("weights have their shapes and dtype", "came Weights of float64 (784, 32)"),
    "writes_into_read_only_weights": ("takes read only arrays", "to be left alone"),
}


def failures(spec: str, dataset: Dataset, log: Path, dtype: Dtype = "float32") -> dict[str, str]:
    """What a worker of that backend finds wrong with it, by the checks' names."""
    with WorkerProcess(spec, dtype=dtype, device="cpu", threads=1, log=log, timeout=60.0) as worker:
        worker.start()
        found = worker.contract(Problem(dtype=dtype), dataset.folder)
    assert len(found) == len(CHECKS)
    return {name: failure for name, failure in found.items() if failure is not None}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spec", ["numpy", "scikit-learn"])
def test_honest_backend_keeps_to_the_contract(digits: Dataset, tmp_path: Path, spec: str, dtype: Dtype) -> None:
    """The core's two backends, in either arithmetic; `test_verification.py` asks the others."""
    assert failures(spec, digits, tmp_path / "log", dtype) == {}


def test_every_check_and_every_fault_has_the_other() -> None:
    """No check that nothing has ever failed, no fault without a check that sees it."""
    assert sorted(CAUGHT_BY) == sorted(path.stem for path in BROKEN.glob("*.py"))
    assert {check for check, _ in CAUGHT_BY.values()} == {check.__name__.replace("_", " ") for check in CHECKS}


@pytest.mark.parametrize("stem", CAUGHT_BY)
def test_fault_is_caught_by_its_check(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stem: str
) -> None:
    """Its check fails, and says what it usually comes from; the other checks are made all the same."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # with it nothing is held back
    check, words = CAUGHT_BY[stem]
    failed = failures(str(BROKEN / f"{stem}.py"), digits, tmp_path / "log")
    assert words in failed[check]
    assert len(failed) < len(CHECKS)


def test_check_that_raises_has_failed_with_the_reason_and_its_place(digits: Dataset, tmp_path: Path) -> None:
    """What needs no training is checked all the same."""
    path = tmp_path / "raises.py"
    path.write_text(
        "from lockstep_bench.backends.numpy import NumPy\n\n\n"
        "class Raises(NumPy):\n"
        "    name = 'raises'\n\n"
        "    def train(self, order):\n"
        "        raise RuntimeError('out of luck')\n"
    )
    failed = failures(str(path), digits, tmp_path / "log")
    assert set(failed.values()) == {"raised RuntimeError: out of luck (in train, line 8 of raises.py)"}
    assert "loss is a float" in failed
    assert "predicts probabilities" not in failed
