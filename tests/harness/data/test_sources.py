"""What is read: IDX files of any form, and MNIST by its hashes alone."""

import tempfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random
from struct import pack

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_bench.harness.data import sources
from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.data.sources import read_idx, read_idx_folder, read_mnist, read_npz
from lockstep_bench.harness.errors import UsageError
from support.small_mnist import (
    FILES,
    PACKED,
    PARTS,
    RAW,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    flip,
    gz,
    idx,
    same,
    write_folder,
    write_npz,
)


@given(st.integers(1, 4), st.sampled_from([1, 3]), st.booleans(), st.randoms())
def test_an_idx_file_reads_as_the_array_it_was_written_from(
    count: int, dimensions: int, packed: bool, random: Random
) -> None:
    """Reading undoes writing, for images and labels, gzipped or not."""
    shape = (count, 28, 28)[:dimensions]
    array = np.frombuffer(random.randbytes(int(np.prod(shape))), np.uint8).reshape(shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(gz(idx(array)) if packed else idx(array))
        assert np.array_equal(array, read_idx(path, dimensions))


@given(st.integers(0, len(idx(RAW.test_labels)) - 1), st.booleans())
def test_an_idx_file_that_is_cut_anywhere_is_refused(length: int, packed: bool) -> None:
    """No beginning of a file is a file."""
    content = idx(RAW.test_labels)[:length]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(gz(content) if packed else content)
        with pytest.raises(UsageError, match=r"cut short|ends within its header"):
            read_idx(path, 1)


@given(st.integers(0, len(PACKED[f"{TEST_IMAGES}.gz"]) - 1))
def test_a_gzip_that_is_cut_anywhere_is_refused(length: int) -> None:
    """Not even the checksum at a gzip's end may be missing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(PACKED[f"{TEST_IMAGES}.gz"][:length])
        with pytest.raises(UsageError, match=r"cut short|ends within its header"):
            read_idx(path, 3)


LABELS = RAW.test_labels


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        (TEST_LABELS, idx(LABELS) + b"\0", "goes on after the 15 bytes"),
        (TEST_LABELS, gz(idx(LABELS) + b"\0"), "goes on after the 15 bytes"),
        (TEST_LABELS, idx(RAW.test_images), "magic number is 2051, not 2049"),
        (TEST_IMAGES, idx(LABELS) + b"12345678", "magic number is 2049, not 2051"),
        (TEST_LABELS, idx(LABELS[:0]), "claims 0 items"),
        (TEST_LABELS, pack(">2I", 2049, 1_000_001), "claims 1,000,001 items"),
        (TEST_IMAGES, pack(">4I", 2051, 2**32 - 1, 28, 28), "claims 4,294,967,295 items"),
        (TEST_IMAGES, idx(RAW.test_images[:, 1:]), "images are 27 x 28 pixels, not 28 x 28"),
        (TEST_LABELS, idx(LABELS[:-1]), "6 labels for 7 images"),
        (TEST_LABELS, idx(LABELS + 4), "label 10"),
        (TEST_LABELS, gz(idx(LABELS))[:-8] + bytes(8), "corrupt"),
    ],
)
def test_an_idx_file_that_is_not_what_it_claims_is_named_with_the_reason(
    machine: Path, file: str, content: bytes, reason: str
) -> None:
    """Whoever reads the message knows which file is wrong, and how."""
    folder = write_folder(machine / "folder")
    (folder / file).write_bytes(content)
    with pytest.raises(UsageError, match=f"{file}.*{reason}"):
        read_idx_folder(folder)


def test_no_more_is_unpacked_than_one_byte_past_the_limit(machine: Path) -> None:
    """A small file cannot unpack to fill the memory."""
    path = machine / "bomb.gz"
    path.write_bytes(gz(bytes(50_000_000)))
    assert sources.unpack(path, 100) == (bytes(101), "")


@pytest.mark.parametrize("name", [str, lambda file: file.replace("-idx", ".idx"), "{}.gz".format])
def test_files_are_found_under_the_names_that_unpackers_give_them(machine: Path, name: Callable[[str], str]) -> None:
    """A name may have a dot for the dash, or .gz that is no longer true."""
    folder = write_folder(machine / "folder")
    for file in FILES:
        (folder / file).rename(folder / name(file))
    assert same(RAW, read_idx_folder(folder))


def test_files_that_are_missing_are_all_named(machine: Path) -> None:
    """One message for all that is missing."""
    folder = write_folder(machine / "folder")
    (folder / TRAIN_LABELS).unlink()
    (folder / TEST_IMAGES).unlink()
    with pytest.raises(UsageError, match=f"{TRAIN_LABELS}, {TEST_IMAGES}"):
        read_idx_folder(folder)


@pytest.mark.usefixtures("small_mnist")
def test_files_that_may_not_be_read_are_an_error_that_says_so(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that there are none, and no traceback."""
    folder = write_folder(machine / "folder")

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=f"{TRAIN_IMAGES} cannot be read: Permission denied; see to its permissions"):
        find_dataset("mnist", folder)


