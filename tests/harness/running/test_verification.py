"""`lockstep verify`: honest backends pass, and each way of being another network is caught."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from lockstep_bench import harness
from lockstep_bench.backends import registered
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.running.plan import choose_backends
from lockstep_bench.harness.running.verification import Part, Verification, Verifier

BROKEN = Path(__file__).parents[2] / "broken"
FLOAT32_LIMIT, FLOAT64_LIMIT = 2e-5, 1e-9

# What is wrong, the check that must see it first, and what its usual causes must name.
CAUGHT_BY = {
    "dropped_short_batch": ("losses", "a short batch dropped"),
    "epsilon_1e_8": ("losses", "Adam's epsilon, its value"),
    "float16_product": ("all weights", "lower precision: TF32, bfloat16 or float16"),
    "l2_1e_4": ("losses", "an L2 penalty"),
    "label_smoothing": ("losses", "label smoothing"),
    "no_bias_correction": ("losses", "its bias correction"),
    "no_coupling_term": ("losses", "a wrong derivative"),
    "probabilities_for_logits": ("first loss", "probabilities taken for logits (softmax applied twice)"),
    "pytorch_own_epsilon": ("losses", "where it is added"),
    "random_biases": ("first probabilities", "biases not as given"),
    "shuffled_order": ("losses", "a shuffled order"),
    "skipped_steps": ("losses", "a step skipped"),
    "sum_over_batch": ("losses", "a sum over the batch for its mean"),
    "tf32_product": ("all weights", "lower precision: TF32"),
    "transposed_kernel": ("first probabilities", "a transposed kernel"),
}


@pytest.fixture(scope="module")
def float32(digits: Dataset, compiled: Path) -> Verifier:
    """The oracle, trained once, for backends in float32."""
    return Verifier(digits, "float32", caches=compiled)


@pytest.fixture(scope="module")
def float64(digits: Dataset, compiled: Path) -> Verifier:
    """The same for backends in float64."""
    return Verifier(digits, "float64", caches=compiled)


@pytest.fixture(scope="module")
def on_mnist(mnist: Dataset, compiled: Path) -> Verifier:
    """The same for backends in float32 on MNIST."""
    return Verifier(mnist, "float32", caches=compiled)


def verify(verifier: Verifier, spec: str, *parts: Part) -> Verification:
    """Verify one backend, in these parts or all."""
    planned = next(backend for backend in choose_backends([spec], dtype=verifier.dtype) if backend.spec == spec)
    return verifier.verify(planned, parts or get_args(Part))


def write_backend(folder: Path, body: str) -> str:
    """The path of a file with a backend that is the reference but for this."""
    path = folder / "mine.py"
    path.write_text(
        "from lockstep_bench.backends.numpy import NumPy\n\n\nclass Mine(NumPy):\n    name = 'mine'\n\n" + body
    )
    return str(path)


def failed(verification: Verification) -> list[str]:
    """The checks that failed."""
    return [outcome.check for outcome in verification.outcomes if not outcome.passed]


@pytest.mark.frameworks
@pytest.mark.mnist
@pytest.mark.parametrize("backend", registered())
def test_every_backend_passes_on_mnist(on_mnist: Verifier, backend: str) -> None:
    """The contract, and 150 steps in float32 that end within 2e-5 of where the oracle went.

    `test_conductor.py` has the third part, a run in lockstep, of all backends at once.
    """
    verification = verify(on_mnist, backend, "contract", "identity")
    assert verification.passed, list(verification.lines())
    assert [line.split(",")[0] for line in verification.lines()] == [
        f"ok     {backend}: {part}" for part in ("contract", "identity")
    ]
    identity = [outcome for outcome in verification.outcomes if outcome.part == "identity"]
    assert {outcome.tolerance for outcome in identity if "weights" in outcome.check} == {FLOAT32_LIMIT}


@pytest.mark.frameworks
@pytest.mark.parametrize("backend", [name for name, one in registered().items() if "float64" in one.dtypes])
def test_every_backend_is_the_oracle_in_float64(float64: Verifier, backend: str) -> None:
    """In float64, where a backend has it, the same steps agree to 1e-9."""
    verification = verify(float64, backend, "identity")
    assert verification.passed, list(verification.lines())
    assert max(outcome.difference for outcome in verification.outcomes) < FLOAT64_LIMIT


def test_backend_without_float64_is_not_verified_in_it(float64: Verifier, tmp_path: Path) -> None:
    """It says so, as wrong usage where it was named."""
    path = write_backend(tmp_path, "    dtypes = ('float32',)\n")
    with pytest.raises(UsageError, match="mine cannot run here: it does not compute in float64, only in float32"):
        verify(float64, path)


def test_float64_has_no_run_in_lockstep(float64: Verifier) -> None:
    """Runs are in float32."""
    verification = verify(float64, "numpy")
    assert {outcome.part for outcome in verification.outcomes} == {"contract", "identity"}
    assert verification.passed, list(verification.lines())


def test_every_broken_adapter_has_its_check() -> None:
    """None is added without saying what catches it, and none is lost."""
    assert sorted(CAUGHT_BY) == sorted(path.stem for path in BROKEN.glob("*.py"))


@pytest.mark.frameworks
@pytest.mark.parametrize("stem", CAUGHT_BY)
def test_broken_adapter_is_caught(float32: Verifier, stem: str) -> None:
    """The adapter runs to its end, the check that knows its fault fails first, and names what is wrong with it."""
    verification = verify(float32, str(BROKEN / f"{stem}.py"), "identity")
    assert verification.failure is None
    check, causes = CAUGHT_BY[stem]
    assert failed(verification)[0] == check, list(verification.lines())
    assert "all weights" in failed(verification)
    first, *others = (outcome.detail for outcome in verification.outcomes if not outcome.passed)
    assert causes in first
    assert all(detail.endswith(f"usual causes: those of {check}") for detail in others)


def test_failure_of_the_contract_does_not_stop_the_other_parts(float32: Verifier) -> None:
    """What prints is the same network, and stays in lockstep; the line says what was expected, what came, and why."""
    verification = verify(float32, str(BROKEN / "contract" / "prints.py"))
    assert failed(verification) == ["prints nothing"]
    contract, identity, lockstep = verification.lines()
    assert contract.startswith("FAILED prints: prints nothing: expected `train` to print nothing; came '31 images'; ")
    assert identity.startswith("ok     prints: identity")
    assert lockstep.startswith("ok     prints: lockstep")


def test_backend_that_leaves_the_lockstep_fails(float32: Verifier, tmp_path: Path) -> None:
    """The gate is applied in verify's own run: here to one that goes astray where there are 120 training images."""
    path = write_backend(
        tmp_path,
        "    def predict(self, images):\n"
        "        found = super().predict(images)\n"
        "        return found[:, ::-1] if len(self.images) == 120 else found\n",
    )
    verification = verify(float32, path)
    assert failed(verification) == ["2 epochs in turns with numpy"]
    assert "expected the reference's predictions; came after epoch 1 it predicted" in list(verification.lines())[-1]


