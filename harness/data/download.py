"""MNIST from its public mirrors: whole and of the known content, in bounded time and of bounded size, or not at all."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import SHUT_RDWR, socket
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import monotonic
from typing import Any
from urllib.parse import urljoin, urlsplit

from lockstep_bench.harness.data.sources import CHUNK_BYTES, GZIP_MAGIC, MNIST, Part, Raw, read_mnist
from lockstep_bench.harness.errors import LockstepError, one_line

RETRIES = 1  # a second attempt per mirror, and then the next mirror
TIMEOUT_SECONDS = (10, 30)  # to connect to one address, and between two pieces of an answer
FILE_SECONDS = 300.0  # for a file and all redirects to it: the largest comes at 33 kB/s
MOST_BYTES = 32_000_000  # of a file: the largest has 9.9 MB
MOST_REDIRECTS = 5
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


class DownloadError(LockstepError):
    """No mirror gave MNIST."""


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
    return lost.get(type(error).__name__, one_line(error).partition(". ")[0])


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
        raise OSError(f"it redirects from {old}: to {one_line(new)}:, which is not followed")
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
