"""What `lockstep data` shows: a dataset in a few rows of text and in four pictures."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.style import context
from numpy.typing import NDArray

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.problem import Split

CLASSES = 10
AT_A_TIME = 4096
DOTS_PER_INCH = 150
INK = 180_000  # the area of all points together, in points squared: a few are large enough to see, many still a cloud
LARGEST_POINT = 30
GROUND = "0.75"  # grey: the colour map's middle is white, and on white the labels 4 and 5 would vanish


def describe(dataset: Dataset) -> list[tuple[str, str]]:
    """What there is to know of a dataset, as rows of a name and a text."""
    images = (dataset.train.images, dataset.test.images)
    low, high = min(split.min() for split in images), max(split.max() for split in images)
    return [
        ("dataset", dataset.name),
        ("source", dataset.source),
        ("cache", str(dataset.folder)),
        ("training images", str(_shape(dataset.train))),
        ("test images", str(_shape(dataset.test))),
        ("pixels before", f"{round(low * dataset.scale)} to {round(high * dataset.scale)}"),
        ("pixels after", f"{low} to {high}"),
        ("training labels", _counts(dataset.train)),
        ("test labels", _counts(dataset.test)),
        ("SHA-256", dataset.sha256),
    ]


def draw(dataset: Dataset, folder: Path) -> list[Path]:
    """Write the pictures as PNG files into a folder, which is made if need be, and return their paths.

    The same dataset gives the same bytes.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with context("default"):  # not the user's own settings
        for name, figure in FIGURES.items():
            path = folder / f"{dataset.name}-{name}.png"
            # The software would be matplotlib with its version.
            figure(dataset).savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
            paths.append(path)
    return paths


def counts(split: Split) -> list[int]:
    """How many images there are of each class."""
    return [int(count) for count in np.bincount(split.labels, minlength=CLASSES)]


def _shape(split: Split) -> tuple[int, int, int]:
    count, pixels = split.images.shape
    return count, isqrt(pixels), isqrt(pixels)


def _counts(split: Split) -> str:
    return ", ".join(f"{label}: {count:,}" for label, count in enumerate(counts(split)))


def _gallery(dataset: Dataset, rows: int, columns: int) -> Figure:
    """The first training images, each under its label, in black on white as they were written."""
    shown = dataset.train.first(rows * columns)
    figure = Figure(figsize=(1.5 * columns, 1.75 * rows + 0.4), layout="constrained")
    figure.suptitle(f"{dataset.name}: the first {rows * columns} training images")
    for place, (image, label) in enumerate(zip(shown.images.reshape(_shape(shown)), shown.labels, strict=True), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(f"label {label}", fontsize="medium")
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
    return figure


def components(images: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Images (n, pixels) on their first two principal components, (n, 2), and the share of the variance of each, (2,).

    Exact and the same each time, with no random start. The largest weight of a component is positive. Works in float64,
    on a few images at a time: a copy of all of MNIST would take 376 MB.
    """
    count, pixels = images.shape
    total, products = np.zeros(pixels), np.zeros((pixels, pixels))
    for some in _some_at_a_time(images):
        total += some.sum(axis=0)
        products += some.T @ some
    mean = total / count
    variances, vectors = np.linalg.eigh((products - count * np.outer(mean, mean)) / (count - 1))
    first_two = vectors[:, [-1, -2]]
    first_two *= np.sign(first_two[np.abs(first_two).argmax(axis=0), [0, 1]])
    coordinates = np.concatenate([some @ first_two for some in _some_at_a_time(images)]) - mean @ first_two
    return coordinates, variances[[-1, -2]] / variances.clip(min=0).sum()


def _some_at_a_time(images: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    for first in range(0, len(images), AT_A_TIME):
        yield images[first : first + AT_A_TIME].astype("float64")


def _scatter(dataset: Dataset) -> Figure:
    """All training images on their first two principal components, coloured by label."""
    images, labels = dataset.train
    coordinates, (of_first, of_second) = components(images)
    first, second = coordinates.T.round(4)  # so that every CPU draws the same
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    axes = figure.add_subplot()
    area = min(LARGEST_POINT, INK / len(images))
    cloud = axes.scatter(
        first, second, area, labels, cmap="RdBu_r", alpha=0.7, vmin=0, vmax=9, linewidths=0, rasterized=True
    )
    figure.colorbar(cloud, ax=axes, ticks=range(CLASSES), label="label")
    axes.set_xlabel(f"first component ({of_first:.1%} of the variance)")
    axes.set_ylabel(f"second component ({of_second:.1%} of the variance)")
    axes.set_title(f"{dataset.name}: {len(images):,} training images on their first two principal components")
    axes.set_facecolor(GROUND)
    axes.grid(color="white", alpha=0.6)
    axes.set_axisbelow(True)
    return figure


def _class_counts(dataset: Dataset) -> Figure:
    """Training and test images of every class."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for split, images, place, hatch in (("training", dataset.train, -0.2, ""), ("test", dataset.test, 0.2, "////")):
        places = np.arange(CLASSES) + place
        look: Any = {"color": "white" if hatch else "0.45", "edgecolor": "0.2", "hatch": hatch}
        bars = axes.bar(places, counts(images), 0.38, label=f"{split}: {len(images.labels):,} images", **look)
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=7, padding=2)
    axes.set(xticks=range(CLASSES), xlabel="label", ylabel="images")
    axes.set_title(f"{dataset.name}: images of every class")
    axes.set_axisbelow(True)
    axes.grid(visible=False)
    axes.grid(axis="y", color="0.9")
    axes.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return figure


FIGURES: Final[Mapping[str, Callable[[Dataset], Figure]]] = {
    "first-images": partial(_gallery, rows=1, columns=4),
    "grid": partial(_gallery, rows=3, columns=3),
    "components": _scatter,
    "class-counts": _class_counts,
}
"""The first four training images in a row, the first nine in a grid, all on two components, and their counts."""
