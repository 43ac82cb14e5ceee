"""Where images and labels come from: IDX files, Keras's mnist.npz, the public mirrors, scikit-learn's digits.

Nothing that is read is believed. MNIST is MNIST only if the SHA-256 of its content says so, whatever its container;
other IDX files must be what their headers claim. No file makes more memory fill than a header may claim.
"""

import gzip
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from math import prod
from pathlib import Path
from socket import SHUT_RDWR, socket
from struct import unpack_from
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import monotonic
from typing import IO, Any, NamedTuple, Protocol, cast
from urllib.parse import urljoin, urlsplit
from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.errors import LockstepError, UsageError

SIDE = 28  # pixels, across and down
CLASSES = 10
MOST_IMAGES = 1_000_000  # in one file: 784 MB of pixels, 16 times MNIST
IDX_UINT8 = 0x800  # an IDX magic number is the element type, 8 for uint8, and then the number of dimensions
GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 1 << 16

RETRIES = 1  # a second attempt per mirror, and then the next mirror
TIMEOUT_SECONDS = (10, 30)  # to connect to one address, and between two pieces of an answer
FILE_SECONDS = 300.0  # for a file and all redirects to it: the largest comes at 33 kB/s
MOST_BYTES = 32_000_000  # of a file: the largest has 9.9 MB
MOST_REDIRECTS = 5
MOST_CHARACTERS = 300  # that are repeated of what another program says
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

DIGITS_TRAIN = 1_500  # of scikit-learn's 1,797
DIGITS_ZOOM = 3
DIGITS_BORDER = 2


class DownloadError(LockstepError):
    """No mirror gave MNIST."""


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
            f"{path} is not Keras's mnist.npz or is damaged: {_line(error)}; put the published one there"
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
    from sklearn.datasets import load_digits

    digits = load_digits()
    large = digits.images.astype(np.uint8).repeat(DIGITS_ZOOM, axis=1).repeat(DIGITS_ZOOM, axis=2)
    border = (DIGITS_BORDER, DIGITS_BORDER)
    images, labels = np.pad(large, ((0, 0), border, border)), digits.target.astype(np.uint8)
    return Raw(images[:DIGITS_TRAIN], labels[:DIGITS_TRAIN], images[DIGITS_TRAIN:], labels[DIGITS_TRAIN:])


def download(mirrors: Sequence[str], parts: Sequence[Part] = MNIST, retries: int = RETRIES) -> tuple[Raw, str]:
    """MNIST from public mirrors, each file from the first that gives it whole, and the mirrors that did.

    Everything happens in a temporary folder: a download that breaks off leaves nothing behind. The mirror that gave the
    last file is asked first for the next, so that one that is slow costs its time once.

    Raises:
        DownloadError: a file came whole from no mirror; the message says what each of them did.
    """
    used: list[str] = []
    with TemporaryDirectory(prefix="lockstep-") as folder:
        for part in parts:
            in_turn = sorted(mirrors, key=lambda mirror: mirror not in used[-1:])
            used.append(_fetch(f"{part.file}.gz", part.packed, folder, in_turn, retries))
        return read_mnist(Path(folder), parts), " and ".join(dict.fromkeys(used))


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


def _fetch(file: str, known: str, folder: str, mirrors: Sequence[str], retries: int) -> str:
    """Download one file and return the mirror it came from; pooch renames it into place once its hash is right."""
    import pooch

    pooch.get_logger().setLevel("WARNING")  # its other messages name a temporary folder that nobody needs to know
    failures = []
    for mirror in mirrors:
        store = pooch.create(path=folder, base_url=mirror, registry={file: known}, retry_if_failed=retries)
        try:
            store.fetch(file, downloader=_get)
            return mirror
        except (OSError, ValueError) as error:
            failures.append(f"{mirror}{file}: {_reason(error)}")
    raise DownloadError(
        f"MNIST is not on this machine and cannot be downloaded ({'; '.join(failures)}); put its four IDX files or "
        "Keras's mnist.npz into a folder and name it with --data or in LOCKSTEP_MNIST, or ask for --dataset digits"
    )


def _reason(error: OSError | ValueError) -> str:
    """Short enough to be read: requests tells of a lost connection in a paragraph."""
    lost = {
        "ConnectionError": "no connection",
        "ConnectTimeout": "no answer",
        "ReadTimeout": "no answer",
        "ProxyError": "no connection to the proxy",
        "SSLError": "no connection that can be trusted",
    }
    return lost.get(type(error).__name__, _line(error).partition(". ")[0])


