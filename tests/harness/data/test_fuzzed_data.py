"""Damaged data: of thousands of files, each is refused in a sentence, or read as exactly what it holds.

Run as a program, this file makes the damaged files, reads each in every way there is, in little memory, and prints what
became of them; the tests read that. What must hold is in `flaw`.
"""

import gzip
import json
import os
import pickle
import resource
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_bench.harness.data import sources
from lockstep_bench.harness.data.sources import is_published, read_idx, read_idx_folder, read_mnist, read_npz
from lockstep_bench.harness.errors import UsageError
from support.damage.archives import EVERY_NPZ, Touch
from support.damage.bombs import BOMBS
from support.damage.forms import FORMS, GZIP_FORMS, IDX_FORMS, NAMES, NPZ_FORMS, PARTS, RAW, Form, gz
from support.damage.single_files import EVERY_FILE, EVERY_GZIP, EVERY_IDX
from support.small_mnist import idx

FILES = 12_000  # damaged ones, at least
SEED = 20_260_101
SPARE_BYTES = 256 << 20  # that a reader may take; each file holds some kilobytes, whatever it claims
FILE_SECONDS = 5.0  # of CPU time for one file, read in every way
LONGEST_MESSAGE = 1_000  # characters, with the path


class Bench:
    """A folder of four good IDX files and one with a good archive, and one file at a time in the place of another."""

    def __init__(self, folder: Path) -> None:
        self.idx_folder, self.npz_folder = folder / "idx", folder / "npz"
        for made in (self.idx_folder, self.npz_folder):
            made.mkdir()
        for name, array in zip(NAMES, RAW, strict=True):
            (self.idx_folder / name).write_bytes(idx(array))
        self.found = Counter[str]()

    def flaw(self, form: Form, damaged: bytes) -> str:
        """What does not hold of a damaged file; "" if all does.

        Each reader refuses it with UsageError, in one sentence that is not long, or reads it. What `read_mnist`,
        `read_npz` and `is_published` then make of it are the very arrays that were in it before. `read_idx` and
        `read_idx_folder` take any images and labels: there it is what the file holds byte for byte, header and all, so
        that a changed pixel is another image, but no other header and no damaged gzip is taken.
        """
        if form.field < 0:
            archive = self.npz_folder / "mnist.npz"
            archive.write_bytes(damaged)
            return self._flaw(partial(read_npz, archive, PARTS), RAW) or self._flaw(
                partial(read_mnist, self.npz_folder, PARTS), RAW
            )
        path = self.idx_folder / NAMES[form.field]
        good = path.read_bytes()
        path.write_bytes(damaged)
        try:
            return (
                self._flaw(lambda: [read_idx(path, RAW[form.field].ndim)], [RAW[form.field]], damaged)
                or self._flaw(partial(read_idx_folder, self.idx_folder), RAW, damaged, form.field)
                or self._flaw(partial(read_mnist, self.idx_folder, PARTS), RAW)
                or ("is published" if is_published(self.idx_folder, PARTS) and not known(form, damaged) else "")
            )
        finally:
            path.write_bytes(good)

    def _flaw(self, read: Callable[[], Any], expected: Any, damaged: bytes = b"", field: int = 0) -> str:
        try:
            arrays = list(read())
        except UsageError as error:
            self.found["refused"] += 1
            return self._flaw_of_refusal(error)
        except Exception as error:  # anything but a refusal is what is looked for
            return f"{type(error).__name__}: {error}"
        self.found["read"] += 1
        for number, (array, before) in enumerate(zip(arrays, expected, strict=True)):
            held = plain(damaged) if damaged and number == field else idx(before)
            if idx(array) != held or array.shape[1:] != before.shape[1:] or array.dtype != np.uint8:
                return f"was read as {array.dtype} {array.shape}"
        if len(arrays) == len(RAW) and [len(array) for array in arrays[::2]] != [len(array) for array in arrays[1::2]]:
            return "was read as images and labels of different number"
        return ""

    @staticmethod
    def _flaw_of_refusal(error: UsageError) -> str:
        message, cause = str(error), error.__cause__
        if not message.isprintable():
            return f"was refused in more than a line: {message!r}"
        if len(message) > LONGEST_MESSAGE:
            return f"was refused in {len(message):,} characters"
        if "; " not in message or ": ; " in message:
            return f"was refused without a reason or a way out: {message}"
        return "made memory run out" if isinstance(cause, MemoryError) else ""


def known(form: Form, damaged: bytes) -> bool:
    """Whether the bytes are as they are published, after all."""
    return sha256(damaged).hexdigest() in (PARTS[form.field].packed, PARTS[form.field].content)


