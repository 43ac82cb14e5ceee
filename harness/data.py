"""The data: found once, verified, normalised once, and kept as memory-mapped arrays that all processes share.

`find_dataset` is for the one process that starts a run; `open_dataset` is for its workers, which trust the cache that
the former has just verified. `sources.py` reads what is found.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness import sources
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.problem import Split, digest
from lockstep_bench.harness.sources import DownloadError, Raw

MANIFEST = "manifest.json"
IMAGE_SCALE = 255  # the largest value of a uint8 pixel
PUT_ATTEMPTS = 10  # processes that mend one damaged cache at the same time can be in each other's way only so often
RESERVED = ("auto", "mnist", "digits")
LONGEST_NAME = 60
TORCHVISION_ROOTS = ("data", ".", "~/data")  # the roots that PyTorch's examples use

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


MNIST = Identity("mnist", "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16", IMAGE_SCALE)
DIGITS = Identity("digits", "1ce6ae1e50cc9856c8035c4474e2c16a89c47752a50caf714e697968addc7f1e", 16)


def find_dataset(dataset: str = "auto", data: Path | None = None, say: Say = lambda _: None) -> Dataset:
    """The dataset that was asked for, found or downloaded, verified, and in the cache.

    Args:
        dataset: "mnist"; "digits"; "auto" for MNIST and, only where it cannot be had, digits; or a folder of IDX files.
        data: A folder that holds MNIST. Without it the environment variable LOCKSTEP_MNIST may name one; what either
            names must be good. Otherwise MNIST is looked for in the cache, in other tools' folders, on the mirrors.
        say: Is given one sentence for each thing that the user should know.

    Raises:
        UsageError: what was named is missing or is not what it should be.
        LockstepError: MNIST cannot be had, or the cache cannot be written.
    """
    if dataset not in ("auto", "mnist"):
        if data is not None:
            raise UsageError(
                f"--data says where MNIST is, which --dataset {dataset} does not use; leave one of them out"
            )
        return _find_digits(say) if dataset == "digits" else _find_folder(Path(dataset).expanduser(), say)
    if named := data or os.environ.get("LOCKSTEP_MNIST"):
        return _find_named(Path(named).expanduser(), say)
    try:
        return _find_mnist(say)
    except DownloadError as error:
        if dataset == "mnist":
            raise
        say(f"scikit-learn's 1,797 small digits stand in for MNIST, so nothing here is an MNIST result: {error}")
        return _find_digits(say)


def at_hand(name: str, sha256: str) -> Dataset | None:
    """A dataset by its name and hash, if the cache has it or LOCKSTEP_MNIST names it; nothing is downloaded."""
    identities = {identity.name: identity for identity in (MNIST, DIGITS)}
    identity = identities.get(name, Identity(name, sha256, IMAGE_SCALE))
    if identity.sha256 != sha256 or _safe(name) != name or not re.fullmatch("[0-9a-f]{64}", sha256):
        return None  # a plan may come from a stranger, and these make a path
    if cached := _open_cached(identity, lambda _: None):
        return cached
    if identity == DIGITS or (identity == MNIST and os.environ.get("LOCKSTEP_MNIST")):
        return find_dataset(name)
    return None


def raw(dataset: Dataset) -> Raw:
    """The pixels and labels that a dataset was made of, uint8: what another machine makes the same cache of."""

    def pixels(images: NDArray[np.float32]) -> NDArray[np.uint8]:
        return np.rint(images * dataset.scale).astype(np.uint8).reshape(-1, sources.SIDE, sources.SIDE)

    return Raw(pixels(dataset.train.images), dataset.train.labels, pixels(dataset.test.images), dataset.test.labels)


def keep_sent(name: str, sha256: str, scale: int, sent: Raw) -> Dataset:
    """Put what another machine sent, its `raw`, into this one's cache.

    Raises:
        LockstepError: it is not the dataset of that hash, or the cache cannot be written.
    """
    if (found := digest(sent)) != sha256:
        raise LockstepError(f"what was sent as {name} is not it: SHA-256 expected {sha256}, found {found}")
    return _keep(Identity(name, sha256, scale), sent, "another machine", lambda _: None)


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


def _find_named(folder: Path, say: Say) -> Dataset:
    """MNIST from the folder that was named for it; decoded only where the cache does not have it yet."""
    source = f"the folder {folder}"
    if sources.is_published(folder) and (cached := _open_cached(MNIST, say)):
        return replace(cached, source=source)
    return _keep(MNIST, sources.read_mnist(folder), source, say)


def _find_mnist(say: Say) -> Dataset:
    if cached := _open_cached(MNIST, say):
        return cached
    for tool, path, read in _copies():
        try:
            return _store(MNIST, read(path), f"a copy that {tool} left: {path}")
        except UsageError as error:
            say(f"a copy of MNIST that {tool} left is passed over: {error}")
    raw, mirrors = sources.download(sources.MIRRORS, retries=sources.RETRIES)
    return _store(MNIST, raw, f"downloaded from {mirrors}")


def _copies() -> Iterator[tuple[str, Path, Callable[[Path], Raw]]]:
    """What other tools left on this machine: the tool, the path, what reads it."""
    keras = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "datasets" / "mnist.npz"
    if keras.is_file():
        yield "Keras", keras, sources.read_npz
    for root in TORCHVISION_ROOTS:
        torchvision = Path(root).expanduser() / "MNIST" / "raw"
        if torchvision.is_dir():
            yield "torchvision", torchvision, sources.read_mnist


def _find_digits(say: Say) -> Dataset:
    source = "scikit-learn's own digits"
    if cached := _open_cached(DIGITS, say):
        return replace(cached, source=source)
    raw = sources.read_digits()
    if (found := digest(raw)) != DIGITS.sha256:
        raise LockstepError(
            f"this scikit-learn's digits are not the known ones: SHA-256 expected {DIGITS.sha256}, found {found}; "
            "install another release of scikit-learn"
        )
    return _store(DIGITS, raw, source)


def _find_folder(folder: Path, say: Say) -> Dataset:
    if not folder.is_dir():
        raise UsageError(f"--dataset {folder} is neither auto, mnist, digits nor a folder; name one of these")
    raw = sources.read_idx_folder(folder)
    sha256 = digest(raw)
    name = "mnist" if sha256 == MNIST.sha256 else _safe(folder.resolve().name)
    if name.casefold() in RESERVED and sha256 != MNIST.sha256:
        # Its rows and charts would pass for another dataset's.
        raise UsageError(f"the folder {folder} holds other images than its name says; give it a name of its own")
    return _keep(Identity(name, sha256, IMAGE_SCALE), raw, f"the folder {folder}", say)


def _safe(name: str) -> str:
    """A folder's name as a dataset may be called: it becomes part of file names, tables and pages."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:LONGEST_NAME] or "folder"


def _keep(identity: Identity, raw: Raw, source: str, say: Say) -> Dataset:
    """What was read, from the cache if it is there already, and otherwise put there."""
    cached = _open_cached(identity, say)
    return replace(cached, source=source) if cached else _store(identity, raw, source)


def _open_cached(identity: Identity, say: Say) -> Dataset | None:
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


def _store(identity: Identity, raw: Raw, source: str) -> Dataset:
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
