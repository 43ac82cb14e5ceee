"""`lockstep verify`: honest backends pass, and each way of being another network is caught."""

from dataclasses import replace
from pathlib import Path

import pytest

from lockstep_bench.backends import registered
from lockstep_bench.harness.data import Dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.plan import choose_backends
from lockstep_bench.harness.problem import Dtype
from lockstep_bench.harness.verification import Verification, Verifier

BROKEN = Path(__file__).parent.parent / "broken"
FLOAT32_LIMIT, FLOAT64_LIMIT = 2e-5, 1e-9

# What is wrong, and the check that must see it.
CAUGHT_BY = {
    "dropped_short_batch": "all weights",
    "epsilon_1e_8": "all weights",
    "float16_product": "all weights",
    "l2_1e_4": "all weights",
    "label_smoothing": "all weights",
    "no_bias_correction": "all weights",
    "no_coupling_term": "all weights",
    "probabilities_for_logits": "all weights",
    "pytorch_own_epsilon": "all weights",
    "random_biases": "first probabilities",
    "shuffled_order": "all weights",
    "skipped_steps": "all weights",
    "sum_over_batch": "all weights",
    "tf32_product": "all weights",
    "transposed_kernel": "first probabilities",
}


@pytest.fixture(scope="module")
def float32(digits: Dataset) -> Verifier:
    """The oracle, trained once, for backends in float32."""
    return Verifier(digits, "float32")


@pytest.fixture(scope="module")
def float64(digits: Dataset) -> Verifier:
    """The same for backends in float64."""
    return Verifier(digits, "float64")


def verify(verifier: Verifier, spec: str) -> Verification:
    """Verify one backend."""
    return next(verifier.verify_all([spec]))


def failed(verification: Verification) -> list[str]:
    """The checks that failed."""
    return [check.name for check in verification.checks if not check.passed]


@pytest.mark.parametrize("backend", registered())
def test_every_backend_is_the_oracle_in_float32(float32: Verifier, backend: str) -> None:
    """150 steps in float32 end within 2e-5 of where the oracle went."""
    verification = verify(float32, backend)
    assert verification.passed, list(verification.lines())
    assert {check.tolerance for check in verification.checks if "weights" in check.name} == {FLOAT32_LIMIT}


@pytest.mark.parametrize("backend", registered())
def test_every_backend_is_the_oracle_in_float64(float64: Verifier, backend: str) -> None:
    """In float64 the same steps agree to 1e-9."""
    verification = verify(float64, backend)
    assert verification.passed, list(verification.lines())
    assert max(check.difference for check in verification.checks) < FLOAT64_LIMIT


@pytest.mark.mnist
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_backend_is_the_oracle_on_mnist(mnist: Dataset, dtype: Dtype) -> None:
    """On MNIST's own batches all backends agree too."""
    verifications = list(Verifier(mnist, dtype).verify_all())
    assert [verification.backend.name for verification in verifications] == list(registered())
    assert all(verification.passed for verification in verifications), [list(v.lines()) for v in verifications]


def test_every_broken_adapter_has_its_check() -> None:
    """None is added without saying what catches it, and none is lost."""
    assert sorted(CAUGHT_BY) == sorted(path.stem for path in BROKEN.glob("*.py"))


@pytest.mark.parametrize("stem", CAUGHT_BY)
def test_broken_adapter_is_caught(float32: Verifier, stem: str) -> None:
    """The adapter runs to its end, and the check that knows its fault fails."""
    verification = verify(float32, str(BROKEN / f"{stem}.py"))
    assert verification.failure is None
    assert CAUGHT_BY[stem] in failed(verification), list(verification.lines())


def test_backend_that_raises_fails_with_its_reason(float32: Verifier, tmp_path: Path) -> None:
    """An exception in an adapter is the verdict, not a crash."""
    path = tmp_path / "raises.py"
    path.write_text(
        "from lockstep_bench.backends.numpy import NumPy\n\n\n"
        "class Raises(NumPy):\n"
        "    name = 'raises'\n\n"
        "    def train(self, order):\n"
        "        raise RuntimeError('out of luck')\n"
    )
    verification = verify(float32, str(path))
    assert not verification.passed
    assert verification.failure == "error: in its turn to train: RuntimeError: out of luck"
    assert "Traceback" in verification.log


def test_reference_stays_out_of_a_verification_that_does_not_name_it(float32: Verifier) -> None:
    """Only what is named is verified."""
    assert [v.backend.name for v in float32.verify_all(["scikit-learn"])] == ["scikit-learn"]
    assert choose_backends(["scikit-learn"])[0].name == "numpy"


@pytest.mark.parametrize("shape", ["(len(images), 1)", "(len(images), 11)", "(3, 10)"])
def test_backend_with_other_shapes_fails_with_its_reason(float32: Verifier, tmp_path: Path, shape: str) -> None:
    """What would broadcast is refused as well."""
    path = tmp_path / "shapes.py"
    path.write_text(
        "import numpy as np\n"
        "from lockstep_bench.backends.numpy import NumPy\n\n\n"
        "class Shapes(NumPy):\n"
        "    name = 'shapes'\n\n"
        "    def predict(self, images):\n"
        f"        return np.full({shape}, 0.1)\n"
    )
    assert "predict returned an array of shape" in str(verify(float32, str(path)).failure)


def test_dataset_too_small_to_verify_on_is_refused(digits: Dataset) -> None:
    """Fewer images would mean fewer steps than are promised."""
    with pytest.raises(UsageError, match="fewer than the 743 training images"):
        Verifier(replace(digits, train=digits.train.first(742)))
