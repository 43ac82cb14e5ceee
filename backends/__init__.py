"""The backends: found by looking, loaded by name or by file; no framework is imported on the way.

They are looked for in this folder and among the entry points `lockstep.backends` of all installed distributions.
`base.py` imports NumPy. It is imported when a backend is loaded: `lockstep backends` only reads the files.
"""

import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isabstract
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, get_args

from lockstep_bench.backends.description import Description, Style

if TYPE_CHECKING:
    from lockstep_bench.backends.base import Backend, Dtype

CUDA = Path("/proc/driver/nvidia/version")
"""What there is where NVIDIA's driver runs: whether there is a GPU has to be known without importing a framework."""
REFERENCE = "numpy"
"""The backend that is part of every run, and that all others are compared with."""
ENTRY_POINTS = "lockstep.backends"
"""The group of entry points by which any installed distribution can offer backends."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a backend may be called: names become names of files and cells of tables."""
NOT_BACKENDS = ("base", "description", "listing", "template")
"""The modules of this folder that are no backend: the contract, its readers, what `lockstep new-backend` copies."""
TUPLES = ("packages", "modules", "devices", "dtypes")


def __getattr__(name: str) -> object:
    """Import the base class when it is asked for here."""
    if name == "Backend":
        from lockstep_bench.backends.base import Backend

        return Backend
    raise AttributeError(f"module {__name__} has no attribute {name}")


class BackendNotFoundError(LookupError):
    """No backend goes by that name, or what does cannot be used; the message says why, or what there is."""


def registered() -> "dict[str, type[Backend]]":
    """Every backend that can be loaded by its name, the reference first."""
    offered = {name: backend for name, backend in _offered().items() if not isinstance(backend, BackendNotFoundError)}
    included = {backend.name: backend for module in _modules() for backend in _included(module)}
    return dict(sorted({**included, **offered}.items(), key=_place))


def refused() -> dict[str, str]:
    """Return why backends that installed distributions offer cannot be used, by their names."""
    return {name: str(error) for name, error in _offered().items() if isinstance(error, BackendNotFoundError)}


def listed() -> tuple[dict[str, type[Description]], dict[str, str]]:
    """Return the registered backends as they describe themselves, and the refused ones with the reasons.

    The files of this folder are read, not imported.
    """
    from lockstep_bench.backends.listing import Reader

    def run(module: str) -> dict[str, type[Description]]:
        return {found.__name__: found for found in _classes(import_module(f"{__name__}.{module}"))}

    reader = Reader(Path(__file__).parent, run)
    described = [found for module in _modules() for found in reader.classes(module).values()]
    known = {found.name: found for found in described if hasattr(found, "name") and not isabstract(found)}
    reasons = {}
    for name, offered in _offered().items():
        if isinstance(offered, BackendNotFoundError):
            reasons[name] = str(offered)
        else:
            known[name] = offered
    return dict(sorted(known.items(), key=_place)), reasons


def _place(item: tuple[str, object]) -> tuple[bool, str]:
    """Sort the reference first, then by name."""
    name, _ = item
    return name != REFERENCE, name


def _modules() -> list[str]:
    """The modules of this folder that define backends."""
    return [module.name for module in iter_modules(__path__) if module.name not in NOT_BACKENDS]


def _included(module: str) -> "Iterator[type[Backend]]":
    """Import a module of this folder; yield its backends."""
    return defined_in(import_module(f"{__name__}.{module}"))


def _find_included(name: str) -> "type[Backend] | None":
    """Return the backend of this folder with that name, if any; modules named like it are imported first.

    `keras-xla` is looked for in keras.py before any other file is imported.
    """
    stem = name.replace("-", "_")
    likely = sorted(filter(stem.startswith, _modules()), key=len, reverse=True)
    for module in dict.fromkeys([*likely, *_modules()]):
        for backend in _included(module):
            if backend.name == name:
                return backend
    return None


def _offered() -> "dict[str, type[Backend] | BackendNotFoundError]":
    """Load every entry point; return the backends by name, or the error of what is none."""
    found: dict[str, type[Backend] | BackendNotFoundError] = {}
    for name in sorted(entry_points(group=ENTRY_POINTS).names):
        try:
            found[name] = load_entry_point(name)
        except BackendNotFoundError as error:
            found[name] = error
    return found


def defined_in(module: ModuleType) -> "Iterator[type[Backend]]":
    """The complete backends that a module defines itself; those that it imports are not its own."""
    return (backend for backend in _classes(module) if not isabstract(backend))


def _classes(module: ModuleType) -> "Iterator[type[Backend]]":
    """Yield all Backend subclasses that a module defines, abstract ones included."""
    from lockstep_bench.backends.base import Backend

    classes = dict.fromkeys(value for value in vars(module).values() if isinstance(value, type))
    return (value for value in classes if issubclass(value, Backend) and value.__module__ == module.__name__)


