"""The cache: datasets normalised once and kept as memory-mapped arrays that all processes share.

A cached dataset appears whole or not at all, and is verified once by the process that starts a run; its workers map
what that one has just verified (`open_dataset`).
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.data.sources import Raw
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.problem import Split

MANIFEST = "manifest.json"
IMAGE_SCALE = 255  # the largest value of a uint8 pixel
PUT_ATTEMPTS = 10  # processes that mend one damaged cache at the same time can be in each other's way only so often

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset as all backends see it: read-only arrays, mapped from files.

    Attributes:
        name: "mnist", "digits", or the folder's name.
        sha256: One hash over the uint8 contents of train images, train labels, test images and test labels.
        source: Where it came from, for people.
        folder: The cache folder whose .npy files hold it.
        train: Training images float32 (n, 784) in [0, 1], and labels uint8 (n,).
        test: Test images and labels, likewise.
        scale: What the raw pixels were divided by.
    """

    name: str
    sha256: str
    source: str
    folder: Path
    train: Split
    test: Split
    scale: int = IMAGE_SCALE


class Identity(NamedTuple):
    """What says that two datasets are the same."""

    name: str
    sha256: str
    scale: int

    def folder(self) -> Path:
        """Its folder in lockstep's cache."""
        return cache_root() / f"{self.name}-{self.sha256[:12]}"


def open_dataset(folder: Path) -> Dataset:
    """Map a cache folder that `find_dataset` has verified; nothing is read but the manifest.

    Raises:
        LockstepError: the folder is not a whole cache.
    """
    try:
        identity = Identity(**{field: _read_manifest(folder)[field] for field in Identity._fields})
        train_images, train_labels, test_images, test_labels = (_map(folder / _file(field)) for field in Raw._fields)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise LockstepError(f"the cache {folder} cannot be opened: {error}; `lockstep data` makes it again") from error
    return Dataset(
        name=identity.name,
        sha256=identity.sha256,
        source="lockstep's cache",
        folder=folder,
        train=Split(train_images, train_labels),
        test=Split(test_images, test_labels),
        scale=identity.scale,
    )


def check_dataset(folder: Path, sha256: str) -> None:
    """See that a cache folder holds, byte for byte, the dataset of this hash.

    Raises:
        LockstepError: it does not; the message says what is wrong with it.
    """
    found = open_dataset(folder)
    if damage := _damage(folder, Identity(found.name, sha256, found.scale)):
        raise LockstepError(
            f"the cache {folder} is not what was planned with: {damage}; `lockstep data` makes it again"
        )


def cache_root() -> Path:
    """Where datasets are kept: LOCKSTEP_CACHE, or else the platform's folder for caches."""
    from platformdirs import user_cache_dir

    # Absolute, because the workers that open what lies there may run elsewhere.
    return Path(os.environ.get("LOCKSTEP_CACHE") or user_cache_dir("lockstep-bench")).expanduser().absolute()


def keep(identity: Identity, raw: Raw, source: str, say: Say) -> Dataset:
    """What was read, from the cache if it is there already, and otherwise put there."""
    cached = open_cached(identity, say)
    return replace(cached, source=source) if cached else store(identity, raw, source)


def open_cached(identity: Identity, say: Say) -> Dataset | None:
    """The dataset if the cache has it and not one byte of it has changed."""
    folder = identity.folder()
    if not folder.exists():
        return None
    if damage := _damage(folder, identity):
        say(f"lockstep's cache {folder} is damaged and has to be made again: {damage}")
        return None
    return open_dataset(folder)


def _damage(folder: Path, identity: Identity) -> str:
    """What is wrong with a cache folder; "" where it is as it was written."""
    try:
        manifest = _read_manifest(folder)
        expected = dict(manifest["files"])
        found = {_file(field): _sha256(folder / _file(field)) for field in Raw._fields}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    for file, sha256 in found.items():
        if expected.get(file) != sha256:
            return f"{file}: SHA-256 expected {expected.get(file)}, found {sha256}"
    return "" if manifest == _manifest(identity, found) else f"{MANIFEST} describes another dataset"


def store(identity: Identity, raw: Raw, source: str) -> Dataset:
    """Normalise a dataset into the cache, where it appears whole or not at all."""
    folder = identity.folder()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
            _write(identity, raw, Path(work) / "new")
            _put(Path(work), folder, identity)
            _sync(folder.parent)
    except OSError as error:
        raise LockstepError(
            f"the cache {folder} cannot be written: {error}; make room there or name another folder in LOCKSTEP_CACHE"
        ) from error
    return replace(open_dataset(folder), source=source)


def _write(identity: Identity, raw: Raw, folder: Path) -> None:
    """Write a cache folder and see it onto the disk: after a power cut, too, the renamed folder must be whole."""
    folder.mkdir()
    hashes = {}
    for field, array in raw._asdict().items():
        path = folder / _file(field)
        with path.open("xb") as file:
            np.save(file, _normalised(array, identity.scale) if field.endswith("images") else array)
        hashes[path.name] = _sha256(path)
        _sync(path)
    (folder / MANIFEST).write_text(json.dumps(_manifest(identity, hashes), indent=2) + "\n", encoding="utf-8")
    _sync(folder / MANIFEST)
    _sync(folder)


def _put(work: Path, folder: Path, identity: Identity) -> None:
    """Rename `work/new` into place, where there may be a damaged cache, or another process's good one, which stays."""
    for attempt in range(PUT_ATTEMPTS):
        if not _damage(folder, identity):
            return
        with suppress(FileNotFoundError):  # there was none, or another process has moved it away
            folder.rename(work / f"damaged-{attempt}")
        try:
            (work / "new").rename(folder)  # atomic
            return
        except OSError:  # another process has put its own there since
            if attempt == PUT_ATTEMPTS - 1:
                raise


def _normalised(images: NDArray[np.uint8], scale: int) -> NDArray[np.float32]:
    """Images uint8 (n, 28, 28) as float32 (n, 784) in [0, 1]."""
    return np.divide(images.reshape(len(images), -1), np.float32(scale), dtype=np.float32)


def _map(path: Path) -> NDArray[Any]:
    # A plain array over the mapping: np.memmap runs Python code for each slice, which would count as training time.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _manifest(identity: Identity, hashes: dict[str, str]) -> dict[str, Any]:
    return {**identity._asdict(), "files": hashes}


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        raise ValueError(f"{MANIFEST} is not an object")
    return manifest


def _file(field: str) -> str:
    return f"{field}.npy"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the kernel write a file or a folder out."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
