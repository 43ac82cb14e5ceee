"""PyTorch: what its tutorial would write, and a whole step compiled; on a GPU many of these launched as one."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from lockstep_bench.backends.base import (
    FULL_FLOAT32,
    Backend,
    Defaults,
    Dtype,
    FloatArray,
    IntArray,
    NDArray,
    Problem,
    Split,
    Style,
    Weights,
)

GRAPH_STEPS = 10
"""Steps that `pytorch-tuned` launches as one on a GPU: a divisor of the harness's slices, also of those that tell what
a call costs; and few enough for `lockstep verify` to check the graph too."""


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
    devices = ("cpu", "cuda")

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """Full float32 on a GPU too."""
        return FULL_FLOAT32 if device == "cuda" else {}

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

    def device_memory_bytes(self) -> int | None:
        """Of PyTorch's own allocator."""
        import torch

        return torch.cuda.max_memory_allocated() if self.images.is_cuda else None

    def synchronize(self) -> None:
        """A GPU is told what to do, and does it later."""
        import torch

        if self.images.is_cuda:
            torch.cuda.synchronize()


class PyTorchTuned(PyTorch):
    """`torch.compile` of a whole step, from the batch's indices to the new parameters.

    The step is a function of tensors, so that Inductor sees all of it: the gradient comes from `torch.func`, Adam is
    written out, and becomes one pass over parameters and moments. No autograd graph is built and no optimizer called
    at run time. `docs/tuning.md` has what else was tried.

    A GPU would spend its time on the launches of so small a step: there 10 steps are recorded as a CUDA graph, and
    launched as one.
    """

    name: ClassVar[str] = "pytorch-tuned"
    style: ClassVar[Style] = "tuned"
    programs = ("g++",)
    slow = "its first step compiles for about 20 s"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Copy everything into tensors and define the step; it is compiled when it is first called."""
        import torch

        torch.set_num_threads(threads)
        torch.compiler.reset()
        if device == "cuda":  # Inductor advises TF32, which the Problem does not allow
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")
        dtype = getattr(torch, problem.dtype)
        self.problem = problem
        self.parameters: Any = Weights(*(torch.tensor(array, device=device) for array in weights))
        self.m, self.v = ([torch.zeros_like(tensor) for tensor in self.parameters] for _ in range(2))
        self.step = 0
        self.images = torch.tensor(train.images, dtype=dtype, device=device)
        self.labels = torch.tensor(train.labels, dtype=torch.int64, device=device)
        self.many: Steps | None = None

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

        device, size = self.images.device, self.problem.batch_size
        state = self.parameters, self.m, self.v, self.images, self.labels
        total = torch.zeros((), dtype=self.images.dtype, device=device)
        at_once = self._graph_steps()
        in_graphs = len(order) // (at_once * size) * at_once * size if at_once else 0
        with torch.no_grad():
            if in_graphs:
                parts = torch.tensor(order[:in_graphs], device=device).reshape(-1, at_once, size)
                scalars = torch.stack([self._scalars() for _ in range(in_graphs // size)])
                self.many = self.many or Steps(self.compiled, state, parts[0], record=device.type == "cuda")
                # All are copied at once: a copy may wait for what the GPU is at.
                for part, its_scalars in zip(parts, scalars.to(device).reshape(-1, at_once, 2), strict=True):
                    total += self.many(part, its_scalars)
            rest = torch.tensor(order[in_graphs:], device=device)
            for batch in rest.split(size) if len(rest) else ():  # of nothing, `split` makes a batch of nothing
                step = self.compiled if len(batch) == size else self.eager
                total += len(batch) * step(*state, batch, self._scalars().to(device))
        return float(total) / len(order)

    def _graph_steps(self) -> int:
        """How many steps are launched as one; on the CPU there is nothing to launch."""
        return GRAPH_STEPS if self.images.is_cuda else 0

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
            inputs = torch.tensor(images, dtype=self.images.dtype, device=self.images.device)
            probabilities: FloatArray = self._logits(self.parameters, inputs).softmax(dim=1).cpu().numpy()
        return probabilities

    def weights(self) -> Weights:
        """The kernels are (in, out) here."""
        return Weights(*(tensor.cpu().numpy().copy() for tensor in self.parameters))


class Steps:
    """Steps on batches of one size, recorded as one CUDA graph.

    Recording only notes what would be done: the parameters stay. What has to be compiled must be before, and is tried
    on copies of them.

    Args:
        step: of parameters, moments, images, labels, a batch and its scalars; returns the batch's mean loss.
        state: its first five arguments, which it changes in place.
        batches: int64 (steps, batch size); what the graph is recorded for.
        record: without, the steps are taken one by one: the same code on the CPU.
    """

    def __init__(self, step: Callable[..., Any], state: tuple[Any, ...], batches: Any, record: bool) -> None:
        import torch

        self.step, self.state = step, state
        self.batches = batches.clone()
        self.scalars = torch.ones((len(batches), 2), dtype=state[3].dtype, device=batches.device)
        self.total = torch.zeros((), dtype=state[3].dtype, device=batches.device)
        self.graph: Any = None
        if record:
            parameters, m, v, images, labels = state
            copies = Weights(*(tensor.clone() for tensor in parameters)), *([one.clone() for one in g] for g in (m, v))
            stream = torch.cuda.Stream()  # as torch.cuda.graph wants it: what is to be recorded has run elsewhere
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                step(*copies, images, labels, self.batches[0], self.scalars[0])
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._take()

    def _take(self) -> None:
        for batch, scalars in zip(self.batches, self.scalars, strict=True):
            self.total += len(batch) * self.step(*self.state, batch, scalars)

    def __call__(self, batches: Any, scalars: Any) -> Any:
        """Take the steps of these batches with these scalars, (steps, 2); the sum of the losses of all images."""
        self.batches.copy_(batches)
        self.scalars.copy_(scalars)
        self.total.zero_()
        if self.graph is None:
            self._take()
        else:
            self.graph.replay()
        return self.total
