"""The gate and the checks: numbers worked out by hand, and what must never pass."""

import numpy as np
import pytest

from lockstep_bench.harness.checks.equivalence import (
    CAUSES,
    CUDA_TOLERANCE,
    PRECISION,
    TOLERANCES,
    Check,
    State,
    Tolerance,
    allowed_disagreements,
    compare,
    disagreements,
    failure,
    gate,
    tolerance,
)
from lockstep_bench.harness.problem import FloatArray, Weights

TOLERANCE = Tolerance(probabilities=0.01, losses=0.1, weights=0.5)
NAMES = [
    *("first probabilities", "first loss", "losses", "all weights"),
    *("hidden kernel", "hidden bias", "output kernel", "output bias"),
]


def weights(*values: float) -> Weights:
    """A network of one input, two hidden units and one class: two, two, two and one numbers."""
    a, b, c, d, e, f, g = values
    return Weights(np.array([[a, b]]), np.array([c, d]), np.array([[e], [f]]), np.array([g]))


START = weights(1, 1, 0, 0, 1, 1, 0)
ORACLE = State(np.array([[0.4, 0.6]]), np.array([2.0, 1.0]), weights(4, 5, 0, 2, 1, 2, 8))


def state(
    probabilities: FloatArray = ORACLE.probabilities,
    losses: FloatArray = ORACLE.losses,
    found: Weights = ORACLE.weights,
) -> State:
    """The oracle's state but for what is given."""
    return State(probabilities, losses, found)


def differences(found: State) -> dict[str, float]:
    """Every check's difference by its name."""
    return {check.name: check.difference for check in compare(found, ORACLE, START, TOLERANCE)}


@pytest.mark.parametrize(
    ("test_images", "allowed"),
    [(1, 1), (297, 1), (1999, 1), (2000, 1), (3999, 1), (4000, 2), (10_000, 5), (11_999, 5), (12_000, 6)],
)
def test_gate_is_one_image_in_two_thousand_and_at_least_one(test_images: int, allowed: int) -> None:
    """0.05 %, rounded down."""
    assert allowed_disagreements(test_images) == allowed


