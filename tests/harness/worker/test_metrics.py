"""Loss and error mean the same for every backend, and what are no probabilities is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss

from lockstep_bench.harness.problem import FloatArray
from lockstep_bench.harness.worker.metrics import DivergedError, score

PROBABILITIES: FloatArray = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3], [0, 0, 1]])
LABELS = np.array([0, 2, 0, 2], np.uint8)


def test_scores_are_those_computed_by_hand() -> None:
    """True classes have 0.5, 0.7, 0.3 and 1; the third image is wrong."""
    found = score(PROBABILITIES, LABELS, 3)
    assert found.loss == pytest.approx(-np.log(0.5 * 0.7 * 0.3 * 1.0) / 4, rel=1e-15)
    assert found.error_percent == 25.0
    assert found.digits.tolist() == [0, 2, 1, 2]
    assert found.digits.dtype == np.uint8
    assert (type(found.loss), type(found.error_percent)) == (float, float)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 50), dtype=st.sampled_from(["float32", "float64"]))
def test_scores_are_scikit_learn_s(seed: int, images: int, dtype: str) -> None:
    """Of any probabilities: `log_loss`, and what `accuracy_score` leaves to 100 %."""
    random = np.random.default_rng(seed)
    probabilities = np.exp(random.normal(0, 3, (images, 10)))
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(dtype)
    labels = random.integers(0, 10, images).astype(np.uint8)
    found = score(probabilities, labels, 10)
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)  # float32 rows add up to 1 only within their rounding
    assert found.loss == pytest.approx(log_loss(labels, exact, labels=range(10)), rel=1e-6, abs=1e-6)
    accuracy = accuracy_score(labels, probabilities.argmax(axis=1))
    assert found.error_percent == pytest.approx(100 * (1 - accuracy), abs=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_true_class_of_probability_0_has_a_finite_loss(dtype: str) -> None:
    """It counts as the smallest normal float32, whatever the dtype."""
    found = score(np.array([[1, 0]], dtype), np.array([1], np.uint8), 2)
    assert found.loss == pytest.approx(-np.log(2.0**-126))
    assert found.error_percent == 100.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_have_diverged(value: float) -> None:
    """One is enough, wherever it is."""
    probabilities = PROBABILITIES.copy()
    probabilities[1, 0] = value
    with pytest.raises(DivergedError, match=r"^predicted probabilities are not finite$"):
        score(probabilities, LABELS, 3)


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (4, 2), (4, 4), (4,), (4, 3, 1), (0, 3)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """The message says which came, and for how many images."""
    with pytest.raises(ValueError, match="predict returned an array of shape") as caught:
        score(np.full(shape, 1 / 3), LABELS, 3)
    assert str(caught.value) == f"predict returned an array of shape {shape} for 4 images of 3 classes"


def test_rows_that_do_not_add_up_to_1_are_refused() -> None:
    """Logits, percentages or a forgotten softmax; the message says how far off the worst row is."""
    probabilities = PROBABILITIES.copy()
    probabilities[2, 0] += 0.01
    with pytest.raises(ValueError, match=r"predict must return probabilities: .* within 0\.01$"):
        score(probabilities, LABELS, 3)
    probabilities[2, 0] -= 0.02
    with pytest.raises(ValueError, match="predict must return probabilities"):
        score(probabilities, LABELS, 3)


def test_negative_numbers_are_refused_even_if_they_add_up() -> None:
    """-0.1 and 1.1 sum to 1 and are no probabilities."""
    with pytest.raises(ValueError, match="predict must return probabilities"):
        score(np.array([[-0.1, 1.1]]), np.array([1], np.uint8), 2)


def test_float16_s_rounding_is_allowed() -> None:
    """Its rows add up to 1 within 0.001."""
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(10), 200).astype(np.float16)
    assert abs(probabilities.sum(axis=1, dtype=np.float64) - 1).max() > 1e-5
    score(probabilities, random.integers(0, 10, 200).astype(np.uint8), 10)


def test_probabilities_are_left_as_they_are() -> None:
    """Scoring changes nothing in them."""
    probabilities = PROBABILITIES.copy()
    probabilities.flags.writeable = False
    score(probabilities, LABELS, 3)
    np.testing.assert_array_equal(probabilities, PROBABILITIES)
