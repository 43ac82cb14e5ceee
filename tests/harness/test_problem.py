"""The Problem, its initial weights and its order are the same in every process and on every machine."""

from dataclasses import FrozenInstanceError, replace
from hashlib import sha256
from itertools import combinations
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep_bench.harness.problem import (
    Defaults,
    EpsilonPlacement,
    Initializer,
    Problem,
    Split,
    Stream,
    Weights,
    digest,
    epoch_order,
    fixed_order,
    initial_weights,
    random_stream,
)

# Made by NumPy 2.4; another value means that NumPy's streams have changed, and with them every result.
WEIGHTS_OF_SEED_0 = "1978e5b47daec68f0c782b5edb4bebeae79f7f0f2eeb49dec4ee7334f8cf2e76"
ORDER_OF_SEED_0 = "2b323133091030746909d56a4cd3eaaade82dd7c9b46ad6216b2d742815cc3c3"

seeds = st.integers(0, 2**32 - 1)
epochs = st.integers(1, 1000)


def test_defaults_are_the_notebook_s() -> None:
    """784-784-10, Adam with Keras's constants, batches of 15, 20 epochs, float32."""
    assert Problem() == Problem(
        inputs=784,
        hidden=784,
        classes=10,
        batch_size=15,
        epochs=20,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        dtype="float32",
    )


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize("placement", get_args(EpsilonPlacement))
def test_both_placements_of_epsilon_are_the_same_update(step: int, placement: EpsilonPlacement) -> None:
    """The epsilon of either form makes of the same moments the same step, wherever the Problem has its own."""
    problem = Problem(epsilon_placement=placement)
    m, v = 3e-6, 5e-11
    first, second = 1 - problem.beta_1**step, 1 - problem.beta_2**step
    uncorrected = second**0.5 / first * m / (v**0.5 + problem.epsilon_at(step, "uncorrected"))
    corrected = (m / first) / ((v / second) ** 0.5 + problem.epsilon_at(step, "corrected"))
    assert uncorrected == pytest.approx(corrected, rel=1e-12)
    assert problem.epsilon_at(step, placement) == problem.epsilon


def test_problem_is_frozen() -> None:
    """What is compared does not change on the way."""
    with pytest.raises(FrozenInstanceError):
        Problem().epsilon = 1e-8  # type: ignore[misc] # which is the point


@pytest.mark.parametrize("name", ["inputs", "hidden", "classes", "batch_size", "epochs"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_below_one_are_refused_by_name(name: str, value: int) -> None:
    """The message names the field and the value."""
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"^{name.replace('_', ' ')} must be at least 1, not {value}$"):
        Problem(**arguments)
    arguments[name] = 1
    assert getattr(Problem(**arguments), name) == 1


@pytest.mark.parametrize("name", ["learning_rate", "beta_1", "beta_2", "epsilon", "l2"])
def test_rates_are_between_0_and_1(name: str) -> None:
    """The message names the field and the value; the penalty alone may be 0, which is none."""
    for value in (-0.5, 1.0, 1.5) if name == "l2" else (-0.5, 0.0, 1.0, 1.5):
        arguments: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"^{name.replace('_', ' ')} must be between 0 and 1, not {value}$"):
            Problem(**arguments)


def test_other_dtypes_are_refused() -> None:
    """The message says which there are."""
    with pytest.raises(ValueError, match=r"^dtype must be one of float32, float64, not float16$"):
        Problem(dtype="float16")  # type: ignore[arg-type] # which is the point


def test_other_placements_are_refused() -> None:
    """The message says which there are."""
    with pytest.raises(ValueError, match=r"^epsilon placement must be one of uncorrected, corrected, not inside$"):
        Problem(epsilon_placement="inside")  # type: ignore[arg-type] # which is the point


def test_first_images_are_views_with_their_labels() -> None:
    """`first` copies nothing and keeps images and labels together."""
    split = Split(np.eye(5, dtype=np.float32), np.arange(5, dtype=np.uint8))
    first = split.first(3)
    assert first.images.base is split.images
    assert first.labels.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(first.images, np.eye(5)[:3])


def test_flat_weights_come_one_after_another_in_float64() -> None:
    """Hidden kernel, hidden bias, output kernel, output bias, each in C order."""
    weights = Weights(
        np.array([[1, 2], [3, 4]], np.float32).T,
        np.array([5, 6], np.float32),
        np.array([[7], [8]], np.float32),
        np.array([9], np.float32),
    )
    assert weights.flat().tolist() == [1, 3, 2, 4, 5, 6, 7, 8, 9]
    assert weights.flat().dtype == np.float64


