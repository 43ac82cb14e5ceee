"""What the reference's network has learnt is read from the arrays as they are, and damage is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.records.raw_files import block_path, write_arrays
from lockstep_bench.harness.report.charts import write_charts
from lockstep_bench.harness.report.write import write_report
from lockstep_bench.harness.tables.learnt import read_learnt
from lockstep_bench.harness.tables.results import Results

MakeResults = Callable[..., Results]


@pytest.fixture
def results(tmp_path: Path, make_results: MakeResults) -> Results:
    """Of digits, two seeds; no arrays yet."""
    results = make_results(tmp_path, ["numpy"], dataset="digits", seeds=2)
    dataset = results.plan.dataset.model_copy(update={"test_images": 297})
    return results._replace(plan=results.plan.model_copy(update={"dataset": dataset}))


def arrays(digits: Dataset) -> dict[str, NDArray[Any]]:
    """A network that is right but for the first three images, and whose fifth unit is the strongest."""
    labels = digits.test.labels
    probabilities = np.eye(10, dtype=np.float32)[labels] * np.float32(0.9) + np.float32(0.01)
    for image, sure in ((0, 0.6), (1, 0.8), (2, 0.7)):
        probabilities[image] = (1 - sure) / 9
        probabilities[image, (labels[image] + 1) % 10] = sure
    kernel = np.random.default_rng(0).normal(size=(784, 784)).astype("float32")
    output = np.full((784, 10), 0.1, np.float32)
    output[5] = 1
    return {"probabilities": probabilities, "weights/hidden_kernel": kernel, "weights/output_kernel": output}


def test_confusion_mistakes_and_units(results: Results, tmp_path: Path, digits: Dataset) -> None:
    """Of the first block that has arrays; the most confident mistake first."""
    saved = arrays(digits)
    write_arrays(tmp_path, results.plan.blocks[1], saved)
    found = read_learnt(tmp_path, results.plan, digits)
    assert found is not None
    assert found.seed == 1
    assert found.confusion is not None
    assert found.confusion.sum() == 297
    assert np.trace(found.confusion) == 294
    assert [(mistake.true, mistake.predicted) for mistake in found.mistakes] == [
        (digits.test.labels[image], (digits.test.labels[image] + 1) % 10) for image in (1, 2, 0)
    ]
    assert [round(mistake.probability, 6) for mistake in found.mistakes] == [0.8, 0.7, 0.6]
    assert np.array_equal(found.mistakes[0].image.ravel(), digits.test.images[1])
    strongest = saved["weights/hidden_kernel"][:, 5]
    assert np.allclose(found.units[0].ravel(), strongest - strongest.mean(), atol=1e-6)
    assert "3 of 297 test images are misclassified" in found.confusion_reading
    assert "80.0% down to 60.0%" in found.mistakes_reading


def test_a_network_without_mistakes_is_said_to_be_one(results: Results, tmp_path: Path, digits: Dataset) -> None:
    """No chart of mistakes, and no most frequent one."""
    saved = arrays(digits)
    saved["probabilities"] = np.eye(10, dtype=np.float32)[digits.test.labels]
    write_arrays(tmp_path, results.plan.blocks[0], saved)
    found = read_learnt(tmp_path, results.plan, digits)
    assert found is not None
    assert found.mistakes == []
    assert "all 297 test images are classified rightly" in found.confusion_reading


def test_without_the_dataset_there_are_units_alone(results: Results, tmp_path: Path, digits: Dataset) -> None:
    """And without arrays nothing."""
    assert read_learnt(tmp_path, results.plan, digits) is None
    write_arrays(tmp_path, results.plan.blocks[0], arrays(digits))
    found = read_learnt(tmp_path, results.plan, None)
    assert found is not None
    assert (found.seed, found.confusion, found.mistakes) == (0, None, [])
    write_charts(tmp_path, results, found)
    drawn = {path.stem for path in (tmp_path / "charts").iterdir()}
    assert "hidden_units" in drawn
    assert not {"confusion", "mistakes"} & drawn


def test_charts_are_drawn_in_every_format(results: Results, tmp_path: Path, digits: Dataset) -> None:
    """As PNG, as SVG, and as PDF where it is asked for; the same bytes each time."""
    write_arrays(tmp_path, results.plan.blocks[0], arrays(digits))
    found = read_learnt(tmp_path, results.plan, digits)
    first, second = (
        {path: path.read_bytes() for path in write_charts(tmp_path, results, found, ["png", "svg", "pdf"])}
        for _ in range(2)
    )
    assert first == second
    for name in ("confusion", "mistakes", "hidden_units"):
        assert "digits (not MNIST)" in (tmp_path / "charts" / f"{name}.svg").read_text()
    for name in ("confusion", "mistakes", "hidden_units", "loss"):
        assert {tmp_path / "charts" / f"{name}.{suffix}" for suffix in ("png", "svg", "pdf")} <= set(first)


@pytest.mark.parametrize("damage", ["cut", "not a zip", "other shape", "other dataset", "text", "not finite"])
def test_damaged_arrays_are_refused(results: Results, tmp_path: Path, digits: Dataset, damage: str) -> None:
    """Whatever is wrong with them, in one sentence."""
    saved = arrays(digits)
    if damage == "other shape":
        saved["weights/hidden_kernel"] = saved["weights/hidden_kernel"][:100]
    if damage == "other dataset":
        saved["probabilities"] = saved["probabilities"][:50]
    if damage == "text":
        saved["probabilities"] = saved["probabilities"].astype(str)
    if damage == "not finite":
        saved["weights/output_kernel"][3, 3] = np.nan
    block = results.plan.blocks[0]
    write_arrays(tmp_path, block, saved)
    path = block_path(tmp_path, block, "npz")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    if damage == "not a zip":
        path.write_bytes(b"nothing")
    with pytest.raises(LockstepError, match=r"cannot be read|are not those of this network"):
        read_learnt(tmp_path, results.plan, digits)


def test_damaged_arrays_are_said_and_the_rest_is_reported(results: Results, tmp_path: Path, digits: Dataset) -> None:
    """In `Results.cut`, which the page, the summary and the command line say."""
    block_path(tmp_path, results.plan.blocks[0], "npz").write_bytes(b"nothing")
    plan = results.plan.model_copy(
        update={"dataset": results.plan.dataset.model_copy(update={"sha256": digits.sha256})}
    )
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    reported = write_report(tmp_path)
    assert any("seed-0" in sentence for sentence in reported.cut)
    assert "seed-0" in (tmp_path / "report.html").read_text().partition('id="charts"')[0]
    assert "seed-0" in (tmp_path / "summary.md").read_text()
