"""What machine this is: two that have the same identity run the same kernels on as many CPUs with as much memory.

It is the CPU's vendor, family, model, stepping and widest vector instructions, whether it is virtual, CPUs and their
quota, memory and GPUs; never the host name, which is nobody's business. A virtual CPU's brand often says no more than
`AMD EPYC`, and hides which of three generations it is of.
"""

import math
import platform
import re
import subprocess
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from lockstep_bench.harness.machine import cpus
from lockstep_bench.harness.wording import counted

VECTORS: Final = (
    ("AMX", ("amx_tile",)),
    ("AVX-512 BF16", ("avx512_bf16", "avx512bf16")),
    ("AVX-512", ("avx512f",)),
    ("AVX2", ("avx2",)),
    ("AVX", ("avx",)),
    ("SVE2", ("sve2",)),
    ("SVE", ("sve",)),
    ("NEON", ("asimd", "neon")),
)
"""Vector instructions, the widest first, and the names of the flag that shows them."""
AMD: Final = {
    "Zen": (23, [*range(0x30), *range(0x50, 0x60)]),
    "Zen 2": (23, [*range(0x30, 0x50), *range(0x60, 0x80), 0x90, 0x91, *range(0xA0, 0xB0)]),
    "Zen 3": (25, [*range(0x10), *range(0x20, 0x60)]),
    "Zen 4": (25, [*range(0x10, 0x20), *range(0x60, 0xB0)]),
    "Zen 5": (26, [*range(0x30), *range(0x40, 0x50), *range(0x60, 0x80)]),
}
"""Family and models of a core; source: Linux, `bsp_init_amd` in arch/x86/kernel/cpu/amd.c (6.11)."""
INTEL: Final = {
    **dict.fromkeys((0x3C, 0x3F, 0x45, 0x46), "Haswell"),
    **dict.fromkeys((0x3D, 0x47, 0x4F, 0x56), "Broadwell"),
    **dict.fromkeys((0x4E, 0x5E, 0x55), "Skylake"),
    **dict.fromkeys((0x6A, 0x6C, 0x7D, 0x7E), "Ice Lake"),
    0x8F: "Sapphire Rapids",
    0xCF: "Emerald Rapids",
    **dict.fromkeys((0xAD, 0xAE), "Granite Rapids"),
    **dict.fromkeys((0x97, 0x9A), "Alder Lake"),
    **dict.fromkeys((0xB7, 0xBA, 0xBF), "Raptor Lake"),
}
"""The core of a model of family 6; source: Linux, arch/x86/include/asm/intel-family.h (6.10)."""
NAME: Final = re.compile(
    r"(?P<brand>.*?)(?: \([^()]*\))?, (?P<cpus>\d+ CPUs?)(?: \(quota [^()]*\))?, (?P<memory>[\d.]+) GiB(?P<rest>.*)"
)
DMI: Final = Path("/sys/class/dmi/id")


class Identity(NamedTuple):
    """What sets a machine apart. A fact that the system does not tell is empty or none.

    Attributes:
        brand: the CPU's own name.
        vendor, family, model, stepping: as `cpuid` or the kernel has them.
        vectors: the widest vector instructions.
        is_virtual: whether the CPU says that a hypervisor runs it.
        cpus: how many may be used, whichever of them.
        cpu_quota: how many CPUs' time a container leaves.
        memory_gibibytes: as the modules are sold; the system sees a little less, and not always the same.
        gpus: name and memory of each.
    """

    brand: str
    vendor: str
    family: int | None
    model: int | None
    stepping: int | None
    vectors: str
    is_virtual: bool
    cpus: int
    cpu_quota: float | None
    memory_gibibytes: float
    gpus: list[str]


def identity() -> Identity:
    """Return the identity of this machine."""
    info = _cpu()
    flags = info.get("flags") or ()
    return Identity(
        brand=cpu_model(),
        vendor=str(info.get("vendor_id_raw") or ""),
        **{name: _number(info.get(name)) for name in ("family", "model", "stepping")},
        vectors=vectors(flags),
        is_virtual="hypervisor" in flags,
        cpus=cpus.available_cpus(),
        cpu_quota=cpus.quota(),
        memory_gibibytes=nominal(psutil.virtual_memory().total / 2**30),
        gpus=[gpu.rpartition(",")[0] for gpu in gpus()],  # without the driver
    )