def plain(content: bytes) -> bytes | None:
    """What Python's own gzip makes of a file: all or nothing."""
    if not content.startswith(sources.GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None


def damaged_files(seed: int, count: int) -> Iterator[tuple[str, str, bytes]]:
    """At least so many, the same for a seed: the kind of damage, the form of the file, its bytes."""
    plans = [
        (kind, name, damage)
        for kinds, names in (
            (EVERY_FILE, list(FORMS)),
            (EVERY_IDX, IDX_FORMS),
            (EVERY_GZIP, GZIP_FORMS),
            (EVERY_NPZ, NPZ_FORMS),
        )
        for kind, damage in kinds.items()
        for name in names
    ]
    for kind, name, damage in plans:
        form, random = FORMS[name], Random(f"{seed} {kind} {name}")
        for _ in range(-(-count // len(plans))):
            if kind in EVERY_IDX and form.zipped:
                yield kind, name, gz(damage(random, gzip.decompress(form.good)))
            else:
                yield kind, name, damage(random, form.good)


def report(folder: Path) -> dict[str, Any]:
    """What became of the damaged files of each kind."""
    bench, kinds = Bench(folder), dict[str, dict[str, Any]]()
    bombs = ((kind, name, make()) for kind, (name, make) in BOMBS.items())
    for kind, name, damaged in chain(bombs, damaged_files(SEED, FILES)):
        outcome = kinds.setdefault(kind, {"files": 0, "slowest": 0.0, "flaws": []})
        start = process_time()
        flaw = bench.flaw(FORMS[name], damaged)
        outcome["files"] += 1
        outcome["slowest"] = max(outcome["slowest"], process_time() - start)
        if flaw:
            outcome["flaws"].append(f"{name}: {flaw[:500]}")
    return {"kinds": kinds, "found": bench.found}


def main() -> None:
    """Read all damaged files in the working folder, in bounded memory."""
    if sys.platform == "linux":  # macOS does not keep to it
        most = psutil.Process().memory_info().vms + SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print(json.dumps(report(Path.cwd())))


# The tests


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of all of them, read once."""
    folder = tmp_path_factory.mktemp("fuzz")
    command = [sys.executable, "-W", "always", __file__]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {
        **json.loads(done.stdout),
        "stderr": done.stderr,
        "unpickled": (folder / "unpickled").exists(),
    }


@pytest.mark.parametrize("kind", [*EVERY_FILE, *EVERY_IDX, *EVERY_GZIP, *EVERY_NPZ, *BOMBS])
def test_a_damaged_file_is_refused_or_read_as_what_it_holds(outcome: dict[str, Any], kind: str) -> None:
    """No other error, no other content, little memory, little time: `Bench.flaw` says what holds."""
    found = outcome["kinds"][kind]
    assert found["flaws"] == []
    assert found["slowest"] < FILE_SECONDS


def test_the_damaged_files_are_many_and_both_refused_and_read(outcome: dict[str, Any]) -> None:
    """As many as promised; damage that does no harm occurs too, so that a reader is seen to accept."""
    assert sum(found["files"] for found in outcome["kinds"].values()) >= FILES
    assert outcome["found"]["refused"] > FILES
    assert outcome["found"]["read"] > 100


def test_no_damaged_file_runs_code_or_warns(outcome: dict[str, Any]) -> None:
    """A pickle is never loaded, and nothing is said but the error."""
    assert not outcome["unpickled"]
    assert outcome["stderr"] == ""


def test_the_pickle_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded, it leaves its file."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Touch()))
    assert Path("unpickled").exists()


@pytest.mark.parametrize("name", FORMS)
def test_the_good_files_are_read(tmp_path: Path, name: str) -> None:
    """Otherwise all of this would show nothing."""
    bench = Bench(tmp_path)
    assert bench.flaw(FORMS[name], FORMS[name].good) == ""
    assert bench.found["refused"] == 0


@given(st.sampled_from(sorted(FORMS)), st.binary(max_size=3000))
def test_random_bytes_are_never_accepted(name: str, content: bytes) -> None:
    """Neither alone nor after a beginning of a good file."""
    with TemporaryDirectory() as folder:
        bench, form = Bench(Path(folder)), FORMS[name]
        assert bench.flaw(form, content) == ""
        assert bench.flaw(form, form.good[: len(content)] + content) == ""


edits = st.lists(st.tuples(st.integers(0, 2**12), st.integers(0, 4), st.binary(max_size=6)), min_size=1, max_size=6)


@given(st.sampled_from(sorted(FORMS)), edits)
def test_random_edits_are_never_accepted(name: str, changes: list[tuple[int, int, bytes]]) -> None:
    """Whatever is put in the place of whatever, no other array comes out."""
    damaged = bytearray(FORMS[name].good)
    for place, removed, put in changes:
        place %= len(damaged) + 1
        damaged[place : place + removed] = put
    with TemporaryDirectory() as folder:
        assert Bench(Path(folder)).flaw(FORMS[name], bytes(damaged)) == ""


if __name__ == "__main__":
    main()
