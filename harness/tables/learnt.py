"""What the reference's network has learnt, from the arrays that a block left: confusion, mistakes, hidden units."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.data.figures import CLASSES
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.records.format import Plan
from lockstep_bench.harness.records.raw_files import read_arrays

SHOWN_MISTAKES: Final = 24
SHOWN_UNITS: Final = 64
SIDE: Final = 28
IN_A_ROW: Final = 8


class Mistake(NamedTuple):
    """A test image (28, 28), what it is, what it was taken for, and with what probability."""

    image: NDArray[np.float32]
    true: int
    predicted: int
    probability: float


class Learnt(NamedTuple):
    """Of the reference's network after the last epoch of its first run that has arrays.

    Attributes:
        seed: of that run.
        units: incoming weights of the hidden units whose outgoing ones are the largest, (64, 28, 28), less each one's
            mean: what all pixels have in common no unit looks for.
        units_limit: the weight that is drawn in full colour; a few are beyond.
        confusion: test images by true and predicted digit, (10, 10); none without the dataset.
        mistakes: the most confident first; none without the dataset.
    """

    seed: int
    units: NDArray[np.float32]
    units_limit: float
    confusion: NDArray[np.int64] | None
    mistakes: list[Mistake]

    @property
    def units_reading(self) -> str:
        """What is shown of the hidden units."""
        return (
            f"Of the reference, seed {self.seed}: the {len(self.units)} units with the largest outgoing weights; red "
            f"is above the unit's mean weight and blue below, full at {self.units_limit:.2g}."
        )

    @property
    def wrong(self) -> NDArray[np.int64]:
        """The confusion without its diagonal, which is right."""
        assert self.confusion is not None
        return np.where(np.eye(CLASSES, dtype=bool), 0, self.confusion)

    @property
    def confusion_reading(self) -> str:
        """The most frequent mistake."""
        assert self.confusion is not None
        wrong, images = self.wrong, self.confusion.sum()
        if not wrong.any():
            return f"Of the reference, seed {self.seed}: all {images:,} test images are classified rightly."
        true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
        return (
            f"Of the reference, seed {self.seed}: {wrong.sum():,} of {images:,} test images are misclassified; most "
            f"often, {wrong.max():,} times, a {true} is taken for a {predicted}."
        )

    @property
    def mistakes_reading(self) -> str:
        """How sure the network was."""
        return (
            f"Of the reference, seed {self.seed}: it gave the wrong digit a probability of "
            f"{self.mistakes[0].probability:.1%} down to {self.mistakes[-1].probability:.1%}."
        )


def tiled(images: Sequence[NDArray[Any]], gap: int = 1) -> NDArray[np.float64]:
    """Images (28, 28) in one, eight in a row, with `gap` pixels of not a number around each."""
    step = SIDE + gap
    whole = np.full((-(-len(images) // IN_A_ROW) * step + gap, IN_A_ROW * step + gap), np.nan)
    for place, image in enumerate(images):
        top, left = (gap + step * one for one in divmod(place, IN_A_ROW))
        whole[top : top + SIDE, left : left + SIDE] = image
    return whole


def read_learnt(folder: Path, plan: Plan, dataset: Dataset | None) -> Learnt | None:
    """Read it from a results folder; none where no block's arrays have a reference that came to its end.

    Raises:
        LockstepError: a file of arrays is damaged, or of another network or dataset.
    """
    images = len(dataset.test.labels) if dataset else plan.dataset.test_images
    for what, planned, real in (
        ("inputs", plan.problem.inputs, SIDE * SIDE),
        ("classes", plan.problem.classes, CLASSES),
        ("test images", plan.dataset.test_images, images),
    ):
        if planned != real:
            raise LockstepError(f"plan.json has {planned:,} {what} where there are {real:,}; restore the file")
    for block in plan.blocks:
        arrays = read_arrays(folder, block)
        if not {*shapes(plan)} <= {*arrays}:
            continue  # the reference did not come to its end
        for name, shape in shapes(plan).items():
            found = arrays[name]
            if found.shape != shape or found.dtype.kind != "f" or not np.isfinite(found).all():
                raise LockstepError(
                    f"the arrays of {block.id} are not those of this network: {name} should be {shape} finite numbers; "
                    "restore the file"
                )
        units, limit = _units(arrays)
        confusion, mistakes = _errors(arrays["probabilities"], dataset) if dataset else (None, [])
        return Learnt(block.seed, units, limit, confusion, mistakes)
    return None


def shapes(plan: Plan) -> dict[str, tuple[int, int]]:
    """The arrays that are read, with their shapes."""
    inputs, hidden, outputs = plan.problem.inputs, plan.problem.hidden, plan.problem.classes
    return {
        "weights/hidden_kernel": (inputs, hidden),
        "weights/output_kernel": (hidden, outputs),
        "probabilities": (plan.dataset.test_images, outputs),
    }


def _units(arrays: dict[str, NDArray[Any]]) -> tuple[NDArray[np.float32], float]:
    kernel, out = arrays["weights/hidden_kernel"].astype("float64"), arrays["weights/output_kernel"].astype("float64")
    strongest = np.argsort(-np.abs(out).sum(axis=1).round(6), kind="stable")[:SHOWN_UNITS]
    images = kernel[:, strongest].T
    images = (images - images.mean(axis=1, keepdims=True)).reshape(-1, SIDE, SIDE).astype("float32")
    return images, float(np.quantile(np.abs(images), 0.99).round(3)) or 1.0


def _errors(probabilities: NDArray[Any], dataset: Dataset) -> tuple[NDArray[np.int64], list[Mistake]]:
    images, labels = dataset.test
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    sure = np.where(predicted == labels, -1.0, probabilities.max(axis=1))
    worst = np.argsort(-sure, kind="stable")[: min(SHOWN_MISTAKES, int((sure > 0).sum()))]
    mistakes = [
        Mistake(images[one].reshape(SIDE, SIDE), int(labels[one]), int(predicted[one]), float(sure[one]))
        for one in worst
    ]
    return confusion, mistakes
