"""Downloads: whole and of the known content, from the next mirror if need be, or a clear error; never a part."""

import gzip
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from threading import Event
from threading import enumerate as enumerate_threads
from time import sleep

import numpy as np
import pytest

from lockstep_bench.harness.data import download, find, sources
from lockstep_bench.harness.data.download import DownloadError
from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.data.sources import read_mnist, read_npz
from lockstep_bench.harness.problem import digest
from support.mirror import Mirror, Reply, head
from support.small_mnist import (
    FILES,
    PACKED,
    PARTS,
    RAW,
    TRAIN_IMAGES,
    gz,
    same,
    write_folder,
)

NAMED_MNIST = os.environ.get("LOCKSTEP_MNIST", "")
Serve = Callable[..., Mirror]


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


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("small_mnist", "impatient")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_mirror_is_followed_by_the_next(
    machine: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Whatever is wrong with a mirror, the next one is asked in the end, and nothing stays of the first."""
    reply, _ = FAULTS[fault]
    bad, good = serve(PACKED, reply=reply), serve(PACKED)
    monkeypatch.setattr(download, "MIRRORS", (bad.url, good.url))
    dataset = find_dataset("mnist")
    assert (dataset.sha256, dataset.source) == (digest(RAW), f"downloaded from {good.url}")
    assert bad.asked > 0
    assert list((machine / "tmp").iterdir()) == []
    assert list((machine / "cache").iterdir()) == [dataset.folder]


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("small_mnist", "impatient")
@pytest.mark.parametrize("fault", FAULTS)
def test_where_no_mirror_is_good_the_error_says_what_each_did(
    machine: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """One sentence with the fault and with the ways that need no network; the cache stays empty, no file stays."""
    reply, reason = FAULTS[fault]
    bad, lacking = serve(PACKED, reply=reply), serve({})
    monkeypatch.setattr(download, "MIRRORS", (bad.url, lacking.url))
    with pytest.raises(DownloadError) as raised:
        find_dataset("mnist")
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
    assert ended.wait(60)
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


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["a slow header", "a slow body", "a slow chunk"])
def test_an_encrypted_mirror_that_is_slow_is_cut_too(
    serve: Serve, certificate: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Encryption has connections of its own."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    mirror = serve(PACKED, certificate=certificate, reply=FAULTS[fault][0])
    with pytest.raises(DownloadError, match=r"not done after 1\.5 seconds"):
        download.download([mirror.url], PARTS, retries=0)


def test_a_mirror_is_asked_again_before_the_next(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lost answer does not lose the mirror."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    mirror = serve(PACKED, refusals=1)
    raw, _ = download.download([mirror.url], PARTS, retries=1)
    assert same(RAW, raw)
    assert mirror.asked == 5


@pytest.mark.mnist
def test_all_published_hashes_are_right(machine: Path, serve: Serve) -> None:
    """The gzipped files pass as a download, the unpacked ones as a folder, the arrays as Keras's archive."""
    if not os.environ.get("CI") and not all((Path(NAMED_MNIST) / f"{file}.gz").is_file() for file in FILES):
        pytest.skip("needs the published .gz files in the folder that LOCKSTEP_MNIST names")
    mirror = serve({f"{file}.gz": (Path(NAMED_MNIST) / f"{file}.gz").read_bytes() for file in FILES})
    raw, _ = download.download([mirror.url])
    assert digest(raw) == find.MNIST.sha256
    assert same(raw, read_mnist(write_folder(machine / "folder", raw)))
    arrays = {part.key: array for part, array in zip(sources.MNIST, raw, strict=True)}
    np.savez(machine / "mnist.npz", allow_pickle=False, **arrays)
    assert same(raw, read_npz(machine / "mnist.npz"))