def test_a_changed_bit_is_found_and_both_hashes_are_named(machine: Path) -> None:
    """A file of the right form with another content is not MNIST."""
    folder = write_folder(machine / "folder")
    flip(folder / TEST_IMAGES)
    found = sha256((folder / TEST_IMAGES).read_bytes()).hexdigest()
    with pytest.raises(UsageError, match=f"{TEST_IMAGES}.*expected {PARTS[2].content}, found {found}"):
        read_mnist(folder, PARTS)


def test_a_gzip_that_breaks_off_is_said_to_with_the_hash_of_what_there_was(machine: Path) -> None:
    """The message tells a truncated file from a changed one."""
    folder = write_folder(machine / "folder")
    packed = PACKED[f"{TRAIN_IMAGES}.gz"]
    (folder / TRAIN_IMAGES).write_bytes(packed[: len(packed) // 2])
    read, _ = sources.unpack(folder / TRAIN_IMAGES, 10**6)
    assert len(read) > 1000
    with pytest.raises(
        UsageError, match=f"{TRAIN_IMAGES}.*cut short.*found {sha256(read).hexdigest()} over {len(read):,}"
    ):
        read_mnist(folder, PARTS)


def test_swapped_files_are_recognised(machine: Path) -> None:
    """Test images in the place of training images are named as what they are."""
    folder = write_folder(machine / "folder")
    (folder / TRAIN_IMAGES).rename(folder / "other")
    (folder / TEST_IMAGES).rename(folder / TRAIN_IMAGES)
    (folder / "other").rename(folder / TEST_IMAGES)
    with pytest.raises(UsageError, match=f"{TRAIN_IMAGES}: it is {TEST_IMAGES}"):
        read_mnist(folder, PARTS)


def test_an_npz_holds_the_same_arrays(machine: Path) -> None:
    """Keras's container, alone or in a named folder, is as good as the four files."""
    path = write_npz(machine / "folder" / "mnist.npz")
    assert same(RAW, read_npz(path, PARTS))
    assert same(RAW, read_mnist(path.parent, PARTS))


@pytest.mark.parametrize(
    ("key", "array", "reason"),
    [
        ("x_test", RAW.test_images ^ 1, f"expected {PARTS[2].array}, found"),
        ("y_train", np.roll(RAW.train_labels, 1), f"expected {PARTS[1].array}, found"),
        ("x_test", RAW.test_images[:-1], r"x_test is uint8 \(6, 28, 28\)"),
        ("x_train", RAW.train_images.astype(float), "x_train is float64"),
        ("x_test", np.asfortranarray(RAW.test_images), r"x_test is uint8 \(7, 28, 28\) in Fortran's order"),
        ("y_test", RAW.test_labels.astype(object), "y_test is object"),
    ],
)
def test_an_npz_with_another_array_is_refused(machine: Path, key: str, array: np.ndarray, reason: str) -> None:
    """Neither other values, shapes and types, nor pickled objects, which could run code, pass for MNIST."""
    path = write_npz(machine / "mnist.npz", **{key: array})
    with pytest.raises(UsageError, match=f"mnist.npz.*{reason}"):
        read_npz(path, PARTS)


def test_an_npz_that_is_cut_or_lacks_an_array_is_refused(machine: Path) -> None:
    """A zip archive is only whole with its directory at the end and all four arrays."""
    path = write_npz(machine / "mnist.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"mnist.npz.*not a zip file"):
        read_npz(path, PARTS)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(UsageError, match=r"mnist.npz.*x_train"):
        read_npz(path, PARTS)
