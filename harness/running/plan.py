"""From what a user asks for to a plan: presets, defaults, and every check that can be made beforehand."""

import math
import platform
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from lockstep_bench.backends import REFERENCE, BackendNotFoundError, load, registered, why_not
from lockstep_bench.backends.base import Backend, Dtype
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.machine import cpus, environment, identity
from lockstep_bench.harness.problem import NOTEBOOK_ERROR_PERCENT, Problem, Profile
from lockstep_bench.harness.records.format import Block, Plan, PlannedBackend, PlannedDataset
from lockstep_bench.harness.wording import counted


class Preset(NamedTuple):
    """A named set of defaults; `train_images` none for all that there are.

    Short slices pair better: where these defaults were chosen, the log ratio of the reference to itself varied by 0.09
    to 0.13 from round to round for slices of 1000, 500, 250 and 100 steps alike, so four times as many rounds halve the
    interval. But a slice is a call, and Keras's `fit` takes 40 to 80 ms to begin: 2 to 3 % of 500 steps, no more than
    the interval's width after the 160 rounds of `standard`. `quick` has few rounds and wide intervals: there it is 100.

    scikit-learn's first 400 steps or so take twice the time of the others, while glibc gives its temporaries back to
    the system (docs/tuning.md), so a median needs well over 800 steps: `quick` has 1,200. Where a dataset is so small
    that the epochs have fewer than LEAST_ROUNDS rounds, there are more.
    """

    epochs: int
    train_images: int | None
    seeds: tuple[int, ...]
    slice_steps: int


PresetName = Literal["quick", "standard", "full"]
PRESETS: dict[PresetName, Preset] = {
    "quick": Preset(epochs=3, train_images=6_000, seeds=(0,), slice_steps=100),
    "standard": Preset(epochs=20, train_images=None, seeds=(0,), slice_steps=500),
    "full": Preset(epochs=20, train_images=None, seeds=(0, 1, 2, 3, 4), slice_steps=500),
}
LEAST_ROUNDS = 8
"""A run has at least so many rounds if nobody asks for fewer epochs: six make an interval, a few more make it hold."""
LONGEST_TIMEOUT_SECONDS = 7 * 24 * 3600
"""A turn may take a week; the system's own limit on waiting is far beyond."""


def make_plan(
    dataset: Dataset,
    backends: Sequence[str] = (),
    *,
    preset: PresetName = "quick",
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    train_images: int | None = None,
    batch_size: int = 15,
    hidden: int = 784,
    slice_steps: int | None = None,
    fixed_steps: int | None = None,
    threads: int | Sequence[int] | None = None,
    replicates: int = 1,
    aa: bool = False,
    device: str = "cpu",
    profile: Profile = "identical",
    target: float = NOTEBOOK_ERROR_PERCENT,
    turn_timeout: float = 300.0,
    command: str = "",
    with_slow: bool = False,
    keep: Sequence[str] = (),
) -> Plan:
    """Resolve what was asked for; no backends means all there are, those not installed planned as skipped.

    `quick` skips those that are slow as well, unless they are named or `with_slow` asks for them.

    Several thread counts are run one after another, and compared within themselves; `replicates` is how often all of
    it is done, in new processes; `aa` adds the reference a second time. In the `native` profile every backend has its
    own defaults, and none is checked. With `fixed_steps` the run ends after so many, in one long epoch. Workers inherit
    the environment variables that decide how fast they compute only where their names are in `keep`.

    Raises:
        UsageError: a value is out of range, or a backend named is not there or not installed.
    """
    if preset not in PRESETS:
        raise UsageError(f"there is no preset {preset}: take one of {', '.join(PRESETS)}")
    if profile not in get_args(Profile):
        raise UsageError(f"there is no profile {profile}: take one of {', '.join(get_args(Profile))}")
    defaults = PRESETS[preset]
    available = len(dataset.train.labels)
    if train_images is None:
        train_images = min(defaults.train_images or available, available)
    if not 1 <= train_images <= available:
        raise UsageError(
            f"--train-images {train_images} is not between 1 and the {available:,} that {dataset.name} has: "
            "give a number in between"
        )
    positive = {
        "--slice-steps": slice_steps,
        "--replicates": replicates,
        "--turn-timeout": turn_timeout,
        "--target": target,
    }
    for option, value in positive.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{option} must be more than 0, not {value}: give a larger number")
    if turn_timeout > LONGEST_TIMEOUT_SECONDS:
        raise UsageError(
            f"--turn-timeout {turn_timeout:g} is more than {LONGEST_TIMEOUT_SECONDS:,} s: give a smaller one"
        )
    slice_steps = slice_steps or defaults.slice_steps
    if epochs is None:
        epochs = _enough_epochs(defaults.epochs, train_images, slice_steps * batch_size)
    seeds = list(dict.fromkeys(defaults.seeds if seeds is None else seeds))
    if not seeds or min(seeds) < 0:
        raise UsageError("--seeds takes whole numbers from 0, separated by commas: 0,1,2")
    blocks = [
        Block(id=_block_id(seed, count, device, replicate), seed=seed, threads=count, replicate=replicate)
        for count in _threads(threads)
        for replicate in range(1, replicates + 1)
        for seed in seeds
    ]
    head, clean = environment.commit()
    return Plan(
        lockstep=environment.lockstep_version(),
        python=platform.python_version(),
        commit=head,
        commit_clean=clean,
        command=command,
        preset=preset,
        profile=profile,
        problem=_problem(1 if fixed_steps else epochs, batch_size, hidden),
        dataset=PlannedDataset(
            name=dataset.name,
            sha256=dataset.sha256,
            train_images=train_images,
            test_images=len(dataset.test.labels),
        ),
        backends=choose_backends(backends, device=device, aa=aa, with_slow=with_slow or preset != "quick"),
        blocks=blocks,
        device=device,
        slice_steps=slice_steps,
        fixed_steps=fixed_steps,
        turn_timeout_seconds=turn_timeout,
        target_error_percent=target,
        machine=identity.machine_name(device),
        keep=list(dict.fromkeys(keep)),
    )


