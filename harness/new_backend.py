"""`lockstep new-backend`: a copy of `backends/template.py` under a name of its own, and what to do with it."""

from collections.abc import Iterator
from importlib.util import find_spec
from inspect import getsource
from pathlib import Path

from lockstep_bench.backends import ENTRY_POINTS, NAME, refused, registered, template
from lockstep_bench.harness.errors import UsageError


def write_backend(name: str, folder: Path) -> Path:
    """Write a backend of that name, complete and in NumPy, into a folder; return its path.

    Raises:
        UsageError: the name cannot be one, or is taken, or so is the file's.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"a backend cannot be called {name!r}: take letters, digits, dots and dashes")
    stem = name.replace("-", "_").replace(".", "_")
    if name in registered() or name in refused() or find_spec(f"lockstep_bench.backends.{stem}"):
        raise UsageError(f"{name} is taken: take another name than those that `lockstep backends` lists")
    path = folder / f"{stem}.py"
    text = getsource(template).replace(template.MyBackend.name, name)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"there is a file {path} already: nothing was written; take another name or folder") from None
    return path


def next_steps(name: str, path: Path) -> Iterator[str]:
    """What to do with the new file: check it, time it, bring it in."""
    yield f"lockstep verify ./{path}"
    yield f"lockstep run numpy ./{path}"
    if Path("backends", "base.py").is_file():
        yield f"mv {path} backends/  # this is a checkout of lockstep: there it is found by its name"
        return
    yield f"mv {path} CHECKOUT/backends/  # of lockstep; or publish it, with this in its pyproject.toml:"
    yield f'    [project.entry-points."{ENTRY_POINTS}"]'
    yield f'    {name} = "{path.stem}:{template.MyBackend.__name__}"'