def test_initial_weights_are_pinned() -> None:
    """Seed 0 gives these bytes, on every machine and with every NumPy."""
    assert digest(initial_weights(Problem(), seed=0)) == WEIGHTS_OF_SEED_0


def test_initial_weights_have_the_problem_s_shapes_and_dtype() -> None:
    """Kernels are (in, out)."""
    problem = Problem(inputs=6, hidden=5, classes=3, dtype="float64")
    weights = initial_weights(problem, seed=0)
    assert [array.shape for array in weights] == [(6, 5), (5,), (5, 3), (3,)]
    assert {array.dtype for array in weights} == {np.dtype("float64")}
    assert {array.dtype for array in initial_weights(Problem(), seed=0)} == {np.dtype("float32")}


def test_oracle_starts_from_the_float32_values() -> None:
    """In float64 the initial weights are those of float32 exactly, not their unrounded origins."""
    float64 = initial_weights(Problem(dtype="float64"), seed=0)
    for exact, rounded in zip(float64, initial_weights(Problem(), seed=0), strict=True):
        np.testing.assert_array_equal(exact, rounded.astype(np.float64), strict=True)


def test_kernels_are_glorot_uniform_and_biases_zero() -> None:
    """Within +/- sqrt(6 / (in + out)), up to it, and with a uniform distribution's mean and variance."""
    weights = initial_weights(Problem(), seed=0)
    for kernel, limit in ((weights.hidden_kernel, (6 / 1568) ** 0.5), (weights.output_kernel, (6 / 794) ** 0.5)):
        assert 0.999 * limit < kernel.max() <= np.float32(limit)
        assert -0.999 * limit > kernel.min() >= -np.float32(limit)
        assert abs(kernel.mean()) < 0.02 * limit
        assert kernel.std() == pytest.approx(limit / 3**0.5, rel=0.02)
    assert not weights.hidden_bias.any()
    assert not weights.output_bias.any()


LIMITS = {
    "glorot-uniform": ((6 / 1568) ** 0.5, (6 / 794) ** 0.5),
    "glorot-uniform-biases": ((6 / 1568) ** 0.5, (6 / 794) ** 0.5),
    "fan-in-uniform": (1 / 28, 1 / 28),
}


@pytest.mark.parametrize("initializer", get_args(Initializer))
def test_initializers_are_uniform_within_their_limits(initializer: Initializer) -> None:
    """Kernels, and biases unless zero, come up to their limit, with a uniform distribution's mean and variance."""
    weights = initial_weights(Problem(), 0, initializer)
    for arrays, limit in zip((weights[:2], weights[2:]), LIMITS[initializer], strict=True):
        for array in arrays:
            if initializer == "glorot-uniform" and array.ndim == 1:
                assert not array.any()
                continue
            largest, enough = np.abs(array).max() / limit, array.size > 500
            assert largest <= 1 + 1e-7
            assert largest > (0.99 if enough else 0.5)
            assert abs(array.mean()) < (0.1 if enough else 0.6) * limit
            assert array.std() == pytest.approx(limit / 3**0.5, rel=0.05 if enough else 0.5)


@pytest.mark.parametrize("initializer", get_args(Initializer))
def test_initializers_are_pure_and_round_to_float32(initializer: Initializer) -> None:
    """The same seed gives the same again, another seed others; in float64 they are the float32 values."""
    problem = Problem(inputs=6, hidden=5, classes=3)
    weights = initial_weights(problem, 1, initializer)
    assert digest(weights) == digest(initial_weights(problem, 1, initializer))
    assert digest(weights) != digest(initial_weights(problem, 2, initializer))
    exact = initial_weights(replace(problem, dtype="float64"), 1, initializer)
    for array, rounded in zip(exact, weights, strict=True):
        np.testing.assert_array_equal(array, rounded.astype(np.float64), strict=True)


def test_unknown_initializer_is_refused() -> None:
    """The message says which there are."""
    with pytest.raises(ValueError, match=r"^there is no initializer ones: take one of glorot-uniform, "):
        initial_weights(Problem(), 0, "ones")  # type: ignore[arg-type] # which is the point


def test_defaults_of_the_problem_change_nothing() -> None:
    """The identical profile trains with the Problem itself; other defaults take the place of three of its fields."""
    problem = Problem(epochs=3, hidden=5)
    assert Defaults.of(problem) == Defaults()
    assert Defaults.of(problem).applied_to(problem) == problem
    native = Defaults("fan-in-uniform", epsilon=1e-8, epsilon_placement="corrected", l2=1e-4).applied_to(problem)
    assert native == Problem(epochs=3, hidden=5, epsilon=1e-8, epsilon_placement="corrected", l2=1e-4)


