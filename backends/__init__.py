"""The backends: found by looking, loaded by name or by file; no framework is imported on the way."""

import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isabstract
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import get_args

from lockstep_bench.backends.base import Backend, Style

REFERENCE = "numpy"
"""The backend that is part of every run, and that all others are compared with."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What a backend may be called: names become names of files and cells of tables."""


class BackendNotFoundError(LookupError):
    """No backend goes by that name, or the file holds none; the message says what there is."""


def registered() -> dict[str, type[Backend]]:
    """Every backend in this folder by its name, the reference first."""
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__) if module.name != "base")
    found = {backend.name: backend for module in modules for backend in defined_in(module)}
    return {REFERENCE: found.pop(REFERENCE), **dict(sorted(found.items()))}


def defined_in(module: ModuleType) -> Iterator[type[Backend]]:
    """The complete backends that a module defines itself; those that it imports are not its own."""
    classes = dict.fromkeys(value for value in vars(module).values() if isinstance(value, type))
    for value in classes:
        if issubclass(value, Backend) and not isabstract(value) and value.__module__ == module.__name__:
            yield value


def load(spec: str) -> type[Backend]:
    """The backend that goes by a registered name, or that a file defines (`./mine.py`).

    Raises:
        BackendNotFoundError: there is none; the message names the known ones and the nearest.
    """
    if spec.endswith(".py"):
        return load_file(Path(spec))
    known = registered()
    if spec in known:
        return known[spec]
    nearest = get_close_matches(spec, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    raise BackendNotFoundError(f"there is no backend {spec}: {hint}known are {', '.join(known)}")


def load_file(path: Path) -> type[Backend]:
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
        raise BackendNotFoundError(f"{path} must define exactly one complete Backend, and defines {names}")
    [backend] = backends
    if lacking := [name for name in ("name", "style", "packages", "modules") if not hasattr(backend, name)]:
        raise BackendNotFoundError(f"{path}: {backend.__name__} must say its {', '.join(lacking)}")
    if not (isinstance(backend.name, str) and NAME.fullmatch(backend.name)):
        raise BackendNotFoundError(f"{path}: name must be letters, digits, dots and dashes, not {backend.name!r}")
    if backend.style not in get_args(Style):
        raise BackendNotFoundError(f"{path}: style must be one of {', '.join(get_args(Style))}, not {backend.style}")
    return backend
