"""What a framework does if nobody tells it otherwise is what its backend does in the native profile."""

from pathlib import Path
from typing import Final

import numpy as np
import pytest

from lockstep_bench.backends import registered
from lockstep_bench.backends.base import Defaults, Dtype, FloatArray, Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.problem import epoch_order, initial_weights
from lockstep_bench.harness.running.worker_process import WorkerProcess

pytestmark = pytest.mark.frameworks
IMAGES, SLICES = 88, ((0, 30), (30, 88))
"""Five whole batches and a short one, in two slices."""
# Of weights that move by 1e-3 per step, and of losses; float32 for who has nothing else.
ATOL: Final[dict[Dtype, float]] = {"float64": 1e-11, "float32": 1e-6}
RTOL: Final[dict[Dtype, float]] = {"float64": 1e-9, "float32": 2e-6}


class Textbook(NumPy):
    """The reference's gradients, and an Adam as the paper has it, with epsilon in either place and the L2 penalty."""

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """As the reference."""
        super().build(problem, weights, train, device, threads)
        self.moments = [(np.zeros_like(array), np.zeros_like(array)) for array in weights]

    def _gradients(self, x: FloatArray, targets: FloatArray) -> float:
        loss = super()._gradients(x, targets)
        self.gradient.hidden_kernel[:] += self.problem.l2 * self.parameter.hidden_kernel / len(x)
        self.gradient.output_kernel[:] += self.problem.l2 * self.parameter.output_kernel / len(x)
        return loss

    def _adam(self) -> None:
        problem = self.problem
        self.step += 1
        first, second = 1 - problem.beta_1**self.step, 1 - problem.beta_2**self.step
        corrected = problem.epsilon_placement == "corrected"
        for w, g, (m, v) in zip(self.parameter, self.gradient, self.moments, strict=True):
            m[:] = problem.beta_1 * m + (1 - problem.beta_1) * g
            v[:] = problem.beta_2 * v + (1 - problem.beta_2) * g**2
            if corrected:
                w[:] -= problem.learning_rate * (m / first) / (np.sqrt(v / second) + problem.epsilon)
            else:
                w[:] -= problem.learning_rate * np.sqrt(second) / first * m / (np.sqrt(v) + problem.epsilon)


@pytest.mark.parametrize(
    "name",
    [name for name, backend in registered().items() if name == "numpy" or backend.native_defaults() != Defaults()],
)
def test_native_defaults_are_honoured(name: str, digits: Dataset, compiled: Path, tmp_path: Path) -> None:
    """With its own weights, epsilon, placement and penalty it is the textbook's; its loss is without the penalty.

    The reference, which has no defaults of its own, holds the textbook to account; the other backends that have none
    are held to the Problem's by `verify`.
    """
    backend = registered()[name]
    dtype: Dtype = "float64" if "float64" in backend.dtypes else "float32"
    planned, saved = Problem(hidden=32, dtype=dtype), tmp_path / "weights.npz"
    with WorkerProcess(
        name, dtype=dtype, device="cpu", threads=1, log=tmp_path / "log", timeout=200, caches=compiled
    ) as worker:
        worker.start()
        worker.build(planned, 0, digits.folder, IMAGES, "native")
        losses = [worker.ask("train", epoch=1, start=start, stop=stop)["train_loss"] for start, stop in SLICES]
        worker.ask("save", path=str(saved))

    problem = backend.native_defaults().applied_to(planned)
    weights = initial_weights(problem, 0, backend.native_defaults().initializer)
    textbook = Textbook()
    textbook.build(problem, weights, digits.train.first(IMAGES), device="cpu", threads=1)
    order = epoch_order(seed=0, epoch=1, images=IMAGES)
    assert losses == pytest.approx([textbook.train(order[start:stop]) for start, stop in SLICES], rel=RTOL[dtype])
    with np.load(saved, allow_pickle=False) as found:
        for array, expected in textbook.weights()._asdict().items():
            np.testing.assert_allclose(found[f"weights/{array}"], expected, rtol=0, atol=ATOL[dtype], err_msg=array)
