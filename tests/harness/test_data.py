"""Data: every source is found in its turn, checked by its content, and cached once."""

import gzip
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from shutil import which
from struct import pack
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from time import perf_counter, sleep
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lockstep_bench.harness import data, data_cache, download, sources
from lockstep_bench.harness.data import find_dataset
from lockstep_bench.harness.data_cache import Identity, open_dataset
from lockstep_bench.harness.download import DownloadError
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.problem import digest
from lockstep_bench.harness.sources import Part, Raw, read_idx, read_idx_folder, read_mnist, read_npz

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES = [part.file for part in sources.MNIST]
NAMED_MNIST = os.environ.get("LOCKSTEP_MNIST", "")
ARRAYS = ["train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy"]


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


Reply = Callable[[bytes], Iterable[bytes]]  # from a file to all that is sent, header and body


class Mirror(ThreadingHTTPServer):
    """A web server with some files, on a free port of this machine; with a certificate it is encrypted."""

    daemon_threads = True

    def __init__(
        self,
        files: dict[str, bytes],
        reply: Reply | None = None,
        refusals: int = 0,
        certificate: Path | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files, self.reply, self.refusals, self.asked = files, reply, refusals, 0
        self.encodings = set[str]()  # that were asked for
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.server_port}/mnist/"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: object) -> None:
        """A client that goes away is what some tests are about."""


