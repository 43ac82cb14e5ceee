"""PyTorch: what its tutorial would write, and a whole step compiled."""

from typing import Any, ClassVar

import numpy as np

from lockstep_bench.backends.base import (
    Backend,
    Defaults,
    FloatArray,
    IntArray,
    NDArray,
    Problem,
    Split,
    Style,
    Weights,
)


class PyTorch(Backend):
    """`nn.Sequential`, `CrossEntropyLoss`, `optim.Adam`, and the loop of "What is torch.nn really?" over slices.

    PyTorch adds epsilon to `sqrt(v / (1 - beta_2**t))`, the Problem adds it to `sqrt(v)` (see keras issue 17391, and
    MLPerf training_policies issue 266, on how the two differ). With `epsilon / sqrt(1 - beta_2**t)` at step t they are
    equal.
    """

    name: ClassVar[str] = "pytorch"
    style: ClassVar[Style] = "idiomatic"
    packages = ("torch",)
    modules = ("torch",)
    extra = "pytorch"
    devices = ("cpu",)

    @classmethod
    def native_defaults(cls) -> Defaults:
        """`nn.Linear` and `optim.Adam` as they come."""
        return Defaults("fan-in-uniform", epsilon=1e-8, epsilon_placement="corrected")

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Make the model and overwrite its weights; its kernels are (out, in)."""
        import torch

        torch.set_num_threads(threads)
        dtype = getattr(torch, problem.dtype)
        self.problem = problem
        self.model = torch.nn.Sequential(
            torch.nn.Linear(problem.inputs, problem.hidden),
            torch.nn.Softmax(dim=1),
            torch.nn.Linear(problem.hidden, problem.classes),
        ).to(device, dtype)
        parameters = (weights.hidden_kernel.T, weights.hidden_bias, weights.output_kernel.T, weights.output_bias)
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), parameters, strict=True):
                parameter.copy_(torch.tensor(value))
        self.loss = torch.nn.CrossEntropyLoss()
        self.optimizer = self._optimizer()
        self.step = 0
        self.images = torch.tensor(train.images, dtype=dtype, device=device)
        self.labels = torch.tensor(train.labels, dtype=torch.int64, device=device)

    def _optimizer(self) -> Any:
        import torch

        problem = self.problem
        return torch.optim.Adam(
            self.model.parameters(), lr=problem.learning_rate, betas=(problem.beta_1, problem.beta_2)
        )

    def train(self, order: IntArray) -> float:
        """The tutorial's loop; the losses are added up on the device, and read once."""
        import torch

        total = torch.zeros((), dtype=self.images.dtype, device=self.images.device)
        for batch in torch.tensor(order, device=self.images.device).split(self.problem.batch_size):
            self.step += 1
            self.optimizer.param_groups[0]["eps"] = self.problem.epsilon_at(self.step, "corrected")
            loss = self.loss(self.model(self.images[batch]), self.labels[batch])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(batch)
        return float(total) / len(order)

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """The model gives logits, as `CrossEntropyLoss` wants them: the last softmax is taken here."""
        import torch

        with torch.no_grad():
            logits = self.model(torch.tensor(images, dtype=self.images.dtype, device=self.images.device))
            probabilities: FloatArray = torch.softmax(logits, dim=1).cpu().numpy()
        return probabilities

    def weights(self) -> Weights:
        """Kernels turned back to (in, out)."""
        hidden_kernel, hidden_bias, output_kernel, output_bias = (
            parameter.detach().cpu().numpy() for parameter in self.model.parameters()
        )
        return Weights(hidden_kernel.T.copy(), hidden_bias.copy(), output_kernel.T.copy(), output_bias.copy())


class PyTorchTuned(PyTorch):
    """`torch.compile` of a whole step, from the batch's indices to the new parameters.

    The step is a function of tensors, so that Inductor sees all of it: the gradient comes from `torch.func`, Adam is
    written out, and becomes one pass over parameters and moments. No autograd graph is built and no optimizer called
    at run time. `docs/tuning.md` has what else was tried.
    """

    name: ClassVar[str] = "pytorch-tuned"
    style: ClassVar[Style] = "tuned"
    programs = ("g++",)

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Copy everything into tensors and define the step; it is compiled when it is first called."""
        import torch

        torch.set_num_threads(threads)
        torch.compiler.reset()
        dtype = getattr(torch, problem.dtype)
        self.problem = problem
        self.parameters: Any = Weights(*(torch.tensor(array) for array in weights))
        self.m, self.v = ([torch.zeros_like(tensor) for tensor in self.parameters] for _ in range(2))
        self.step = 0
        self.images = torch.tensor(train.images, dtype=dtype)
        self.labels = torch.tensor(train.labels, dtype=torch.int64)

        def step(parameters: Any, m: Any, v: Any, images: Any, labels: Any, batch: Any, scalars: Any) -> Any:
            gradients, value = self._gradients_and_value(parameters, images[batch], labels[batch])
            alpha, epsilon = scalars
            for w, g, first, second in zip(parameters, gradients, m, v, strict=True):
                first.lerp_(g, 1 - problem.beta_1)
                second.lerp_(g * g, 1 - problem.beta_2)
                w.sub_(alpha * first / (second.sqrt() + epsilon))
            return value

        self.eager, self.compiled = step, torch.compile(step, fullgraph=True, dynamic=False)

    def _gradients_and_value(self, parameters: Any, x: Any, labels: Any) -> Any:
        import torch

        def loss(parameters: Any) -> Any:
            return torch.nn.functional.cross_entropy(self._logits(parameters, x), labels)

        return torch.func.grad_and_value(loss)(parameters)

    @staticmethod
    def _logits(parameters: Any, x: Any) -> Any:
        hidden = (x @ parameters.hidden_kernel + parameters.hidden_bias).softmax(dim=1)
        return hidden @ parameters.output_kernel + parameters.output_bias

    def train(self, order: IntArray) -> float:
        """Whole batches by the compiled step; a short last one is not worth compiling for."""
        import torch

        size = self.problem.batch_size
        state = self.parameters, self.m, self.v, self.images, self.labels
        total = torch.zeros((), dtype=self.images.dtype)
        with torch.no_grad():
            for batch in torch.tensor(order).split(size):
                step = self.compiled if len(batch) == size else self.eager
                total += len(batch) * step(*state, batch, self._scalars())
        return float(total) / len(order)

    def _scalars(self) -> Any:
        """The next step's, as a tensor: numbers would be compiled in."""
        import torch

        self.step += 1
        scalars = self.problem.alpha(self.step), self.problem.epsilon_at(self.step, "uncorrected")
        return torch.tensor(scalars, dtype=self.images.dtype)

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """In the Problem's dtype."""
        import torch

        with torch.no_grad():
            logits = self._logits(self.parameters, torch.tensor(images, dtype=self.images.dtype))
            probabilities: FloatArray = logits.softmax(dim=1).numpy()
        return probabilities

    def weights(self) -> Weights:
        """The kernels are (in, out) here."""
        return Weights(*(tensor.numpy().copy() for tensor in self.parameters))
