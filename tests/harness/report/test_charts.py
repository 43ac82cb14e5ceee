"""The charts must be there, be the same bytes each time, and say what happened in every odd case too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from lockstep_bench.backends import registered
from lockstep_bench.harness.records.format import Status
from lockstep_bench.harness.report.charts import write_charts
from lockstep_bench.harness.report.looks import COLOURS, INK, KNOWN, looks
from lockstep_bench.harness.tables.results import Results, load

CURVES = ("loss", "accuracy", "error_by_epoch", "error_by_seconds", "disagreements", "ratio_by_round")
"""Charts in which colour tells the backends apart; in the others each has a row."""
CHARTS = (*CURVES, "error_by_seed", "time_and_error", "step_time", "phases", "memory")
MACHINE = "A Machine, 2 CPUs"
MakeResults = Callable[..., Results]


def words(folder: Path, chart: str) -> str:
    """All text of a chart, read from its SVG."""
    texts = ElementTree.parse(folder / "charts" / f"{chart}.svg").iter("{http://www.w3.org/2000/svg}text")
    return "\n".join("".join(text.itertext()) for text in texts)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, make_results: MakeResults) -> Path:
    """A results folder with the charts of three backends that are ok; drawing takes seconds."""
    folder = tmp_path_factory.mktemp("results")
    write_charts(folder, make_results(folder))
    return folder


def test_every_chart_is_there_as_png_and_svg_the_same_bytes_each_time(drawn: Path) -> None:
    """No date, no random identifier, no version of the library; the paths returned are all that there are."""
    first = {path: path.read_bytes() for path in (drawn / "charts").iterdir()}
    assert {path.name for path in first} == {f"{name}.{suffix}" for name in CHARTS for suffix in ("png", "svg")}
    assert {path: path.read_bytes() for path in write_charts(drawn, load(drawn))} == first
    assert not any(mpl.__version__.encode() in content for content in first.values())


def test_a_user_s_own_settings_change_nothing(tmp_path: Path, make_results: MakeResults) -> None:
    """Fonts, sizes and colours of a matplotlibrc would make other bytes of the same tables."""
    plain, own = (make_results(tmp_path / name, ["numpy"], epochs=1) for name in ("plain", "own"))
    write_charts(tmp_path / "plain", plain)
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "pink", "lines.linewidth": 9}):
        write_charts(tmp_path / "own", own)
    for path in (tmp_path / "plain" / "charts").iterdir():
        assert (tmp_path / "own" / "charts" / path.name).read_bytes() == path.read_bytes()


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path: Path, make_results: MakeResults) -> None:
    """A caller's own charts look as before."""
    own: Any = {"axes.grid": False, "svg.fonttype": "path"}
    with mpl.rc_context(own):
        write_charts(tmp_path, make_results(tmp_path, ["numpy"], epochs=1))
        assert {name: mpl.rcParams[name] for name in own} == own


@pytest.mark.parametrize("dataset", ["mnist", "digits"])
def test_every_chart_names_dataset_and_machine(tmp_path: Path, dataset: str, make_results: MakeResults) -> None:
    """What is not MNIST is said not to be."""
    write_charts(tmp_path, make_results(tmp_path, ["numpy"], epochs=1, dataset=dataset), formats=["svg"])
    named = {"mnist": "MNIST", "digits": "digits (not MNIST)"}[dataset]
    assert all(f"{named} on {MACHINE}" in words(tmp_path, name) for name in CHARTS)


def test_a_long_machine_name_is_not_clipped(tmp_path: Path, make_results: MakeResults) -> None:
    """It goes on in the next line, whole."""
    machine = "An Extraordinarily Long Processor Name (R) CPU @ 2.70GHz " * 3 + "end"
    write_charts(tmp_path, make_results(tmp_path, ["numpy"], epochs=1, machine=machine), formats=["svg"])
    for name in CHARTS:
        lines = words(tmp_path, name).splitlines()
        assert machine in " ".join(lines)
        assert max(map(len, lines)) <= 118


def test_a_chart_shows_the_values_and_the_target(drawn: Path) -> None:
    """keras: three epochs of 2 s, at the end 20 / 3 %."""
    assert {"6.0", "6.67"} <= set(words(drawn, "time_and_error").splitlines())
    assert {"target", "7.21 %"} <= set(words(drawn, "error_by_seconds").splitlines())


def test_coinciding_curves_are_said_to_coincide(drawn: Path) -> None:
    """Otherwise one would look for the others."""
    assert "Curves coincide: lockstep." in words(drawn, "error_by_epoch")


