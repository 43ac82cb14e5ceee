"""What images and labels are made of: IDX files, Keras's mnist.npz, scikit-learn's digits.

Nothing that is read is believed. MNIST is MNIST only if the SHA-256 of its content says so, whatever its container;
other IDX files must be what their headers claim. No file makes more memory fill than a header may claim.
"""

import gzip
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import file_digest, sha256
from math import prod
from pathlib import Path
from struct import unpack_from
from typing import IO, Any, NamedTuple, Protocol, cast
from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.errors import UsageError, one_line
from lockstep_bench.harness.machine.variables import environment_without

SIDE = 28  # pixels, across and down
CLASSES = 10
MOST_IMAGES = 1_000_000  # in one file: 784 MB of pixels, 16 times MNIST
IDX_UINT8 = 0x800  # an IDX magic number is the element type, 8 for uint8, and then the number of dimensions
GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 1 << 16

DIGITS_TRAIN = 1_500  # of scikit-learn's 1,797
DIGITS_ZOOM = 3
DIGITS_BORDER = 2


class Raw(NamedTuple):
    """A dataset as its makers left it: images uint8 (n, 28, 28), labels uint8 (n,)."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


class Part(NamedTuple):
    """One of MNIST's four arrays, by its names and the SHA-256 of the forms in which it is passed around."""

    file: str  # of IDX format, without .gz
    key: str  # in mnist.npz
    shape: tuple[int, ...]
    packed: str  # SHA-256 of the published .gz
    content: str  # SHA-256 of the IDX file
    array: str  # SHA-256 of the array's bytes alone

    @property
    def header_bytes(self) -> int:
        """Size of the IDX header: magic number and shape, each 4 bytes."""
        return 4 * (1 + len(self.shape))


