"""The contract: what an implementation of the Problem has to offer, and nothing more.

Requirements that every backend meets:

* A framework is imported inside methods, never at a module's top: listing the backends imports none of them.
* The harness owns the data, the initial weights, the order, the clock, the metrics and the schedule. A backend never
  shuffles, times, scores, prints or reads files.
* `build` may move, convert or compile; it may not train, nor prepare anything that depends on the order.
* `train` takes one Adam step of the Problem per consecutive batch of the order, the last of which may be short, and
  returns when the work is done or when `synchronize` can wait for it.
* The arithmetic is the Problem's dtype throughout; the images always arrive as float32.
"""

import ast
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.backends.description import Description, Style
from lockstep_bench.harness.problem import Defaults, Dtype, FloatArray, IntArray, Problem, Split, Weights

FULL_FLOAT32 = {"NVIDIA_TF32_OVERRIDE": "0"}
"""In `environment` on a GPU: NVIDIA's libraries round no factor of a float32 product to TF32, whoever asks for it."""

__all__ = [
    "FULL_FLOAT32",
    "Backend",
    "Defaults",
    "Dtype",
    "FloatArray",
    "IntArray",
    "NDArray",
    "Problem",
    "SeedsBackend",
    "Split",
    "Style",
    "Weights",
]


class Backend(Description, ABC):
    """One framework's implementation of the Problem.

    Its attributes are those of a Description.
    """

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """Environment variables to set before the worker imports anything; asked without importing the framework."""
        return {}

    @classmethod
    def source_sha256(cls) -> str:
        """The hash of the files that define it, whether two runs had the same.

        They are those of the class and of its bases, and of what these import from `backends`, this one apart.
        """
        bases = cls.__mro__[: cls.__mro__.index(Backend)]
        files = list(dict.fromkeys(Path(inspect.getfile(base)) for base in bases))
        for file in files:  # it grows meanwhile
            files += [other for other in _imported(file) if other not in files]
        return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

    @classmethod
    def native_defaults(cls) -> Defaults:
        """What the framework does if nobody tells it otherwise, for the native profile; by default the Problem's own.

        The harness makes the Problem and the initial weights of them; `build` then gets these like any others.
        """
        return Defaults()

    @abstractmethod
    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Start afresh, at step 0, from exactly these weights.

        Args:
            problem: the network and its recipe.
            weights: initial weights in the Problem's dtype; to be copied, not kept.
            train: the training images, float32 (n, inputs) and read-only, and their labels, uint8 (n,).
            device: one of `devices`.
            threads: how many CPU threads to use.
        """

    @abstractmethod
    def train(self, order: IntArray) -> float:
        """Take one Adam step per consecutive batch of `order`; return the mean loss over its images.

        Args:
            order: indices of training images, int64 (m,), read-only; m is any positive number.

        Returns:
            The cross-entropy of each image, taken before the step of its batch; the mean over the m images.
        """

    @abstractmethod
    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """Class probabilities, float (n, classes), of images, float32 (n, inputs)."""

    @abstractmethod
    def weights(self) -> Weights:
        """The current parameters, as copies in NumPy arrays of the Problem's dtype."""

    def device_memory_bytes(self) -> int | None:
        """The most that the framework has held of the device's own memory since it was started; none on the CPU."""
        return None

    def synchronize(self) -> None:
        """Wait until the device has finished; nothing to do on the CPU."""


class SeedsBackend(Backend):
    """A backend that can also train several seeds side by side, each from its own weights and in its own order.

    The seeds keep their places from `build_seeds` on. They share the images and nothing else: what becomes of one does
    not depend on which others there are. As a Backend it trains one.
    """

    @abstractmethod
    def build_seeds(
        self, problem: Problem, weights: Sequence[Weights], train: Split, device: str, threads: int
    ) -> None:
        """As `build`, from the weights of each seed."""

    @abstractmethod
    def train_seeds(self, orders: IntArray) -> NDArray[np.float64]:
        """As `train`, on orders int64 (seeds, m); the mean losses, (seeds,)."""

    @abstractmethod
    def predict_seeds(self, images: NDArray[np.float32]) -> FloatArray:
        """As `predict`: float (seeds, n, classes)."""

    @abstractmethod
    def weights_of_each(self) -> list[Weights]:
        """As `weights`, of each seed."""


@cache
def _imported(file: Path) -> list[Path]:
    """The files of backends that a file imports something from, wherever in it, this one and the contract apart."""
    package = __name__.rpartition(".")[0]
    names = [
        node.module.removeprefix(f"{package}.")
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{package}.")
    ]
    files = (Path(__file__).with_name(f"{name}.py") for name in sorted(set(names) - {"base", "description"}))
    return [other for other in files if other.exists() and other != file]
