"""Backends are found by looking, by name or by file, and what cannot be loaded is refused with its reason."""

import json
import os
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import pytest

from lockstep_bench.backends import BackendNotFoundError, description, load, load_file, refused, registered
from lockstep_bench.backends.base import Backend
from lockstep_bench.backends.numpy import NumPy
from lockstep_bench.harness.cli.terminal import say_refused
from lockstep_bench.harness.running.plan import choose_backends
from support.command import lockstep_process

FRAMEWORKS = ["keras", "sklearn", "tensorflow", "torch"]
ONE = """
from lockstep_bench.backends.numpy import NumPy


class Mine(NumPy):
    name = "mine"
"""
METHODS = """
    def build(self, problem, weights, train, device, threads): ...
    def train(self, order): ...
    def predict(self, images): ...
    def weights(self): ...
"""


def adapter(folder: Path, text: str, name: str = "mine.py") -> Path:
    """A file with that text."""
    path = folder / name
    path.write_text(text)
    return path


def test_registered_backends_are_known_by_name_with_the_reference_first() -> None:
    """At least the four that the suite began with; after the reference they are sorted."""
    found = registered()
    assert found.keys() >= {"numpy", "keras", "pytorch", "scikit-learn"}
    assert list(found) == ["numpy", *sorted(found.keys() - {"numpy"})]
    assert [backend.name for backend in found.values()] == list(found)
    assert all(issubclass(backend, Backend) for backend in found.values())


def test_listing_backends_imports_no_framework() -> None:
    """In a new process: to list them, to ask what is missing and which environment they want, imports none."""
    program = f"""
import json, sys
from lockstep_bench.backends import registered
for backend in registered().values():
    backend.missing()
    backend.environment(1, "cpu", "float32")
print(json.dumps([name for name in {FRAMEWORKS} if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("name", registered())
def test_registered_name_loads_its_backend(name: str) -> None:
    """`load` and `registered` agree."""
    assert load(name).name == name
    assert load(name) is registered()[name]


@pytest.mark.parametrize(
    ("typed", "nearest"), [("pytroch", "pytorch"), ("sklearn", "scikit-learn"), ("Keras", "keras")]
)
def test_misspelt_name_is_told_the_nearest_and_all_that_are_known(typed: str, nearest: str) -> None:
    """The message alone is enough to try again."""
    with pytest.raises(BackendNotFoundError) as caught:
        load(typed)
    assert str(caught.value) == (
        f"there is no backend {typed}: did you mean {nearest}? known are {', '.join(registered())}"
    )


def test_unknown_name_is_told_what_is_known_without_a_guess() -> None:
    """Where nothing is near, nothing is suggested."""
    with pytest.raises(BackendNotFoundError) as caught:
        load("zzz")
    assert str(caught.value) == f"there is no backend zzz: known are {', '.join(registered())}"


def test_file_with_one_backend_loads(tmp_path: Path) -> None:
    """By its path; the class that it imported from lockstep to build on is not counted as its own."""
    backend = load(str(adapter(tmp_path, ONE)))
    assert (backend.name, backend.__name__) == ("mine", "Mine")
    assert issubclass(backend, NumPy)


def test_files_of_one_name_are_two_backends(tmp_path: Path) -> None:
    """`a/mine.py` and `b/mine.py` do not overwrite each other."""
    paths = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        paths.append(adapter(folder, ONE.replace("Mine", folder.name.upper()).replace('"mine"', f'"{folder.name}"')))
    backends = [load_file(path) for path in paths]
    assert [backend.name for backend in backends] == ["a", "b"]


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """The message names the path."""
    path = tmp_path / "nowhere.py"
    with pytest.raises(BackendNotFoundError) as caught:
        load(str(path))
    assert str(caught.value) == f"there is no file {path}: give the path of a Python file that defines a Backend"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise RuntimeError('out of luck')", "RuntimeError: out of luck"),
        ("import no_such_framework", "ModuleNotFoundError: No module named 'no_such_framework'"),
        ("def:", "SyntaxError: "),
    ],
    ids=["raises", "imports what is not there", "is not Python"],
)
def test_file_that_cannot_be_imported_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    """What the file raised is said in the one line that the user gets."""
    path = adapter(tmp_path, text)
    with pytest.raises(BackendNotFoundError) as caught:
        load(str(path))
    assert str(caught.value).startswith(f"{path} could not be imported: {reason}")


@pytest.mark.parametrize(
    ("text", "defines"),
    [
        ("", "none"),
        ("from lockstep_bench.backends.numpy import NumPy", "none"),
        (
            "from lockstep_bench.backends import Backend\n\n\nclass Half(Backend):\n    name = 'half'",
            "none; Half lacks the methods build, predict, train, weights",
        ),
        (f"{ONE}\n\nclass Other(NumPy):\n    name = 'other'", "Mine, Other"),
    ],
    ids=["empty", "only imports one", "abstract", "two"],
)
def test_file_without_exactly_one_backend_is_refused(tmp_path: Path, text: str, defines: str) -> None:
    """The message says what it defines instead."""
    path = adapter(tmp_path, text)
    with pytest.raises(BackendNotFoundError) as caught:
        load(str(path))
    assert str(caught.value) == f"{path} must define exactly one complete Backend, and defines {defines}"


def test_missing_modules_are_found_by_their_top_level_name() -> None:
    """A submodule of what is not installed is no error but missing."""

    class Elsewhere(Backend):
        modules: ClassVar[tuple[str, ...]] = ("numpy", "no_such_framework.neural")

    assert Elsewhere.missing() == ["no_such_framework.neural"]
    assert NumPy.missing() == []


def test_second_name_of_a_class_is_not_a_second_backend(tmp_path: Path) -> None:
    """An alias in the file does no harm."""
    assert load_file(adapter(tmp_path, ONE + "\n\nAlias = Mine\n")).name == "mine"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    pass", "Mine must say its name, style, packages, modules"),
        (
            "    name, style, packages, modules = 'mine', 'fast', (), ()",
            "style must be one of idiomatic, tuned, not fast",
        ),
        (
            "    name, style, packages, modules = '../mine', 'tuned', (), ()",
            "name must be letters, digits, dots and dashes, not '../mine'",
        ),
        (
            "    name, style, packages, modules = 'mine', 'tuned', (), 'torch'",
            "modules must be a tuple of texts, not 'torch'",
        ),
        (
            "    name, style, packages, modules, dtypes = 'mine', 'tuned', (), (), ('bfloat16',)",
            "dtypes can be float32, float64, not",
        ),
    ],
)
def test_file_whose_backend_does_not_say_what_it_is_is_refused(tmp_path: Path, body: str, reason: str) -> None:
    """What the tables call it, and how it is written, has to be said."""
    text = f"""