MNIST = (
    Part(
        *("train-images-idx3-ubyte", "x_train", (60_000, SIDE, SIDE)),
        packed="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        content="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        array="741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    ),
    Part(
        *("train-labels-idx1-ubyte", "y_train", (60_000,)),
        packed="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        content="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        array="1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    ),
    Part(
        *("t10k-images-idx3-ubyte", "x_test", (10_000, SIDE, SIDE)),
        packed="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        content="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        array="6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    ),
    Part(
        *("t10k-labels-idx1-ubyte", "y_test", (10_000,)),
        packed="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        content="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        array="ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
)


def read_mnist(folder: Path, parts: Sequence[Part] = MNIST) -> Raw:
    """MNIST from a folder that holds its four IDX files, gzipped or not, or else a mnist.npz.

    Raises:
        UsageError: the folder or a file is missing, or a file's content is not MNIST's.
    """
    archive = folder / "mnist.npz"
    if archive.is_file() and not all(_candidates(folder, part.file) for part in parts):
        return read_npz(archive, parts)
    paths = _idx_files(folder, [part.file for part in parts])
    return Raw(*(_read_part(path, part, parts) for path, part in zip(paths, parts, strict=True)))


def is_published(folder: Path, parts: Sequence[Part] = MNIST) -> bool:
    """Whether a folder holds MNIST's four files byte for byte as they are published; nothing is unpacked to tell."""
    known = {part.file: {part.packed, part.content} for part in parts}
    try:
        return all(
            bool(paths := _candidates(folder, file)) and _file_sha256(paths[0]) in hashes
            for file, hashes in known.items()
        )
    except OSError:
        return False  # reading it says why


def read_npz(path: Path, parts: Sequence[Part] = MNIST) -> Raw:
    """MNIST from the archive that Keras keeps.

    Raises:
        UsageError: the file cannot be read, or an array in it is not MNIST's.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return Raw(*(_read_member(archive, path, part, parts) for part in parts))
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # of a damaged file, zipfile raises much that it does not list
        raise UsageError(
            f"{path} is not Keras's mnist.npz or is damaged: {one_line(error)}; put the published one there"
        ) from error


def read_idx_folder(folder: Path) -> Raw:
    """Any four IDX files of 28 x 28 images with labels 0 to 9, under MNIST's names, gzipped or not.

    Raises:
        UsageError: the folder or a file is missing, or a file is not what its header claims.
    """
    paths = _idx_files(folder, [part.file for part in MNIST])
    raw = Raw(*(read_idx(path, len(part.shape)) for path, part in zip(paths, MNIST, strict=True)))
    for (images, labels), path in ((raw[:2], paths[1]), (raw[2:], paths[3])):
        if len(images) != len(labels):
            raise _bad(path, f"it has {len(labels):,} labels for {len(images):,} images")
        if labels.max() >= CLASSES:
            raise _bad(path, f"it has the label {labels.max()}, and labels go from 0 to {CLASSES - 1}")
    return raw


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """One IDX file: images uint8 (n, 28, 28) for 3 dimensions, labels uint8 (n,) for 1.

    Raises:
        UsageError: the file is not whole, not of this kind, too large, or goes on after its end.
    """
    header_bytes = 4 * (1 + dimensions)
    start, flaw = unpack(path, header_bytes)
    if len(start) < header_bytes:
        raise _bad(path, flaw or f"it ends within its header of {header_bytes} bytes")
    magic, *shape = unpack_from(f">{1 + dimensions}I", start)
    if magic != IDX_UINT8 + dimensions:
        raise _bad(path, f"its magic number is {magic}, not {IDX_UINT8 + dimensions}")
    if any(side != SIDE for side in shape[1:]):
        raise _bad(path, f"its images are {' x '.join(map(str, shape[1:]))} pixels, not {SIDE} x {SIDE}")
    if not 0 < shape[0] <= MOST_IMAGES:
        raise _bad(path, f"its header claims {shape[0]:,} items, and 1 to {MOST_IMAGES:,} are read")
    size = header_bytes + prod(shape)
    content, flaw = unpack(path, size)
    if len(content) > size:
        raise _bad(path, f"it goes on after the {size:,} bytes that its header claims")
    if flaw or len(content) < size:
        raise _bad(path, f"{flaw or 'it is cut short'}, {len(content):,} of the {size:,} bytes that its header claims")
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


def read_digits() -> Raw:
    """scikit-learn's own 1,797 digits of 8 x 8 pixels, 0 to 16: each pixel tripled, with a border of 2."""
    with environment_without():  # scikit-learn sets variables when it is imported
        from sklearn.datasets import load_digits

    digits = load_digits()
    large = digits.images.astype(np.uint8).repeat(DIGITS_ZOOM, axis=1).repeat(DIGITS_ZOOM, axis=2)
    border = (DIGITS_BORDER, DIGITS_BORDER)
    images, labels = np.pad(large, ((0, 0), border, border)), digits.target.astype(np.uint8)
    return Raw(images[:DIGITS_TRAIN], labels[:DIGITS_TRAIN], images[DIGITS_TRAIN:], labels[DIGITS_TRAIN:])


def unpack(path: Path, limit: int) -> tuple[bytes, str]:
    """The first `limit` + 1 bytes of a file, unzipped if it is gzip, and why they broke off ("" if they did not).

    The byte too many shows that a file goes on, without reading how far.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC  # the name may lie: browsers unpack and keep the .gz
            file.seek(0)
            return _drain(gzip.GzipFile(fileobj=file) if zipped else file, limit)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}; see to its permissions") from error


class _Readable(Protocol):
    """What files, GzipFile and ZipExtFile share: `read1` gives what is there before it raises."""

    def read1(self, size: int, /) -> bytes: ...


def _drain(stream: _Readable, limit: int) -> tuple[bytes, str]:
    content, flaw = bytearray(), ""
    try:
        while chunk := stream.read1(min(CHUNK_BYTES, limit + 1 - len(content))):
            content += chunk
    except EOFError:
        flaw = "its compressed data are cut short"
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error):
        flaw = "its compressed data are corrupt"
    return bytes(content), flaw


def _read_part(path: Path, part: Part, parts: Sequence[Part]) -> NDArray[np.uint8]:
    """One of MNIST's arrays from its IDX file."""
    # Reading on to the longest part's end, not just to this one's, lets the message say which other part it is.
    content, flaw = unpack(path, max(other.header_bytes + prod(other.shape) for other in parts))
    _require(str(path), part.file, content, flaw, {other.file: other.content for other in parts})
    return np.frombuffer(content, np.uint8, offset=part.header_bytes).reshape(part.shape)


def _read_member(archive: zipfile.ZipFile, path: Path, part: Part, parts: Sequence[Part]) -> NDArray[np.uint8]:
    """One of MNIST's arrays from an .npz; nothing is allocated for a header that claims anything else."""
    info = archive.getinfo(f"{part.key}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # What zipfile unpacks of other methods at once has no bound.
        raise ValueError(f"{part.key} is compressed by method {info.compress_type}, which NumPy does not use")
    with archive.open(info) as member:
        shape, in_columns, dtype = _read_header(member, part.key)
        if shape != part.shape or dtype != np.uint8 or in_columns:
            order = " in Fortran's order" if in_columns else ""
            raise ValueError(f"{part.key} is {dtype} {shape}{order}, not uint8 {part.shape}")
        content, flaw = _drain(cast(zipfile.ZipExtFile, member), prod(shape))
    _require(f"{part.key} in {path}", part.key, content, flaw, {other.key: other.array for other in parts})
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_header(member: IO[bytes], key: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type that an .npy claims.

    Raises:
        ValueError: it claims nothing that can be understood.
    """
    version = np.lib.format.read_magic(member)
    if version != (1, 0):
        raise ValueError(f"{key} has version {version} of NumPy's format, not (1, 0)")
    try:
        with catch_warnings(action="ignore"):  # of what Python 2 wrote
            return np.lib.format.read_array_header_1_0(member)
    except Exception as error:  # NumPy runs the header through Python's parsers, which raise much that it does not list
        raise ValueError(f"{key} has a header that is not NumPy's") from error


def _require(place: str, name: str, content: bytes, flaw: str, hashes: Mapping[str, str]) -> None:
    """Raise unless the content is the part of this name."""
    expected, found = hashes[name], sha256(content).hexdigest()
    if found == expected:
        return
    other = next((f"it is {part}" for part, known in hashes.items() if known == found), "its content differs")
    raise UsageError(
        f"{place} is not MNIST's {name}: {flaw or other}, SHA-256 expected {expected}, found {found} "
        f"over {len(content):,} unpacked bytes; put the published file there"
    )


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _candidates(folder: Path, file: str) -> list[Path]:
    """The files in a folder that may be this one: gzipped or not, and with the dot that unpackers on Windows put."""
    names = [name + suffix for name in (file, file.replace("-idx", ".idx")) for suffix in ("", ".gz")]
    return [folder / name for name in names if (folder / name).is_file()]


def _idx_files(folder: Path, files: Iterable[str]) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name one that holds the IDX files")
    found = {file: _candidates(folder, file) for file in files}
    if missing := [file for file, candidates in found.items() if not candidates]:
        raise UsageError(f"the folder {folder} lacks {', '.join(missing)} (or .gz); put the four IDX files there")
    return [candidates[0] for candidates in found.values()]


def _bad(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path} is not a good IDX file: {reason}; get it again")
