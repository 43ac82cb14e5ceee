"""From what a user asks for to a plan: presets, and every refusal before anything is started."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep_bench.backends import registered, why_not
from lockstep_bench.backends.numpy import NumPy
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.machine import cpus, environment, identity
from lockstep_bench.harness.problem import Problem, Split
from lockstep_bench.harness.records.raw_files import read_plan, write_plan
from lockstep_bench.harness.running.plan import PresetName, choose_backends, make_plan

ADAPTER = """
from lockstep_bench.backends.numpy import NumPy


class Mine(NumPy):
    name = {name!r}
    style = "tuned"
    packages = ("numpy", "no-such-distribution")
    modules = {modules!r}
    extra = {extra!r}
    devices = ("cpu", "abacus")
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four CPUs, known at once."""
    monkeypatch.setattr(cpus, "available_cpus", lambda: 4)
    monkeypatch.setattr(cpus, "quota", lambda: None)
    monkeypatch.setattr(identity, "machine_name", lambda _: "Some CPU, 4 CPUs, 16 GiB")
    monkeypatch.setattr(environment, "commit", lambda: ("c" * 40, False))


@pytest.fixture
def large() -> Dataset:
    """A dataset of MNIST's size that takes no memory."""

    def split(count: int) -> Split:
        images = np.broadcast_to(np.zeros(1, np.float32), (count, 784))
        return Split(images, np.broadcast_to(np.zeros(1, np.uint8), count))

    return Dataset("large", "6" * 64, "nowhere", Path("nowhere"), split(60_000), split(10_000))


def adapter(
    folder: Path, name: str = "mine", modules: tuple[str, ...] = (), extra: str = "", file: str = "mine.py"
) -> str:
    """The path of a file that defines such a backend."""
    path = folder / file
    path.write_text(ADAPTER.format(name=name, modules=modules, extra=extra))
    return str(path)


@pytest.fixture
def uninstalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's package is not there."""
    monkeypatch.setattr(registered()["pytorch"], "modules", ("no_such_framework",))


@pytest.mark.parametrize(
    ("preset", "epochs", "images", "seeds", "slice_steps"),
    [
        ("quick", 3, 6_000, [0], 100),
        ("standard", 20, 60_000, [0], 500),
        ("full", 20, 60_000, [0, 1, 2, 3, 4], 500),
    ],
)
def test_presets_are_what_the_documentation_says(
    large: Dataset, preset: PresetName, epochs: int, images: int, seeds: list[int], slice_steps: int
) -> None:
    """Epochs, training images, seeds and slices of each."""
    plan = make_plan(large, ["numpy"], preset=preset)
    assert (plan.preset, plan.problem.epochs, plan.dataset.train_images, plan.slice_steps) == (
        preset,
        epochs,
        images,
        slice_steps,
    )
    assert [block.seed for block in plan.blocks] == seeds
    assert plan.dataset.test_images == 10_000


@pytest.mark.parametrize("preset", ["quick", "standard", "full"])
def test_presets_take_no_more_images_than_there_are(digits: Dataset, preset: PresetName) -> None:
    """`quick` wants 6,000; the digits have 1,500."""
    assert make_plan(digits, ["numpy"], preset=preset).dataset.train_images == 1500


@pytest.mark.parametrize(
    ("options", "epochs"),
    [({}, 8), ({"slice_steps": 50}, 4), ({"slice_steps": 10}, 3), ({"epochs": 1}, 1), ({"preset": "standard"}, 20)],
)
def test_a_small_dataset_has_more_epochs_so_that_there_are_intervals(
    digits: Dataset, options: dict[str, Any], epochs: int
) -> None:
    """1,500 images are a round of 100 steps: eight rounds at least, unless fewer epochs are asked for."""
    assert make_plan(digits, ["numpy"], **options).problem.epochs == epochs


