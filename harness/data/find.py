"""Finding a dataset: what was named, lockstep's cache, what other tools left, the public mirrors.

`find_dataset` is for the one process that starts a run. `sources.py` and `download.py` read what is found, and
`cache.py` keeps it.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.data import download, sources
from lockstep_bench.harness.data.cache import IMAGE_SCALE, Dataset, Identity, Say, keep, open_cached, store
from lockstep_bench.harness.data.sources import Raw
from lockstep_bench.harness.errors import LockstepError, UsageError
from lockstep_bench.harness.problem import digest

RESERVED = ("auto", "mnist", "digits")
LONGEST_NAME = 60
TORCHVISION_ROOTS = ("data", ".", "~/data")  # the roots that PyTorch's examples use


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
    except download.DownloadError as error:
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
    if cached := open_cached(identity, lambda _: None):
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
    return keep(Identity(name, sha256, scale), sent, "another machine", lambda _: None)


def _find_named(folder: Path, say: Say) -> Dataset:
    """MNIST from the folder that was named for it; decoded only where the cache does not have it yet."""
    source = f"the folder {folder}"
    if sources.is_published(folder) and (cached := open_cached(MNIST, say)):
        return replace(cached, source=source)
    return keep(MNIST, sources.read_mnist(folder), source, say)


def _find_mnist(say: Say) -> Dataset:
    if cached := open_cached(MNIST, say):
        return cached
    for tool, path, read in _copies():
        try:
            return store(MNIST, read(path), f"a copy that {tool} left: {path}")
        except UsageError as error:
            say(f"a copy of MNIST that {tool} left is passed over: {error}")
    raw, mirrors = download.download(download.MIRRORS, retries=download.RETRIES)
    return store(MNIST, raw, f"downloaded from {mirrors}")


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
    if cached := open_cached(DIGITS, say):
        return replace(cached, source=source)
    raw = sources.read_digits()
    if (found := digest(raw)) != DIGITS.sha256:
        raise LockstepError(
            f"this scikit-learn's digits are not the known ones: SHA-256 expected {DIGITS.sha256}, found {found}; "
            "install another release of scikit-learn"
        )
    return store(DIGITS, raw, source)


def _find_folder(folder: Path, say: Say) -> Dataset:
    if not folder.is_dir():
        raise UsageError(f"--dataset {folder} is neither auto, mnist, digits nor a folder; name one of these")
    raw = sources.read_idx_folder(folder)
    sha256 = digest(raw)
    name = "mnist" if sha256 == MNIST.sha256 else _safe(folder.resolve().name)
    if name.casefold() in RESERVED and sha256 != MNIST.sha256:
        # Its rows and charts would pass for another dataset's.
        raise UsageError(f"the folder {folder} holds other images than its name says; give it a name of its own")
    return keep(Identity(name, sha256, IMAGE_SCALE), raw, f"the folder {folder}", say)


def _safe(name: str) -> str:
    """A folder's name as a dataset may be called: it becomes part of file names, tables and pages."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:LONGEST_NAME] or "folder"