from lockstep_bench.backends.base import Backend


class Mine(Backend):
{METHODS}
{body}
"""
    with pytest.raises(BackendNotFoundError, match=reason):
        load_file(adapter(tmp_path, text))


def test_versions_are_those_installed() -> None:
    """Of a backend's distributions, without those that are not there."""
    backend = registered()["scikit-learn"]
    assert backend.versions() == {name: version(name) for name in ("scikit-learn", "scipy", "numpy")}

    class Partly(Backend):
        packages = ("numpy", "no-such-distribution")
        modules = ("numpy",)

    assert Partly.versions() == {"numpy": version("numpy")}


def test_a_framework_under_another_distributions_name_has_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tensorflow-cpu has the module of tensorflow: its module says which distribution it is."""
    (tmp_path / "fast_thing").mkdir()
    (tmp_path / "fast_thing" / "__init__.py").touch()
    metadata = tmp_path / "fast_thing_cpu-2.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fast-thing-cpu\nVersion: 2.1\n")
    (metadata / "RECORD").write_text("fast_thing/__init__.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    class Wrapped(Backend):
        packages = ("numpy", "fast-thing")
        modules = ("fast_thing.core",)

    description._providers.cache_clear()  # another test may have asked before
    description._version.cache_clear()
    assert Wrapped.versions() == {"numpy": version("numpy"), "fast-thing-cpu": "2.1"}
    description._providers.cache_clear()


def test_the_source_of_a_backend_includes_what_it_imports_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras takes its environment from JAX's adapter, Numba its softmax from NumPy's: a change there is theirs too."""
    backends = registered()
    before = {name: backends[name].source_sha256() for name in backends}
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"# changed" * (path.name == "jax.py"))
    changed = {name for name in backends if backends[name].source_sha256() != before[name]}
    assert {"jax", "jax-scan", "jax-vmap", "keras", "keras-jax"} <= changed
    assert not {"numpy", "numba", "pytorch", "scikit-learn"} & changed
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"# changed" * (path.name == "numpy.py"))
    changed = {name for name in backends if backends[name].source_sha256() != before[name]}
    assert {"numpy", "numba", "numba-sparse"} <= changed
    assert not {"pytorch", "tensorflow"} & changed


def distribution(folder: Path, name: str, text: str, entry: str) -> None:
    """Lay out in a folder what installing a distribution with one module and one entry point leaves there."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(text)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[lockstep.backends]\n{entry}\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose distributions are installed."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def test_installed_distribution_offers_a_backend(installed: Path) -> None:
    """By its name, like lockstep's own."""
    distribution(installed, "lockstep-mine-good", ONE, "mine = lockstep_mine_good:Mine")
    assert registered()["mine"] is load("mine")
    assert load("mine").__module__ == "lockstep_mine_good"
    assert list(registered()) == ["numpy", *sorted(registered().keys() - {"numpy"})]
    assert refused() == {}


