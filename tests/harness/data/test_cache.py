"""The cache: whole or not at all, made again where it is damaged, mapped by who trusts it."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lockstep_bench.harness.data import cache
from lockstep_bench.harness.data.cache import Identity, open_dataset
from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.data.sources import Raw
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.problem import digest
from support.small_mnist import (
    RAW,
    flip,
    write_folder,
    write_npz,
)

ARRAYS = ["train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy"]


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
    sync = cache._sync

    def watch(path: Path) -> None:
        seen.append((machine / "cache" / f"fashion-{digest(RAW)[:12]}").exists())
        sync(path)

    monkeypatch.setattr(cache, "_sync", watch)
    find_dataset(str(write_folder(machine / "fashion")))
    # Four arrays, the manifest and the new folder before the rename; the folder above after it.
    assert seen == [False] * 6 + [True]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_that_another_process_makes_meanwhile_stays_if_it_is_good(
    machine: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """Who comes second keeps the first one's, unless that is damaged."""
    folder = write_folder(machine / "fashion")
    write, others = cache._write, machine / "others"
    write(Identity("fashion", digest(RAW), 255), RAW, others)
    inode = (others / ARRAYS[0]).stat().st_ino
    if damaged:
        flip(others / ARRAYS[0])

    def write_while_another_does(identity: Identity, raw: Raw, new: Path) -> None:
        write(identity, raw, new)
        others.rename(identity.folder())

    monkeypatch.setattr(cache, "_write", write_while_another_does)
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
    code = (
        "import sys; from lockstep_bench.harness.data.find import find_dataset; print(find_dataset(sys.argv[1]).sha256)"
    )
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
        "import sys; from pathlib import Path; from lockstep_bench.harness.data.cache import open_dataset;"
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