def _get(url: str, output_file: str, _: object) -> None:
    """A downloader for pooch, in bounded time and of bounded size, whatever answers.

    pooch asks again after a ValueError or an error of requests; after any other OSError that would change nothing.

    Raises:
        OSError: no answer, or not one with the file.
        ValueError: the answer cannot be understood.
    """
    from requests import Session

    with _deadline(FILE_SECONDS) as sockets, Session() as session:
        content = _read(session, _send_watched(session, sockets), url, MOST_REDIRECTS)
    if not content.startswith(GZIP_MAGIC):
        raise OSError("what it gives is not gzip, but perhaps the page of a proxy or of a login")
    Path(output_file).write_bytes(content)


def _read(session: Any, send: Callable[[str], Any], url: str, redirects: int) -> bytearray:
    """What a URL gives, byte for byte; requests would read the whole of what comes with a redirect, too."""
    with send(url) as response:
        target = session.get_redirect_target(response)
        if target is None:
            if response.status_code != 200:
                from requests import HTTPError

                raise HTTPError(f"it answers with status {response.status_code}")
            return _content(response.raw)
    if not redirects:
        raise OSError(f"it redirects more than {MOST_REDIRECTS} times")
    return _read(session, send, redirected(url, target), redirects - 1)


def redirected(url: str, target: str) -> str:
    """Where a redirect leads: to the web alone, and from an encrypted connection to another.

    Raises:
        OSError: it leads elsewhere.
        ValueError: the target is no URL.
    """
    target = urljoin(url, target)
    old, new = urlsplit(url).scheme, urlsplit(target).scheme
    if new not in {"https", old}:
        raise OSError(f"it redirects from {old}: to {_line(new)}:, which is not followed")
    return target


def _content(raw: Any) -> bytearray:
    """The body of an answer, on a terminal with a progress bar."""
    from requests import RequestException
    from rich.console import Console
    from rich.progress import Progress
    from urllib3.exceptions import HTTPError

    content = bytearray()
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("MNIST", total=raw.length_remaining)
        try:
            while chunk := raw.read(CHUNK_BYTES):
                content += chunk
                progress.update(task, completed=len(content))
                if len(content) > MOST_BYTES:
                    raise OSError(f"it goes on after {MOST_BYTES:,} bytes, more than any of MNIST's files has")
        except HTTPError as error:
            raise RequestException(f"its answer breaks off after {len(content):,} bytes") from error
    return content


@contextmanager
def _deadline(seconds: float) -> Iterator[list[socket]]:
    """Cut the connections that are put into the list when the time is over, and then raise TimeoutError.

    A timeout holds for one piece of an answer alone: who sends a byte now and then, of a header or of a chunk's length,
    outlasts all of them. Looking up a name and connecting cannot be cut, but their own timeouts bound them.
    """
    end, sockets, finished = monotonic() + seconds, list[socket](), Event()

    def watch() -> None:
        wait = seconds
        while not finished.wait(wait):
            wait = 1.0  # a connection may still be on its way
            for connection in list(sockets):
                with suppress(OSError):
                    connection.shutdown(SHUT_RDWR)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    failure = None
    try:
        yield sockets
    except (OSError, ValueError) as error:
        failure = error
    finally:
        finished.set()
        watcher.join()
        for connection in sockets:
            connection.close()
    if monotonic() >= end:
        raise TimeoutError(f"it was not done after {seconds:g} seconds") from failure
    if failure:
        raise failure


def _send_watched(session: Any, sockets: list[socket]) -> Callable[[str], Any]:
    """How to ask for a URL such that the connections that are made for it are put into the list."""
    from requests import Request
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
            pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
            pool.ConnectionCls = _watched(type(pool).ConnectionCls, sockets)
            return pool

    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter())

    def send(url: str) -> Any:
        # identity: the published file is itself gzip, and is hashed as such.
        request = session.prepare_request(Request("GET", url, headers={"Accept-Encoding": "identity"}))
        settings = session.merge_environment_settings(request.url, {}, True, None, None)
        return session.get_adapter(request.url).send(request, timeout=TIMEOUT_SECONDS, **settings)

    return send


def _watched(make: Callable[..., Any], sockets: list[socket]) -> Callable[..., Any]:
    """A maker of urllib3's connections that puts their sockets into the list."""

    def make_watched(*args: Any, **kwargs: Any) -> Any:
        connection = make(*args, **kwargs)
        connect = connection._new_conn

        def connect_watched() -> socket:
            made: socket = connect()
            sockets.append(made.dup())  # TLS takes the first one over, and an answer that closes it hides it
            return made

        connection._new_conn = connect_watched
        return connection

    return make_watched


def _line(said: object) -> str:
    """What another program or a file said, as a part of one sentence."""
    text = str(said) or type(said).__name__
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]} ..."