HALF = "from lockstep_bench.backends.base import Backend\n\n\nclass Mine(Backend):\n"
REFUSED = {
    "raises": ("raise RuntimeError('out of luck')", "could not be imported: RuntimeError: out of luck"),
    "exits": ("raise SystemExit(3)", "could not be imported: SystemExit: 3"),
    "has no such thing": ("", "could not be imported: AttributeError: module"),
    "imports what is not there": (
        "import no_such_framework",
        "ModuleNotFoundError: No module named 'no_such_framework'",
    ),
    "is a function": ("def Mine(): ...", "is no subclass of lockstep_bench.backends.base.Backend"),
    "is another class": ("class Mine: ...", "is no subclass of lockstep_bench.backends.base.Backend"),
    "misses methods": (f"{HALF}    def train(self, order): ...", "lacks the methods build, predict, weights"),
    "misses attributes": (HALF + METHODS, "must say its name, style, packages, modules"),
    "has another name": (
        ONE.replace('"mine"', '"yours"'),
        "its name is yours, its entry point's is mine: make them one",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_entry_point_that_is_no_backend_is_refused_and_the_rest_works(installed: Path, fault: str) -> None:
    """Said with its reason, missing from the list, and an error for who names it."""
    text, reason = REFUSED[fault]
    module = f"lockstep_{fault.replace(' ', '_')}"
    distribution(installed, module.replace("_", "-"), text, f"mine = {module}:Mine")
    assert f"{module}:Mine of {module.replace('_', '-')}" in refused()["mine"]
    assert reason in refused()["mine"]
    assert "mine" not in registered()
    assert registered().keys() >= {"numpy", "keras", "pytorch", "scikit-learn"}
    with pytest.raises(BackendNotFoundError) as caught:
        load("mine")
    assert str(caught.value) == refused()["mine"]


def test_two_distributions_of_one_name_are_both_refused(installed: Path) -> None:
    """Neither is taken: which it would be is luck."""
    for name in ("lockstep-one", "lockstep-other"):
        distribution(installed, name, ONE, f"mine = {name.replace('-', '_')}:Mine")
    assert refused() == {"mine": "mine is offered by lockstep-one and by lockstep-other: uninstall all but one"}
    assert "mine" not in registered()


def test_name_of_lockstep_s_own_backend_stays_lockstep_s(installed: Path) -> None:
    """Nobody replaces the reference by installing something."""
    distribution(installed, "lockstep-evil", ONE.replace('"mine"', '"numpy"'), "numpy = lockstep_evil:Mine")
    assert load("numpy") is registered()["numpy"] is NumPy
    assert refused() == {"numpy": "numpy of lockstep-evil has the name of one of lockstep's own backends"}


def test_command_line_names_what_it_leaves_out(installed: Path, tmp_path: Path) -> None:
    """`backends` lists it with the reason; `run` goes on without it, and says so; to name it is wrong usage."""
    distribution(installed, "lockstep-bad", "raise RuntimeError('[out] of luck')", "bad = lockstep_bad:Mine")
    distribution(installed, "lockstep-offered", ONE, "mine = lockstep_offered:Mine")

    path = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH")]))
    command = partial(lockstep_process, cwd=tmp_path, PYTHONPATH=path)

    reason = "lockstep_bad:Mine of lockstep-bad could not be imported: RuntimeError: [out] of luck"
    listed = command("backends")
    assert listed.returncode == 0
    assert f"refused: {reason}" in listed.stdout
    assert "mine" in listed.stdout

    small = ["--dataset", "digits", "--epochs", "1", "--train-images", "60", "--out", "out"]
    named = command("run", "bad", *small)
    assert (named.returncode, named.stderr) == (2, f"lockstep: {reason}\n")

    ran = command("run", "mine", *small)
    assert ran.returncode == 0, ran.stderr
    assert "mine" in (tmp_path / "out" / "runs.csv").read_text()


def test_command_line_goes_on_without_what_it_leaves_out(capsys: pytest.CaptureFixture[str], installed: Path) -> None:
    """Where nothing is named, all that can be loaded are planned, and the others are said."""
    distribution(installed, "lockstep-worse", "raise RuntimeError('no luck')", "worse = lockstep_worse:Mine")
    assert "worse" not in [backend.name for backend in choose_backends([])]
    say_refused(None)
    expected = (
        "lockstep: left out: lockstep_worse:Mine of lockstep-worse could not be imported: RuntimeError: no luck\n"
    )
    assert capsys.readouterr().err == expected
    say_refused(["numpy"])
    assert capsys.readouterr().err == ""