def load(spec: str) -> "type[Backend]":
    """The backend that goes by a registered name, or that a file defines (`./mine.py`).

    Raises:
        BackendNotFoundError: there is none, and the message names the known ones and the nearest; or it is refused.
    """
    if spec.endswith(".py"):
        return load_file(Path(spec))
    if included := _find_included(spec):
        return included
    if entry_points(group=ENTRY_POINTS, name=spec):
        return load_entry_point(spec)
    known = registered()
    nearest = get_close_matches(spec, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    raise BackendNotFoundError(f"there is no backend {spec}: {hint}known are {', '.join(known)}")


def load_entry_point(name: str) -> "type[Backend]":
    """The backend that an installed distribution offers under this name.

    Raises:
        BackendNotFoundError: there is another of that name, or it cannot be imported, or is no complete backend.
    """
    from lockstep_bench.backends.base import Backend

    points = entry_points(group=ENTRY_POINTS, name=name)
    sources = sorted(point.dist.name if point.dist else "an unknown distribution" for point in points)
    if _find_included(name):
        raise BackendNotFoundError(f"{name} of {sources[0]} has the name of one of lockstep's own backends")
    if len(points) > 1:
        raise BackendNotFoundError(f"{name} is offered by {' and by '.join(sources)}: uninstall all but one")
    [point] = points
    where = f"{point.value} of {sources[0]}"
    try:
        backend = point.load()
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise BackendNotFoundError(f"{where} could not be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(backend, type) and issubclass(backend, Backend)):
        raise BackendNotFoundError(f"{where} is no subclass of lockstep_bench.backends.base.Backend")
    if isabstract(backend):
        raise BackendNotFoundError(f"{where} {_lacks(backend)}")
    _check(backend, where)
    if backend.name != name:
        raise BackendNotFoundError(f"{where}: its name is {backend.name}, its entry point's is {name}: make them one")
    return backend


def load_file(path: Path) -> "type[Backend]":
    """The one backend that a Python file defines.

    Raises:
        BackendNotFoundError: the file cannot be read or run, or does not define exactly one backend.
    """
    if not path.is_file():
        raise BackendNotFoundError(f"there is no file {path}: give the path of a Python file that defines a Backend")
    spec = spec_from_file_location(f"lockstep_backend_{path.stem}", path)
    assert spec is not None  # the name ends with .py
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a file does when it is run
        raise BackendNotFoundError(f"{path} could not be imported: {type(error).__name__}: {error}") from error
    backends = list(defined_in(module))
    if len(backends) != 1:
        names = ", ".join(backend.__name__ for backend in backends) or "none"
        incomplete = "".join(
            f"; {backend.__name__} {_lacks(backend)}" for backend in _classes(module) if isabstract(backend)
        )
        raise BackendNotFoundError(f"{path} must define exactly one complete Backend, and defines {names}{incomplete}")
    [backend] = backends
    _check(backend, f"{path}: {backend.__name__}")
    return backend


def why_not(backend: type[Description], device: str = "cpu", dtype: "Dtype" = "float32") -> str | None:
    """Why a backend cannot run here, and what to do; none if it can."""
    if missing := backend.missing():
        install = f"pip install 'lockstep-bench[{backend.extra}]'" if backend.extra else f"pip install {missing[0]}"
        return f"{', '.join(missing)} is not installed; install it with: {install}"
    if lacking := backend.missing_programs():
        return f"{', '.join(lacking)} is not installed; install it with your system's packages"
    if device not in backend.devices:
        return f"it does not run on {device}, only on {', '.join(backend.devices)}"
    if device == "cuda" and not CUDA.exists():
        return "there is no NVIDIA GPU here, or its driver is not running"
    if dtype not in backend.dtypes:
        return f"it does not compute in {dtype}, only in {', '.join(backend.dtypes)}"
    return None


def _lacks(backend: "type[Backend]") -> str:
    return f"lacks the methods {', '.join(sorted(backend.__abstractmethods__))}"


def _check(backend: "type[Backend]", where: str) -> None:
    """See that a class says what it is.

    Raises:
        BackendNotFoundError: an attribute is missing or no such thing as it has to be.
    """
    if lacking := [name for name in ("name", "style", "packages", "modules") if not hasattr(backend, name)]:
        raise BackendNotFoundError(f"{where} must say its {', '.join(lacking)}")
    if not (isinstance(backend.name, str) and NAME.fullmatch(backend.name)):
        raise BackendNotFoundError(f"{where}: name must be letters, digits, dots and dashes, not {backend.name!r}")
    from lockstep_bench.backends.base import Dtype

    if backend.style not in get_args(Style):
        raise BackendNotFoundError(f"{where}: style must be one of {', '.join(get_args(Style))}, not {backend.style}")
    for name in TUPLES:
        value = getattr(backend, name)
        if not (isinstance(value, tuple) and all(isinstance(text, str) for text in value)):
            raise BackendNotFoundError(f"{where}: {name} must be a tuple of texts, not {value!r}")
    if not set(backend.dtypes) <= set(get_args(Dtype)):
        raise BackendNotFoundError(f"{where}: dtypes can be {', '.join(get_args(Dtype))}, not {backend.dtypes!r}")
