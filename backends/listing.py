"""Reads how the backends of this folder describe themselves, without importing them.

To import a backend's file is to import NumPy, which takes longer than all else that a list of the backends needs. So
the attributes are read from the text, where they are literals. A file that needs more than that is imported.
"""

import ast
import builtins
from abc import ABCMeta
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from lockstep_bench.backends.description import Description

PACKAGE: Final = "lockstep_bench.backends"
CONTRACTS: Final = ("Backend", "SeedsBackend")
"""The classes of `base.py` that a backend inherits from."""
ATTRIBUTES: Final = frozenset(Description.__annotations__)
METHODS: Final = frozenset(name for name, value in vars(Description).items() if isinstance(value, classmethod))
"""The class methods of a description: a backend that has its own must be imported to be asked."""

Classes = dict[str, type[Description]]


class NotPlainError(Exception):
    """A file cannot be understood without running it."""


class Reader:
    """Reads each file once: a backend may inherit from one in another file.

    Args:
        folder: where the files are.
        run: imports a module, and returns its backends by the names of their classes.
    """

    def __init__(self, folder: Path, run: Callable[[str], Classes]) -> None:
        self.folder, self.run = folder, run
        self.files: dict[str, Classes] = {}

    def classes(self, module: str) -> Classes:
        """Return the backends of a module by the names of their classes."""
        if module not in self.files:
            try:
                self.files[module] = self._read(module)
            except NotPlainError:
                self.files[module] = self.run(module)
        return self.files[module]

    def _read(self, module: str) -> Classes:
        """Make a description of each class that inherits from Backend.

        Raises:
            NotPlainError: the text alone does not tell.
        """
        found: Classes = {}
        known: dict[str, type[Description] | None] = dict.fromkeys(vars(builtins))
        for statement in ast.parse((self.folder / f"{module}.py").read_bytes()).body:
            if isinstance(statement, ast.ImportFrom):
                known |= self._imported(statement)
            elif isinstance(statement, ast.ClassDef):
                name = statement.name
                known[name] = _described(statement, known)
                if described := known[name]:
                    found[name] = described
            elif not isinstance(statement, ast.FunctionDef) and _may_make_a_class(statement):
                raise NotPlainError
        return found

    def _imported(self, statement: ast.ImportFrom) -> dict[str, type[Description] | None]:
        """Return what names stand for after an import: a backend, or anything else."""
        names = {alias.asname or alias.name: alias.name for alias in statement.names}
        module = statement.module or ""
        if statement.level or not module.startswith(PACKAGE):
            return {} if statement.level else dict.fromkeys(names)
        if module in (PACKAGE, f"{PACKAGE}.base"):
            return {name: Description if original in CONTRACTS else None for name, original in names.items()}
        classes = self.classes(module.removeprefix(f"{PACKAGE}."))
        return {name: classes.get(original) for name, original in names.items()}


def _described(statement: ast.ClassDef, known: dict[str, type[Description] | None]) -> type[Description] | None:
    """Make the description of a class, or return none for a class that is no backend."""
    bases = []
    for base in statement.bases:
        if not isinstance(base, ast.Name) or base.id not in known:
            raise NotPlainError
        bases.append(known[base.id])
    backends = dict.fromkeys(base for base in bases if base is not None)
    if not backends:
        return None
    if statement.decorator_list or statement.keywords:
        raise NotPlainError
    if any(isinstance(base, ABCMeta) for base in backends):  # it was imported: whether this one is complete is unknown
        raise NotPlainError
    inherited = tuple(base for base in backends if base is not Description) or (Description,)
    return type(statement.name, inherited, dict(_attributes(statement)))


def _attributes(statement: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a description that a class sets, each a literal."""
    for part in statement.body:
        match part:
            case ast.Expr(value=ast.Constant()) | ast.AnnAssign(value=None) | ast.Pass():
                continue
            case ast.FunctionDef(name=name) if name not in METHODS:
                continue
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                raise NotPlainError
        if name in ATTRIBUTES:
            try:
                yield name, ast.literal_eval(value)
            except ValueError:
                raise NotPlainError from None


def _may_make_a_class(statement: ast.stmt) -> bool:
    """Whether a statement may make or change a class: by a condition, a call, or an assignment to an attribute."""
    for node in ast.walk(statement):
        match node:
            case ast.ClassDef() | ast.Attribute(ctx=ast.Store()):
                return True
            case ast.Expr(value=value) if not isinstance(value, ast.Constant):
                return True
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call()) if name != name.upper() and name[0] != "_":
                return True
    return False
