"""What is computed: the network and its recipe, its data, its initial weights and its order.

All of it is a pure function of a few integers, so that every process makes the same arrays by itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum
from hashlib import sha256
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
Dtype = Literal["float32", "float64"]
EpsilonPlacement = Literal["uncorrected", "corrected"]
Initializer = Literal["glorot-uniform", "glorot-uniform-biases", "fan-in-uniform"]


class Stream(IntEnum):
    """What a random stream is for: each purpose and seed has a stream of its own."""

    WEIGHTS = 0
    ORDER = 1
    SCHEDULE = 2


def random_stream(seed: int, stream: Stream, *index: int) -> np.random.Generator:
    """The generator of one purpose; `index` (an epoch, say) numbers the streams within it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, *index)))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The network and its training recipe; the defaults are the notebook's.

    The network is `softmax(softmax(x @ W1 + b1) @ W2 + b2)`: a softmax, not a ReLU, in the hidden layer too. The loss
    is the categorical cross-entropy, its mean over the batch. The update is Adam in the form that Keras and
    scikit-learn use (Kingma and Ba, 2015, the reordering at the end of section 2), at step t = 1, 2, ...:

        alpha_t = learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w -= alpha_t * m / (sqrt(v) + epsilon)

    The last batch of an order may be shorter than `batch_size`; its mean is over the images that it has.

    Two fields are for the native profile alone, and a backend has to honour them only as its own `native_defaults` set
    them: where `epsilon` is added (see `epsilon_at`), and `l2`, the factor of an L2 penalty on the kernels, whose
    gradient is `l2 * w / n` for a batch of n images (scikit-learn's `alpha`).

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    inputs: int = 784
    hidden: int = 784
    classes: int = 10
    batch_size: int = 15
    epochs: int = 20
    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    epsilon_placement: EpsilonPlacement = "uncorrected"
    l2: float = 0.0
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < 1:
                raise ValueError(f"{field.name.replace('_', ' ')} must be at least 1, not {value}")
            if field.type is float and not (0 < value < 1 or (field.name == "l2" and value == 0)):
                raise ValueError(f"{field.name.replace('_', ' ')} must be between 0 and 1, not {value}")
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"dtype must be one of {', '.join(get_args(Dtype))}, not {self.dtype}")

    def alpha(self, step: int) -> float:
        """The learning rate with both bias corrections, at step 1, 2, ...; see the class."""
        alpha: float = self.learning_rate * (1 - self.beta_2**step) ** 0.5 / (1 - self.beta_1**step)
        return alpha

    def epsilon_at(self, step: int, placement: EpsilonPlacement) -> float:
        """The epsilon to give, at step 1, 2, ..., to an Adam that adds it in that place.

        Keras and scikit-learn add it to `sqrt(v)`, "uncorrected"; PyTorch, optax and others to `sqrt(v / (1 -
        beta_2**t))`, "corrected". With `epsilon / sqrt(1 - beta_2**t)` the second form equals the first.
        """
        if placement == self.epsilon_placement:
            return self.epsilon
        correction: float = (1 - self.beta_2**step) ** 0.5
        return self.epsilon / correction if placement == "corrected" else self.epsilon * correction


class Defaults(NamedTuple):
    """What a framework does if nobody tells it otherwise; these are the Problem's own, and Keras's.

    Attributes:
        initializer: how a layer's kernel and bias start, for a kernel of `in` rows and `out` columns: "glorot-uniform",
            kernel +/- sqrt(6 / (in + out)) and zero bias; "glorot-uniform-biases", the bias drawn like the kernel;
            "fan-in-uniform", both +/- 1 / sqrt(in).
        epsilon: of Adam.
        epsilon_placement: where Adam adds it.
        l2: the factor of the L2 penalty.
    """

    initializer: Initializer = "glorot-uniform"
    epsilon: float = 1e-7
    epsilon_placement: EpsilonPlacement = "uncorrected"
    l2: float = 0.0


class Split(NamedTuple):
    """Images and their labels: float32 (n, inputs) in [0, 1] and uint8 (n,)."""

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]

    def first(self, count: int) -> "Split":
        """The first `count` images with their labels, as views."""
        return Split(self.images[:count], self.labels[:count])


class Weights(NamedTuple):
    """All parameters of the network; kernels are (in, out)."""

    hidden_kernel: FloatArray
    hidden_bias: FloatArray
    output_kernel: FloatArray
    output_bias: FloatArray

    def flat(self) -> NDArray[np.float64]:
        """All parameters one after another, as float64 (614,656 + 784 + 7,840 + 10 for the default Problem)."""
        return np.concatenate([np.ravel(array) for array in self]).astype(np.float64)


def initial_weights(problem: Problem, seed: int) -> Weights:
    """The weights that every backend starts from, in the Problem's dtype.

    Kernels are Glorot-uniform, +/- sqrt(6 / (in + out)) (Glorot and Bengio, 2010, equation 16); biases are zero. They
    are drawn in float64 and then rounded, so the float64 oracle starts from the float32 values too.
    """
    random = random_stream(seed, Stream.WEIGHTS)

    def kernel(rows: int, columns: int) -> FloatArray:
        limit = np.sqrt(6 / (rows + columns))
        return random.uniform(-limit, limit, (rows, columns)).astype(np.float32).astype(problem.dtype)

    return Weights(
        kernel(problem.inputs, problem.hidden),
        np.zeros(problem.hidden, problem.dtype),
        kernel(problem.hidden, problem.classes),
        np.zeros(problem.classes, problem.dtype),
    )


def epoch_order(seed: int, epoch: int, images: int) -> IntArray:
    """The order of one epoch (1, 2, ...): a permutation of the indices of `images` training images, read-only."""
    order = random_stream(seed, Stream.ORDER, epoch).permutation(images).astype(np.int64)
    order.flags.writeable = False
    return order


def digest(arrays: Iterable[NDArray[Any]]) -> str:
    """SHA-256 over the bytes of arrays in C order, one after another: what two processes compare to know they agree."""
    total = sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
