"""What the tests of the data share: an empty machine, mirrors, and a small dataset that passes for MNIST."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from lockstep_bench.harness.data import download, find, sources
from lockstep_bench.harness.data.cache import Identity
from lockstep_bench.harness.problem import digest
from support.mirror import Mirror
from support.small_mnist import PARTS, RAW


@pytest.fixture
def serve() -> Iterator[Callable[..., Mirror]]:
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
    monkeypatch.setattr(find, "MNIST", Identity("mnist", digest(RAW), 255))
    monkeypatch.setattr(sources, "read_npz", lambda path, parts=PARTS: npz(path, parts))
    monkeypatch.setattr(sources, "read_mnist", lambda path, parts=PARTS: folder(path, parts))
    monkeypatch.setattr(download, "download", lambda mirrors, retries: fetch(mirrors, PARTS, retries))