def test_gate_has_no_rounding_of_its_own() -> None:
    """Multiplying by 0.0005 never falls below a whole number."""
    assert all(allowed_disagreements(images) == max(1, images // 2000) for images in range(1, 70_001))


def test_disagreements_are_counted_image_by_image() -> None:
    """The same digits in another order are no agreement; the count is a Python number."""
    digits, reference = np.array([1, 2, 3, 4, 5], np.uint8), np.array([1, 2, 4, 3, 5], np.uint8)
    assert disagreements(digits, reference) == 2
    assert type(disagreements(digits, reference)) is int
    assert disagreements(digits, digits.copy()) == 0


def test_oracle_is_itself() -> None:
    """No difference anywhere, in as many checks as there are things to compare."""
    checks = compare(ORACLE, ORACLE, START, TOLERANCE)
    assert [check.name for check in checks] == NAMES
    assert [check.difference for check in checks] == [0.0] * 8
    assert [check.tolerance for check in checks] == [0.01, 0.1, 0.1] + [0.5] * 5
    assert all(check.passed for check in checks)


def test_probabilities_are_compared_absolutely() -> None:
    """The largest difference, whatever its sign."""
    found = differences(state(probabilities=np.array([[0.43, 0.57]]) - [[0, 0.02]]))
    assert found.pop("first probabilities") == pytest.approx(0.05)
    assert set(found.values()) == {0.0}


def test_losses_are_compared_relatively() -> None:
    """1.8 of 2 and 0.8 of 1: 10 % and 20 %; the first by itself too."""
    found = differences(state(losses=np.array([1.8, 0.8])))
    assert found.pop("first loss") == pytest.approx(0.1)
    assert found.pop("losses") == pytest.approx(0.2)
    assert set(found.values()) == {0.0}


def test_weights_are_compared_relative_to_the_oracle_s_way() -> None:
    """By hand: the oracle's ways are 5, 2, 1 and 8 long; the network is 0.3 and 0.4, 1, 0 and 2 away from its end."""
    found = differences(state(found=weights(4.3, 5.4, 0, 1, 1, 2, 6)))
    assert found["hidden kernel"] == pytest.approx(0.5 / 5)
    assert found["hidden bias"] == pytest.approx(1 / 2)
    assert found["output kernel"] == 0.0
    assert found["output bias"] == pytest.approx(2 / 8)
    assert found["all weights"] == pytest.approx((0.3**2 + 0.4**2 + 1 + 4) ** 0.5 / (25 + 4 + 1 + 64) ** 0.5)


def test_network_that_did_not_train_is_as_far_as_the_oracle_went() -> None:
    """A relative difference of 1, however large the initial weights are."""
    far = Weights(*(array + 1e6 for array in START))
    moved = State(*ORACLE[:2], Weights(*(array + 1e6 for array in ORACLE.weights)))
    checks = compare(State(*ORACLE[:2], far), moved, far, TOLERANCE)
    assert [check.difference for check in checks[3:]] == pytest.approx([1.0] * 5)


def test_float32_weights_are_subtracted_in_float64() -> None:
    """A float32 network's own rounding shows: the difference itself is not rounded to float32."""
    third = 1 / 3
    start, oracle = weights(*[0.0] * 7), weights(*[third] * 7)
    found = Weights(*(array.astype(np.float32) for array in oracle))
    checks = compare(state(found=found), state(found=oracle), start, TOLERANCE)
    expected = abs(float(np.float32(third)) - third) / third
    assert [check.difference for check in checks[3:]] == pytest.approx([expected] * 5, rel=1e-6)


def test_array_of_another_shape_is_infinitely_far() -> None:
    """A kernel that came back (out, in) has as many numbers, and does not pass."""
    turned = ORACLE.weights._replace(output_kernel=ORACLE.weights.output_kernel.T)
    assert differences(state(found=turned))["output kernel"] == np.inf
    assert not Check("output kernel", np.inf, 0.5).passed


def test_missing_parameters_are_infinitely_far() -> None:
    """Also of all weights together, which cannot even be subtracted."""
    found = differences(state(found=ORACLE.weights._replace(hidden_bias=np.zeros(1))))
    assert found["all weights"] == found["hidden bias"] == np.inf


@pytest.mark.parametrize(("difference", "passed"), [(0.0, True), (0.5, True), (0.5000001, False), (np.nan, False)])
def test_check_passes_up_to_its_tolerance(difference: float, passed: bool) -> None:
    """At it, not above it, and never without a number."""
    assert Check("losses", difference, 0.5).passed is passed


def test_network_of_nan_passes_no_check() -> None:
    """Everything that is compared would be not a number."""
    nan = np.nan
    nothing = State(ORACLE.probabilities * nan, ORACLE.losses * nan, weights(nan, nan, nan, nan, nan, nan, nan))
    assert not any(check.passed for check in compare(nothing, ORACLE, START, TOLERANCE))


def test_float64_is_held_to_more_than_float32() -> None:
    """Every tolerance is tighter, and all are far below what a wrong recipe leaves."""
    assert all(tight < loose for tight, loose in zip(TOLERANCES["float64"], TOLERANCES["float32"], strict=True))
    assert max(TOLERANCES["float32"]) <= 1e-4


def test_failure_names_what_usually_causes_the_first_of_all() -> None:
    """By its place in time, and the later ones point to it; small ones are rounding; what passed says nothing."""
    assert {failure(check, []) for check in compare(ORACLE, ORACLE, START, TOLERANCE)} == {""}
    checks = [Check("first probabilities", 0.0, 0.1), Check("first loss", 0.5, 0.1), Check("losses", 0.5, 0.1)]
    assert failure(checks[1], checks).startswith(
        "expected at most 1e-01 from the oracle; came 5.0e-01; usual causes: in"
    )
    assert CAUSES["first loss"] in failure(checks[1], checks)
    assert failure(checks[2], checks).endswith("usual causes: those of first loss")
    assert failure(checks[2], checks[2:]).endswith(CAUSES["steps"])
    small = [Check("all weights", 1e-4, 1e-5), Check("hidden bias", 2e-4, 1e-5)]
    assert failure(small[0], small).endswith(CAUSES["precision"])


def test_gate_lets_pass_what_it_says_and_no_more() -> None:
    """Of predictions and of weights, up to the limit itself; weights that are not a number never."""
    assert gate(5, 0.1, 10_000, "numpy") == ""
    assert gate(6, 0.1, 10_000, "numpy") == (
        "it predicted 6 of 10,000 test images differently from numpy; 5 are allowed"
    )
    assert gate(0, 0.11, 10_000, "jax") == "its weights were 0.11 of jax's way from jax's; 0.1 is allowed"
    assert "its weights were nan" in gate(0, float("nan"), 10_000, "jax")


def test_a_gpu_has_a_tolerance_of_its_own_in_float32_alone() -> None:
    """Elsewhere it is that of the arithmetic."""
    assert tolerance("float32", "cuda") == CUDA_TOLERANCE
    assert tolerance("float64", "cuda") == tolerance("float64", "cpu") == TOLERANCES["float64"]
    assert tolerance("float32", "cpu") == TOLERANCES["float32"]


def test_failures_below_the_least_of_a_wrong_recipe_are_rounding() -> None:
    """At that limit they are not any more."""
    for difference, is_rounding in ((PRECISION, False), (0.99 * PRECISION, True)):
        check = Check("losses", difference, tolerance=1e-6)
        assert ("lower precision" in failure(check, [check])) == is_rounding
