"""Which CPUs a run takes, and what it says where a container or a system limits them or tells nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.machine import cpus
from lockstep_bench.harness.machine.conditions import Watch
from lockstep_bench.harness.records.format import EvaluationEvent, Event
from lockstep_bench.harness.report.write import write_report
from lockstep_bench.harness.running.conductor import conduct
from lockstep_bench.harness.running.plan import make_plan
from lockstep_bench.harness.tables.results import load

Lay = Callable[[dict[str, str]], None]
BUSY = """
import sys, time
from pathlib import Path

from lockstep_bench.harness.machine import cpus
from lockstep_bench.harness.machine.conditions import Watch

Path(sys.argv[1], "cgroup.procs").write_text("0")
watch, end = Watch({}), time.process_time() + 0.1
while time.process_time() < end:
    pass
print(cpus.quota(), cpus.default_threads(), watch.conditions()["throttled_seconds"])
"""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lay:
    """A function that lays out files of a system that is not this one: paths under sysfs and cgroupfs, and texts."""
    monkeypatch.setattr(cpus, "CPUS", tmp_path / "cpu")
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cpus, "MEMBERSHIP", tmp_path / "membership")

    def lay(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    return lay


def test_cpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of a large machine's, where the system can say so."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cpus.available_cpus() == 3


@pytest.mark.parametrize(("counted", "available"), [(8, 8), (None, 1)])
def test_cpus_without_affinity_are_all(monkeypatch: pytest.MonkeyPatch, counted: int | None, available: int) -> None:
    """On macOS all there are; one, if even that is unknown."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert cpus.available_cpus() == available


def test_a_system_that_tells_nothing_limits_nothing(system: Lay) -> None:
    """Neither caches nor quota nor topology: fields that are empty, and an order as the CPUs are numbered."""
    system({})
    assert (cpus.caches(), cpus.quota(), cpus.throttled_seconds()) == ({}, None, None)
    assert cpus.fastest_first({3, 1, 2}) == [1, 2, 3]
    assert cpus.default_threads() == cpus.available_cpus()


def test_caches_without_sizes_are_left_out(system: Lay) -> None:
    """Linux on virtual ARM machines has levels and types, and no sizes."""
    system(
        {
            f"cpu/cpu0/cache/index{place}/{name}": text
            for place, name, text in (
                *(
                    (0, "level", "1"),
                    (0, "type", "Data"),
                    (1, "level", "2"),
                    (1, "type", "Unified"),
                    (1, "size", "1024K"),
                ),
            )
        }
    )
    assert cpus.caches() == {"L2 Unified": "1024K"}


def test_a_run_goes_through_where_caches_have_no_sizes(system: Lay, digits: Dataset, tmp_path: Path) -> None:
    """It did not start there."""
    system({"cpu/cpu0/cache/index0/level": "1", "cpu/cpu0/cache/index0/type": "Data"})
    plan = make_plan(digits, ["numpy"], epochs=1, train_images=60, threads=1)
    conduct(plan, digits.folder, tmp_path / "out", extras=False)
    assert list(load(tmp_path / "out").runs["status"]) == ["ok"]


