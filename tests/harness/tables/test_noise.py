"""`lockstep machine`: planted noise is found, what is promised is shown, and `compare` allows for what was measured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lockstep_bench.harness import compare
from lockstep_bench.harness.cli import machine as command
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.machine.identity import described, identity
from lockstep_bench.harness.records.format import Block
from lockstep_bench.harness.records.noise import Noise, keep_noise, kept_noise
from lockstep_bench.harness.statistics import REFERENCE_RUN_TO_RUN, RUN_TO_RUN, estimate
from lockstep_bench.harness.tables.noise import noise_of, smallest_difference
from lockstep_bench.harness.tables.results import Results, load
from support.command import lockstep
from support.hand_made import begin, end, evaluation, make_plan, turn, write

PAIRS, ROUNDS = 6, 30
NOISE = Noise(
    lockstep="1.0.0",
    commit=None,
    identity="a machine",
    measured="2026-01-01T00:00:00+00:00",
    threads=2,
    rounds=40,
    pairs=6,
    within=0.01,
    between=0.02,
)


@dataclass
class Machine:
    """Noise that is planted: of every round, and of every pair of processes."""

    per_round: float
    per_pair: float
    seed: int

    def run(self, folder: Path) -> Results:
        """Numpy beside itself: the second is as fast, but for this noise."""
        random = np.random.default_rng(self.seed)
        plan = make_plan("numpy", "numpy-aa")
        plan.backends[1] = plan.backends[0].model_copy(update={"name": "numpy-aa"})
        blocks = [Block(id=f"pair-{number}", seed=0, threads=2, replicate=number + 1) for number in range(PAIRS)]
        plan = plan.model_copy(update={"blocks": blocks})
        every = []
        for _ in blocks:
            luck = self.per_pair * random.standard_normal()
            events = [event for name in ("numpy", "numpy-aa") for event in begin(name)]
            for number in range(1, ROUNDS + 1):
                ratio = np.exp(luck + self.per_round * random.standard_normal())
                events += [turn("numpy", 1, number, 0.1), turn("numpy-aa", 1, number, float(0.1 * ratio))]
            events += [event for name in ("numpy", "numpy-aa") for event in (evaluation(name, 1, 6.0), end(name))]
            every.append([*events, end(None)])
        return load(write(folder, plan, *every))


def test_planted_noise_is_found(tmp_path: Path) -> None:
    """Within pairs and between them; what is said of the latter is too little in one machine of five at most."""
    found = [noise_of(Machine(0.03, 0.02, seed).run(tmp_path / str(seed))) for seed in range(40)]
    of_a_median = 0.03 * np.sqrt(np.pi / 2 / ROUNDS)  # an interval allows for rounds that are alike, these are not
    assert 1 <= np.median([noise.within for noise in found]) / of_a_median <= 1.6
    assert np.mean([noise.between >= 0.02 for noise in found]) >= 0.7  # 0.8 but for the luck of 40
    assert np.median([noise.between for noise in found]) < 0.04


def test_a_machine_without_luck_of_processes_has_little_between(tmp_path: Path) -> None:
    """What differs from pair to pair by the rounds' noise alone is not counted twice."""
    found = [noise_of(Machine(0.03, 0.0, seed).run(tmp_path / str(seed))).between for seed in range(20)]
    assert np.median(found) < 0.01


def test_the_smallest_difference_is_shown_in_four_of_five_runs() -> None:
    """Of runs with that noise, by the interval that a report has; twice as much in nearly all."""
    random, rounds, replicates = np.random.default_rng(0), 40, 4
    difference = np.log(1 + smallest_difference(NOISE, rounds, replicates))

    def shown(true: float) -> float:
        count = 0
        for number in range(200):
            luck = true + NOISE.between * random.standard_normal(replicates)
            noise = NOISE.within * np.sqrt(2 * rounds / np.pi) * random.standard_normal((replicates, rounds))
            count += estimate((luck[:, None] + noise).ravel(), resamples=500, seed=number).low > 0
        return count / 200

    assert shown(difference) >= 0.75
    assert shown(2 * difference) >= 0.98
    assert shown(0.2 * difference) < 0.5


