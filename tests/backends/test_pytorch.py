"""PyTorch's backend against PyTorch as its tutorial has it, with nothing of lockstep's."""

import numpy as np
import pytest

from lockstep_bench.backends.base import Problem, Weights
from lockstep_bench.backends.pytorch import PyTorch
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.problem import epoch_order, initial_weights

pytestmark = pytest.mark.frameworks
IMAGES = 100


def test_native_defaults_are_pytorch_s_own() -> None:
    """The epsilon that `optim.Adam` says, no penalty, and the range that `nn.Linear` draws kernel and bias from."""
    import torch

    defaults = PyTorch.native_defaults()
    torch.manual_seed(0)
    layer = torch.nn.Linear(300, 200)
    settings = torch.optim.Adam(layer.parameters()).defaults
    assert (settings["eps"], settings["weight_decay"]) == (defaults.epsilon, defaults.l2)
    ours = initial_weights(Problem(inputs=300, hidden=200), 0, defaults.initializer)
    for drawn, other in zip((layer.weight, layer.bias), ours[:2], strict=True):
        array = drawn.detach().numpy()
        assert np.abs(array).max() == pytest.approx(np.abs(other).max(), rel=0.02)
        assert array.std() == pytest.approx(other.std(), rel=0.15)


def test_native_profile_is_plain_pytorch(digits: Dataset) -> None:
    """With its own defaults, from the same weights and in the same order, its weights are a plain model's exactly."""
    import torch

    defaults = PyTorch.native_defaults()
    problem = defaults.applied_to(Problem(hidden=32))
    weights, order = initial_weights(problem, 0, defaults.initializer), epoch_order(0, 1, IMAGES)
    backend = PyTorch()
    backend.build(problem, weights, digits.train.first(IMAGES), device="cpu", threads=1)
    backend.train(order[:60])
    backend.train(order[60:])

    first, second = torch.nn.Linear(784, 32), torch.nn.Linear(32, 10)
    with torch.no_grad():
        first.weight.copy_(torch.tensor(weights.hidden_kernel.T))
        first.bias.copy_(torch.tensor(weights.hidden_bias))
        second.weight.copy_(torch.tensor(weights.output_kernel.T))
        second.bias.copy_(torch.tensor(weights.output_bias))
    model = torch.nn.Sequential(first, torch.nn.Softmax(dim=1), second)
    optimizer = torch.optim.Adam(model.parameters())
    images, labels = torch.tensor(digits.train.images), torch.tensor(digits.train.labels).long()
    for start in range(0, IMAGES, 15):
        batch = torch.tensor(order[start : start + 15])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()

    plain = (parameter.detach().numpy() for parameter in (first.weight.T, first.bias, second.weight.T, second.bias))
    for name, found, expected in zip(Weights._fields, backend.weights(), plain, strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=name)
