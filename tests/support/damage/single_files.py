"""Damage to one file: of any kind, to what an IDX file claims, to a gzip."""

import gzip
from collections.abc import Callable
from random import Random
from struct import pack, pack_into, unpack_from

from lockstep_bench.harness.data import sources
from support.damage.forms import FORMS, RAW, gz
from support.small_mnist import idx

Damage = Callable[[Random, bytes], bytes]
"""What makes a damaged file of a good one."""


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
