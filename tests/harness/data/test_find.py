"""Finding a dataset: every source in its turn, what is named first, and what cannot be had said."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lockstep_bench.harness.data import download, find, sources
from lockstep_bench.harness.data.cache import open_dataset
from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.problem import digest
from support.mirror import Mirror
from support.small_mnist import PACKED, PARTS, RAW, TEST_LABELS, flip, write_folder, write_npz

Serve = Callable[..., Mirror]
NAMED_MNIST = os.environ.get("LOCKSTEP_MNIST", "")


def test_a_folder_becomes_the_dataset_of_its_name(machine: Path) -> None:
    """Pixels are divided by 255 and flattened, labels stay; the name is the folder's and the hash the content's."""
    dataset = find_dataset(str(write_folder(machine / "fashion")))
    assert dataset.name == "fashion"
    assert dataset.sha256 == digest(RAW)
    assert str(machine / "fashion") in dataset.source
    assert dataset.folder == machine / "cache" / f"fashion-{digest(RAW)[:12]}"
    for split, images, labels in ((dataset.train, *RAW[:2]), (dataset.test, *RAW[2:])):
        assert split.images.dtype == np.float32
        assert np.array_equal(images.reshape(-1, 784).astype(np.float32) / np.float32(255), split.images)
        assert split.labels.dtype == np.uint8
        assert np.array_equal(labels, split.labels)


def test_the_arrays_are_mapped_and_cannot_be_written(machine: Path) -> None:
    """A backend that writes into its data would change everybody's."""
    dataset = open_dataset(find_dataset(str(write_folder(machine / "fashion"))).folder)
    for array in (*dataset.train, *dataset.test):
        assert isinstance(array.base, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_dataset_is_cached_only_once(machine: Path) -> None:
    """The second time its cache is used as it is."""
    folder = write_folder(machine / "fashion")
    first = find_dataset(str(folder))
    inode = (first.folder / "train_images.npy").stat().st_ino
    assert (find_dataset(str(folder)).folder / "train_images.npy").stat().st_ino == inode


@pytest.mark.usefixtures("small_mnist")
def test_a_named_mnist_is_decoded_only_once(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time its files are only checked; changed files are not taken for those in the cache."""
    folder = write_folder(machine / "folder")
    first = find_dataset("mnist", folder)
    with monkeypatch.context() as patch:
        patch.setattr(sources, "read_mnist", lambda path: pytest.fail(f"{path} was decoded again"))
        assert find_dataset("mnist", folder).sha256 == first.sha256
    changed = next(folder.iterdir())
    changed.write_bytes(changed.read_bytes()[:-20])
    with pytest.raises(UsageError, match=changed.name):
        find_dataset("mnist", folder)


@pytest.mark.parametrize("name", ["mnist", "digits", "MNIST"])
def test_a_folder_cannot_pass_for_another_dataset(machine: Path, name: str) -> None:
    """Its rows would be read as results on MNIST."""
    with pytest.raises(UsageError, match="name of its own"):
        find_dataset(str(write_folder(machine / "folder" / name)))


@pytest.mark.usefixtures("small_mnist")
def test_a_folder_that_holds_mnist_is_mnist(machine: Path) -> None:
    """The content decides, not the folder's name."""
    assert find_dataset(str(write_folder(machine / "raw"))).name == "mnist"


def test_an_unknown_dataset_is_a_usage_error() -> None:
    """A misspelt name is answered with the choices."""
    with pytest.raises(UsageError, match="--dataset minst is neither auto, mnist, digits nor a folder") as raised:
        find_dataset("minst")
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("dataset", ["digits", "some/folder"])
def test_data_goes_only_with_mnist(machine: Path, dataset: str) -> None:
    """--data would be silently ignored otherwise."""
    with pytest.raises(UsageError, match="--data"):
        find_dataset(dataset, machine)


@pytest.mark.usefixtures("small_mnist")
@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_named_folder_is_used(machine: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """--data and LOCKSTEP_MNIST name where MNIST is."""
    folder = write_folder(machine / "folder")
    monkeypatch.setenv("LOCKSTEP_MNIST", str(machine / "nowhere" if by == "option" else folder))
    dataset = find_dataset("auto", folder if by == "option" else None)
    assert (dataset.name, dataset.source) == ("mnist", f"the folder {folder}")


@pytest.mark.usefixtures("small_mnist")
@pytest.mark.parametrize("by", ["option", "variable"])
@pytest.mark.parametrize("damage", ["missing", "empty", "changed"])
def test_a_named_folder_that_is_bad_is_never_passed_over(
    machine: Path, monkeypatch: pytest.MonkeyPatch, by: str, damage: str
) -> None:
    """Not even where a good cache is at hand: whoever names a folder means it."""
    find_dataset("mnist", write_folder(machine / "good"))
    folder = machine / "bad"
    if damage == "changed":
        flip(write_folder(folder) / TEST_LABELS)
    elif damage == "empty":
        folder.mkdir()
    if by == "variable":
        monkeypatch.setenv("LOCKSTEP_MNIST", str(folder))
    with pytest.raises(UsageError, match=str(folder)) as raised:
        find_dataset("auto", folder if by == "option" else None)
    assert raised.value.exit_code == 2


@pytest.mark.usefixtures("small_mnist")
def test_mnist_is_looked_for_in_the_documented_order(
    machine: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cache, then Keras's copy, then torchvision's, then the mirrors; each is used once those before it are gone."""
    write_npz(machine / "keras" / "datasets" / "mnist.npz")
    write_folder(machine / "work" / "data" / "MNIST" / "raw")
    write_folder(machine / "home" / "data" / "MNIST" / "raw")
    mirror = serve(PACKED)
    monkeypatch.setattr(download, "MIRRORS", (mirror.url,))

    def source() -> str:
        dataset = find_dataset()
        assert digest([dataset.train.labels]) == PARTS[1].array
        return dataset.source

    def forget(*paths: str) -> None:
        for path in paths:
            (machine / path).rename(tempfile.mkdtemp())

    assert source() == f"a copy that Keras left: {machine / 'keras/datasets/mnist.npz'}"
    assert source() == "lockstep's cache"
    forget("cache", "keras/datasets")
    assert source() == "a copy that torchvision left: data/MNIST/raw"
    forget("cache", "work/data")
    assert source() == f"a copy that torchvision left: {machine / 'home/data/MNIST/raw'}"
    assert mirror.asked == 0
    forget("cache", "home/data")
    assert source() == f"downloaded from {mirror.url}"


@pytest.mark.usefixtures("small_mnist")
def test_a_found_copy_that_is_bad_is_passed_over_and_said_to_be(machine: Path) -> None:
    """Another tool's broken file does not stop a run, but the user hears of it."""
    write_npz(machine / "keras" / "datasets" / "mnist.npz", x_test=RAW.test_images ^ 1)
    write_folder(machine / "work" / "data" / "MNIST" / "raw")
    said: list[str] = []
    dataset = find_dataset(say=said.append)
    assert dataset.source == "a copy that torchvision left: data/MNIST/raw"
    assert len(said) == 1
    assert "Keras left is passed over" in said[0]


def test_mnist_that_cannot_be_had_is_an_error_that_says_how_to_provide_it() -> None:
    """Who asks for MNIST gets MNIST or a way to it, not something else."""
    with pytest.raises(LockstepError, match="--data or in LOCKSTEP_MNIST") as raised:
        find_dataset("mnist")
    assert raised.value.exit_code == 1


def test_auto_takes_digits_only_where_mnist_cannot_be_had_and_says_so() -> None:
    """The result is named digits, and the reason is said."""
    said: list[str] = []
    assert find_dataset(say=said.append).name == "digits"
    assert len(said) == 1
    assert "stand in for MNIST" in said[0]
    assert "no connection" in said[0]


def test_digits_are_scikit_learns_enlarged() -> None:
    """Each 8 x 8 pixel is tripled, in a border of 2, divided by 16; 1,500 are for training."""
    from sklearn.datasets import load_digits

    dataset = find_dataset("digits")
    images = np.concatenate([dataset.train.images, dataset.test.images]).reshape(-1, 28, 28)
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    assert dataset.train.images.shape == (1500, 784)
    assert (images.min(), images.max()) == (0, 1)
    for offset in range(3):
        assert np.array_equal(load_digits().images / 16, images[:, 2 + offset : 26 : 3, 2 + offset : 26 : 3])
    assert not images[:, [0, 1, 26, 27]].any()
    assert not images[:, :, [0, 1, 26, 27]].any()
    assert np.array_equal(load_digits().target, labels)


def test_digits_are_the_known_ones_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another release's other digits would make results that cannot be compared."""
    monkeypatch.setattr(sources, "read_digits", lambda: RAW)
    with pytest.raises(LockstepError, match=f"expected {find.DIGITS.sha256}, found {digest(RAW)}"):
        find_dataset("digits")


@pytest.mark.mnist
def test_mnist_is_mnist() -> None:
    """Shapes, first labels and mean pixel are the known ones, and the second time it comes from the cache."""
    dataset = find_dataset("mnist", Path(NAMED_MNIST))
    assert (dataset.name, dataset.sha256, dataset.scale) == ("mnist", find.MNIST.sha256, 255)
    assert (dataset.train.images.shape, dataset.test.images.shape) == ((60_000, 784), (10_000, 784))
    assert dataset.train.labels[:4].tolist() == [5, 0, 4, 1]
    assert dataset.train.images.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    assert find_dataset("auto").source == "lockstep's cache"