def _enough_epochs(least: int, train_images: int, slice_images: int) -> int:
    """The epochs of a preset, or more where these would have fewer than LEAST_ROUNDS rounds."""
    rounds = math.ceil(train_images / max(1, slice_images))
    return max(least, math.ceil(LEAST_ROUNDS / rounds))


def _threads(threads: int | Sequence[int] | None) -> list[int]:
    """The thread counts asked for, each once; as many as CPUs if none, or as the quota of a container pays for."""
    available = cpus.available_cpus()
    counts = [threads] if isinstance(threads, int) else list(dict.fromkeys(threads or [cpus.default_threads()]))
    for count in counts:
        if count < 1:
            raise UsageError(f"--threads must be more than 0, not {count}: give a larger number")
        if count > available:
            raise UsageError(f"--threads {count} is more than the {counted(available, 'CPU')} to be had here")
    return counts


def _block_id(seed: int, threads: int, device: str, replicate: int) -> str:
    return f"seed-{seed}-threads-{threads}-{device}" + (f"-replicate-{replicate}" if replicate > 1 else "")


def _problem(epochs: int, batch_size: int, hidden: int) -> Problem:
    try:
        return Problem(epochs=epochs, batch_size=batch_size, hidden=hidden)
    except ValueError as error:
        raise UsageError(f"{error}: give a larger number") from error


def choose_backends(
    specs: Sequence[str],
    *,
    device: str = "cpu",
    dtype: Dtype = "float32",
    aa: bool = False,
    with_slow: bool = True,
) -> list[PlannedBackend]:
    """The backends to run, the reference first; named ones must be able to run, of all the others the reason is noted.

    With `aa` the reference is among them twice, the second time as `numpy-aa`. Without `with_slow`, those that are not
    named and slow are skipped.

    Raises:
        UsageError: a backend is not known, not installed, cannot run so, or is named twice.
    """
    classes = {spec: _load(spec) for spec in dict.fromkeys([REFERENCE, *(specs or registered())])}
    somebody_can = any(device in backend.devices for backend in classes.values())
    chosen = [_planned(spec, backend, device, dtype, somebody_can) for spec, backend in classes.items()]
    if not (with_slow or specs):
        chosen = [_quick(backend, classes[backend.spec].slow) for backend in chosen]
    for backend in chosen:
        if backend.skip and backend.spec in (REFERENCE, *specs):
            raise UsageError(f"{backend.name} cannot run here: {backend.skip}")
    if aa:
        chosen.append(chosen[0].model_copy(update={"name": f"{REFERENCE}-aa"}))
    names = [backend.name for backend in chosen]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two backends are called {name}: give one of them another `name` in its class")
    return chosen


def _quick(backend: PlannedBackend, slow: str) -> PlannedBackend:
    """The backend as a quick run has it: skipped where it is slow."""
    if backend.skip or not slow:
        return backend
    return backend.model_copy(update={"skip": f"{slow}, too long for quick: add --with-slow, or name it"})


def _load(spec: str) -> type[Backend]:
    try:
        return load(spec)
    except BackendNotFoundError as error:
        raise UsageError(str(error)) from error


def _planned(spec: str, backend: type[Backend], device: str, dtype: Dtype, somebody_can: bool) -> PlannedBackend:
    """The reference goes with those who can train on another device, on the CPU if it cannot itself."""
    own = "cpu" if spec == REFERENCE and somebody_can and device not in backend.devices else None
    return PlannedBackend(
        name=backend.name,
        style=backend.style,
        spec=spec,
        versions=backend.versions(),
        skip=why_not(backend, own or device, dtype),
        source_sha256=backend.source_sha256(),
        device=own,
    )
