"""A run on another device than the CPU: who runs where, what is recorded, and what is said where there is none.

There is no GPU here: an adapter on NumPy passes for one that has it, and the real ones say that they see none.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lockstep_bench.backends
from lockstep_bench.backends import load, registered, why_not
from lockstep_bench.backends.base import Split
from lockstep_bench.harness.checks.equivalence import CUDA_TOLERANCE, TOLERANCES, tolerance
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.errors import UsageError
from lockstep_bench.harness.problem import Problem, epoch_order, initial_weights
from lockstep_bench.harness.records.format import StartEvent
from lockstep_bench.harness.records.raw_files import read_block
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.running.plan import choose_backends, make_plan
from lockstep_bench.harness.running.verification import Verifier
from lockstep_bench.harness.tables.results import load as load_tables

ON_GPU = (
    *("jax", "jax-scan", "jax-vmap", "keras", "keras-jax", "keras-torch", "keras-xla"),
    *("pytorch", "pytorch-tuned", "tensorflow"),
)
PRETENDER = """
import os
from lockstep_bench.backends.numpy import NumPy


class Pretender(NumPy):
    name = "pretender"
    devices = ("cuda",)

    @classmethod
    def environment(cls, threads, device, dtype):
        return {"TOLD": device}

    def build(self, problem, weights, train, device, threads):
        assert device == os.environ["TOLD"] == "cuda"
        super().build(problem, weights, train, "cpu", threads)

    def device_memory_bytes(self):
        return 12345
"""
SMALL = {"epochs": 2, "train_images": 300, "slice_steps": 4, "threads": 1, "device": "cuda"}


@pytest.fixture
def with_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if NVIDIA's driver were running."""
    (tmp_path / "version").touch()
    monkeypatch.setattr(lockstep_bench.backends, "CUDA", tmp_path / "version")


