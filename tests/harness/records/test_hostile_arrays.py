"""Arrays from strangers: none is unpickled, fills the memory, or is taken for what it is not."""

import os
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.data.find import DIGITS
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.records import raw_files
from lockstep_bench.harness.records.raw_files import read_arrays, read_plan
from lockstep_bench.harness.report.write import write_report
from lockstep_bench.harness.tables.learnt import read_learnt
from lockstep_bench.harness.tables.results import Results
from support.reports import MakeResults, change_plan, is_one_sentence, no_more_than


def test_arrays_that_unpack_to_too_much_are_left_out(
    tmp_path: Path, make_results: MakeResults, monkeypatch: pytest.MonkeyPatch, quick_report: list[Results]
) -> None:
    """A small file may claim gigabytes of zeros: it is named, and none of it is unpacked."""
    block = make_results(tmp_path).plan.blocks[0]
    path = tmp_path / "blocks" / "seed-0.npz"
    np.savez_compressed(path, allow_pickle=False, probabilities=np.zeros(128 << 20, np.uint8))
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(raw_files, "ARRAYS_BYTES", 32 << 20)
    sentence = r"seed-0\.npz cannot be read: it unpacks to 134,217,\d+ bytes"
    with no_more_than(4 << 20), pytest.raises(LockstepError, match=sentence) as caught:
        read_arrays(tmp_path, block)
    assert is_one_sentence(str(caught.value))
    results = write_report(tmp_path)
    assert results.is_damaged
    assert str(caught.value) in results.cut
    assert str(caught.value) in (tmp_path / "summary.md").read_text()
    assert list(results.runs["status"]) == ["ok"] * 3


def npy(header: str, content: bytes = b"") -> bytes:
    """An array's file with this header, whatever follows."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


@pytest.mark.parametrize(
    "member",
    [
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,), }\n"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }\n", b"12345678"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }\n", b"short"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"\x80\x04N."),
        npy("__import__('os').mkdir('marker')\n"),
        npy("(" * 5000 + "\n"),
        npy(""),
        b"\x93NUMPY",
        b"",
    ],
    ids=["large", "negative", "short", "objects", "code", "nested", "empty header", "magic alone", "nothing"],
)
def test_arrays_with_a_lying_header_are_left_out(
    tmp_path: Path, make_results: MakeResults, monkeypatch: pytest.MonkeyPatch, member: bytes
) -> None:
    """Whatever an array claims of itself, it is read as it is or refused by the file's name; nothing of it is run."""
    block = make_results(tmp_path).plan.blocks[0]
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "blocks" / "seed-0.npz", "w") as archive:
        archive.writestr("probabilities.npy", member)
    with pytest.raises(LockstepError, match=r"^seed-0\.npz cannot be read: "):
        read_arrays(tmp_path, block)
    assert not (tmp_path / "marker").exists()


class MakesFolder:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["probabilities", "weights/hidden_kernel", "more"])
def test_pickled_arrays_are_never_loaded(
    tmp_path: Path, make_results: MakeResults, quick_report: list[Results], name: str
) -> None:
    """They could run anything: the file is named, and the report does the rest."""
    folder, marker = tmp_path / "mine", tmp_path / "marker"
    make_results(folder)
    path = folder / "blocks" / "seed-0.npz"
    arrays: dict[str, Any] = {name: np.array([MakesFolder(marker)], object)}
    np.savez(path, allow_pickle=True, **arrays)
    results = write_report(folder)
    assert not marker.exists()
    (cut,) = results.cut
    assert cut.startswith("seed-0.npz cannot be read: ")
    assert results.is_damaged
    assert list(results.runs["status"]) == ["ok"] * 3
    assert cut in (folder / "summary.md").read_text()
    with np.load(path, allow_pickle=True) as loaded:
        _ = loaded[name]
    assert marker.exists(), "had it been loaded, it would have been seen"


WEIGHTS: Final = {"weights/hidden_kernel": (784, 784), "weights/output_kernel": (784, 10), "probabilities": (297, 10)}


@pytest.mark.parametrize(
    ("problem", "dataset", "shapes"),
    [
        ({"inputs": 100}, {}, {"weights/hidden_kernel": (100, 784)}),
        ({"classes": 20}, {}, {"weights/output_kernel": (784, 20), "probabilities": (297, 20)}),
        ({"classes": 2}, {}, {"weights/output_kernel": (784, 2), "probabilities": (297, 2)}),
        ({}, {"test_images": 5}, {"probabilities": (5, 10)}),
        ({"hidden": 1}, {}, {"weights/hidden_kernel": (784, 1), "weights/output_kernel": (1, 10)}),
        ({}, {}, {"probabilities": (297,)}),
    ],
    ids=["inputs", "more classes", "fewer classes", "test images", "one unit", "another shape"],
)
def test_arrays_of_a_network_that_cannot_be_are_shown_or_refused(
    tmp_path: Path,
    make_results: MakeResults,
    digits: Dataset,
    problem: dict[str, int],
    dataset: dict[str, int],
    shapes: dict[str, tuple[int, ...]],
) -> None:
    """A plan may agree with its arrays and yet fit no dataset of its name: that is no crash."""
    make_results(tmp_path, dataset="digits")
    change_plan(
        tmp_path,
        lambda plan: (
            plan["problem"].update(problem),
            plan["dataset"].update({"sha256": DIGITS.sha256, "test_images": 297} | dataset),
        ),
    )
    arrays: dict[str, Any] = {
        name: np.random.default_rng(0).random(shape, np.float32) for name, shape in (WEIGHTS | shapes).items()
    }
    np.savez(tmp_path / "blocks" / "seed-0.npz", allow_pickle=False, **arrays)
    try:
        read_learnt(tmp_path, read_plan(tmp_path), digits)
    except LockstepError as error:
        assert is_one_sentence(str(error))  # noqa: PT017 # some can be shown