def test_quick_leaves_out_what_is_slow(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is named, asked for, or another preset; the reason says how to have it."""
    monkeypatch.setattr(registered()["scikit-learn"], "slow", "it compiles for a minute")
    slow = "it compiles for a minute, too long for quick: add --with-slow, or name it"

    def skip(*names: str, **options: Any) -> str | None:
        [planned] = [one for one in make_plan(digits, names, **options).backends if one.name == "scikit-learn"]
        return planned.skip

    assert skip() == slow
    assert skip(with_slow=True) is None
    assert skip(preset="standard") is None
    assert skip("scikit-learn") is None


def test_plan_says_all_that_was_resolved(digits: Dataset, tmp_path: Path) -> None:
    """Defaults, dataset, machine, commit; and it is read back as it was."""
    plan = make_plan(digits, ["numpy"], command="lockstep run numpy")
    assert plan.problem == Problem(epochs=8)
    assert (plan.dataset.name, plan.dataset.sha256, plan.dataset.test_images) == ("digits", digits.sha256, 297)
    assert (plan.lockstep, plan.command) == (environment.lockstep_version(), "lockstep run numpy")
    assert (plan.commit, plan.commit_clean, plan.machine) == ("c" * 40, False, "Some CPU, 4 CPUs, 16 GiB")
    assert (plan.threads, plan.device, plan.profile) == ([4], "cpu", "identical")
    assert (plan.target_error_percent, plan.turn_timeout_seconds) == (7.21, 300)
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan


def test_the_native_profile_is_planned_with_the_same_problem(digits: Dataset, tmp_path: Path) -> None:
    """The Problem is what all have in common; the profile is written down, and one that there is not is refused."""
    plan = make_plan(digits, ["numpy"], profile="native")
    assert (plan.profile, plan.problem) == ("native", make_plan(digits, ["numpy"]).problem)
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    with pytest.raises(UsageError, match=r"^there is no profile own: take one of identical, native$"):
        make_plan(digits, ["numpy"], profile="own")  # type: ignore[arg-type] # which is the point


def test_threads_and_replicates_multiply_blocks(digits: Dataset) -> None:
    """Every number of threads, each once, with every replicate and seed; their files have names of their own."""
    plan = make_plan(digits, ["numpy"], threads=[1, 4, 1], replicates=2, seeds=[5, 6])
    assert plan.threads == [1, 4]
    assert [(block.threads, block.replicate, block.seed) for block in plan.blocks] == [
        (threads, replicate, seed) for threads in (1, 4) for replicate in (1, 2) for seed in (5, 6)
    ]
    assert plan.blocks[3].id == "seed-6-threads-1-cpu-replicate-2"
    assert len({block.id for block in plan.blocks}) == 8


def test_the_references_twin_is_the_last(digits: Dataset) -> None:
    """Under another name, loaded from the same place; without `aa` there is none."""
    plan = make_plan(digits, ["scikit-learn"], aa=True)
    assert [(backend.name, backend.spec) for backend in plan.backends] == [
        ("numpy", "numpy"),
        ("scikit-learn", "scikit-learn"),
        ("numpy-aa", "numpy"),
    ]
    assert plan.twin == plan.backends[2]
    assert make_plan(digits, ["scikit-learn"]).twin is None


def test_options_override_the_preset(digits: Dataset) -> None:
    """Every one that is given."""
    plan = make_plan(
        digits,
        ["numpy"],
        preset="full",
        seeds=[7, 3],
        epochs=1,
        train_images=1500,
        batch_size=32,
        slice_steps=1,
        threads=2,
        target=5.0,
        turn_timeout=0.5,
    )
    assert (plan.problem, plan.dataset.train_images) == (Problem(epochs=1, batch_size=32), 1500)
    assert (plan.slice_steps, plan.threads) == (1, [2])
    assert (plan.target_error_percent, plan.turn_timeout_seconds) == (5.0, 0.5)
    assert [(block.id, block.seed) for block in plan.blocks] == [
        ("seed-7-threads-2-cpu", 7),
        ("seed-3-threads-2-cpu", 3),
    ]


def test_seed_given_twice_is_one_block(digits: Dataset) -> None:
    """Two blocks of one name would be one file."""
    assert [block.seed for block in make_plan(digits, ["numpy"], seeds=[1, 0, 1]).blocks] == [1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_images": 0}, "--train-images 0 is not between 1 and the 1,500 that digits has"),
        ({"train_images": -5}, "--train-images -5 is not between 1 and the 1,500 that digits has"),
        ({"train_images": 1501}, "--train-images 1501 is not between 1 and the 1,500 that digits has"),
        ({"slice_steps": 0}, "--slice-steps must be more than 0, not 0"),
        ({"slice_steps": -1}, "--slice-steps must be more than 0, not -1"),
        ({"threads": 0}, "--threads must be more than 0, not 0"),
        ({"threads": 5}, "--threads 5 is more than the 4 CPUs to be had here"),
        ({"turn_timeout": 0.0}, "--turn-timeout must be more than 0, not 0.0"),
        ({"seeds": []}, "--seeds takes whole numbers from 0, separated by commas: 0,1,2"),
        ({"seeds": [0, -1]}, "--seeds takes whole numbers from 0, separated by commas: 0,1,2"),
        ({"epochs": 0}, "epochs must be at least 1, not 0: give a larger number"),
        ({"batch_size": 0}, "batch size must be at least 1, not 0: give a larger number"),
        ({"backends": ["pytroch"]}, "there is no backend pytroch: did you mean pytorch?"),
        ({"backends": ["nowhere.py"]}, "there is no file nowhere.py: give the path of a Python file"),
        ({"backends": ["numpy"], "device": "abacus"}, "numpy cannot run here: it does not run on abacus, only on cpu"),
        ({"backends": [], "device": "abacus"}, "numpy cannot run here: it does not run on abacus, only on cpu"),
        ({"preset": "huge"}, "there is no preset huge: take one of quick, standard, full"),
        ({"target": float("nan")}, "--target must be more than 0, not nan"),
        ({"turn_timeout": float("inf")}, "--turn-timeout must be more than 0, not inf"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_to_do(digits: Dataset, options: dict[str, Any], message: str) -> None:
    """One sentence that names the option and the value; the exit code is that of wrong usage."""
    with pytest.raises(UsageError) as caught:
        make_plan(digits, **({"backends": ["numpy"]} | options))
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


@pytest.mark.frameworks
def test_no_backends_means_all_with_the_reference_first() -> None:
    """By name, style and version."""
    chosen = choose_backends([])
    assert [backend.name for backend in chosen] == list(registered())
    assert [backend.spec for backend in chosen] == list(registered())
    assert all(backend.skip is None for backend in chosen)
    assert chosen[0].versions == {"numpy": version("numpy")}


def test_reference_is_part_of_every_run_and_first() -> None:
    """Whether it is named or not, and wherever; the others keep the order in which they were named."""
    one, other = "scikit-learn-tuned", "scikit-learn"
    for specs in ([one, other], [one, "numpy", other], ["numpy", one, other, one]):
        assert [backend.name for backend in choose_backends(specs)] == ["numpy", one, other]


@pytest.mark.usefixtures("uninstalled")
def test_backend_that_is_not_installed_is_planned_as_skipped(digits: Dataset) -> None:
    """Nobody asked for it by name: it is in the plan, with the reason and what installs it."""
    skips = {backend.name: backend.skip for backend in make_plan(digits).backends}
    assert (
        skips.pop("pytorch")
        == skips.pop("pytorch-tuned")  # which is made of it
        == "no_such_framework is not installed; install it with: pip install 'lockstep-bench[pytorch]'"
    )
    assert [skips[name] for name in ("numpy", "scikit-learn", "scikit-learn-tuned")] == [None] * 3


@pytest.mark.usefixtures("uninstalled")
def test_backend_named_but_not_installed_is_refused_with_its_extra() -> None:
    """It was asked for by name: nothing is started without it."""
    with pytest.raises(UsageError) as caught:
        choose_backends(["numpy", "pytorch"])
    assert str(caught.value) == (
        "pytorch cannot run here: no_such_framework is not installed; "
        "install it with: pip install 'lockstep-bench[pytorch]'"
    )


@pytest.mark.parametrize(
    ("extra", "install"), [("magic", "pip install 'lockstep-bench[magic]'"), ("", "pip install no_such_one")]
)
def test_file_whose_framework_is_not_installed_is_refused(tmp_path: Path, extra: str, install: str) -> None:
    """With the extra that installs it, or else the module's own name; all that is missing is named."""
    path = adapter(tmp_path, modules=("no_such_one", "numpy", "no_such_other"), extra=extra)
    with pytest.raises(UsageError) as caught:
        choose_backends([path])
    assert str(caught.value) == (
        f"mine cannot run here: no_such_one, no_such_other is not installed; install it with: {install}"
    )


def test_file_is_planned_by_its_own_name_and_path(tmp_path: Path) -> None:
    """The path loads it again in the worker; distributions that are not there have no version."""
    path = adapter(tmp_path)
    _, mine = choose_backends([path])
    assert (mine.name, mine.style, mine.spec, mine.skip) == ("mine", "tuned", path, None)
    assert mine.versions == {"numpy": version("numpy")}


@pytest.mark.parametrize("name", ["numpy", "scikit-learn"])
def test_two_backends_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    """A file that calls itself like a registered one, the reference included: rows could not be told apart."""
    with pytest.raises(UsageError) as caught:
        choose_backends(["scikit-learn", adapter(tmp_path, name)])
    assert str(caught.value) == f"two backends are called {name}: give one of them another `name` in its class"


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Neither can be the other's row."""
    paths = [adapter(tmp_path, file=file) for file in ("a.py", "b.py")]
    with pytest.raises(UsageError, match="two backends are called mine"):
        choose_backends(paths)


def test_broken_file_is_refused_with_its_reason(tmp_path: Path) -> None:
    """As wrong usage, not with a traceback."""
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    with pytest.raises(UsageError, match=r"broken\.py could not be imported: ZeroDivisionError"):
        choose_backends([str(path)])


def test_reasons_why_not() -> None:
    """The device and the arithmetic that a backend does not offer, with those that it does."""

    class Single(NumPy):
        dtypes = ("float32",)

    assert why_not(Single) is None
    assert why_not(Single, device="cuda") == "it does not run on cuda, only on cpu"
    assert why_not(Single, dtype="float64") == "it does not compute in float64, only in float32"