@pytest.mark.frameworks
def test_without_a_gpu_nothing_runs_on_one(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named backend is wrong usage, and says what is missing; of all, each has the reason."""
    monkeypatch.setattr(lockstep_bench.backends, "CUDA", tmp_path / "nothing")
    with pytest.raises(UsageError, match="pytorch cannot run here: there is no NVIDIA GPU here"):
        make_plan(digits, ["pytorch"], device="cuda")
    skipped = {backend.name: backend.skip for backend in choose_backends([], device="cuda") if backend.skip}
    assert set(skipped) == set(registered()) - {"numpy"}
    assert skipped["numba"] == "it does not run on cuda, only on cpu"


@pytest.mark.frameworks
def test_whoever_can_runs_on_the_gpu_and_the_reference_on_the_cpu(with_driver: None) -> None:
    """The others are skipped with the reason; nothing is asked of the CPU run that it did not have before."""
    planned = {backend.name: backend for backend in choose_backends([], device="cuda", aa=True)}
    assert planned["numpy"].device == planned["numpy-aa"].device == "cpu"
    assert {name for name, backend in planned.items() if not backend.skip} == {"numpy", "numpy-aa", *ON_GPU}
    assert planned["scikit-learn"].skip == "it does not run on cuda, only on cpu"
    assert all(backend.device is None for backend in choose_backends([], device="cpu"))


@pytest.mark.parametrize("name", ON_GPU)
def test_on_a_gpu_float32_is_float32(name: str) -> None:
    """No product is rounded to TF32, and nobody takes all of the memory; on the CPU nothing of that is set."""
    backend = load(name)
    on_gpu, on_cpu = (backend.environment(2, device, "float32") for device in ("cuda", "cpu"))
    assert on_gpu["NVIDIA_TF32_OVERRIDE"] == "0"
    assert "NVIDIA_TF32_OVERRIDE" not in on_cpu
    assert on_gpu.get("CUDA_VISIBLE_DEVICES") is None
    if "tensorflow" in backend.packages:
        assert on_gpu["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    if "jax" in backend.packages:
        assert on_gpu["JAX_PLATFORMS"] == "cuda"
        assert on_gpu["JAX_DEFAULT_MATMUL_PRECISION"] == "highest"
        assert on_gpu["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
        assert on_cpu["JAX_PLATFORMS"] == "cpu"


def test_a_run_on_a_device_is_one_against_the_cpu(digits: Dataset, tmp_path: Path, with_driver: None) -> None:
    """Every row names its device, the memory of the device is in the record, and the gate holds them together."""
    adapter = tmp_path / "pretender.py"
    adapter.write_text(PRETENDER)
    plan = make_plan(digits, [str(adapter)], **SMALL)  # type: ignore[arg-type] # they are as they have to be
    conduct(plan, digits.folder, tmp_path / "out", extras=False)
    results = load_tables(tmp_path / "out")
    runs = results.runs.set_index("backend")
    assert runs["status"].to_dict() == {"numpy": "ok", "pretender": "ok"}
    assert runs["device"].to_dict() == {"numpy": "cpu", "pretender": "cuda"}
    assert runs["device_memory_peak_bytes"].fillna(0).to_dict() == {"numpy": 0, "pretender": 12345}
    assert results.summary.set_index("backend")["device_memory_peak_bytes"]["pretender"] == 12345
    assert set(results.ratios["device"]) == {"cuda"}
    assert runs["disagreements"].max() == 0


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tensorflow", "this TensorFlow sees no GPU: install tensorflow[and-cuda]"),
        ("keras", "this TensorFlow sees no GPU: install tensorflow[and-cuda]"),
        ("keras-torch", "this PyTorch sees no GPU: install its CUDA build"),
        ("pytorch", "Torch not compiled with CUDA enabled"),
        ("jax-scan", "this JAX sees no GPU: install jax[cuda12]"),
    ],
)
def test_a_framework_without_its_gpu_part_does_not_train_on_the_cpu(
    digits: Dataset, tmp_path: Path, with_driver: None, name: str, reason: str
) -> None:
    """It ends as an error with the framework's own words or what to install, before it has trained anything."""
    plan = make_plan(digits, [name], **SMALL)  # type: ignore[arg-type] # they are as they have to be
    conduct(plan, digits.folder, tmp_path / "out", extras=False)
    run = load_tables(tmp_path / "out").runs.set_index("backend").loc[name]
    assert run["status"] == "error"
    assert reason in run["reason"]
    events = read_block(tmp_path / "out", plan.blocks[0]).events
    assert {getattr(event, "backend", None) for event in events if event.event == "turn"} == {"numpy"}
    assert any(isinstance(event, StartEvent) for event in events)


def test_verify_on_a_device_has_its_own_tolerance(
    digits: Dataset, tmp_path: Path, with_driver: None, compiled: Path
) -> None:
    """The oracle stays on the CPU; TF32, 5e-5 off, is still seen."""
    adapter = tmp_path / "pretender.py"
    adapter.write_text(PRETENDER)
    verifier = Verifier(digits, device="cuda", caches=compiled)
    [verification] = verifier.verify_all([str(adapter)])
    assert verification.passed, list(verification.lines())
    allowed = {row.check: row.tolerance for row in verification.rows() if row.part == "identity"}
    assert allowed["all weights"] == CUDA_TOLERANCE.weights
    assert TOLERANCES["float32"].weights < CUDA_TOLERANCE.weights < 5.4e-5
    assert tolerance("float32", "cpu") == TOLERANCES["float32"]
    assert tolerance("float64", "cuda") == TOLERANCES["float64"]


@pytest.mark.frameworks
def test_steps_launched_as_one_are_the_same_steps(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pytorch-tuned`'s way on a GPU, without its graph: parts of four steps, the rest one by one; no rest."""
    from lockstep_bench.backends.pytorch import PyTorchTuned

    problem, order = Problem(), epoch_order(0, 1, 200)
    train = Split(*digits.train).first(200)
    found = []
    for at_once in (0, 4):
        monkeypatch.setattr(PyTorchTuned, "_graph_steps", lambda _, at_once=at_once: at_once)
        backend = PyTorchTuned()
        backend.build(problem, initial_weights(problem, 0), train, "cpu", 1)
        monkeypatch.setattr(backend, "compiled", backend.eager)
        losses = [backend.train(order), backend.train(order[:65]), backend.train(order[:60])]
        found.append((losses, backend.weights(), backend.step))
        assert (backend.many is not None) == bool(at_once)
    (losses, weights, steps), (other_losses, other_weights, other_steps) = found
    assert np.allclose(losses, other_losses, rtol=1e-6)
    assert steps == other_steps == 14 + 5 + 4
    for one, other in zip(weights, other_weights, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.frameworks
def test_batches_taken_on_the_device_are_the_same_batches(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """`jax`'s way on a GPU, its arrays on the CPU: it takes each batch, a short one too, by a compiled call."""
    from lockstep_bench.backends import jax

    monkeypatch.setattr(jax, "use_jax_gpu", lambda: None)
    train = Split(*digits.train).first(200)
    found = []
    for device in ("cpu", "cuda"):
        backend = jax.Jax()
        backend.build(Problem(), initial_weights(Problem(), 0), train, device, 1)
        loss = backend.train(epoch_order(0, 1, 200))
        found.append((loss, *backend.weights()))
        assert hasattr(backend.take, "lower") == (device == "cuda")
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.frameworks
def test_why_not_names_the_gpu_before_the_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be there comes first."""
    monkeypatch.setattr(lockstep_bench.backends, "CUDA", tmp_path / "nothing")
    asked: Callable[..., str | None] = why_not
    assert asked(load("jax"), "cuda") == "there is no NVIDIA GPU here, or its driver is not running"
    assert asked(load("jax"), "cpu") is None
