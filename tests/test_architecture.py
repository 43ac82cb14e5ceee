"""The picture in docs/architecture.md is true: every module is in it, and every import goes along its arrows."""

import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

from lockstep_bench.backends import registered

PICTURE = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
BOXES = {
    box: set(modules.replace("<br>", " ").split())
    for box, modules in re.findall(r'^    (\w+)\["<b>[^<]*</b><br>(.*)"\]$', PICTURE, re.MULTILINE)
}
ARROWS = re.findall(r"^    (\w+) --> (\w+)$", PICTURE, re.MULTILINE)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """What imports what, also within functions, and the packages of others."""
    packages = "lockstep_bench.backends", "lockstep_bench.harness"
    return grimp.build_graph(*packages, include_external_packages=True, cache_dir=None)


def module(name: str) -> str:
    """A module as the picture has it: a package within the harness is one, and so are all backends."""
    _, part, *rest = name.split(".")
    return rest[0] if part == "harness" and rest else part


def imports(graph: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
    """Pairs of modules of the picture; `harness/__init__.py` is what others see, and imports what it likes."""
    for name in (name for name in graph.modules if name.startswith("lockstep_bench.")):
        for imported in graph.find_modules_directly_imported_by(name):
            if imported.startswith("lockstep_bench.") and module(name) != "harness":
                yield module(name), module(imported)


def reached(box: str) -> set[str]:
    """The boxes that arrows lead to from one, itself among them."""
    return {box}.union(*(reached(to) for start, to in ARROWS if start == box))


def test_every_module_is_in_one_box(graph: grimp.ImportGraph) -> None:
    """No more and no less."""
    drawn = [name for modules in BOXES.values() for name in modules]
    there = {module(name) for name in graph.modules if name.startswith("lockstep_bench.")} - {"harness"}
    assert sorted(drawn) == sorted(there)


def test_every_import_goes_along_the_arrows(graph: grimp.ImportGraph) -> None:
    """Within a box, or to one that can be reached from it; and no arrows go round."""
    TopologicalSorter({box: {to for start, to in ARROWS if start == box} for box in BOXES}).prepare()
    box_of = {name: box for box, modules in BOXES.items() for name in modules}
    allowed = {box: reached(box) for box in BOXES}
    found = list(imports(graph))
    assert len(found) > 100
    assert [(a, b) for a, b in found if box_of[b] not in allowed[box_of[a]]] == []


def test_every_arrow_is_an_import(graph: grimp.ImportGraph) -> None:
    """None is drawn that there is not."""
    box_of = {name: box for box, modules in BOXES.items() for name in modules}
    assert set(ARROWS) <= {(box_of[a], box_of[b]) for a, b in imports(graph)}


def test_no_framework_is_imported_outside_of_the_backends(graph: grimp.ImportGraph) -> None:
    """But NumPy and scikit-learn, which the harness itself needs."""
    frameworks = {name.partition(".")[0] for backend in registered().values() for name in backend.modules}
    for framework in frameworks.difference(("numpy", "sklearn")) & graph.modules:
        outside = [name for name in graph.find_modules_that_directly_import(framework) if "backends" not in name]
        assert outside == [], framework
