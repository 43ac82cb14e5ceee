"""A real web server that has some files, and answers as it is told to."""

import ssl
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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
