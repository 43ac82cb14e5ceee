"""Two machines have one identity where nothing that bears on speed tells them apart, and then only."""

import platform
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from lockstep_bench.harness.machine import cpus, identity

EPYC = {"brand_raw": "AMD EPYC", "vendor_id_raw": "AuthenticAMD", "family": 25, "model": 17, "stepping": 1}
ZEN_4 = {**EPYC, "flags": ["avx2", "avx512f", "avx512_bf16", "hypervisor"]}
ZEN_3 = {**EPYC, "model": 1, "flags": ["avx2", "hypervisor"]}
OLD = "AMD EPYC, 2 CPUs, 24 GiB"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes this machine another."""

    def make(info: dict[str, Any], count: int = 2, quota: float | None = None, gibibytes: float = 23.5) -> None:
        monkeypatch.setattr(identity, "_cpu", lambda: info)
        monkeypatch.setattr(identity, "cpu_model", lambda: info.get("brand_raw") or "x86-65")
        monkeypatch.setattr(identity, "gpus", lambda: ["NVIDIA H200, 143771 MiB, 580.95"])
        monkeypatch.setattr(cpus, "available_cpus", lambda: count)
        monkeypatch.setattr(cpus, "quota", lambda: quota)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=int(gibibytes * 2**30)))

    return make


def test_cpus_that_differ_have_different_names(machine: Any) -> None:
    """Also where both call themselves no more than AMD EPYC."""
    machine(ZEN_4)
    assert identity.machine_name() == "AMD EPYC (Zen 4, AVX-512 BF16, virtual), 2 CPUs, 24 GiB"
    machine(ZEN_3)
    assert identity.machine_name() == "AMD EPYC (Zen 3, AVX2, virtual), 2 CPUs, 24 GiB"
    machine({**ZEN_4, "family": 99})
    assert identity.machine_name() == "AMD EPYC (family 99 model 17, AVX-512 BF16, virtual), 2 CPUs, 24 GiB"
    machine({"brand_raw": "Neoverse-N1", "flags": ["asimd"]}, count=4, quota=2.5, gibibytes=15.6)
    assert identity.machine_name() == "Neoverse-N1 (NEON), 4 CPUs (quota 2.5), 16 GiB"
    machine({"brand_raw": "Some CPU"}, count=1, gibibytes=125.6)
    assert identity.machine_name("cuda") == "Some CPU, 1 CPU, 128 GiB, NVIDIA H200"


def test_memory_and_which_cpus_leave_a_machine_the_same(machine: Any) -> None:
    """A kernel that keeps some more for itself, or two other CPUs of the same kind."""
    lines = set()
    for gibibytes in (23.4, 23.6, 24.0):
        machine(ZEN_4, gibibytes=gibibytes)
        lines.add(identity.described(identity.identity()._asdict()))
    assert len(lines) == 1


@pytest.mark.parametrize(
    "other",
    [
        ({**ZEN_4, "stepping": 2},),
        ({**ZEN_4, "model": 18},),
        ({**ZEN_4, "flags": ["avx2", "hypervisor"]},),
        ({**ZEN_4, "flags": ["avx512_bf16"]},),
        (ZEN_4, 4),
        (ZEN_4, 2, 1.5),
        (ZEN_4, 2, None, 30.0),
    ],
)
def test_what_bears_on_speed_makes_another_machine(machine: Any, other: tuple[Any, ...]) -> None:
    """Stepping, model, instructions, virtual or not, CPUs, quota, memory."""
    machine(ZEN_4)
    here = identity.described(identity.identity()._asdict())
    machine(*other)
    assert identity.described(identity.identity()._asdict()) != here


@pytest.mark.parametrize(
    ("name", "same"),
    [
        (OLD, True),
        ("AMD EPYC (Zen 4, AVX-512 BF16, virtual), 2 CPUs, 24 GiB", True),
        ("AMD EPYC, 2 CPUs, 23 GiB", True),
        ("AMD EPYC, 4 CPUs, 24 GiB", False),
        ("AMD EPYC, 2 CPUs, 32 GiB", False),
        ("AMD EPYC 7R13, 2 CPUs, 24 GiB", False),
        ("AMD EPYC, 2 CPUs, 24 GiB, NVIDIA H200", False),
        ("AMD EPYC, 2 CPUs, 24 GiB, shared by 2 nodes", False),
        ("a machine", False),
    ],
)
def test_a_name_of_before_may_be_that_of_now(name: str, same: bool) -> None:
    """Where brand, CPUs, memory and all else that it has are alike."""
    assert identity.may_be_one(OLD, name) == identity.may_be_one(name, OLD) == same


def test_names_with_parentheses_of_their_own_are_understood() -> None:
    """Intel's have some in the brand itself."""
    old = "Intel(R) Xeon(R) Processor, 16 CPUs, 126 GiB, NVIDIA H200"
    new = "Intel(R) Xeon(R) Processor (Sapphire Rapids, AMX, virtual), 16 CPUs, 128 GiB, NVIDIA H200"
    assert identity.may_be_one(old, new)


@pytest.mark.parametrize(
    ("info", "model"), [({"brand_raw": "Some CPU"}, "Some CPU"), ({}, "x86-65"), ({"brand_raw": ""}, "x86-65")]
)
def test_cpu_without_a_brand_is_called_by_its_architecture(
    monkeypatch: pytest.MonkeyPatch, info: dict[str, str], model: str
) -> None:
    """Many arm64 machines have none."""
    monkeypatch.setattr(identity, "_cpu", lambda: info)
    monkeypatch.setattr(platform, "machine", lambda: "x86-65")
    assert identity.cpu_model.__wrapped__() == model
