"""The class attributes of a backend and whether it can run here, without NumPy and without any framework."""

from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:  # it needs NumPy, whose import takes longer than all else that a list of the backends needs
    from lockstep_bench.harness.problem import Dtype

Style = Literal["idiomatic", "tuned"]


class Description:
    """The class attributes of a backend, and what follows from them on this machine.

    Attributes:
        name: what the command line and the tables call it.
        style: `idiomatic`, what the framework's own documentation would write, or `tuned`, the fastest it offers.
        packages: distributions whose versions go into the record.
        modules: what is imported, and timed, before `build`; whether the backend can run is asked of their presence.
        programs: executables that it needs at run time, compilers mostly.
        extra: the extra of lockstep-bench that installs the framework; empty where the core suffices.
        devices: where it can run.
        dtypes: in which arithmetic it can run.
        slow: why a quick run of it takes most of half a minute or longer; empty where it is faster.
    """

    name: ClassVar[str]
    style: ClassVar[Style]
    packages: ClassVar[tuple[str, ...]]
    modules: ClassVar[tuple[str, ...]]
    programs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    dtypes: "ClassVar[tuple[Dtype, ...]]" = ("float32", "float64")
    slow: ClassVar[str] = ""

    @classmethod
    def missing(cls) -> list[str]:
        """The top-level modules that are not installed here, found without importing any."""
        return [module for module in cls.modules if find_spec(module.partition(".")[0]) is None]

    @classmethod
    def missing_programs(cls) -> list[str]:
        """The executables that are not found here."""
        return [program for program in cls.programs if which(program) is None]

    @classmethod
    def versions(cls) -> dict[str, str]:
        """The versions of its distributions, as far as they are installed; no framework is imported.

        Where one is not, those count that have its modules under another name.
        """
        found = {name: _version(name) for name in cls.packages}
        missing = [name for name, number in found.items() if number is None]
        modules = [name.replace("-", "_") for name in missing] + [name.partition(".")[0] for name in cls.modules]
        for other in dict.fromkeys(name for module in modules if missing for name in _providers().get(module, ())):
            found.setdefault(other, _version(other))
        return {name: number for name, number in found.items() if number is not None}


@cache
def _version(package: str) -> str | None:
    """Return the version of a distribution; several backends ask for the same one, and each time it is parsed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _providers() -> dict[str, list[str]]:
    """Return the distributions of every top-level module: tensorflow-cpu, say, has that of tensorflow."""
    return {module: sorted(set(names)) for module, names in packages_distributions().items()}
