"""A small dataset in all forms in which MNIST comes, with the hashes by which it is known."""

import gzip
from hashlib import sha256
from pathlib import Path
from struct import pack

import numpy as np

from lockstep_bench.harness.data import sources
from lockstep_bench.harness.data.sources import Part, Raw

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES = [part.file for part in sources.MNIST]


def small_raw() -> Raw:
    """Twelve training and seven test images, in MNIST's shape."""
    random = np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        return random.integers(0, 256, (count, 28, 28), np.uint8), (np.arange(count) % 10).astype(np.uint8)

    return Raw(*split(12), *split(7))


RAW = small_raw()


def idx(array: np.ndarray) -> bytes:
    """An array as the content of an IDX file."""
    return pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def gz(content: bytes) -> bytes:
    """Gzipped, without a date."""
    return gzip.compress(content, mtime=0)


PACKED = {f"{file}.gz": gz(idx(array)) for file, array in zip(FILES, RAW, strict=True)}
PARTS = [
    Part(
        *(part.file, part.key, array.shape),
        packed=sha256(PACKED[f"{part.file}.gz"]).hexdigest(),
        content=sha256(idx(array)).hexdigest(),
        array=sha256(array.tobytes()).hexdigest(),
    )
    for part, array in zip(sources.MNIST, RAW, strict=True)
]


def write_folder(folder: Path, raw: Raw = RAW) -> Path:
    """Four IDX files in a new folder."""
    folder.mkdir(parents=True)
    for file, array in zip(FILES, raw, strict=True):
        (folder / file).write_bytes(idx(array))
    return folder


def write_npz(path: Path, **changed: np.ndarray) -> Path:
    """A mnist.npz as Keras makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {part.key: array for part, array in zip(PARTS, RAW, strict=True)}
    np.savez_compressed(path, allow_pickle=True, **{**arrays, **changed})  # one test wants a pickle
    return path


def flip(path: Path, place: int = -1) -> None:
    """Change one bit of one byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def same(expected: Raw, actual: Raw) -> bool:
    """Equal in values, shapes and types."""
    return all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in zip(expected, actual, strict=True)
    )
