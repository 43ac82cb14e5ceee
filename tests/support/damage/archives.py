"""Damage to an archive of arrays: its members, their headers, its directory."""

import pickle
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from struct import pack, pack_into, unpack_from
from typing import Any

import numpy as np

from support.damage.forms import KEYS, MEMBERS, RAW, Content, header_of, npy, npz
from support.damage.single_files import (
    Damage,
    cut,
    cut_front,
    extremes,
    flip_bits,
    flip_header_bits,
    go_on,
    put_in_noise,
    splice,
    swap,
)


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
