"""What the tests share: where MNIST is, a cache of their own, and what to do without MNIST or a browser."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from shutil import which

import pytest

from lockstep_bench.backends.base import Dtype
from lockstep_bench.backends.tinygrad import Tinygrad
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.data.find import find_dataset


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without what they need, tests marked `mnist` or `browser` are skipped and say so; in CI they run, and so fail."""
    missing = {}
    if not os.environ.get("LOCKSTEP_MNIST"):
        missing["mnist"] = "needs MNIST: set LOCKSTEP_MNIST to the folder that holds it"
    if not which("chromium"):
        missing["browser"] = "needs Chromium: apt-get install chromium"
    for item in items if not os.environ.get("CI") else []:
        for mark, reason in missing.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))  # never in CI: there the loop is empty


def pytest_configure(config: pytest.Config) -> None:
    """Of several test processes each has one CPU: threads that wait for one another must not compete for it.

    And tinygrad's search for the fastest kernels ends after its first round, of many, but where it is timed: which one
    is the fastest is not what tests ask.
    """
    if not config.getoption("benchmark_only", default=False):
        searching = Tinygrad.environment

        def one_round(_: type[Tinygrad], threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
            return {**searching(threads, device, dtype), "BEAM_MIN_PROGRESS": "1e9"}

        Tinygrad.environment = classmethod(one_round)  # type: ignore[assignment] # a wrapper in the method's place
    if number := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[int(number) % len(cpus)]})


@contextmanager
def every_cpu() -> Iterator[None]:
    """Within it this process, and what it starts, may use every CPU that there is."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.fixture
def all_cpus() -> Iterator[None]:
    """For tests of several threads."""
    with every_cpu():
        yield


@pytest.fixture(scope="session")
def all_cpus_for() -> Callable[[], AbstractContextManager[None]]:
    """The same for what is started once for several tests."""
    return every_cpu


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes of this session have, and no other session."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def cache(shared: Path) -> Path:
    """A cache of datasets that no other program uses, filled once."""
    folder = shared / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def compiled(shared: Path) -> Path:
    """What workers compiled, for tests that do not mind when: compiling everything anew would take most of the time."""
    folder = shared / "compiled"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's cache."""
    monkeypatch.setenv("LOCKSTEP_CACHE", str(cache))


@pytest.fixture(scope="session")
def digits(cache: Path) -> Dataset:
    """The embedded digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCKSTEP_CACHE", str(cache))
        return find_dataset("digits")


@pytest.fixture(scope="session")
def mnist(cache: Path) -> Dataset:
    """MNIST itself; only for tests marked `mnist`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCKSTEP_CACHE", str(cache))
        return find_dataset("mnist", Path(os.environ["LOCKSTEP_MNIST"]))
