"""The options of the pytest-benchmark suite, its record of the machine, and its clock."""

from typing import Any

import pytest

from lockstep_bench.backends import BackendNotFoundError, load, registered, why_not
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.data.find import find_dataset
from lockstep_bench.harness.errors import LockstepError
from lockstep_bench.harness.machine import environment
from lockstep_bench.harness.machine.identity import machine_name
from lockstep_bench.harness.machine.variables import recorded_variables

ROUNDS = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which backends, and how often."""
    group = parser.getgroup("lockstep")
    group.addoption("--backends", metavar="NAMES", help="Names or files, separated by commas; all there are if none.")
    group.addoption(
        "--rounds", type=int, default=ROUNDS, metavar="N", help="How often to measure. Default: %(default)s."
    )


def pytest_configure(config: pytest.Config) -> None:
    """See that there is something to measure."""
    if config.getoption("--rounds") < 1:
        raise pytest.UsageError("--rounds must be 1 or more")
    try:
        for spec in _specs(config):
            load(spec)
    except BackendNotFoundError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A benchmark for every backend; what cannot run here is skipped with the reason."""
    metafunc.parametrize("backend", [_parameter(spec) for spec in _specs(metafunc.config)])


def _specs(config: pytest.Config) -> list[str]:
    chosen = config.getoption("--backends")
    return [spec.strip() for spec in chosen.split(",")] if chosen else list(registered())


def _parameter(spec: str) -> Any:
    backend = load(spec)
    reason = why_not(backend)
    return pytest.param(spec, id=backend.name, marks=[pytest.mark.skip(reason=reason)] if reason else [])


def pytest_benchmark_generate_machine_info() -> dict[str, Any]:
    """The harness's own record of the machine, without what changes from minute to minute."""
    details = environment.machine_details()
    del details["load_average"], details["distributions"]  # pytest-benchmark takes others for another machine
    return {"name": machine_name(), **details, **recorded_variables()._asdict()}


@pytest.fixture(scope="session")
def dataset(pytestconfig: pytest.Config) -> Dataset:
    """MNIST, or digits where it cannot be had, which is said before anything is measured; without either all ends."""
    plugins = pytestconfig.pluginmanager
    capture: Any = plugins.get_plugin("capturemanager")
    terminal: Any = plugins.get_plugin("terminalreporter")

    def say(sentence: str) -> None:
        with capture.global_and_fixture_disabled():
            terminal.write_line(f"lockstep: {sentence}")

    try:
        return find_dataset("auto", say=say)
    except LockstepError as error:
        pytest.exit(f"lockstep: {error}", returncode=error.exit_code)


class WorkClock:
    """A timer that stands still but for the seconds that a worker says it worked."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """How long it has worked so far."""
        return self.seconds

    def __str__(self) -> str:
        return "seconds as the worker reports them"


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> WorkClock:
    """The benchmark's timer; to be asked for before `benchmark`, which takes its timer from a mark."""
    clock = WorkClock()
    request.node.add_marker(pytest.mark.benchmark(timer=clock, group=request.function.__name__.removeprefix("test_")))
    return clock


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often to measure."""
    return int(request.config.getoption("--rounds"))
