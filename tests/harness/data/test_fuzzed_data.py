"""Damaged data: of thousands of files, each is refused in a sentence, or read as exactly what it holds.

Run as a program, this file makes the damaged files, reads each in every way there is, in little memory, and prints what
became of them; the tests read that. What must hold is in `flaw`.
"""

import gzip
import io
import json
import pickle
import re
import resource
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from random import Random
from struct import pack, pack_into, unpack_from
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lockstep_bench.harness.data import sources
from lockstep_bench.harness.data.sources import Part, Raw, is_published, read_idx, read_idx_folder, read_mnist, read_npz
from lockstep_bench.harness.errors import UsageError

FILES = 12_000  # damaged ones, at least
SEED = 20_260_101
SPARE_BYTES = 256 << 20  # that a reader may take; each file holds some kilobytes, whatever it claims
FILE_SECONDS = 5.0  # of CPU time for one file, read in every way
ALL_SECONDS = 200.0  # for all, also where other programs run
LONGEST_MESSAGE = 1_000  # characters, with the path

Content = NDArray[np.uint8]
Damage = Callable[[Random, bytes], bytes]


# The good files


def small_raw() -> Raw:
    """Three training and two test images, in MNIST's shape."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (count, 28, 28), np.uint8) for count in (3, 2)]
    return Raw(images[0], np.array([5, 0, 9], np.uint8), images[1], np.array([7, 2], np.uint8))


def idx(array: Content) -> bytes:
    """An array as the content of an IDX file."""
    return pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


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


# What must hold


class Bench:
    """A folder of four good IDX files and one with a good archive, and one file at a time in the place of another."""

    def __init__(self, folder: Path) -> None:
        self.idx_folder, self.npz_folder = folder / "idx", folder / "npz"
        for made in (self.idx_folder, self.npz_folder):
            made.mkdir()
        for name, array in zip(NAMES, RAW, strict=True):
            (self.idx_folder / name).write_bytes(idx(array))
        self.found = Counter[str]()

    def flaw(self, form: Form, damaged: bytes) -> str:
        """What does not hold of a damaged file; "" if all does.

        Each reader refuses it with UsageError, in one sentence that is not long, or reads it. What `read_mnist`,
        `read_npz` and `is_published` then make of it are the very arrays that were in it before. `read_idx` and
        `read_idx_folder` take any images and labels: there it is what the file holds byte for byte, header and all, so
        that a changed pixel is another image, but no other header and no damaged gzip is taken.
        """
        if form.field < 0:
            archive = self.npz_folder / "mnist.npz"
            archive.write_bytes(damaged)
            return self._flaw(partial(read_npz, archive, PARTS), RAW) or self._flaw(
                partial(read_mnist, self.npz_folder, PARTS), RAW
            )
        path = self.idx_folder / NAMES[form.field]
        good = path.read_bytes()
        path.write_bytes(damaged)
        try:
            return (
                self._flaw(lambda: [read_idx(path, RAW[form.field].ndim)], [RAW[form.field]], damaged)
                or self._flaw(partial(read_idx_folder, self.idx_folder), RAW, damaged, form.field)
                or self._flaw(partial(read_mnist, self.idx_folder, PARTS), RAW)
                or ("is published" if is_published(self.idx_folder, PARTS) and not known(form, damaged) else "")
            )
        finally:
            path.write_bytes(good)

    def _flaw(self, read: Callable[[], Any], expected: Any, damaged: bytes = b"", field: int = 0) -> str:
        try:
            arrays = list(read())
        except UsageError as error:
            self.found["refused"] += 1
            return self._flaw_of_refusal(error)
        except Exception as error:  # anything but a refusal is what is looked for
            return f"{type(error).__name__}: {error}"
        self.found["read"] += 1
        for number, (array, before) in enumerate(zip(arrays, expected, strict=True)):
            held = plain(damaged) if damaged and number == field else idx(before)
            if idx(array) != held or array.shape[1:] != before.shape[1:] or array.dtype != np.uint8:
                return f"was read as {array.dtype} {array.shape}"
        if len(arrays) == len(RAW) and [len(array) for array in arrays[::2]] != [len(array) for array in arrays[1::2]]:
            return "was read as images and labels of different number"
        return ""

    @staticmethod
    def _flaw_of_refusal(error: UsageError) -> str:
        message, cause = str(error), error.__cause__
        if not message.isprintable():
            return f"was refused in more than a line: {message!r}"
        if len(message) > LONGEST_MESSAGE:
            return f"was refused in {len(message):,} characters"
        if "; " not in message or ": ; " in message:
            return f"was refused without a reason or a way out: {message}"
        return "made memory run out" if isinstance(cause, MemoryError) else ""


def known(form: Form, damaged: bytes) -> bool:
    """Whether the bytes are as they are published, after all."""
    return sha256(damaged).hexdigest() in (PARTS[form.field].packed, PARTS[form.field].content)


def plain(content: bytes) -> bytes | None:
    """What Python's own gzip makes of a file: all or nothing."""
    if not content.startswith(sources.GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None


# Damage to any file


def flip_bits(random: Random, good: bytes) -> bytes:
    """One to three bits anywhere."""
    return flip(random, good, range(len(good)))


def flip_header_bits(random: Random, good: bytes) -> bytes:
    """One to three bits in the first or the last bytes, where the claims are."""
    size = len(good)
    return flip(random, good, random.choice([range(min(30, size)), range(max(0, size - 30), size)]))


def flip(random: Random, good: bytes, places: range) -> bytes:
    """Some bits at some of these places."""
    damaged = bytearray(good)
    for _ in range(random.choice([1, 1, 2, 3])):
        damaged[random.choice(places)] ^= 1 << random.randrange(8)
    return bytes(damaged)


def cut(random: Random, good: bytes) -> bytes:
    """Without its end."""
    return good[: random.randrange(len(good))]


def cut_front(random: Random, good: bytes) -> bytes:
    """Without its beginning."""
    return good[random.randrange(1, len(good)) :]


def go_on(random: Random, good: bytes) -> bytes:
    """With something after its end."""
    other = random.choice(list(FORMS.values())).good
    return good + random.choice([b"\0", bytes(random.randrange(1, 600)), random.randbytes(40), good, other])


def put_in_noise(random: Random, good: bytes) -> bytes:
    """Bytes inserted, removed, replaced or moved."""
    damaged = bytearray(good)
    for _ in range(random.randint(1, 8)):
        start = random.randrange(len(damaged) + 1)
        stop = min(len(damaged), start + random.choice([0, 1, 4, 100]))
        moved = random.choice([random.randbytes(random.randint(0, 9)), bytes(4), b"\xff" * 4, bytes(damaged[:20])])
        damaged[start:stop] = moved
    return bytes(damaged)


def splice(random: Random, good: bytes) -> bytes:
    """Its first part, and the last part of another file."""
    other = random.choice(list(FORMS.values())).good
    return good[: random.randrange(len(good))] + other[random.randrange(len(other)) :]


def replace_by_noise(random: Random, good: bytes) -> bytes:
    """Random bytes, some with the right beginning."""
    return good[: random.choice([0, 2, 4, 8, 16, 40])] + random.randbytes(random.choice([0, 1, 10, 100, len(good)]))


def swap(random: Random, good: bytes) -> bytes:
    """Another good file in its place."""
    others = [form.good for form in FORMS.values()] + [idx(RAW.train_images), idx(RAW.train_labels)]
    return random.choice([other for other in others if other != good])


# Damage to what an IDX file claims; gzipped ones are packed again, with a checksum that is right


def lie_of_size(random: Random, content: bytes) -> bytes:
    """Another number of images, or of pixels, or as many in all in another shape."""
    damaged = bytearray(content)
    if header_bytes(content) > 8 and random.random() < 0.1:
        damaged[4:16] = pack(">3I", *random.choice([(2, 14, 56), (1, 56, 28), (56, 28, 1), (1568, 1, 1), (28, 2, 28)]))
        return bytes(damaged)
    place = random.randrange(4, header_bytes(content), 4)
    [true] = unpack_from(">I", content, place)
    pack_into(">I", damaged, place, random.choice([value for value in extremes(random, 4, true) if value != true]))
    return bytes(damaged)


def lie_of_kind(random: Random, content: bytes) -> bytes:
    """Another magic number: another type of element, number of dimensions, or order of bytes."""
    kinds = [
        0,
        0x801,
        0x803,
        0x802,
        0x804,
        0x903,
        0xB03,
        0xC03,
        0xD01,
        0xE03,
        0x8FF,
        0x03080000,
        random.getrandbits(32),
    ]
    [true] = unpack_from(">I", content)
    return pack(">I", random.choice([kind for kind in kinds if kind != true])) + content[4:]


def lie_of_size_and_be_short(random: Random, content: bytes) -> bytes:
    """A size that is allowed, and would take 784 MB, and almost nothing of it."""
    claim = random.randint(sources.MOST_IMAGES - 1000, sources.MOST_IMAGES)
    return content[:4] + pack(">I", claim) + content[8 : random.randint(8, len(content))]


def header_bytes(content: bytes) -> int:
    """Size of an IDX file's header."""
    return 4 * (1 + content[3])


def extremes(random: Random, size: int, true: int) -> list[int]:
    """Values of a field of some bytes that make trouble."""
    top = 1 << 8 * size
    near = [(true + step) % top for step in (-2, -1, 1, 2)]
    return [*near, 0, 1, top - 1, top - 2, top // 2, top // 2 - 1, true << 8 & top - 1, random.randrange(top)]


# Damage to a gzip


def lie_at_the_end(random: Random, good: bytes) -> bytes:
    """Another checksum or size after the data."""
    place = random.choice([-8, -4])
    [true] = unpack_from("<I", good, len(good) + place)
    damaged = bytearray(good)
    pack_into("<I", damaged, len(good) + place, random.choice([v for v in extremes(random, 4, true) if v != true]))
    return bytes(damaged)


def lie_at_the_start(random: Random, good: bytes) -> bytes:
    """Another method, other flags: fields that are not there, a name without an end."""
    damaged = bytearray(good)
    damaged[2 + random.randrange(2)] = random.randrange(256)
    damaged[4:10] = random.choice([damaged[4:10], random.randbytes(6)])
    return bytes(damaged)


def change_the_data(random: Random, good: bytes) -> bytes:
    """Other data, deflated well, between the true start and the true end, or a checksum that fits them."""
    content = bytearray(gzip.decompress(good))
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    packed = gz(bytes(content))
    return random.choice([packed[:-8] + good[-8:], packed[:-4] + bytes(4), packed[:-8]])


def many_members(random: Random, good: bytes) -> bytes:
    """Cut into gzips one after the other, with empty, missing, doubled or foreign ones."""
    content = gzip.decompress(good)
    place = random.randrange(len(content))
    pieces = [gz(content[:place]), gz(content[place:])]
    pieces.insert(random.randrange(3), random.choice([gz(b""), gz(b"\0"), pieces[0], bytes(9), b"\x1f\x8b", gz(good)]))
    random.shuffle(pieces)
    return b"".join(pieces[: random.randint(1, 3)])


# Damage to an archive


def one_member(random: Random, good: bytes, change: Callable[[Random, bytes, Content], bytes]) -> bytes:
    """The archive, good in itself, with another member in the place of one."""
    members, number = list(MEMBERS), random.randrange(len(MEMBERS))
    members[number] = (KEYS[number], change(random, MEMBERS[number][1], RAW[number]))
    return npz(members, method_of(good))


def method_of(good: bytes) -> int:
    """How an archive's first member is compressed."""
    return int.from_bytes(good[8:10], "little")


def lie_of_shape(random: Random, _: bytes, array: Content) -> bytes:
    """A header that claims another shape, type or order."""
    shapes: list[object] = [
        *((2**63 - 1,), (2**64,), (2**31, 28, 28), (0, 28, 28), (), (-1,), (-60_000, 28, 28), (10**4000,), (1,) * 999),
        *([3, 28, 28], (3.0, 28, 28), ("3",), None, array.size, (*array.shape, 1), (array.size,), array.shape[::-1]),
        *((True,), (len(array) + 1, *array.shape[1:]), (len(array) - 1, *array.shape[1:])),
    ]
    types: list[object] = [
        *("|b1", "|i1", "<u2", "<f8", "|O", "O", "|V1", "|S1", "<U1", "<M8[s]", "|V2147483647", "|S99999999999999", ""),
        *("no such type", "\x1b[31m", "i4,i4", 1, None, True, {}, [], [("a", "|u1")], [("a", "|O")], [["a"]], ("|u1",)),
        *(("|u1", (2,)), ("|u1", (2**62,)), [("a", [("b", "|u1")])], [("", "|u1"), ("", "|u1")], {"names": ["a"]}),
    ]
    right = array.shape
    header = random.choice(
        [
            header_of(random.choice(shapes)),
            header_of(right, random.choice(types)),
            header_of(right, "|u1", random.choice([True, 0, 1, None, "False"])),
            header_of(random.choice(shapes), random.choice(types), random.choice([True, False])),
        ]
    )
    return npy(header, array.tobytes())


# What Python's parsers, or NumPy's use of them, stumble over.
NO_HEADERS = ["", " ", "{", "{}", "None", "...", "1/0", "'", '"""', "#", "$", "?", "``", "\\", "\0", "\\x", "\xff"]
NO_HEADERS += ["\x0c", "\r\r", "'\\d'", "'\\N{no}'", "b'\xff'", "f'{1}'", "1_000L", "12L 13L", "exit()", "lambda: 0"]
NO_HEADERS += ["1 if 1 else 2", "\t1\n  2\n 3", "  1\n 2", "if 1:\n", "{1: 2, 'a': 3}", "{[]: 1}", "{{}}", "\n\n"]
NO_HEADERS += ["__import__('os').abort()", "{'descr': '|u1'}", "{'shape': 1, 2: 3, (): 4}"]
LONG_HEADERS = ["(" * 9000, "[" * 150, "{" * 300, "-" * 9000 + "1", "not " * 2000 + "1", "1," * 4000, "a" * 9999]
LONG_HEADERS += ["0x" + "f" * 9000, "9" * 9000, "[" + "[],\n" * 2000, "'''\n" * 9]
CHANGES = [("}", ""), (",", ";"), ("(", "[("), ("|u1", "|u1\n"), ("h", "\xe9"), (", }", ", 'more': 1}"), ("{", "({")]
CHANGES += [("8", "8L"), ("2", "2L"), ("False", "0 == 1"), ("'", "`"), (" ", "\n"), ("d", "D"), ("}", "} 1")]
CHANGES += [("}", "}\n\n\n{"), ("}", "}\n  1"), ("}", "}#\x1b[2J"), ("u1", "u1" * 4000), ("{", "{" * 9), ("}", "}\n{")]


def lie_of_python(random: Random, _: bytes, array: Content) -> bytes:
    """A header that is no dictionary of three, or that no parser of Python takes."""
    changed = header_of(array.shape).decode().replace(*random.choice(CHANGES))
    header = random.choice([*NO_HEADERS, *LONG_HEADERS, *[changed] * 30]).encode("latin1") + b"\n"
    return npy(header, array.tobytes())


def lie_of_length(random: Random, member: bytes, _: Content) -> bytes:
    """Another version, or another length of the header, or another beginning."""
    damaged = bytearray(member)
    place = random.randrange(10)
    damaged[place] = random.choice([value for value in (0, 1, 2, 3, 4, 255, 0x93, 64) if value != damaged[place]])
    if random.random() < 0.5:
        damaged[6] = random.choice([0, 2, 3, 4, 255])
    return bytes(damaged)


def damage_member(random: Random, member: bytes, _: Content) -> bytes:
    """Bits, ends and noise inside of a member whose checksum is right."""
    damage = random.choice([flip_bits, flip_header_bits, cut, cut_front, go_on, put_in_noise, splice, swap])
    return damage(random, member)


def swap_members(random: Random, good: bytes) -> bytes:
    """Names that are there twice, missing, exchanged or changed, and archives within the archive."""
    members = list(MEMBERS)
    first, second = random.sample(range(len(members)), 2)
    (name, content), (other_name, other) = members[first], members[second]
    foreign = random.choice([other, content[:-1], b"", flip_bits(random, content), npz(MEMBERS, 0)])
    change = random.randrange(6)
    if change == 0:
        members.append((name, foreign))
    elif change == 1:
        del members[first]
    elif change == 2:
        members[first], members[second] = (name, other), (other_name, content)
    elif change == 3:
        odd = [name.upper(), f"./{name}", name[:-4], f"{name}\0", "\x1b[2J\n", f"{name}/", "\u0661", "n" * 9999]
        members[first] = (random.choice(odd), content)
    elif change == 4:
        members = [("mnist.npz", good)]
    else:
        members[first] = (name, foreign)
    return npz(members, method_of(good))


class Touch:
    """What makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Called by pickle."""
        return Path.touch, (Path("unpickled"),)


def pickle_objects(random: Random, _: bytes, array: Content) -> bytes:
    """Objects in the place of numbers, under a header that says so, or not."""
    objects = np.full(array.shape, None, dtype=object)
    objects.flat[0] = Touch()
    content = pickle.dumps(objects)
    types: list[object] = ["|O", "|u1", "O", [("a", "|O")], "<f8"]
    return npy(header_of(random.choice([array.shape, (len(content),), ()]), random.choice(types)), content)


LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
FIELDS = {  # by their places and sizes in a record of each kind
    LOCAL: dict.fromkeys([4, 6, 8, 10, 12, 26, 28], 2) | dict.fromkeys([14, 18, 22], 4),
    CENTRAL: dict.fromkeys([4, 6, 8, 10, 12, 14, 28, 30, 32, 34, 36], 2) | dict.fromkeys([16, 20, 24, 38, 42], 4),
    END: dict.fromkeys([4, 6, 8, 10, 20], 2) | dict.fromkeys([12, 16], 4),
}
FLAGS, METHOD = {LOCAL: 6, CENTRAL: 8}, {LOCAL: 8, CENTRAL: 10}


def records(archive: bytes, kind: bytes) -> list[int]:
    """Where an archive's records of a kind begin."""
    return [match.start() for match in re.finditer(re.escape(kind), archive)]


def lie_in_the_directory(random: Random, good: bytes) -> bytes:
    """Some fields of its records with values that make trouble: sizes, places, numbers, checksums."""
    damaged = bytearray(good)
    for _ in range(random.choice([1, 1, 2, 3])):
        kind = random.choice(list(FIELDS))
        place, size = random.choice(list(FIELDS[kind].items()))
        place += random.choice(records(good, kind))
        true = int.from_bytes(damaged[place : place + size], "little")
        damaged[place : place + size] = random.choice(extremes(random, size, true)).to_bytes(size, "little")
    return bytes(damaged)


def set_everywhere(good: bytes, fields: dict[bytes, int], value: int) -> bytes:
    """A field of two bytes, in all records of these kinds."""
    damaged = bytearray(good)
    for kind, place in fields.items():
        for start in records(good, kind):
            pack_into("<H", damaged, start + place, value)
    return bytes(damaged)


def encrypt(random: Random, good: bytes) -> bytes:
    """Flags that say encrypted, strongly encrypted, patched, masked or in another alphabet."""
    where = random.choice([FLAGS, {LOCAL: FLAGS[LOCAL]}, {CENTRAL: FLAGS[CENTRAL]}])
    return set_everywhere(good, where, random.choice([1, 0x41, 0x2001, 0x20, 0x40, 0x800, 0x801, 8, 0xFFFF]))


def compress_oddly(random: Random, good: bytes) -> bytes:
    """Another method, in name or indeed."""
    if random.random() < 0.3:
        return npz(MEMBERS, random.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    where = random.choice([METHOD, {CENTRAL: METHOD[CENTRAL]}])
    return set_everywhere(good, where, random.choice([0, 8, 1, 6, 9, 12, 14, 93, 95, 97, 98, 99, 0xFFFF]))


def be_larger_than_64_bits(random: Random, good: bytes) -> bytes:
    """Sizes and places of 64 bits, in each member's record, or in the record of the end that is for them."""
    huge = [random.choice([0, 1, 500, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]) for _ in range(6)]
    if random.random() < 0.5:
        extra = pack("<HHQQQ", 1, random.choice([24, 24, 8, 16, 0, 27]), *huge[:3])
        damaged = bytearray(npz(MEMBERS, method_of(good), extra))
        for start in records(bytes(damaged), CENTRAL):
            for place in random.choice([[20, 24, 42], [42], [24], [20]]):
                pack_into("<I", damaged, start + place, 2**32 - 1)
        return bytes(damaged)
    [end] = records(good, END)[-1:]
    size, place = unpack_from("<II", good, end + 12)
    values = [4, 4, size, place]
    values[random.randrange(4)] = huge[0]
    record = pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, *values)
    locator = pack("<4sIQI", b"PK\6\7", 0, random.choice([end, end, huge[1]]), random.choice([1, 1, 0, 9]))
    tail = END + random.choice([bytes(18), b"\xff" * 16 + bytes(2), good[end + 4 :]])
    return good[:end] + record + locator + tail


# What damages what

EVERY_FILE: dict[str, Damage] = {
    "flipped bits": flip_bits,
    "flipped bits of the header or the end": flip_header_bits,
    "cut off": cut,
    "without its beginning": cut_front,
    "goes on after its end": go_on,
    "bytes inserted, removed, replaced": put_in_noise,
    "spliced with another": splice,
    "random bytes": replace_by_noise,
    "another file in its place": swap,
}
EVERY_IDX: dict[str, Damage] = {
    "IDX: claims another size": lie_of_size,
    "IDX: claims 784 MB": lie_of_size_and_be_short,
    "IDX: another magic number": lie_of_kind,
}
EVERY_GZIP: dict[str, Damage] = {
    "gzip: another checksum or size": lie_at_the_end,
    "gzip: another method or flags": lie_at_the_start,
    "gzip: other data": change_the_data,
    "gzip: several in one": many_members,
}
EVERY_NPZ: dict[str, Damage] = {
    "npz: a header of another shape or type": partial(one_member, change=lie_of_shape),
    "npz: a header that is not Python's": partial(one_member, change=lie_of_python),
    "npz: a header of another length or version": partial(one_member, change=lie_of_length),
    "npz: a damaged member with a right checksum": partial(one_member, change=damage_member),
    "npz: pickled objects": partial(one_member, change=pickle_objects),
    "npz: members swapped, doubled, missing, nested": swap_members,
    "npz: a directory that lies": lie_in_the_directory,
    "npz: encrypted": encrypt,
    "npz: another compression": compress_oddly,
    "npz: sizes of 64 bits": be_larger_than_64_bits,
}


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


def damaged_files(seed: int, count: int) -> Iterator[tuple[str, str, bytes]]:
    """At least so many, the same for a seed: the kind of damage, the form of the file, its bytes."""
    plans = [
        (kind, name, damage)
        for kinds, names in (
            (EVERY_FILE, list(FORMS)),
            (EVERY_IDX, IDX_FORMS),
            (EVERY_GZIP, GZIP_FORMS),
            (EVERY_NPZ, NPZ_FORMS),
        )
        for kind, damage in kinds.items()
        for name in names
    ]
    for kind, name, damage in plans:
        form, random = FORMS[name], Random(f"{seed} {kind} {name}")
        for _ in range(-(-count // len(plans))):
            if kind in EVERY_IDX and form.zipped:
                yield kind, name, gz(damage(random, gzip.decompress(form.good)))
            else:
                yield kind, name, damage(random, form.good)


def report(folder: Path) -> dict[str, Any]:
    """What became of the damaged files of each kind."""
    bench, kinds = Bench(folder), dict[str, dict[str, Any]]()
    bombs = ((kind, name, make()) for kind, (name, make) in BOMBS.items())
    for kind, name, damaged in chain(bombs, damaged_files(SEED, FILES)):
        outcome = kinds.setdefault(kind, {"files": 0, "slowest": 0.0, "flaws": []})
        start = process_time()
        flaw = bench.flaw(FORMS[name], damaged)
        outcome["files"] += 1
        outcome["slowest"] = max(outcome["slowest"], process_time() - start)
        if flaw:
            outcome["flaws"].append(f"{name}: {flaw[:500]}")
    return {"kinds": kinds, "found": bench.found}


def main() -> None:
    """Read all damaged files in the working folder, in bounded memory."""
    if sys.platform == "linux":  # macOS does not keep to it
        most = psutil.Process().memory_info().vms + SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print(json.dumps(report(Path.cwd())))


# The tests


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of all of them, read once."""
    folder = tmp_path_factory.mktemp("fuzz")
    start = perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "always", __file__], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {
        **json.loads(done.stdout),
        "seconds": perf_counter() - start,
        "stderr": done.stderr,
        "unpickled": (folder / "unpickled").exists(),
    }


@pytest.mark.parametrize("kind", [*EVERY_FILE, *EVERY_IDX, *EVERY_GZIP, *EVERY_NPZ, *BOMBS])
def test_a_damaged_file_is_refused_or_read_as_what_it_holds(outcome: dict[str, Any], kind: str) -> None:
    """No other error, no other content, little memory, little time: `Bench.flaw` says what holds."""
    found = outcome["kinds"][kind]
    assert found["flaws"] == []
    assert found["slowest"] < FILE_SECONDS


def test_the_damaged_files_are_many_and_both_refused_and_read(outcome: dict[str, Any]) -> None:
    """As many as promised, in bounded time; damage that does no harm occurs too, so that a reader is seen to accept."""
    assert sum(found["files"] for found in outcome["kinds"].values()) >= FILES
    assert outcome["found"]["refused"] > FILES
    assert outcome["found"]["read"] > 100
    assert outcome["seconds"] < ALL_SECONDS


def test_no_damaged_file_runs_code_or_warns(outcome: dict[str, Any]) -> None:
    """A pickle is never loaded, and nothing is said but the error."""
    assert not outcome["unpickled"]
    assert outcome["stderr"] == ""


def test_the_pickle_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded, it leaves its file."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Touch()))
    assert Path("unpickled").exists()


@pytest.mark.parametrize("name", FORMS)
def test_the_good_files_are_read(tmp_path: Path, name: str) -> None:
    """Otherwise all of this would show nothing."""
    bench = Bench(tmp_path)
    assert bench.flaw(FORMS[name], FORMS[name].good) == ""
    assert bench.found["refused"] == 0


@given(st.sampled_from(sorted(FORMS)), st.binary(max_size=3000))
def test_random_bytes_are_never_accepted(name: str, content: bytes) -> None:
    """Neither alone nor after a beginning of a good file."""
    with TemporaryDirectory() as folder:
        bench, form = Bench(Path(folder)), FORMS[name]
        assert bench.flaw(form, content) == ""
        assert bench.flaw(form, form.good[: len(content)] + content) == ""


edits = st.lists(st.tuples(st.integers(0, 2**12), st.integers(0, 4), st.binary(max_size=6)), min_size=1, max_size=6)


@given(st.sampled_from(sorted(FORMS)), edits)
def test_random_edits_are_never_accepted(name: str, changes: list[tuple[int, int, bytes]]) -> None:
    """Whatever is put in the place of whatever, no other array comes out."""
    damaged = bytearray(FORMS[name].good)
    for place, removed, put in changes:
        place %= len(damaged) + 1
        damaged[place : place + removed] = put
    with TemporaryDirectory() as folder:
        assert Bench(Path(folder)).flaw(FORMS[name], bytes(damaged)) == ""


if __name__ == "__main__":
    main()