class _Answer(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        content = self.server.files.get(self.path.removeprefix("/mnist/"))
        self.server.asked += 1
        self.server.encodings.add(self.headers["Accept-Encoding"])
        self.close_connection = True
        if content is None or self.server.asked <= self.server.refusals:
            self.send_error(404)
            return
        for piece in (self.server.reply or whole)(content):
            self.wfile.write(piece)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output to the tests."""


def head(*lines: str, status: str = "200 OK") -> bytes:
    """The header of an answer."""
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, "")).encode()


def whole(content: bytes) -> Iterable[bytes]:
    """A file, as it should be sent."""
    return [head(f"Content-Length: {len(content)}"), content]


Serve = Callable[..., Mirror]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start mirrors that stop when the test ends."""
    running = []

    def start(files: dict[str, bytes], **behaviour: Any) -> Mirror:
        mirror = Mirror(files, **behaviour)
        thread = Thread(target=mirror.serve_forever, args=(0.01,))
        thread.start()
        running.append((mirror, thread))
        return mirror

    yield start
    for mirror, thread in running:
        mirror.shutdown()
        thread.join()
        mirror.server_close()


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it and no mirror to be reached; its home, caches and working folder are in tmp_path."""
    for variable, folder in (("HOME", "home"), ("LOCKSTEP_CACHE", "cache"), ("KERAS_HOME", "keras")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    monkeypatch.delenv("LOCKSTEP_MNIST", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "work").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(download, "MIRRORS", ("http://127.0.0.1:1/",))  # nothing listens on port 1
    monkeypatch.setattr(download, "RETRIES", 0)
    return tmp_path


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small dataset be MNIST: the way to it is the same, only the hashes differ."""
    npz, folder, fetch = sources.read_npz, sources.read_mnist, download.download
    published = sources.is_published
    monkeypatch.setattr(sources, "is_published", lambda path: published(path, PARTS))
    monkeypatch.setattr(data, "MNIST", Identity("mnist", digest(RAW), 255))
    monkeypatch.setattr(sources, "read_npz", lambda path, parts=PARTS: npz(path, parts))
    monkeypatch.setattr(sources, "read_mnist", lambda path, parts=PARTS: folder(path, parts))
    monkeypatch.setattr(download, "download", lambda mirrors, retries: fetch(mirrors, PARTS, retries))


# IDX files


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


# MNIST by its hashes


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


# Downloads


def test_a_download_is_what_the_mirror_has_and_leaves_no_file_behind(machine: Path, serve: Serve) -> None:
    """The arrays come back, the temporary folder goes."""
    mirror = serve(PACKED)
    raw, used = download.download([mirror.url], PARTS, retries=0)
    assert same(RAW, raw)
    assert used == mirror.url
    assert list((machine / "tmp").iterdir()) == []


def for_ever(piece: bytes, *start: bytes, pause: float = 0.0) -> Reply:
    """Some bytes, and then a piece again and again for as long as somebody listens."""

    def reply(_: bytes) -> Iterator[bytes]:
        yield b"".join(start)
        while True:
            sleep(pause)
            yield piece

    return reply


def reply_with(*pieces: bytes) -> Reply:
    """The same answer whatever is asked for."""
    return lambda _: pieces


def redirect(target: str) -> Reply:
    """An answer that leads elsewhere."""
    return reply_with(head(f"Location: {target}", "Content-Length: 0", status="302 Found"))


def slow(piece: bytes, *start: bytes) -> Reply:
    """A piece now and then, well within the time that is allowed between two pieces."""
    return for_ever(piece, *start, pause=0.1)


PAGE = b"<html>Please log in.</html>"
CUT_GZIP = gzip.compress(bytes(1000), mtime=0)[:-1]
FAULTS: dict[str, tuple[Reply, str]] = {
    "an error page": (reply_with(head(status="503 Busy"), PAGE), "answers with status 503"),
    "an empty answer": (reply_with(head(status="204 No Content")), "answers with status 204"),
    "a part of the file": (lambda content: [head(status="206 Partial Content"), content], "answers with status 206"),
    "a page of a proxy": (reply_with(head(f"Content-Length: {len(PAGE)}"), PAGE), "not gzip"),
    "nothing in the file": (reply_with(head("Content-Length: 0")), "not gzip"),
    "cut off": (lambda content: [head(f"Content-Length: {len(content)}"), content[:20]], "breaks off after 20 bytes"),
    "cut off, of unknown length": (lambda content: [head(), content[:-9]], r"expected [0-9a-f]{64} but got"),
    "cut off in a chunk": (lambda content: [head("Transfer-Encoding: chunked"), b"FF\r\n", content[:9]], "breaks off"),
    "cut off in the header": (reply_with(b"HTTP/1.1 200 OK\r\nContent-Le"), "not gzip"),
    "another content": (reply_with(head(), gz(b"other")), f"expected {PARTS[0].packed} but got"),
    "a gzip that is not whole": (reply_with(head(), CUT_GZIP), f"expected {PARTS[0].packed} but got"),
    "endless": (for_ever(bytes(10_000), head()), "goes on after 100,000 bytes"),
    "endless chunks": (
        for_ever(b"2710\r\n" + bytes(10_000) + b"\r\n", head("Transfer-Encoding: chunked")),
        "goes on after 100,000 bytes",
    ),
    "a slow body": (slow(b"1", head("Content-Length: 9999"), sources.GZIP_MAGIC), r"not done after 1\.5 seconds"),
    "a slow body of unknown length": (slow(b"1", head(), sources.GZIP_MAGIC), r"not done after 1\.5 seconds"),
    "a slow chunk": (slow(b"0", head("Transfer-Encoding: chunked")), r"not done after 1\.5 seconds"),
    "a slow status": (slow(b" ", b"HTTP/1.1"), r"not done after 1\.5 seconds"),
    "a slow header": (slow(b"1", b"HTTP/1.1 200 OK\r\nServer: "), r"not done after 1\.5 seconds"),
    "headers for ever": (slow(b"Server: 1\r\n", b"HTTP/1.1 200 OK\r\n"), r"not done after 1\.5 seconds"),
    "a promise for ever": (for_ever(head(status="100 Continue")), r"not done after 1\.5 seconds"),
    "silence": (for_ever(b"1", pause=3), "no answer"),
    "no HTTP": (for_ever(b"SSH-2.0-OpenSSH\r\n"), "no connection"),
    "lengths that differ": (reply_with(head("Content-Length: 3, 4"), b"1234"), "Content-Length"),
    "a negative chunk": (for_ever(b"-5\r\n12345\r\n", head("Transfer-Encoding: chunked")), ""),
    "a redirect to ftp": (redirect("ftp://127.0.0.1/mnist"), "redirects from http: to ftp:"),
    "a redirect to a file": (redirect("file:///etc/hosts"), "redirects from http: to file:"),
    "a redirect to data": (redirect("data:text/plain,mnist"), "redirects from http: to data:"),
    "a redirect to itself": (redirect("#again"), "redirects more than 5 times"),
    "a redirect to no URL": (redirect("http://[::1"), "Invalid IPv6 URL"),
    "a redirect to no port": (redirect("http://127.0.0.1:99999/"), "Failed to parse"),
    "a redirect to no text": (reply_with(head(status="302 Found")[:-2] + b"Location: \xff\r\n\r\n"), "can't decode"),
    "a redirect with an endless body": (
        for_ever(bytes(10_000), head("Location: ftp://127.0.0.1/", status="302 Found")),
        "redirects from http: to ftp:",
    ),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test can wait for."""
    monkeypatch.setattr(download, "FILE_SECONDS", 1.5)
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", (1, 1))
    monkeypatch.setattr(download, "MOST_BYTES", 100_000)


@pytest.mark.usefixtures("small_mnist", "impatient")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_mirror_is_followed_by_the_next(
    machine: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Whatever is wrong with a mirror, the next one is asked, in bounded time, and nothing stays of the first."""
    reply, _ = FAULTS[fault]
    bad, good = serve(PACKED, reply=reply), serve(PACKED)
    monkeypatch.setattr(download, "MIRRORS", (bad.url, good.url))
    start = perf_counter()
    dataset = find_dataset("mnist")
    assert perf_counter() - start < 10
    assert (dataset.sha256, dataset.source) == (digest(RAW), f"downloaded from {good.url}")
    assert bad.asked > 0
    assert list((machine / "tmp").iterdir()) == []
    assert list((machine / "cache").iterdir()) == [dataset.folder]


@pytest.mark.usefixtures("small_mnist", "impatient")
@pytest.mark.parametrize("fault", FAULTS)
def test_where_no_mirror_is_good_the_error_says_what_each_did(
    machine: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """One sentence with the fault and with the ways that need no network; the cache stays empty, no file stays."""
    reply, reason = FAULTS[fault]
    bad, lacking = serve(PACKED, reply=reply), serve({})
    monkeypatch.setattr(download, "MIRRORS", (bad.url, lacking.url))
    start = perf_counter()
    with pytest.raises(DownloadError) as raised:
        find_dataset("mnist")
    assert perf_counter() - start < 10
    message = str(raised.value)
    assert re.search(f"{re.escape(bad.url)}{TRAIN_IMAGES}.gz: .*{reason}.*; {re.escape(lacking.url)}.* 404", message)
    for way in ("--data", "LOCKSTEP_MNIST", "mnist.npz", "--dataset digits"):
        assert way in message
    assert message.isprintable()  # and so is one line
    assert len(message) < 1000
    assert not (machine / "cache").exists()
    assert list((machine / "tmp").iterdir()) == []


def test_a_download_that_is_cut_for_its_time_leaves_no_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it goes on while a benchmark runs."""
    monkeypatch.setattr(download, "FILE_SECONDS", 0.3)
    ended = Event()

    def reply(_: bytes) -> Iterator[bytes]:
        try:
            yield from slow(b"1", b"HTTP/1.1 200 OK\r\nServer: ")(_)
        finally:
            ended.set()

    mirror = serve(PACKED, reply=reply)
    before = set(enumerate_threads())
    with pytest.raises(DownloadError):
        download.download([mirror.url], PARTS, retries=0)
    assert ended.wait(5)
    assert {thread for thread in set(enumerate_threads()) - before if "process_request" not in thread.name} == set()


def test_the_mirror_that_gave_the_last_file_is_asked_first_for_the_next(serve: Serve) -> None:
    """A mirror that is slow costs its time once, not for each file."""
    bad, good = serve({}), serve(PACKED)
    raw, used = download.download([bad.url, good.url], PARTS, retries=0)
    assert same(RAW, raw)
    assert used == good.url
    assert (bad.asked, good.asked) == (1, 4)


@pytest.mark.parametrize("encoded", ["gzip", "x-gzip", "deflate, gzip"])
def test_a_file_stays_the_gzip_that_it_is_whatever_the_header_says(serve: Serve, encoded: str) -> None:
    """Servers call a file that is itself gzip an encoding of another; the published one is, and is asked for."""
    mirror = serve(PACKED, reply=lambda content: [head(f"Content-Encoding: {encoded}"), content])
    assert same(RAW, download.download([mirror.url], PARTS, retries=0)[0])
    assert mirror.encodings == {"identity"}


def test_a_redirect_within_the_web_is_followed(serve: Serve) -> None:
    """A mirror may move."""
    good = serve(PACKED)
    names = iter(PACKED)
    moved = serve(PACKED, reply=lambda _: redirect(good.url + next(names))(b""))
    raw, used = download.download([moved.url], PARTS, retries=0)
    assert same(RAW, raw)
    assert used == moved.url


# Encrypted mirrors


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine with its key, which nobody trusts who is not told to."""
    if not os.environ.get("CI") and not which("openssl"):
        pytest.skip("needs openssl")
    path = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    command = (
        "openssl req -x509 -nodes -newkey rsa:2048 -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*command.split(), "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True
    )
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@pytest.mark.usefixtures("impatient")
def test_an_encrypted_mirror_is_read_and_must_be_trusted(
    serve: Serve, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that nobody vouches for is refused, in few words."""
    mirror = serve(PACKED, certificate=certificate)
    with pytest.raises(DownloadError, match="no connection that can be trusted"):
        download.download([mirror.url], PARTS, retries=0)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert same(RAW, download.download([mirror.url], PARTS, retries=0)[0])


@pytest.mark.usefixtures("impatient")
def test_an_encrypted_mirror_cannot_lead_to_one_that_is_not(
    machine: Path, serve: Serve, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads along must not learn more, and who stands between must not choose the file, than without a redirect."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    plain, encrypted = serve(PACKED), serve(PACKED, certificate=certificate)
    down, names = serve(PACKED, certificate=certificate, reply=redirect(plain.url)), iter(PACKED)
    with pytest.raises(DownloadError, match="redirects from https: to http:"):
        download.download([down.url], PARTS, retries=0)
    assert plain.asked == 0
    assert list((machine / "tmp").iterdir()) == []
    up = serve(PACKED, reply=lambda _: redirect(encrypted.url + next(names))(b""))
    assert same(RAW, download.download([up.url], PARTS, retries=0)[0])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["a slow header", "a slow body", "a slow chunk"])
def test_an_encrypted_mirror_that_is_slow_is_cut_too(
    serve: Serve, certificate: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Encryption has connections of its own."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    mirror = serve(PACKED, certificate=certificate, reply=FAULTS[fault][0])
    start = perf_counter()
    with pytest.raises(DownloadError, match=r"not done after 1\.5 seconds"):
        download.download([mirror.url], PARTS, retries=0)
    assert perf_counter() - start < 10


def test_a_mirror_is_asked_again_before_the_next(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lost answer does not lose the mirror."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    mirror = serve(PACKED, refusals=1)
    raw, _ = download.download([mirror.url], PARTS, retries=1)
    assert same(RAW, raw)
    assert mirror.asked == 5


# What find_dataset finds


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
    inode = (first.folder / ARRAYS[0]).stat().st_ino
    assert (find_dataset(str(folder)).folder / ARRAYS[0]).stat().st_ino == inode


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
    with pytest.raises(LockstepError, match=f"expected {data.DIGITS.sha256}, found {digest(RAW)}"):
        find_dataset("digits")


# The cache


def deeply_nested(folder: Path) -> None:
    """JSON that Python's parser gives up on."""
    (folder / "manifest.json").write_text("[" * 100_000)


def another_scale(folder: Path) -> None:
    """A manifest that is JSON, and not true."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "scale": 16}))


def damage_file(folder: Path, file: str) -> None:
    """Change one bit of a file of the cache."""
    flip(folder / file)


DAMAGES: dict[str, Callable[[Path], object]] = {
    **{f"{file} changed": partial(damage_file, file=file) for file in ARRAYS},
    "array missing": lambda folder: (folder / ARRAYS[0]).unlink(),
    "array cut": lambda folder: (folder / ARRAYS[0]).write_bytes((folder / ARRAYS[0]).read_bytes()[:-1]),
    "manifest missing": lambda folder: (folder / "manifest.json").unlink(),
    "manifest empty": lambda folder: (folder / "manifest.json").write_bytes(b""),
    "manifest cut": lambda folder: (folder / "manifest.json").write_bytes(b'{"name": "fash'),
    "manifest a list": lambda folder: (folder / "manifest.json").write_bytes(b"[]"),
    "manifest without files": lambda folder: (folder / "manifest.json").write_bytes(b'{"files": 1}'),
    "manifest not text": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe\xff"),
    "manifest deeply nested": deeply_nested,
    "manifest with another scale": another_scale,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_again_and_said_to_be(machine: Path, damage: str) -> None:
    """Whatever happened to it, what is used is what was read, and nothing else stays in the cache."""
    folder = write_folder(machine / "fashion")
    cache = find_dataset(str(folder)).folder
    whole = {path.name: path.read_bytes() for path in cache.iterdir()}
    DAMAGES[damage](cache)
    said: list[str] = []
    find_dataset(str(folder), say=said.append)
    assert len(said) == 1
    assert "damaged" in said[0]
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == whole
    assert list(cache.parent.iterdir()) == [cache]


def test_damage_is_told_with_the_file_and_both_hashes(machine: Path) -> None:
    """The user can see what changed."""
    folder = write_folder(machine / "fashion")
    array = find_dataset(str(folder)).folder / ARRAYS[2]
    expected = sha256(array.read_bytes()).hexdigest()
    flip(array)
    found = sha256(array.read_bytes()).hexdigest()
    said: list[str] = []
    find_dataset(str(folder), say=said.append)
    assert f"{ARRAYS[2]}: SHA-256 expected {expected}, found {found}" in said[0]


@pytest.mark.usefixtures("small_mnist")
def test_a_damaged_cache_of_mnist_is_made_again_from_where_mnist_is(machine: Path) -> None:
    """The next place in the order is asked, as if there were no cache."""
    cache = find_dataset("mnist", write_folder(machine / "folder")).folder
    flip(cache / ARRAYS[0])
    write_npz(machine / "keras" / "datasets" / "mnist.npz")
    assert "Keras" in find_dataset("mnist").source
    assert find_dataset("mnist").source == "lockstep's cache"


def test_a_cache_that_cannot_be_finished_leaves_nothing(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of writing is an error that says what to do, and no half a cache."""
    save = np.save
    written: list[NDArray[Any]] = []

    def full(file: Any, array: NDArray[Any]) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(array)
        save(file, array)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(LockstepError, match=r"No space left.*LOCKSTEP_CACHE"):
        find_dataset(str(write_folder(machine / "fashion")))
    assert list((machine / "cache").iterdir()) == []


def test_a_cache_appears_only_when_it_is_whole(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the last byte is written there is no folder of its name."""
    seen: list[bool] = []
    sync = data_cache._sync

    def watch(path: Path) -> None:
        seen.append((machine / "cache" / f"fashion-{digest(RAW)[:12]}").exists())
        sync(path)

    monkeypatch.setattr(data_cache, "_sync", watch)
    find_dataset(str(write_folder(machine / "fashion")))
    # Four arrays, the manifest and the new folder before the rename; the folder above after it.
    assert seen == [False] * 6 + [True]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_that_another_process_makes_meanwhile_stays_if_it_is_good(
    machine: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """Who comes second keeps the first one's, unless that is damaged."""
    folder = write_folder(machine / "fashion")
    write, others = data_cache._write, machine / "others"
    write(Identity("fashion", digest(RAW), 255), RAW, others)
    inode = (others / ARRAYS[0]).stat().st_ino
    if damaged:
        flip(others / ARRAYS[0])

    def write_while_another_does(identity: Identity, raw: Raw, new: Path) -> None:
        write(identity, raw, new)
        others.rename(identity.folder())

    monkeypatch.setattr(data_cache, "_write", write_while_another_does)
    dataset = find_dataset(str(folder))
    assert ((dataset.folder / ARRAYS[0]).stat().st_ino == inode) is not damaged
    assert np.array_equal(RAW.train_images.reshape(-1, 784) / np.float32(255), dataset.train.images)
    assert list((machine / "cache").iterdir()) == [dataset.folder]


@pytest.mark.parametrize("damaged", [False, True])
def test_processes_that_make_a_cache_at_once_end_with_one_good_cache(machine: Path, damaged: bool) -> None:
    """Each of them succeeds, whoever is first, also where a damaged cache is in the way."""
    folder = write_folder(machine / "fashion")
    if damaged:
        flip(find_dataset(str(folder)).folder / ARRAYS[0])
    code = "import sys; from lockstep_bench.harness.data import find_dataset; print(find_dataset(sys.argv[1]).sha256)"
    command = [sys.executable, "-c", code, str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in running] == [digest(RAW)] * 3
    said: list[str] = []
    cache = find_dataset(str(folder), say=said.append).folder
    assert said == []
    assert list(cache.parent.iterdir()) == [cache]


def test_a_cache_that_has_no_place_is_an_error_that_says_what_to_do(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache below a file cannot be made."""
    (machine / "file").touch()
    monkeypatch.setenv("LOCKSTEP_CACHE", str(machine / "file" / "cache"))
    with pytest.raises(LockstepError, match=r"cannot be written.*LOCKSTEP_CACHE"):
        find_dataset(str(write_folder(machine / "fashion")))


def test_the_cache_folder_is_absolute(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that run elsewhere open the same folder."""
    monkeypatch.setenv("LOCKSTEP_CACHE", "here")
    assert find_dataset(str(write_folder(machine / "fashion"))).folder.parent == machine / "work" / "here"


# What workers do


def test_opening_gives_what_finding_gave(machine: Path) -> None:
    """A worker sees the conductor's dataset."""
    found = find_dataset(str(write_folder(machine / "fashion")))
    opened = open_dataset(found.folder)
    assert (opened.name, opened.sha256, opened.scale) == (found.name, found.sha256, found.scale)
    for split in ("train", "test"):
        assert digest(getattr(opened, split)) == digest(getattr(found, split))


def test_opening_loads_no_library_but_numpy(machine: Path) -> None:
    """What a worker imports would count against its backend's memory and start."""
    folder = find_dataset(str(write_folder(machine / "fashion"))).folder
    code = (
        "import sys; from pathlib import Path; from lockstep_bench.harness.data import open_dataset;"
        "open_dataset(Path(sys.argv[1]));"
        "print({'pooch', 'requests', 'sklearn', 'scipy', 'pandas', 'matplotlib', 'platformdirs'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code, str(folder)], text=True).strip() == "set()"


@pytest.mark.parametrize("damage", ["array missing", "manifest missing", "manifest cut", "manifest a list"])
def test_opening_what_is_no_cache_is_an_error_that_says_what_to_do(machine: Path, damage: str) -> None:
    """A worker's error is as readable as the conductor's."""
    folder = find_dataset(str(write_folder(machine / "fashion"))).folder
    DAMAGES[damage](folder)
    with pytest.raises(LockstepError, match="lockstep data"):
        open_dataset(folder)


def test_a_pickle_in_the_cache_is_never_loaded(machine: Path) -> None:
    """Pickles run code."""
    folder = find_dataset(str(write_folder(machine / "fashion"))).folder
    np.save(folder / ARRAYS[1], np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(LockstepError, match="cannot be opened"):
        open_dataset(folder)


# MNIST itself


@pytest.mark.mnist
def test_mnist_is_mnist() -> None:
    """Shapes, first labels and mean pixel are the known ones, and the second time it comes from the cache."""
    dataset = find_dataset("mnist", Path(NAMED_MNIST))
    assert (dataset.name, dataset.sha256, dataset.scale) == ("mnist", data.MNIST.sha256, 255)
    assert (dataset.train.images.shape, dataset.test.images.shape) == ((60_000, 784), (10_000, 784))
    assert dataset.train.labels[:4].tolist() == [5, 0, 4, 1]
    assert dataset.train.images.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    assert find_dataset("auto").source == "lockstep's cache"


@pytest.mark.mnist
def test_all_published_hashes_are_right(machine: Path, serve: Serve) -> None:
    """The gzipped files pass as a download, the unpacked ones as a folder, the arrays as Keras's archive."""
    if not os.environ.get("CI") and not all((Path(NAMED_MNIST) / f"{file}.gz").is_file() for file in FILES):
        pytest.skip("needs the published .gz files in the folder that LOCKSTEP_MNIST names")
    mirror = serve({f"{file}.gz": (Path(NAMED_MNIST) / f"{file}.gz").read_bytes() for file in FILES})
    raw, _ = download.download([mirror.url])
    assert digest(raw) == data.MNIST.sha256
    assert same(raw, read_mnist(write_folder(machine / "folder", raw)))
    arrays = {part.key: array for part, array in zip(sources.MNIST, raw, strict=True)}
    np.savez(machine / "mnist.npz", allow_pickle=False, **arrays)
    assert same(raw, read_npz(machine / "mnist.npz"))
