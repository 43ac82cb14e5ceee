"""Shows what each of the frameworks' defaults does by itself, and how small the gradients are beside epsilon.

    python tests/benchmarks/native_defaults.py

The first table: one default at a time in place of the Problem's own, the rest as it is; the test error after three
epochs over the first 15,000 images of MNIST, for five seeds. Compare within a column: a seed is the same order in every
row, and the same random numbers for the initial weights. PyTorch's backend trains, as it takes any epsilon in either
place; scikit-learn's where there is a penalty.

The second: quantiles of sqrt(v), to which "uncorrected" adds epsilon, over the parameters that have had a gradient; and
for the median the part of Adam's step that is left with each epsilon in each place: sqrt(v) / (sqrt(v) + epsilon).

Takes about seven minutes. Nothing is timed.
"""

import sys
from collections.abc import Iterator
from math import ceil

import numpy as np
from pandas import DataFrame

from lockstep_bench.backends.base import Backend, Defaults
from lockstep_bench.backends.numpy import NumPy
from lockstep_bench.backends.pytorch import PyTorch
from lockstep_bench.backends.scikit_learn import ScikitLearn
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.problem import EpsilonPlacement, Problem, epoch_order, initial_weights
from lockstep_bench.harness.worker.metrics import score

IMAGES, SEEDS, THREADS = 15_000, range(5), 2
PROBLEM = Problem(epochs=3)
VARIANTS = {
    "the Problem's own, and Keras's": Defaults(),
    "epsilon of 1e-8": Defaults(epsilon=1e-8),
    "epsilon where PyTorch puts it": Defaults(epsilon_placement="corrected"),
    "both: PyTorch's epsilon": Defaults(epsilon=1e-8, epsilon_placement="corrected"),
    "PyTorch's initial weights": Defaults("fan-in-uniform"),
    "all of PyTorch's": PyTorch.native_defaults(),
    "scikit-learn's initial weights": Defaults("glorot-uniform-biases"),
    "scikit-learn's L2 penalty": Defaults(l2=1e-4),
    "all of scikit-learn's": ScikitLearn.native_defaults(),
}
STEPS = (1, 10, 100, 1000, 3000)
QUANTILES = (0.1, 0.5, 0.9)
EPSILONS: tuple[tuple[float, EpsilonPlacement], ...] = (
    *((1e-7, "uncorrected"), (1e-8, "uncorrected")),
    *((1e-7, "corrected"), (1e-8, "corrected")),
)


def main() -> int:
    """Train all variants, then the reference, and print."""
    dataset = find_dataset("auto", None, print)
    errors = DataFrame(
        {name: [error(dataset, defaults, seed) for seed in SEEDS] for name, defaults in VARIANTS.items()}
    )
    table = errors.rename(index="seed {}".format).T.assign(mean=errors.mean())
    print(f"{dataset.name}: test error in percent\n{table.to_string(float_format='{:.2f}'.format)}\n")
    sizes = DataFrame(second_moments(dataset)).to_string(index=False, float_format="{:.2g}".format)
    print(f"sqrt(v) of the reference, and the part of Adam's step that epsilon leaves of the median's\n{sizes}")
    return 0


def error(dataset: Dataset, defaults: Defaults, seed: int) -> float:
    """Test error in percent, after the last epoch, of a network with these defaults."""
    problem = defaults.applied_to(PROBLEM)
    backend: Backend = ScikitLearn() if defaults.l2 else PyTorch()
    weights = initial_weights(problem, seed, defaults.initializer)
    train = dataset.train.first(IMAGES)
    backend.build(problem, weights, train, "cpu", THREADS)
    for epoch in range(1, problem.epochs + 1):
        backend.train(epoch_order(seed, epoch, len(train.labels)))
    return score(backend.predict(dataset.test.images), dataset.test.labels, problem.classes).error_percent


def second_moments(dataset: Dataset) -> Iterator[dict[str, object]]:
    """After each of `STEPS`, of either kernel: how large sqrt(v) is, and what each epsilon makes of its median."""
    backend = NumPy()
    train = dataset.train.first(IMAGES)
    backend.build(PROBLEM, initial_weights(PROBLEM, 0), train, "cpu", THREADS)
    epochs = ceil(STEPS[-1] * PROBLEM.batch_size / len(train.labels))
    order = np.concatenate([epoch_order(0, epoch, len(train.labels)) for epoch in range(1, epochs + 1)])
    kernels = {
        "hidden": slice(PROBLEM.inputs * PROBLEM.hidden),
        "output": slice(-PROBLEM.classes * (PROBLEM.hidden + 1), -PROBLEM.classes),
    }
    for step in STEPS:
        backend.train(order[backend.step * PROBLEM.batch_size : step * PROBLEM.batch_size])
        root = np.sqrt((1 - PROBLEM.beta_2) * backend.v)  # it keeps v without the factor
        for kernel, place in kernels.items():
            sizes = np.quantile(root[place][root[place] > 0], QUANTILES)
            left = {f"{e:g} {where}": sizes[1] / (sizes[1] + added(e, where, step)) for e, where in EPSILONS}
            quantiles = {f"{100 * quantile:.0f} %": size for quantile, size in zip(QUANTILES, sizes, strict=True)}
            yield {"step": step, "kernel": kernel, **quantiles, **left}


def added(epsilon: float, placement: EpsilonPlacement, step: int) -> float:
    """What is added to sqrt(v), for an epsilon in either place."""
    return Defaults(epsilon=epsilon, epsilon_placement=placement).applied_to(PROBLEM).epsilon_at(step, "uncorrected")


if __name__ == "__main__":
    sys.exit(main())
