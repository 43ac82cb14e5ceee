"""A list of the backends is read from their files, and says what importing them would; loading one imports one file."""

import subprocess
import sys
from pathlib import Path

import pytest

from lockstep_bench.backends import listed, registered, why_not
from lockstep_bench.backends.base import Backend
from lockstep_bench.backends.description import Description
from lockstep_bench.backends.listing import ATTRIBUTES, Classes, Reader

METHODS = """
    def build(self, problem, weights, train, device, threads): ...
    def train(self, order): ...
    def predict(self, images): ...
    def weights(self): ...
"""
IMPORT = "from lockstep_bench.backends.base import Backend, SeedsBackend\n"
PLAIN = f'{IMPORT}\n\nclass Mine(Backend):\n    """A backend."""\n\n    name = "mine"\n{METHODS}'


class Folder:
    """A folder of backends, which notes what is imported to be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.imported: list[str] = []

    def read(self, text: str, module: str = "mine") -> Classes:
        """Write a file and read it."""
        (self.folder / f"{module}.py").write_text(text)
        return Reader(self.folder, self._run).classes(module)

    def _run(self, module: str) -> Classes:
        self.imported.append(module)
        return {"Imported": Backend}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty one."""
    return Folder(tmp_path)


@pytest.mark.parametrize("name", registered())
def test_backend_is_listed_as_it_is_when_imported(name: str) -> None:
    """Every attribute, its versions, and why it cannot run on this machine."""
    known, reasons = listed()
    backend, described = registered()[name], known[name]
    assert reasons == {}
    assert {attribute: getattr(described, attribute) for attribute in ATTRIBUTES} == {
        attribute: getattr(backend, attribute) for attribute in ATTRIBUTES
    }
    for device in ("cpu", "cuda"):
        assert why_not(described, device) == why_not(backend, device)
    assert described.versions() == backend.versions()


def test_list_has_every_backend_in_order() -> None:
    """The reference first, as in `registered`."""
    known, _ = listed()
    assert list(known) == list(registered())


def test_listing_imports_no_backend_and_no_numpy() -> None:
    """All files of the folder can be read from their text: write new ones so too, with literal attributes."""
    assert modules_after("from lockstep_bench.backends import listed; listed()") & {"numpy", *files()} == set()


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("numpy", {"numpy"}),
        ("scikit-learn-tuned", {"scikit_learn"}),
        ("jax-scan", {"jax"}),
        ("jax-vmap", {"jax_vmap", "jax"}),
        ("keras-torch", {"keras", "jax", "tensorflow"}),
    ],
)
def test_loading_a_backend_imports_its_file_alone(name: str, imported: set[str]) -> None:
    """And those that the file imports itself."""
    code = f"from lockstep_bench.backends import load; load({name!r})"
    assert modules_after(code) & files() == {f"lockstep_bench.backends.{module}" for module in imported}


def files() -> set[str]:
    """The modules of the backends."""
    return {backend.__module__ for backend in registered().values()}


def modules_after(code: str) -> set[str]:
    """The modules that a new process has imported after some code."""
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    return set(subprocess.check_output(command, text=True).split())


def test_attributes_are_inherited_from_another_class(folder: Folder) -> None:
    """Of the same file or of another, and a class that trains seeds too has those of its first base."""
    (folder.folder / "other.py").write_text(PLAIN.replace('"mine"', '"other"\n    devices = ("cpu", "cuda")'))
    child = "from lockstep_bench.backends.other import Mine as Other\n\n\nclass Child({}):\n    name: str = 'child'\n"
    for bases in ("Other, SeedsBackend", "SeedsBackend, Other"):
        classes = folder.read(IMPORT + child.format(bases) + "\n\nclass Last(Child):\n    name = 'last'\n")
        assert [(found.name, found.devices) for found in classes.values()] == [
            ("child", ("cpu", "cuda")),
            ("last", ("cpu", "cuda")),
        ]
    assert folder.imported == []


def test_other_classes_are_no_backends(folder: Folder) -> None:
    """Nor are functions, constants and what is within them."""
    text = (
        "import warnings\nfrom typing import NamedTuple\n\nSIZE = 3\n_helper = print()\n\n\n"
        "class Pair(NamedTuple):\n    name = input()\n\n\nclass Failure(Exception): ...\n\n\n"
        "def make():\n    class Inner(Backend): ...\n"
    )
    assert list(folder.read(PLAIN + text)) == ["Mine"]
    assert folder.imported == []


NOT_PLAIN = {
    "an expression": PLAIN.replace('"mine"', '"mine".upper()'),
    "a condition": PLAIN.replace("    name", "    if True:\n        name"),
    "two names": PLAIN.replace('name = "mine"', 'name, style = "mine", "tuned"'),
    "a decorator": PLAIN.replace("class", "@print\nclass"),
    "its own versions": PLAIN + "\n    @classmethod\n    def versions(cls): ...\n",
    "a conditional class": PLAIN.replace("\n\nclass Mine", "\nif True:\n  class Mine"),
    "an attribute set later": f"{PLAIN}\n\nMine.name = 'yours'\n",
    "a call that may set one": f"{PLAIN}\n\nsetattr(Mine, 'name', 'yours')\n",
    "a class that is made": f"{PLAIN}\n\nYours = type('Yours', (Mine,), dict(name='yours'))\n",
    "an unknown base": PLAIN.replace("(Backend)", "(Backend, make())"),
    "a base by its module": PLAIN.replace("(Backend)", "(base.Backend)"),
    "a base by a relative import": PLAIN.replace("lockstep_bench.backends", ""),
}


@pytest.mark.parametrize("way", NOT_PLAIN)
def test_file_that_cannot_be_read_is_imported(folder: Folder, way: str) -> None:
    """Its text alone does not say what its backends are."""
    assert folder.read(NOT_PLAIN[way]) == {"Imported": Backend}
    assert folder.imported == ["mine"]


def test_file_that_inherits_from_an_imported_one_is_imported_too(folder: Folder) -> None:
    """Its class may complete one that is abstract."""
    folder.read(NOT_PLAIN["an expression"], "other")
    folder.imported.clear()
    folder.read("from lockstep_bench.backends.other import Imported\n\n\nclass Mine(Imported):\n    name = 'mine'\n")
    assert folder.imported == ["other", "mine"]


def test_plain_file_is_not_imported(folder: Folder) -> None:
    """It is the file that those above are made from."""
    [found] = folder.read(PLAIN).values()
    assert (found.name, found.devices, found.__mro__[1]) == ("mine", ("cpu",), Description)
    assert folder.imported == []