def test_a_run_goes_through_where_no_peak_of_memory_is_told(digits: Dataset, tmp_path: Path) -> None:
    """As in gVisor, whose status has no VmHWM: the field is empty, and the report is written all the same."""
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmRSS:\t1000 kB\n")
    adapter = tmp_path / "without.py"
    adapter.write_text(f"""
from pathlib import Path

from lockstep_bench.backends.numpy import NumPy
from lockstep_bench.harness.machine import conditions

conditions.STATUS = Path({str(status)!r})


class Without(NumPy):
    name = "without"
""")
    plan = make_plan(digits, [str(adapter)], epochs=1, train_images=60, threads=1)
    conduct(plan, digits.folder, tmp_path / "out", extras=False)
    runs = write_report(tmp_path / "out").runs.set_index("backend")
    assert dict(runs["status"]) == {"numpy": "ok", "without": "ok"}
    assert runs["memory_peak_bytes"].isna().to_dict() == {"numpy": False, "without": True}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"membership": "0::/", "cgroup/cpu.max": "max 100000"}, None),
        ({"membership": "0::/", "cgroup/cpu.max": "250000 100000"}, 2.5),
        ({"membership": "0::/a/b", "cgroup/a/cpu.max": "50000 100000", "cgroup/a/b/cpu.max": "max 100000"}, 0.5),
        ({"membership": "0::/outside/of/it", "cgroup/cpu.max": "25000 100000"}, 0.25),
        (
            {
                "membership": "3:cpu,cpuacct:/docker/a\n0::/",
                "cgroup/unified/cgroup.procs": "",
                "cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000",
                "cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            1.5,
        ),
        (
            {
                "membership": "1:cpu:/",
                "cgroup/cpu/cpu.cfs_quota_us": "-1",
                "cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({"membership": "nonsense\n1:cpu", "cgroup/cpu.max": "max"}, None),
    ],
)
def test_a_quota_is_that_of_the_tightest_group(system: Lay, files: dict[str, str], expected: float | None) -> None:
    """Of either version, of a group above, and in a container that knows its group by a path outside."""
    system(files)
    assert cpus.quota() == expected


@pytest.mark.parametrize(("limit", "threads"), [(0.25, 1), (1.0, 1), (2.5, 2), (100.0, 8), (None, 8)])
def test_a_quota_bounds_the_threads(monkeypatch: pytest.MonkeyPatch, limit: float | None, threads: int) -> None:
    """As many as it pays for all the time, and at least one."""
    monkeypatch.setattr(cpus, "available_cpus", lambda: 8)
    monkeypatch.setattr(cpus, "quota", lambda: limit)
    assert cpus.default_threads() == threads


@pytest.mark.parametrize(
    ("files", "count", "seconds"),
    [
        ({"membership": "0::/", "cgroup/cpu.max": "25000 100000"}, "throttled_usec 2500000", 2.5),
        (
            {
                "membership": "1:cpu:/",
                "cgroup/cpu/cpu.cfs_quota_us": "25000",
                "cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            "throttled_time 2500000000",
            2.5,
        ),
        ({"membership": "0::/", "cgroup/cpu.max": "max 100000"}, "throttled_usec 2500000", None),
    ],
    ids=["version 2", "version 1", "no quota"],
)
def test_what_a_quota_held_back_is_that_of_the_turn(
    system: Lay, files: dict[str, str], count: str, seconds: float | None
) -> None:
    """What was held back before does not count, nor what a group counts that limits nothing."""
    stat = "cgroup/cpu/cpu.stat" if "cgroup/cpu/cpu.cfs_quota_us" in files else "cgroup/cpu.stat"
    name, _ = count.split()
    system({**files, stat: f"nr_throttled 1\n{name} 0"})
    watch = Watch({})
    system({stat: f"nr_throttled 9\n{count}"})
    assert watch.conditions()["throttled_seconds"] == seconds
    assert Watch({}).conditions()["throttled_seconds"] == (None if seconds is None else 0)


def test_a_real_quota_is_seen_and_what_it_costs() -> None:
    """A process that needs a CPU and has a twentieth is held back: where such a group can be made, as root may."""
    group = cpus.CGROUPS / "cpu" / f"lockstep-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cpu.cfs_quota_us").write_text("5000")
    except OSError:  # control groups of version 2, or no right to them: the test above has both versions
        return
    try:
        busy = subprocess.run(
            [sys.executable, "-c", BUSY, group],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        group.rmdir()
    limit, threads, throttled = busy.stdout.split()
    assert (float(limit), int(threads)) == (0.05, 1)
    assert float(throttled) > 0


def test_one_of_each_core_comes_before_the_second_of_any(system: Lay) -> None:
    """Siblings that are numbered next to each other: two threads are two cores."""
    system({f"cpu/cpu{cpu}/topology/thread_siblings_list": f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}" for cpu in range(8)})
    assert cpus.fastest_first(range(8)) == [0, 2, 4, 6, 1, 3, 5, 7]
    assert cpus.fastest_first([1, 4, 5]) == [1, 4, 5]


@pytest.mark.parametrize(("name", "fast", "slow"), [("cpu_capacity", 1024, 446), ("cpufreq/cpuinfo_max_freq", 5, 3)])
def test_the_fastest_cores_come_first(system: Lay, name: str, fast: int, slow: int) -> None:
    """Of a big.LITTLE ARM by capacity, of a hybrid Intel by the highest frequency."""
    system({f"cpu/cpu{cpu}/{name}": str(fast if cpu >= 4 else slow) for cpu in range(6)})
    assert cpus.fastest_first(range(6)) == [4, 5, 0, 1, 2, 3]


def test_workers_are_pinned_in_that_order(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second CPU is the faster one, one thread runs there, and the record says so."""
    last = max(os.sched_getaffinity(0))
    monkeypatch.setattr(cpus, "_speed", lambda cpu: int(cpu == last))
    plan = make_plan(digits, ["numpy"], epochs=1, train_images=60, threads=1)
    found: list[list[int]] = []
    conduct(plan, digits.folder, tmp_path / "out", lambda _, event: found.extend(affinities(event)), extras=False)
    assert found == [[last]]


def affinities(event: Event) -> list[list[int]]:
    """Of an evaluation, the CPUs that its worker may use."""
    return [event.affinity] if isinstance(event, EvaluationEvent) else []
