"""What is computed: the network and its recipe, its data, its initial weights and its order.

All of it is a pure function of a few integers, so that every process makes the same arrays by itself.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
Dtype = Literal["float32", "float64"]
EpsilonPlacement = Literal["uncorrected", "corrected"]
Initializer = Literal["glorot-uniform", "glorot-uniform-biases", "fan-in-uniform"]
Profile = Literal["identical", "native"]

NOTEBOOK_ERROR_PERCENT = 7.21
"""The test error that the notebook reports that this suite grew from: the default target."""


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
        for name, choices in (("dtype", get_args(Dtype)), ("epsilon_placement", get_args(EpsilonPlacement))):
            if getattr(self, name) not in choices:
                one_of = ", ".join(choices)
                raise ValueError(f"{name.replace('_', ' ')} must be one of {one_of}, not {getattr(self, name)}")

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

    In the native profile a backend trains with its own, in the identical profile all train with the Problem's.

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

    @classmethod
    def of(cls, problem: Problem) -> "Defaults":
        """What the identical profile trains with."""
        return cls("glorot-uniform", problem.epsilon, problem.epsilon_placement, problem.l2)

    def applied_to(self, problem: Problem) -> Problem:
        """The Problem with these in place of its own."""
        return replace(problem, epsilon=self.epsilon, epsilon_placement=self.epsilon_placement, l2=self.l2)


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


class Uniform(NamedTuple):
    """A kernel drawn from +/- `limit(in, out)`; the bias after it from the same, or zero."""

    limit: Callable[[int, int], float]
    draws_bias: bool


def glorot_limit(rows: int, columns: int) -> float:
    """Glorot and Bengio (2010), equation 16."""
    return float(np.sqrt(6 / (rows + columns)))


INITIALIZERS: Final[Mapping[Initializer, Uniform]] = {
    "glorot-uniform": Uniform(glorot_limit, draws_bias=False),
    "glorot-uniform-biases": Uniform(glorot_limit, draws_bias=True),
    "fan-in-uniform": Uniform(lambda rows, _: rows**-0.5, draws_bias=True),
}


def initial_weights(problem: Problem, seed: int, initializer: Initializer = "glorot-uniform") -> Weights:
    """The weights that a backend starts from, in the Problem's dtype: without `initializer` those of all backends.

    They are drawn in float64 and then rounded, so the float64 oracle starts from the float32 values too.

    Raises:
        ValueError: there is no such initializer; the message says which there are.
    """
    if initializer not in INITIALIZERS:
        raise ValueError(f"there is no initializer {initializer}: take one of {', '.join(INITIALIZERS)}")
    uniform = INITIALIZERS[initializer]
    random = random_stream(seed, Stream.WEIGHTS)

    def layer(rows: int, columns: int) -> tuple[FloatArray, FloatArray]:
        limit = uniform.limit(rows, columns)
        kernel = random.uniform(-limit, limit, (rows, columns))
        bias = random.uniform(-limit, limit, columns) if uniform.draws_bias else np.zeros(columns)
        return kernel.astype(np.float32).astype(problem.dtype), bias.astype(np.float32).astype(problem.dtype)

    return Weights(*layer(problem.inputs, problem.hidden), *layer(problem.hidden, problem.classes))


def epoch_order(seed: int, epoch: int, images: int) -> IntArray:
    """The order of one epoch (1, 2, ...): a permutation of the indices of `images` training images, read-only."""
    order = random_stream(seed, Stream.ORDER, epoch).permutation(images).astype(np.int64)
    order.flags.writeable = False
    return order


def fixed_order(seed: int, epoch: int, images: int, count: int) -> IntArray:
    """The order where a number of steps is fixed, not of epochs: `count` indices, read-only, for "epoch" 1, 2, ...

    The orders of as many epochs as these need, one after another, so that no batch is short where an epoch ends.
    """
    needed = -(-count // images)
    numbers = range((epoch - 1) * needed + 1, epoch * needed + 1)
    order = np.concatenate([epoch_order(seed, number, images) for number in numbers])[:count]
    order.flags.writeable = False
    return order


def digest(arrays: Iterable[NDArray[Any]]) -> str:
    """SHA-256 over the bytes of arrays in C order, one after another: what two processes compare to know they agree."""
    total = sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