def test_curves_that_do_not_coincide_are_not_said_to(tmp_path: Path, make_results: MakeResults) -> None:
    """Three backends, each 0.06 points above the last: 0.12 is more than two times the gate's 0.05 %."""
    write_charts(tmp_path, make_results(tmp_path, apart=0.06), formats=["svg"])
    text = words(tmp_path, "error_by_epoch")
    assert "coincide" not in text
    assert "more than 0.12 percentage points apart" in text


def test_networks_that_are_not_identical_are_said_not_to_be(tmp_path: Path, make_results: MakeResults) -> None:
    """In the native profile every chart says so, and none that curves coincide, even where they do."""
    results = make_results(tmp_path)
    plan = results.plan.model_copy(update={"profile": "native"})
    write_charts(tmp_path, results._replace(plan=plan), formats=["svg"])
    for name in CHARTS:
        assert ", native defaults: MNIST" in words(tmp_path, name)
        assert "The networks are not identical" in words(tmp_path, name)
    assert "coincide" not in words(tmp_path, "error_by_epoch")


@pytest.mark.parametrize(("status", "done"), [("error", 0), ("not-identical", 3)])
def test_a_failed_backend_is_named_with_its_status(
    tmp_path: Path, status: Status, done: int, make_results: MakeResults
) -> None:
    """In every chart, with the reason; and it has no bar, so no value."""
    write_charts(
        tmp_path, make_results(tmp_path, failed=("keras", status, "it $broke$ <&>\x1b[0m", done)), formats=["svg"]
    )
    for name in CHARTS:
        assert f"keras: {status} after {done} of 3 epochs: it $broke$ <&>" in words(tmp_path, name)
    for name in CURVES:
        assert f"keras ({status})" in words(tmp_path, name)
    for name in set(CHARTS) - set(CURVES):
        assert status in words(tmp_path, name).splitlines()
    bars = words(tmp_path, "time_and_error").splitlines()
    assert bars.count(status) == 2
    assert bars.count("6.67") == 2  # numpy's and pytorch's


@pytest.mark.parametrize(
    "case",
    [
        {"epochs": 1},
        {"backends": ["numpy"]},
        {"seeds": 3},
        {"seeds": 2, "failed": ("keras", "killed", "signal 9", 1)},
        {"failed": ("numpy", "diverged", "nan", 0)},
        {"backends": [f"backend-{number}" for number in range(13)]},
    ],
    ids=["one epoch", "one backend", "three seeds", "two seeds, one failure", "no reference", "thirteen backends"],
)
def test_odd_cases_are_drawn_without_a_warning(tmp_path: Path, case: dict[str, Any], make_results: MakeResults) -> None:
    """Every backend is named in every chart."""
    results = make_results(tmp_path, **case)
    write_charts(tmp_path, results, formats=["svg"])
    for name in CHARTS:
        assert all(planned.name in words(tmp_path, name) for planned in results.plan.backends)


def test_nothing_at_all_is_said_to_be_nothing(tmp_path: Path, make_results: MakeResults) -> None:
    """No epoch of any run: every chart says so, in its way."""
    write_charts(tmp_path, make_results(tmp_path, begun=False), formats=["svg"])
    assert all("no epoch was finished" in words(tmp_path, name) for name in CURVES[:4])
    assert "nothing was held against a reference" in words(tmp_path, "disagreements")
    assert "there is no reference to divide by" in words(tmp_path, "ratio_by_round")
    assert words(tmp_path, "time_and_error").splitlines().count("skipped") == 6
    for name in ("error_by_seed", "step_time", "phases", "memory"):
        assert words(tmp_path, name).splitlines().count("skipped") == 3


def test_a_backend_has_its_look_in_every_report(tmp_path: Path, make_results: MakeResults) -> None:
    """Whatever it is shown beside and in whatever order; one's own too, and no two look alike."""
    mine = ["mine", "theirs", "another", "file.py"]
    few = looks(make_results(tmp_path / "few", ["numpy", "keras", *mine]))
    many = looks(make_results(tmp_path / "many", [*reversed(KNOWN), *mine]))
    found = {look.name: (look.colour, look.marker) for look in many}
    assert all(found[look.name] == (look.colour, look.marker) for look in few)
    assert len(set(found.values())) == len(found)
    assert found["numpy"][0] == INK
    assert {look.colour for look in few[2:]} <= set(COLOURS)


def test_every_look_is_that_of_one_backend() -> None:
    """Of one that there is."""
    assert set(KNOWN) <= set(registered())
    assert len(set(KNOWN.values())) == len(KNOWN)