def test_seeds_give_different_weights() -> None:
    """Each seed its own, and the same again."""
    problem = Problem(inputs=6, hidden=5, classes=3)
    assert len({digest(initial_weights(problem, seed)) for seed in range(20)}) == 20
    assert digest(initial_weights(problem, 3)) == digest(initial_weights(problem, 3))


@settings(deadline=None)
@given(seed=seeds, epoch=epochs, images=st.integers(1, 300))
def test_order_is_a_read_only_permutation(seed: int, epoch: int, images: int) -> None:
    """Every image exactly once, as int64, the same whenever it is asked for, and nobody can change it."""
    order = epoch_order(seed, epoch, images)
    assert sorted(order.tolist()) == list(range(images))
    assert order.dtype == np.int64
    assert not order.flags.writeable
    np.testing.assert_array_equal(order, epoch_order(seed, epoch, images))


def test_order_is_pinned() -> None:
    """MNIST's first epoch of seed 0 comes in this order, on every machine and with every NumPy."""
    assert digest([epoch_order(seed=0, epoch=1, images=60_000)]) == ORDER_OF_SEED_0


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    """No two of 20 epochs of 10 seeds are alike, and none is the order of the files."""
    orders = {tuple(epoch_order(seed, epoch, 50).tolist()) for seed in range(10) for epoch in range(1, 21)}
    assert len(orders) == 200
    assert tuple(range(50)) not in orders


@settings(deadline=None)
@given(seed=seeds, index=st.integers(0, 1000))
def test_streams_of_different_purposes_are_different(seed: int, index: int) -> None:
    """Weights, order and schedule share no numbers, with an index or without."""
    drawn = [random_stream(seed, stream, index).random(4).tolist() for stream in Stream]
    drawn += [random_stream(seed, stream).random(4).tolist() for stream in Stream]
    assert all(one != other for one, other in combinations(drawn, 2))


def test_weights_do_not_depend_on_what_was_drawn_before() -> None:
    """Each purpose has a stream of its own: orders made in between change no weights."""
    problem = Problem(inputs=6, hidden=5, classes=3)
    before = digest(initial_weights(problem, seed=0))
    epoch_order(0, 1, 100)
    np.random.default_rng(0).random(100)
    assert digest(initial_weights(problem, seed=0)) == before


def test_digest_is_the_sha_256_of_the_bytes_in_c_order() -> None:
    """Of all arrays together; how an array lies in memory does not matter, its dtype and values do."""
    one, other = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7], np.int64)
    assert digest([one, other]) == sha256(one.tobytes() + other.tobytes()).hexdigest()
    assert digest([np.asfortranarray(one), other]) == digest([one, other])
    assert digest([one.astype(np.float64), other]) != digest([one, other])
    assert digest([other, one]) != digest([one, other])


def test_alpha_is_the_learning_rate_with_both_corrections() -> None:
    """By hand at step 1, where both are at their largest, and the learning rate itself when they have died away."""
    assert Problem().alpha(1) == pytest.approx(1e-3 * 0.0316227766 / 0.1, rel=1e-8)
    assert Problem(learning_rate=0.5, beta_1=0.5, beta_2=0.75).alpha(2) == pytest.approx(0.5 * 0.4375**0.5 / 0.75)
    assert Problem().alpha(100_000) == pytest.approx(1e-3, rel=1e-12)


def test_defaults_of_a_problem_are_its_own() -> None:
    """Every one of them."""
    problem = Problem(epsilon=1e-3, epsilon_placement="corrected", l2=0.25)
    assert Defaults.of(problem) == ("glorot-uniform", 1e-3, "corrected", 0.25)


def test_fixed_order_is_epochs_one_after_another() -> None:
    """Cut where the steps end; the next "epoch" begins with the next permutation, so no order comes twice."""
    order = fixed_order(3, 1, images=10, count=25)
    assert list(order) == [*epoch_order(3, 1, 10), *epoch_order(3, 2, 10), *epoch_order(3, 3, 10)[:5]]
    assert list(fixed_order(3, 2, images=10, count=25))[:10] == list(epoch_order(3, 4, 10))
    assert list(fixed_order(3, 2, images=10, count=20)) == [*epoch_order(3, 3, 10), *epoch_order(3, 4, 10)]
    assert not order.flags.writeable
