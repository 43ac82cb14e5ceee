"""The good files: a few images in every form in which MNIST comes."""

import gzip
import io
import warnings
import zipfile
from hashlib import sha256
from struct import pack
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.data import sources
from lockstep_bench.harness.data.sources import Part, Raw
from support.small_mnist import idx

Content = NDArray[np.uint8]


def small_raw() -> Raw:
    """Three training and two test images, in MNIST's shape."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (count, 28, 28), np.uint8) for count in (3, 2)]
    return Raw(images[0], np.array([5, 0, 9], np.uint8), images[1], np.array([7, 2], np.uint8))


def gz(content: bytes) -> bytes:
    """Gzipped, with a date and a name, in which damage does no harm."""
    packed = io.BytesIO()
    with gzip.GzipFile("name", "wb", fileobj=packed, mtime=1_000_000_000) as file:
        file.write(content)
    return packed.getvalue()


def npz(members: list[tuple[str, bytes]], method: int, extra: bytes = b"") -> bytes:
    """A zip archive, in which a name may be there twice."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, content in members:
            member = zipfile.ZipInfo(name)
            member.compress_type, member.extra = method, extra
            archive.writestr(member, content)
    return packed.getvalue()


def npy(header: bytes, content: bytes, version: bytes = b"\1\0", length: int | None = None) -> bytes:
    """A member of an .npz, with any header."""
    return b"\x93NUMPY" + version + pack("<H", len(header) if length is None else length) + header + content


def header_of(shape: object, descr: object = "|u1", fortran: object = False) -> bytes:
    """The header that NumPy writes."""
    return f"{{'descr': {descr!r}, 'fortran_order': {fortran!r}, 'shape': {shape!r}, }}\n".encode("latin1", "replace")


RAW = small_raw()
NAMES = [part.file for part in sources.MNIST]
KEYS = [f"{part.key}.npy" for part in sources.MNIST]
PARTS = [
    Part(
        *(part.file, part.key, array.shape),
        packed=sha256(gz(idx(array))).hexdigest(),
        content=sha256(idx(array)).hexdigest(),
        array=sha256(array.tobytes()).hexdigest(),
    )
    for part, array in zip(sources.MNIST, RAW, strict=True)
]
MEMBERS = [(key, npy(header_of(array.shape), array.tobytes())) for key, array in zip(KEYS, RAW, strict=True)]


class Form(NamedTuple):
    """One of the files that are damaged."""

    good: bytes
    field: int  # of Raw; -1 for an archive of all

    @property
    def zipped(self) -> bool:
        """Whether an IDX file is gzipped."""
        return self.good.startswith(sources.GZIP_MAGIC)


FORMS = {
    "images": Form(idx(RAW.test_images), 2),
    "labels": Form(idx(RAW.test_labels), 3),
    "gzipped images": Form(gz(idx(RAW.test_images)), 2),
    "gzipped labels": Form(gz(idx(RAW.test_labels)), 3),
    "stored archive": Form(npz(MEMBERS, zipfile.ZIP_STORED), -1),
    "deflated archive": Form(npz(MEMBERS, zipfile.ZIP_DEFLATED), -1),
}
IDX_FORMS = [name for name, form in FORMS.items() if form.field >= 0]
GZIP_FORMS = [name for name, form in FORMS.items() if form.zipped]
NPZ_FORMS = [name for name, form in FORMS.items() if form.field < 0]
