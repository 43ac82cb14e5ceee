"""What `lockstep data` prints and draws."""

import os
from pathlib import Path
from struct import unpack

import numpy as np
import pytest
from matplotlib import rcParams
from sklearn.decomposition import PCA

from lockstep_bench.harness.data import figures
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.data.figures import describe, draw
from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.problem import Split

NAMED_MNIST = os.environ.get("LOCKSTEP_MNIST", "")


@pytest.fixture
def dataset() -> Dataset:
    """Twenty training images, the n-th with its n-th row black, and ten test images."""
    images, labels = np.eye(28, dtype=np.float32).repeat(28, axis=1), np.arange(28, dtype=np.uint8) % 10
    train, test = Split(images[:20], labels[:20]), Split(images[:10] / np.float32(2), labels[:10])
    return Dataset("rows", "5" * 64, "the folder rows", Path("somewhere"), train, test)


def test_a_dataset_is_described_as_it_is(dataset: Dataset) -> None:
    """Name, place, shapes, pixel range before and after, counts per class, hash."""
    assert dict(describe(dataset)) == {
        "dataset": "rows",
        "source": "the folder rows",
        "cache": "somewhere",
        "training images": "(20, 28, 28)",
        "test images": "(10, 28, 28)",
        "pixels before": "0 to 255",
        "pixels after": "0.0 to 1.0",
        "training labels": ", ".join(f"{label}: 2" for label in range(10)),
        "test labels": ", ".join(f"{label}: 1" for label in range(10)),
        "SHA-256": "5" * 64,
    }


def test_digits_are_described_with_their_own_range() -> None:
    """Their pixels go from 0 to 16."""
    rows = dict(describe(find_dataset("digits")))
    assert (rows["pixels before"], rows["pixels after"]) == ("0 to 16", "0.0 to 1.0")
    assert (rows["training images"], rows["test images"]) == ("(1500, 28, 28)", "(297, 28, 28)")


@pytest.mark.mnist
def test_mnist_is_described_with_its_known_numbers() -> None:
    """60,000 and 10,000 images, and the class counts that its publications give."""
    rows = dict(describe(find_dataset("mnist", Path(NAMED_MNIST))))
    assert (rows["training images"], rows["test images"]) == ("(60000, 28, 28)", "(10000, 28, 28)")
    assert (rows["pixels before"], rows["pixels after"]) == ("0 to 255", "0.0 to 1.0")
    assert rows["training labels"].startswith("0: 5,923, 1: 6,742, 2: 5,958")
    assert rows["test labels"].endswith("7: 1,028, 8: 974, 9: 1,009")


def test_the_pictures_are_made_where_they_were_asked_for(dataset: Dataset, tmp_path: Path) -> None:
    """Four PNG files, named after the dataset, of the sizes they were laid out in."""
    paths = draw(dataset, tmp_path / "new" / "figures")
    names = ("first-images", "grid", "components", "class-counts")
    assert [path.name for path in paths] == [f"rows-{name}.png" for name in names]
    sizes = [unpack(">2I", path.read_bytes()[16:24]) for path in paths]
    assert sizes == [(900, 322), (675, 847), (1200, 975), (1200, 480)]


@pytest.mark.parametrize(("rows", "columns"), [(1, 4), (3, 3)])
def test_a_gallery_shows_the_first_images_under_their_labels(dataset: Dataset, rows: int, columns: int) -> None:
    """The n-th picture is the n-th image, and the title names the dataset."""
    figure = figures._gallery(dataset, rows, columns)
    assert figure.get_suptitle() == f"rows: the first {rows * columns} training images"
    assert [axes.get_title() for axes in figure.axes] == [f"label {label}" for label in range(rows * columns)]
    for axes, image in zip(figure.axes, dataset.train.images, strict=False):
        assert np.array_equal(image.reshape(28, 28), np.asarray(axes.images[0].get_array()))


def test_the_scatter_plot_has_all_images_in_the_colours_of_their_labels(dataset: Dataset) -> None:
    """One point per image, spread as far along each axis as the singular values say."""
    axes, bar = figures._scatter(dataset).axes
    (cloud,) = axes.collections
    centred = dataset.train.images - dataset.train.images.mean(axis=0)
    singular = np.linalg.svd(centred.astype(np.float64), compute_uv=False)
    spread = np.sqrt((np.asarray(cloud.get_offsets()) ** 2).sum(axis=0))
    assert spread == pytest.approx(singular[:2], rel=1e-4)
    assert len(np.asarray(cloud.get_offsets())) == 20
    assert np.array_equal(dataset.train.labels, np.asarray(cloud.get_array()))
    assert (cloud.get_cmap().name, cloud.get_alpha(), cloud.get_clim()) == ("RdBu_r", 0.7, (0, 9))
    assert bar.get_yticks().tolist() == list(range(10))
    assert axes.get_title().startswith("rows: 20 training images")


def test_the_same_dataset_gives_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    """No date, no version, no random start; and nobody's settings for other pictures are changed."""
    settings = dict(rcParams)
    first, second = (draw(dataset, tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert not any(b"Matplotlib" in path.read_bytes() for path in first)
    assert dict(rcParams) == settings


def test_components_are_scikit_learns(digits: Dataset) -> None:
    """Its coordinates, signs and shares of the variance, also where images come in several pieces, as MNIST's do."""
    images = np.concatenate([digits.train.images, digits.train.images * digits.train.images])[:2900]
    reference = PCA(n_components=2, svd_solver="covariance_eigh")
    expected = reference.fit_transform(images.astype("float64"))
    for pieces in (images, np.tile(images, (2, 1))):
        coordinates, shares = figures.components(pieces)
        assert np.abs(coordinates[: len(images)] - expected).max() < 1e-9
        assert shares == pytest.approx(reference.explained_variance_ratio_)
