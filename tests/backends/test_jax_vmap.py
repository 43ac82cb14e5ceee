"""Seeds that are trained side by side are those that `jax-scan` trains one by one."""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lockstep_bench.backends.base import Problem, Weights
from lockstep_bench.backends.jax import JaxScan
from lockstep_bench.backends.jax_vmap import DEVICES, JaxVmap
from lockstep_bench.harness.checks.equivalence import TOLERANCES, disagreements, gate, relative
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.problem import FloatArray, epoch_order, initial_weights

pytestmark = pytest.mark.frameworks
IMAGES, EPOCHS = 157, 2
"""Ten whole batches and one of seven."""
PROBLEM = Problem(hidden=64)
SEEDS = (0, 1, 2, 5)
IN_ANOTHER_PROCESS = """
import sys
import numpy as np
from pathlib import Path
from lockstep_bench.harness.data.cache import open_dataset
from test_jax_vmap import side_by_side

weights, probabilities, losses = side_by_side(open_dataset(Path(sys.argv[1])), (0, 1, 2, 5), threads=2)
import jax
assert len(jax.devices()) == 2
np.savez(sys.argv[2], *[array for own in weights for array in own], probabilities=probabilities, losses=losses)
"""


class TwoAtATime(JaxVmap):
    """With more than one seed in a step, and one left over."""

    name = "two-at-a-time"
    width = 2


def side_by_side(
    dataset: Dataset, seeds: Sequence[int], kind: type[JaxVmap] = JaxVmap, threads: int = 1
) -> tuple[list[Weights], FloatArray, FloatArray]:
    """Weights, probabilities (seeds, n, classes), and losses (epochs, seeds), of seeds trained together."""
    backend, train = kind(), dataset.train.first(IMAGES)
    backend.build_seeds(PROBLEM, [initial_weights(PROBLEM, seed) for seed in seeds], train, "cpu", threads)
    orders = [np.stack([epoch_order(seed, epoch, IMAGES) for seed in seeds]) for epoch in range(1, EPOCHS + 1)]
    losses = [backend.train_seeds(order) for order in orders]
    return backend.weights_of_each(), backend.predict_seeds(dataset.test.images), np.array(losses)


@cache
def alone(dataset: Dataset, seed: int) -> tuple[Weights, FloatArray, FloatArray]:
    """Weights, probabilities (n, classes), and losses (epochs,), of `jax-scan` on one seed."""
    backend = JaxScan()
    backend.build(PROBLEM, initial_weights(PROBLEM, seed), dataset.train.first(IMAGES), "cpu", 1)
    losses = [backend.train(epoch_order(seed, epoch, IMAGES)) for epoch in range(1, EPOCHS + 1)]
    return backend.weights(), backend.predict(dataset.test.images), np.array(losses)


def assert_same(dataset: Dataset, found: tuple[list[Weights], FloatArray, FloatArray], seeds: Sequence[int]) -> None:
    """Every seed passes the gate and is rounding away from `jax-scan`'s; and another seed's would not pass."""
    weights, probabilities, losses = found
    references = [alone(dataset, seed) for seed in seeds]
    for place, (seed, (own, predicted, their_losses)) in enumerate(zip(seeds, references, strict=True)):
        start, ours = initial_weights(PROBLEM, seed).flat(), weights[place].flat()
        apart = relative(ours, own.flat(), start)
        digits = probabilities[place].argmax(axis=1).astype(np.uint8)
        differ = disagreements(digits, predicted.argmax(axis=1).astype(np.uint8))
        assert gate(differ, apart, len(digits), "jax-scan") == "", seed
        assert apart <= TOLERANCES["float32"].weights, seed
        assert losses[:, place] == pytest.approx(their_losses, rel=TOLERANCES["float32"].losses), seed
        other = references[place - 1][0].flat()
        assert gate(0, relative(ours, other, start), len(digits), "jax-scan") != ""


@pytest.mark.parametrize("kind", [JaxVmap, TwoAtATime])
def test_every_seed_is_the_one_that_jax_scan_trains(digits: Dataset, kind: type[JaxVmap]) -> None:
    """Not the first alone; in a step of its own, or in one with others; with a short last batch."""
    assert_same(digits, side_by_side(digits, SEEDS[:3], kind), SEEDS[:3])


def test_every_seed_of_every_core_is_the_one_that_jax_scan_trains(digits: Dataset, tmp_path: Path) -> None:
    """Divided among two devices, which a process gets only by `environment`."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(Path(__file__).parent)]))
    variables = {**os.environ, **JaxVmap.environment(2, "cpu", "float32"), "PYTHONPATH": path}
    file = tmp_path / "trained.npz"
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(digits.folder), str(file)]
    subprocess.run(command, check=True, env=variables)
    with np.load(file) as saved:
        arrays = [saved[f"arr_{number}"] for number in range(4 * len(SEEDS))]
        weights = [Weights(*arrays[place : place + 4]) for place in range(0, len(arrays), 4)]
        assert_same(digits, (weights, saved["probabilities"], saved["losses"]), SEEDS)


def test_a_seed_does_not_depend_on_the_others(digits: Dataset) -> None:
    """Bit for bit, beside whomever and in whatever place it is trained."""
    one, other = side_by_side(digits, (1, 0, 2))[0][1], side_by_side(digits, (0, 7))[0][0]
    for name, ours, theirs in zip(Weights._fields, one, other, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def test_given_weights_are_copied(digits: Dataset) -> None:
    """The state is donated, and must not be the caller's arrays."""
    given = initial_weights(PROBLEM, 0)
    before = given.flat()
    backend = JaxVmap()
    backend.build_seeds(PROBLEM, [given], digits.train.first(IMAGES), "cpu", 1)
    backend.train_seeds(epoch_order(0, 1, IMAGES)[None])
    np.testing.assert_array_equal(given.flat(), before)


def test_a_device_for_each_thread_beside_the_user_s_own_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """What XLA_FLAGS holds stays; XLA takes the last of what is said twice."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert JaxVmap.environment(2, "cpu", "float32")["XLA_FLAGS"] == f"{DEVICES}=2"
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/x")
    assert JaxVmap.environment(4, "cpu", "float32")["XLA_FLAGS"] == f"--xla_dump_to=/tmp/x {DEVICES}=4"
