"""Small files that unpack to something large, long or empty."""

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable
from struct import pack, pack_into

from support.damage.archives import CENTRAL, LOCAL, records
from support.damage.forms import FORMS, MEMBERS, RAW, gz, npz
from support.small_mnist import idx


def gigabyte(start: bytes = b"") -> bytes:
    """One gzip that unpacks to some bytes and then a gigabyte of zeros."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = deflate.compress(start) + deflate.flush(zlib.Z_FULL_FLUSH)
    mebibyte = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)  # stands alone, so may be repeated
    return gz(b"")[:15] + first + mebibyte * 1024 + deflate.flush() + pack("<II", 0, (1 << 30) + len(start))


def large_member(method: int, claim: int | None = None) -> bytes:
    """An archive whose test images go on for 320 MB, whether or not its directory says so."""
    packed = io.BytesIO()
    key, good = MEMBERS[2]
    with zipfile.ZipFile(packed, "w", method, compresslevel=1) as archive:
        for name, content in MEMBERS:
            if name != key:
                archive.writestr(name, content)
        with archive.open(key, "w") as member:
            member.write(good)
            for _ in range(320):
                member.write(bytes(1 << 20))
    damaged = bytearray(packed.getvalue())
    if claim is not None:
        for kind, place in ((LOCAL, 22), (CENTRAL, 24)):
            pack_into("<I", damaged, records(bytes(damaged), kind)[-1] + place, claim)
    return bytes(damaged)


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a gigabyte of zeros in one gzip": ("gzipped images", gigabyte),
    "a gigabyte of zeros in many gzips": ("gzipped images", lambda: gzip.compress(bytes(1 << 20)) * 1024),
    "a gigabyte after good images": ("gzipped images", lambda: gigabyte(idx(RAW.test_images))),
    "a gigabyte after good labels": ("gzipped labels", lambda: gigabyte(idx(RAW.test_labels))),
    "a gigabyte that its header claims": ("gzipped images", lambda: gigabyte(pack(">4I", 2051, 1_369_569, 28, 28))),
    "gzips within gzips": ("gzipped images", lambda: gzip.compress(gzip.compress(gigabyte()))),
    "20,000 empty gzips": ("gzipped labels", lambda: gzip.compress(b"") * 20_000),
    "an array that goes on for 320 MB": ("deflated archive", lambda: large_member(zipfile.ZIP_DEFLATED)),
    "an array larger than the directory says": (
        "deflated archive",
        lambda: large_member(zipfile.ZIP_DEFLATED, len(MEMBERS[2][1])),
    ),
    "an array of 320 MB in bzip2": ("deflated archive", lambda: large_member(zipfile.ZIP_BZIP2)),
    "an array of 320 MB in LZMA": ("deflated archive", lambda: large_member(zipfile.ZIP_LZMA)),
    "50,000 members": ("stored archive", lambda: npz([(f"{n}", b"") for n in range(50_000)], zipfile.ZIP_STORED)),
    "no images": ("images", lambda: idx(RAW.test_images[:0])),
    "no labels": ("labels", lambda: idx(RAW.test_labels[:0])),
    "an empty archive": ("stored archive", lambda: npz([], zipfile.ZIP_STORED)),
    **{f"empty {name}": (name, bytes) for name in FORMS},
}