def machine_name(device: str = "cpu") -> str:
    """Return what the tables call this machine: CPU, CPUs and their quota, memory; on `cuda` the first GPU as well."""
    here = identity()
    facts = [core(here.vendor, here.family, here.model), here.vectors, "virtual" if here.is_virtual else ""]
    cpu = f"{here.brand} ({', '.join(filter(None, facts))})" if any(facts) else here.brand
    quota = "" if here.cpu_quota is None else f" (quota {here.cpu_quota:g})"
    gpu = f", {here.gpus[0].partition(',')[0]}" if device == "cuda" and here.gpus else ""
    return f"{cpu}, {counted(here.cpus, 'CPU')}{quota}, {here.memory_gibibytes:g} GiB{gpu}"


def gpus() -> list[str]:
    """Return name, memory and driver of every NVIDIA GPU, as its own tool lists them; none where there is no tool."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


@cache
def cpu_model() -> str:
    """Return the CPU's brand, as it calls itself."""
    return str(_cpu().get("brand_raw") or platform.machine())


def described(recorded: Mapping[str, Any]) -> str:
    """Return in one line what a record has of a machine's identity; empty if it has none.

    Two machines are the same where these lines are.
    """
    if not recorded:
        return ""
    facts = {name: recorded.get(name) for name in Identity._fields}
    texts = [
        *(str(facts[name] or "") for name in ("brand", "vendor")),
        *(f"{name} {facts[name]}" for name in ("family", "model", "stepping") if facts[name] is not None),
        str(facts["vectors"] or ""),
        "virtual" if facts["is_virtual"] else "",
        f"{facts['cpus']} CPUs",
        "" if facts["cpu_quota"] is None else f"quota {facts['cpu_quota']}",
        f"{facts['memory_gibibytes']} GiB",
        *map(str, facts["gpus"] if isinstance(facts["gpus"], list) else []),
    ]
    return ", ".join(filter(None, texts))


def may_be_one(name: str, other: str) -> bool:
    """Return whether the names of two machines are of one, as far as they go.

    Names from before identities were recorded have the brand alone, and memory as the system saw it, rounded.
    """
    first, second = NAME.fullmatch(name), NAME.fullmatch(other)
    if not (first and second):
        return name == other
    same = all(first[group] == second[group] for group in ("brand", "cpus", "rest"))
    sizes = [float(match["memory"]) for match in (first, second)]
    return same and nominal(min(sizes)) == nominal(max(sizes))


def core(vendor: str, family: int | None, model: int | None) -> str:
    """Return the name of a core, or family and model where no name is known; empty without them."""
    if family is None or model is None:
        return ""
    names = {}
    if vendor == "AuthenticAMD":
        names = {(known, one): name for name, (known, models) in AMD.items() for one in models}
    elif vendor == "GenuineIntel":
        names = {(6, one): name for one, name in INTEL.items()}
    return names.get((family, model), f"family {family} model {model}")


def vectors(flags: Collection[str]) -> str:
    """Return the widest vector instructions among a CPU's flags; empty if none is known."""
    return next((name for name, shown_by in VECTORS if any(flag in flags for flag in shown_by)), "")


def nominal(gibibytes: float) -> float:
    """Return the size that memory was sold as: the next multiple of an eighth of the power of two below it.

    Firmware, kernel and hypervisor keep some, and not always as much: 23.4 and 23.6 GiB are both 24.
    """
    if gibibytes <= 0:
        return 0.0
    unit = 2.0 ** (math.floor(math.log2(gibibytes)) - 3)
    return math.ceil(gibibytes / unit) * unit


def conditions_of_speed() -> dict[str, Any]:
    """Return what else bears on speed here, as far as the system tells: clock, sharing of cores, pages, microcode."""
    cpu = cpus.CPUS
    boost = cpus.text_of(cpu / "cpufreq" / "boost")
    turbo = cpus.text_of(cpu / "intel_pstate" / "no_turbo")
    pages = cpus.text_of(Path("/sys/kernel/mm/transparent_hugepage/enabled"))
    return {
        "governor": cpus.text_of(cpu / "cpu0" / "cpufreq" / "scaling_governor"),
        "boost": {"1": True, "0": False}.get(boost, {"1": False, "0": True}.get(turbo)),
        "smt": {"1": True, "0": False}.get(cpus.text_of(cpu / "smt" / "active")),
        "hypervisor": cpus.text_of(DMI / "sys_vendor") if "hypervisor" in (_cpu().get("flags") or ()) else "",
        "microcode": _microcode(),
        "transparent_hugepages": pages.partition("[")[2].partition("]")[0],
    }


def _microcode() -> str:
    """The version of the CPU's microcode."""
    lines = cpus.text_of(Path("/proc/cpuinfo")).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("microcode")), "")


@cache
def _cpu() -> dict[str, Any]:
    """What the CPU says of itself; finding out takes a third of a second."""
    import cpuinfo

    return dict(cpuinfo.get_cpu_info())


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