def test_backend_that_fails_in_a_run_alone_fails_with_its_reason(float32: Verifier, tmp_path: Path) -> None:
    """With the end of its log, and after what was found before."""
    path = write_backend(
        tmp_path,
        "    def train(self, order):\n"
        "        assert len(self.images) != 120, 'out of luck'\n"
        "        return super().train(order)\n",
    )
    verification = verify(float32, path)
    assert failed(verification) == []
    assert {outcome.part for outcome in verification.outcomes} == {"contract", "identity"}
    assert verification.failure == "error: in a run in lockstep: in its turn to train: AssertionError: out of luck"
    assert "Traceback" in verification.log
    assert not verification.passed


def test_backend_that_raises_fails_with_its_reason(float32: Verifier, tmp_path: Path) -> None:
    """An exception in an adapter is the verdict, not a crash; checks that fail alike are one line."""
    path = write_backend(tmp_path, "    def train(self, order):\n        raise RuntimeError('out of luck')\n")
    verification = verify(float32, path)
    assert not verification.passed
    assert verification.failure == "error: in its turn to train: RuntimeError: out of luck"
    assert "Traceback" in verification.log
    [line] = [line for line in verification.lines() if line.startswith("FAILED")]
    assert line.endswith(": raised RuntimeError: out of luck (in train, line 8 of mine.py)")


def test_backend_that_cannot_start_is_not_asked_again(float32: Verifier, tmp_path: Path) -> None:
    """A worker that fails ends it: the other parts would say the same."""
    path = write_backend(tmp_path, "    def __init__(self):\n        raise RuntimeError('out of luck')\n")
    verification = verify(float32, path)
    assert verification.outcomes == []
    assert verification.failure == "error: in its turn to start: RuntimeError: out of luck"


def test_reference_stays_out_of_a_verification_that_does_not_name_it(float32: Verifier) -> None:
    """Only what is named is verified."""
    assert [v.backend.name for v in float32.verify_all(["scikit-learn"])] == ["scikit-learn"]
    assert choose_backends(["scikit-learn"])[0].name == "numpy"


@pytest.mark.parametrize("shape", ["(len(images), 1)", "(len(images), 11)", "(3, 10)"])
def test_backend_with_other_shapes_fails_with_its_reason(float32: Verifier, tmp_path: Path, shape: str) -> None:
    """What would broadcast is refused as well."""
    path = write_backend(
        tmp_path,
        f"    def predict(self, images):\n        import numpy as np\n\n        return np.full({shape}, 0.1)\n",
    )
    verification = verify(float32, path, "contract", "identity")
    assert "predicts probabilities" in failed(verification)
    assert "predict returned an array of shape" in str(verification.failure)


def test_function_returns_a_row_per_check() -> None:
    """The same as a DataFrame, of what passed and of what did not."""
    frame = harness.verify("scikit-learn", str(BROKEN / "epsilon_1e_8.py"), dataset="digits")
    assert list(frame.columns) == ["backend", "part", "check", "difference", "tolerance", "passed", "detail"]
    honest, other = frame[frame["backend"] == "scikit-learn"], frame[frame["backend"] == "epsilon-1e-8"]
    assert list(honest["part"].unique()) == list(get_args(Part))
    assert honest["passed"].all()
    assert (honest["detail"] == "").all()
    weights = other.set_index("check").loc["all weights"]
    assert not weights["passed"]
    assert weights["difference"] > weights["tolerance"] == FLOAT32_LIMIT
    losses = other[other["check"] == "losses"]
    assert losses["detail"].str.startswith("expected at most 2e-06 from the oracle; came ").all()


def test_dataset_too_small_to_verify_on_is_refused(digits: Dataset) -> None:
    """Fewer images would mean fewer steps than are promised."""
    with pytest.raises(UsageError, match="fewer than the 743 training images"):
        Verifier(replace(digits, train=digits.train.first(742)))
