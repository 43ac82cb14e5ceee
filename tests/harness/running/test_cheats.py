"""Backends that cheat, each in a real run on the digits: it is marked as not identical, and for the right reason."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, get_args

import pytest

from lockstep_bench.harness import load
from lockstep_bench.harness.checks.equivalence import GATE_WEIGHTS
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.running.plan import make_plan
from lockstep_bench.harness.running.verification import Part, Verifier
from lockstep_bench.harness.tables.results import Results

CHEATS = Path(__file__).parents[2] / "cheats"
SMALL: Final[dict[str, Any]] = {
    "epochs": 2,
    "train_images": 1500,
    "slice_steps": 50,
    "threads": 1,
    "turn_timeout": 60.0,
}
"""Slices of 750 images: more than `verify` gives at a time."""
HONEST_WEIGHTS: Final = 1e-3
"""How far apart honest networks end in such a run at most: 4e-7 was measured."""
BELOW_THE_FLOOR = r"its steps took \S+ times the dense floor, the least .*: they were not made, or not on the clock"


class Caught(NamedTuple):
    """How a run catches a cheat.

    Attributes:
        reason: a pattern of what the run says of it.
        predicts_right: whether it predicts what the reference predicts, for all test images.
        weights: how far it is from the reference's, of its way; none where that is not told beforehand.
        options: what its run has that the small one has not.
    """

    reason: str
    predicts_right: bool = True
    weights: float | None = 0.0
    options: Mapping[str, Any] = MappingProxyType({})


CAUGHT = {
    "copies_predictions": Caught(
        rf"after epoch 1 its weights were 1 of numpy's way from numpy's; {GATE_WEIGHTS:g} is allowed", weights=1.0
    ),
    "defers_most": Caught(
        r"its first `weights\(\)` took \S+ times as long as the training before: that was put off",
        options={"slice_steps": 100},  # an epoch in one slice
    ),
    "defers_training": Caught(BELOW_THE_FLOOR),
    # It keeps the weights after every step, 2.5 MB: of few.
    "precomputes": Caught(BELOW_THE_FLOOR, options={"train_images": 300, "slice_steps": 8}),
    "returns_early": Caught(BELOW_THE_FLOOR),
    "takes_cpus": Caught(r"it ran on \d+ CPUs, and was given 1 CPU: it changed its own affinity"),
    "trains_fewer": Caught(
        r"after epoch 1 it predicted \d+ of 297 test images differently from numpy; 1 are allowed",
        predicts_right=False,
        weights=None,
    ),
}


def run(dataset: Dataset, out: Path, *backends: str, **options: Any) -> Results:
    """Run the reference and these, and read the results as they are reported."""
    conduct(make_plan(dataset, backends, **{**SMALL, **options}), dataset.folder, out, extras=False)
    return load(out)


def test_every_cheat_has_its_run() -> None:
    """None is added without saying what catches it, and none is lost."""
    assert sorted(CAUGHT) == sorted(path.stem for path in CHEATS.glob("*.py"))


@pytest.mark.parametrize("stem", CAUGHT)
def test_cheat_is_not_identical_and_has_no_rank(digits: Dataset, tmp_path: Path, stem: str) -> None:
    """It runs to its end, is marked with the reason that is its own, and is neither averaged nor ranked."""
    reason, predicts_right, weights, options = CAUGHT[stem]
    results = run(digits, tmp_path / "out", str(CHEATS / f"{stem}.py"), **options)
    name = stem.replace("_", "-")
    own = results.runs.set_index("backend").loc[name]
    assert own["status"] == "not-identical", own["reason"]
    assert own["epochs_done"] == 2
    summary = results.summary.set_index("backend")
    assert dict(summary["status"]) == {"numpy": "ok", name: "not-identical"}
    assert summary["rank"].isna().to_dict() == {"numpy": False, name: True}
    assert name not in set(results.ratios["backend"]) | set(results.ratios["other"])
    assert re.fullmatch(reason, str(own["reason"])), own["reason"]
    epochs = results.epochs[results.epochs["backend"] == name]
    assert (epochs["disagreements"] == 0).all() == predicts_right
    assert weights is None or list(epochs["weights_difference"]) == pytest.approx(
        [weights, weights], abs=HONEST_WEIGHTS
    )


def test_training_fewer_images_in_long_orders_passes_verify(digits: Dataset) -> None:
    """Nothing but a run has orders that long: its gate, and not `verify`, is what such a backend has to fear."""
    [verification] = Verifier(digits, threads=1).verify_all([str(CHEATS / "trains_fewer.py")])
    assert {outcome.part for outcome in verification.outcomes} == set(get_args(Part))
    assert verification.passed, list(verification.lines())


def test_honest_backends_are_the_same_network(digits: Dataset, tmp_path: Path) -> None:
    """In the same run they stay `ok` and ranked, and their weights do not part."""
    results = run(digits, tmp_path / "out", "scikit-learn")
    assert dict(results.runs.set_index("backend")["status"]) == {"numpy": "ok", "scikit-learn": "ok"}
    assert results.summary["rank"].notna().all()
    assert len(results.epochs) == 4
    assert (results.epochs["weights_difference"] < HONEST_WEIGHTS).all()