@pytest.mark.parametrize(("rounds", "replicates"), [(12, 1), (160, 1), (12, 4), (160, 4)])
def test_rounds_even_out_noise_within_a_pair_and_replicates_both(rounds: int, replicates: int) -> None:
    """By the formula: 2.8 standard errors."""
    variance = 0.01**2 * 40 / (rounds * replicates) + 0.02**2 / replicates
    assert np.log(1 + smallest_difference(NOISE, rounds, replicates)) == pytest.approx(2.8016 * variance**0.5, rel=1e-4)


def test_a_run_that_failed_says_nothing_of_its_machine(tmp_path: Path) -> None:
    """It is an error, not a promise."""
    plan = make_plan("numpy", "keras")
    with pytest.raises(LockstepError, match="run it again"):
        noise_of(load(write(tmp_path, plan, [*begin("numpy"), end("numpy", "error", "because"), end(None)])))


def test_it_is_kept_by_machine(tmp_path: Path) -> None:
    """One machine's is no other's; what cannot be read is as good as none."""
    file = keep_noise(tmp_path, NOISE)
    assert kept_noise(tmp_path, "a machine") == NOISE
    assert kept_noise(tmp_path, "another machine") is None
    file.write_text(file.read_text().replace("a machine", "moved"))
    assert kept_noise(tmp_path, "a machine") is None
    file.write_text("{")
    assert kept_noise(tmp_path, "a machine") is None


def test_compare_allows_for_what_was_measured_on_the_machine(
    tmp_path: Path, make_compared: Callable[[], tuple[Path, Path]], cache: Path
) -> None:
    """A quieter machine has narrower intervals; without an answer it is what is built in."""
    old, new = make_compared()
    built_in = compare(old, new).set_index("backend").loc["keras"]
    here = "this machine, 2 CPUs, 24.0 GiB"
    file = keep_noise(cache, NOISE.model_copy(update={"identity": here, "within": 0.001, "between": 0.003}))
    measured = compare(old, new).set_index("backend").loc["keras"]
    file.unlink()
    assert built_in["run_to_run_percent"] == pytest.approx(100 * RUN_TO_RUN)
    assert measured["run_to_run_percent"] == pytest.approx(100 * RUN_TO_RUN * 0.003 / REFERENCE_RUN_TO_RUN)
    assert measured["ratio_high"] - measured["ratio_low"] < 0.5 * (built_in["ratio_high"] - built_in["ratio_low"])


@pytest.fixture
def make_compared(tmp_path: Path) -> Callable[[], tuple[Path, Path]]:
    """A function that makes two results of one machine, whose rounds have hardly any noise."""

    def make() -> tuple[Path, Path]:
        folders = []
        for name, source in (("old", "a"), ("new", "b")):
            plan = make_plan("numpy", "keras", commit="c0ffee", commit_clean=True)
            events = [*begin("numpy", source="a"), *begin("keras", source=source)]
            for number in range(1, 41):
                wobble = 1 + 0.001 * (number % 3)
                events += [turn("numpy", 1, number, 0.1), turn("keras", 1, number, 0.2 * wobble)]
            events += [event for who in ("numpy", "keras") for event in (evaluation(who, 1, 6.0), end(who))]
            folders.append(write(tmp_path / name, plan, [*events, end(None)]))
        return folders[0], folders[1]

    return make


def test_the_command_measures_says_and_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Identity, limits, variables, noise, whether it is fit, and the smallest differences, of real processes."""
    monkeypatch.setattr(command, "PAIRS", 2)
    monkeypatch.setattr(command, "ROUNDS", 8)
    monkeypatch.setattr(command, "SLICE_STEPS", 2)
    done = lockstep("machine", "--threads", "1", cwd=tmp_path, LOCKSTEP_CACHE=str(cache), MALLOC_ARENA_MAX="7")
    assert done.returncode == 0, done.stderr
    here = described(identity()._asdict())
    lines = dict(line.partition(": ")[::2] for line in done.stdout.splitlines())
    assert lines["identity"] == here
    assert "MALLOC_ARENA_MAX" in lines["variables that workers start without"]
    assert lines["limits"].startswith("quota ")
    assert lines["fit"].startswith(("yes, ", "no, "))
    assert "will not show here" in lines["quick"]
    assert "with --replicates 4" in lines["standard"]
    kept = kept_noise(cache, here)
    assert kept is not None
    assert (kept.pairs, kept.rounds, kept.threads) == (2, 8, 1)
