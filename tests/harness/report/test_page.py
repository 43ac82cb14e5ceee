"""The page in a real browser, from disk: what it shows, what mouse and keyboard do, what strangers' words cannot."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from shutil import copytree, which
from typing import Any, Final

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.data.find import at_hand
from lockstep_bench.harness.records.raw_files import read_plan
from lockstep_bench.harness.report.page import island, write_page
from lockstep_bench.harness.report.page.plots import CHARTS
from lockstep_bench.harness.tables.learnt import read_learnt
from lockstep_bench.harness.tables.results import COLUMNS, Results, load

MakeResults = Callable[..., Results]
STANDARD: Final = Path(__file__).parents[3] / "results" / "standard"
DESKTOP: Final[Any] = {"width": 1280, "height": 900}
PHONE: Final[Any] = {"width": 390, "height": 844}
FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-quic"),
)
"""So that the browser by itself calls nobody; as root, as in CI, it has no sandbox."""
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(all_cpus_for: Callable[[], AbstractContextManager[None]]) -> Iterator[Browser]:
    """Chromium as the system has it, with its processes on all CPUs."""
    with all_cpus_for():
        playwright = sync_playwright().start()
        browser = playwright.chromium.launch(executable_path=which("chromium"), args=[*FLAGS])
    yield browser
    browser.close()
    playwright.stop()


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a results folder's page; nothing may go to the console, and nothing but the page be asked for."""
    heard: list[str] = []
    expected: list[int] = []
    pages: list[Page] = []

    def open_page(folder: Path, viewport: Any = DESKTOP, scheme: Any = "light", complaints: int = 0) -> Page:
        expected.append(complaints)
        page = browser.new_page(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        pages.append(page)
        address = (folder / "report.html").resolve().as_uri()
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.partition("#")[0] == address or request.url.startswith(("data:", "blob:"))
                else heard.append(f"request: {request.url}")
            ),
        )
        page.goto(address)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert len(heard) == sum(expected), heard


def scroll_through(page: Page) -> None:
    """See every chart, so that every one is drawn."""
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        expect(plot.locator(".main-svg").first).to_be_visible(timeout=30_000)  # for the first one plotly is run


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed reference results, with their page."""
    folder = Path(copytree(STANDARD, tmp_path_factory.mktemp("page") / "standard"))
    results = load(folder)
    dataset = at_hand(results.plan.dataset.name, results.plan.dataset.sha256)
    write_page(folder, results, dataset, read_learnt(folder, results.plan, dataset))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_results: MakeResults) -> Path:
    """Three backends and two seeds, where all numbers are known."""
    folder = tmp_path_factory.mktemp("made") / "made"
    write_page(folder, make_results(folder, seeds=2))
    return folder


def column(page: Page, place: int) -> list[str]:
    """A column's texts, of the rows that are shown; without the marker before a backend's name."""
    cells = [cell for cell in page.locator(f"tr.backend > :nth-child({place})").all() if cell.is_visible()]
    return [re.sub(r"^[▸▾○●■▲◆▼✚✖⬟\s]+", "", cell.inner_text()).strip() for cell in cells]


@pytest.mark.mnist
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_reference_page_fits_its_window(standard: Path, open_page: Open, viewport: Any, scheme: str) -> None:
    """No console message, no request, every chart drawn, no text beyond the window, none cut off within a chart."""
    page = open_page(standard, viewport, scheme)
    scroll_through(page)
    assert page.locator(".plot").count() == len(CHARTS)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    if viewport == DESKTOP:
        assert (
            page.evaluate(
                "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth)"
            )
            == []
        )
    beyond = page.evaluate(
        """() => [...document.querySelectorAll('.plot text, .plot .annotation-text')].filter((text) => {
            const [own, plot] = [text.getBoundingClientRect(), text.closest('.plot').getBoundingClientRect()];
            return own.width && (own.left < plot.left - 1 || own.right > plot.right + 1 || own.top < plot.top - 1
                || own.bottom > plot.bottom + 1);
        }).map((text) => text.textContent)"""
    )
    assert beyond == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


@pytest.mark.mnist
def test_the_reference_page_says_what_the_tables_say(standard: Path, open_page: Open) -> None:
    """Every backend with its numbers, the fastest first; the network's part is there."""
    page = open_page(standard)
    summary = load(standard).summary
    assert column(page, 1) == list(summary["backend"])
    assert column(page, 5) == [f"{time:,.0f}" for time in summary["microseconds_per_step"]]
    answer = page.locator(".answer").inner_text()
    assert f"Fastest: {summary['backend'][0]}." in answer
    confusion = [int(cell.inner_text().replace(",", "")) for cell in page.locator(".confusion td").all()]
    assert sum(confusion) == 10_000
    error = summary.set_index("backend")["test_error_percent"]["numpy"]
    assert sum(confusion[::11]) == round(100 * (100 - error))
    assert page.locator(".mistakes figure").count() == 24
    for image in page.locator("img").all():
        assert image.evaluate("image => image.naturalWidth") > 0
        assert image.get_attribute("alt")


def test_columns_sort_by_mouse_and_keyboard(made: Path, open_page: Open) -> None:
    """Numbers as numbers, of which 500,000 is less than 1,000,000; once up, once more down."""
    page = open_page(made)
    assert column(page, 1) == ["numpy", "keras", "pytorch"]
    assert column(page, 5) == ["500,000", "1,000,000", "1,500,000"]
    head = page.get_by_role("columnheader", name="time per step")
    head.get_by_role("button").click()
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, 1) == ["pytorch", "keras", "numpy"]
    head = page.get_by_role("columnheader", name="backend")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 1) == ["keras", "numpy", "pytorch"]


@pytest.mark.mnist
def test_rows_are_filtered_by_style_and_words(standard: Path, open_page: Open) -> None:
    """Words are looked for in what is behind a row too, such as versions."""
    page = open_page(standard)
    summary = pd.read_csv(standard / "summary.csv")
    page.get_by_label("Style").select_option("tuned")
    assert column(page, 1) == list(summary["backend"][summary["style"] == "tuned"])
    page.get_by_label("Style").select_option("")
    page.get_by_label("Search").press_sequentially("torch 2.")
    assert sorted(column(page, 1)) == ["pytorch", "pytorch-tuned"]
    assert "2 of 13 shown" in page.locator(".controls").inner_text()


def test_a_row_opens_by_mouse_and_keyboard(made: Path, open_page: Open) -> None:
    """Behind it: each run with its versions, phases and memory."""
    page = open_page(made)
    details = page.locator(".details").nth(1)
    expect(details).to_be_hidden()
    page.locator("tr.backend").nth(1).locator("td").nth(3).click()
    expect(details).to_be_visible()
    for words in ("seed 0", "seed 1", "framework 1.0", "import", "1 s", "build", "0.5 s"):
        assert words in details.inner_text()
    page.locator("tr.backend").nth(1).get_by_role("button").focus()
    page.keyboard.press("Space")
    expect(details).to_be_hidden()


def test_points_are_shown_by_mouse_and_keyboard(made: Path, open_page: Open) -> None:
    """What a point says; by keyboard it is said to those who do not see it as well."""
    page = open_page(made)
    plot = page.locator("#error_by_epoch-1")
    plot.scroll_into_view_if_needed()
    expect(plot.locator(".point").first).to_be_visible()
    plot.locator(".point").first.hover(force=True)
    expect(plot.locator(".hovertext")).to_contain_text(re.compile("% after epoch 1"))
    page.mouse.move(0, 0)
    plot.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#said")).to_have_text("numpy, 20.05 % after epoch 1")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#said")).to_have_text("numpy, 6.72 % after epoch 3")
    expect(plot.locator(".hovertext")).to_be_visible()


def test_every_chart_answers_the_arrow_keys(made: Path, open_page: Open) -> None:
    """Lines, bars and the panel below another."""
    page = open_page(made)
    for draw, *_ in CHARTS:
        plot = page.locator(f"#{draw.__name__}-1")
        plot.scroll_into_view_if_needed()
        page.evaluate("document.getElementById('said').textContent = ''")
        plot.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        expect(plot.locator(".hovertext").first).to_be_visible()
        expect(page.locator("#said")).not_to_be_empty()


def test_the_legend_hides_and_shows_by_mouse_and_keyboard(made: Path, open_page: Open) -> None:
    """One backend, all, none; its button says which."""
    page = open_page(made)
    chart = page.locator("figure", has=page.locator("#loss-1"))
    chart.scroll_into_view_if_needed()
    lines = chart.locator(".scatterlayer .trace")
    all_lines = 2 * 3 * (1 + 2)  # training and test, three backends, the mean and two seeds
    expect(lines).to_have_count(all_lines)
    keras = chart.get_by_role("button", name="keras")
    keras.click()
    assert keras.get_attribute("aria-pressed") == "false"
    expect(lines).to_have_count(all_lines * 2 // 3)
    keras.focus()
    page.keyboard.press("Space")
    expect(lines).to_have_count(all_lines)
    chart.get_by_role("button", name="none").click()
    expect(lines).to_have_count(0)
    chart.get_by_role("button", name="all").click()
    expect(lines).to_have_count(all_lines)


def test_an_axis_switches_to_a_logarithmic_one(made: Path, open_page: Open) -> None:
    """And back."""
    page = open_page(made)
    chart = page.locator("figure", has=page.locator("#error_by_seconds-1"))
    chart.scroll_into_view_if_needed()
    button = chart.get_by_role("button", name="logarithmic")
    axis = "document.getElementById('error_by_seconds-1')._fullLayout.yaxis.type"
    for pressed, kind in (("true", "log"), ("false", "linear")):
        button.click()
        assert button.get_attribute("aria-pressed") == pressed
        assert page.evaluate(axis) == kind


def test_on_paper_all_is_light_drawn_and_as_wide_as_a_sheet(made: Path, open_page: Open) -> None:
    """From a dark screen too; afterwards it is as before."""
    page = open_page(made, scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for plot in page.locator(".plot").all():
        width = plot.locator(".main-svg").first.evaluate("svg => svg.getBoundingClientRect().width")
        assert width == 680
    text = page.locator("#error_by_epoch-1 .xtick text").first
    assert text.evaluate("text => text.style.fill") == "rgb(22, 24, 29)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert text.evaluate("text => text.style.fill") == "rgb(240, 241, 243)"


def test_a_finger_on_a_chart_scrolls_the_page(made: Path, browser: Browser) -> None:
    """It does not zoom, as the mouse does."""
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto((made / "report.html").as_uri())
    page.locator("#error_by_seconds-1").scroll_into_view_if_needed()
    expect(page.locator("#error_by_seconds-1 .main-svg").first).to_be_attached()
    assert page.evaluate("document.getElementById('error_by_seconds-1')._fullLayout.dragmode") is False
    context.close()


@pytest.mark.mnist
def test_the_native_profile_is_said_first(open_page: Open, tmp_path: Path) -> None:
    """In the heading; and its formula is one, not a number with an interval."""
    folder = Path(copytree(STANDARD.parent / "native", tmp_path / "native"))
    write_page(folder, load(folder))
    page = open_page(folder)
    expect(page.locator("h1")).to_contain_text("native defaults, networks not identical")
    expect(page.locator("tr.backend", has_text="pytorch").locator("td", has_text="√")).to_have_text("√(v / (1 - β₂ᵗ))")
    assert page.locator("tr.backend small").count() == 3  # the intervals of all but the reference


def test_machines_and_threads_each_have_their_part(tmp_path: Path, open_page: Open, make_results: MakeResults) -> None:
    """A table, charts and a name for each; what belongs together is told apart by its number."""
    folder = tmp_path / "two"
    plan = make_results(folder, seeds=2).plan
    plan = plan.model_copy(update={"blocks": [plan.blocks[0], plan.blocks[1].model_copy(update={"threads": 1})]})
    (folder / "plan.json").write_text(plan.model_dump_json())
    write_page(folder, load(folder))
    page = open_page(folder)
    assert page.locator("h2").all_inner_texts()[:2] == ["2 threads", "1 thread"]
    assert page.locator("table[id]").count() == 2
    assert page.locator(".plot").count() == 2 * len(CHARTS)
    page.get_by_role("search").nth(1).get_by_label("Search").fill("keras")
    assert column(page, 1) == ["numpy", "keras", "pytorch", "keras"]


def test_the_theme_is_the_system_s_until_it_is_chosen(made: Path, open_page: Open) -> None:
    """A chart that is there is painted anew."""
    page = open_page(made, scheme="dark")
    plot = page.locator("#error_by_seconds-1")
    plot.scroll_into_view_if_needed()
    line = plot.locator(".scatterlayer .js-line").first
    assert "rgb(240, 241, 243)" in (line.get_attribute("style") or "")
    page.get_by_role("button", name="Light").click()
    expect(line).to_have_attribute("style", re.compile(r"stroke: rgb\(22, 24, 29\)"))


HOSTILE: Final = """<script>hacked=1</script></script><img src=x onerror=hacked=1>"'<b>{{7*7}} %{y} `x y` **z**"""


def renamed(results: Results, names: dict[str, str]) -> Results:
    """Results with other names for backends: ones that no record may have, but a page has to show all the same."""
    backends = [one.model_copy(update={"name": names.get(one.name, one.name)}) for one in results.plan.backends]
    tables = {name: getattr(results, name).replace(names) for name in COLUMNS}
    return results._replace(plan=results.plan.model_copy(update={"backends": backends}), **tables)


def test_strangers_words_are_text(tmp_path: Path, open_page: Open, make_results: MakeResults) -> None:
    """A backend's name, a version, a reason, a machine's name, a log: shown as they are, and never run."""
    folder = tmp_path / "hostile"
    results = make_results(
        folder,
        ["numpy", "mine"],
        machine=f"CPU{HOSTILE}",
        version=f"1{HOSTILE}",
        failed=("mine", "error", f"because{HOSTILE}", 2),
    )
    write_page(folder, renamed(results, {"mine": f"mine{HOSTILE}"}))
    page = open_page(folder)
    scroll_through(page)
    page.locator("tr.backend").nth(1).get_by_role("button").click()
    text = page.locator("body").inner_text()
    for word in ("mine", "CPU", "1", "because"):
        assert f"{word}{HOSTILE}" in text
    assert f"mine{HOSTILE} (error)" in page.locator("#loss-1 ~ .legend").inner_text()
    shown = page.locator("#step_time-1").text_content() or ""
    assert f"mine{HOSTILE}" in shown.replace("\N{NO-BREAK SPACE}", " ")
    page.locator("#step_time-1").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#said")).to_contain_text("500,000 µs per step")
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("img[src=x]").count() == 0


def test_a_script_that_is_not_the_page_s_own_does_not_run(made: Path, tmp_path: Path, open_page: Open) -> None:
    """Were anything to get past the escaping, the policy would stop it: it names the scripts by their hashes."""
    text = (made / "report.html").read_text()
    (tmp_path / "report.html").write_text(text.replace("</main>", "<script>hacked=1</script></main>"))
    page = open_page(tmp_path, complaints=1)
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator(".plot").count() == len(CHARTS)


def test_names_that_javascript_or_a_theme_knows_are_names(
    tmp_path: Path, open_page: Open, make_results: MakeResults
) -> None:
    """Of every object's properties, or of the colour that a theme replaces."""
    names = ["numpy", "constructor", "toString", "#000000", "a%{y}"]
    results = make_results(tmp_path / "odd", ["numpy", "constructor", "toString", "black", "given"])
    write_page(tmp_path / "odd", renamed(results, {"black": "#000000", "given": "a%{y}"}))
    page = open_page(tmp_path / "odd", scheme="dark")
    plot = page.locator("#memory-1")
    plot.scroll_into_view_if_needed()
    expect(plot.locator(".ytick text")).to_have_text(list(reversed(names)))
    plot = page.locator("#disagreements-1")
    plot.scroll_into_view_if_needed()
    plot.focus()
    for name in names:
        page.keyboard.press("ArrowDown")
        expect(page.locator("#said")).to_contain_text(f"{name}, 0 images")


def test_json_within_the_page_cannot_end_its_element() -> None:
    """Whatever is in it; a browser reads the same."""
    text = json.dumps({"name": HOSTILE, "also": "<!-- & -->"})
    assert not set("<>&") & set(island(text))
    assert json.loads(island(text)) == json.loads(text)


def test_the_log_of_what_failed_is_shown(tmp_path: Path, open_page: Open, make_results: MakeResults) -> None:
    """Its end, as text."""
    folder = tmp_path / "failed"
    results = make_results(folder, failed=("keras", "killed", "by signal 9", 1))
    (folder / "logs" / "seed-0").mkdir(parents=True)
    lines = [f"line {number}" for number in range(100)] + [HOSTILE, "\x1b[31mout of memory\xff"]
    (folder / "logs" / "seed-0" / "keras.log").write_text("\n".join(lines), encoding="latin-1")
    write_page(folder, results)
    page = open_page(folder)
    page.locator("tr.backend", has_text="keras").get_by_role("button").click()
    log = page.locator(".details:visible pre").inner_text()
    assert HOSTILE in log
    assert "out of memory" in log
    assert "line 99" in log
    assert "line 50" not in log
    assert page.evaluate("typeof hacked") == "undefined"


def test_a_strangers_names_show_no_other_file(tmp_path: Path, make_results: MakeResults) -> None:
    """A backend's name with dots and slashes in it leads to no log but those of its run."""
    name = "../../../secret"
    (tmp_path / "secret.log").write_text("a file of my own")
    folder = tmp_path / "stranger"
    (folder / "logs" / "seed-0").mkdir(parents=True)
    assert (folder / "logs" / "seed-0" / f"{name}.log").is_file()
    results = make_results(folder, ["numpy", "mine"], failed=("mine", "error", "it broke", 1))
    path = write_page(folder, renamed(results, {"mine": name}))
    assert "a file of my own" not in path.read_text()


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"failed": ("keras", "error", "it broke", 0)}, ["keras: error after 0 of 3 epochs", "it broke"]),
        ({"failed": ("keras", "timeout", "hung", 1)}, ["keras: timeout after 1 of 3 epochs"]),
        ({"failed": ("keras", "diverged", "nan", 2)}, ["keras: diverged after 2 of 3 epochs"]),
        ({"failed": ("numpy", "killed", "signal 9", 1)}, ["numpy: killed", "There is no reference to divide by."]),
        ({"begun": False}, ["skipped", "No backend came through"]),
        ({"epochs": 1}, ["All 3 backends"]),
        ({"backends": ["numpy"]}, ["there is no other backend to compare it with"]),
        ({"dataset": "digits"}, ["These are not MNIST numbers"]),
        ({"seeds": 3, "failed": ("keras", "killed", "signal 9", 1)}, ["seed 0, 1, 2"]),
    ],
    ids=["error", "timeout", "diverged", "no reference", "skipped", "one epoch", "one backend", "digits", "seeds"],
)
def test_odd_results_are_shown_and_said(
    tmp_path: Path, open_page: Open, make_results: MakeResults, case: dict[str, Any], said: list[str]
) -> None:
    """Every chart is drawn, every backend is in the table, and what happened is said."""
    results = make_results(tmp_path / "odd", **case)
    write_page(tmp_path / "odd", results)
    page = open_page(tmp_path / "odd")
    scroll_through(page)
    assert sorted(column(page, 1)) == sorted(planned.name for planned in results.plan.backends)
    text = page.locator("main").inner_text()
    for words in said:
        assert words in text


@pytest.mark.mnist
def test_a_large_page_is_small_and_opens_before_its_charts(
    tmp_path: Path, open_page: Open, make_results: MakeResults, mnist: Dataset
) -> None:
    """12 backends, 5 seeds, 20 epochs of 8 rounds, all pictures: under 6 MB, as was asked for.

    The answer and the table do not wait for what draws the charts: that has not been run when the page has loaded.
    """
    folder = tmp_path / "large"
    backends = ["numpy", *(f"backend-{number}" for number in range(11))]
    standard = read_plan(STANDARD)
    learnt = read_learnt(STANDARD, standard, mnist)
    path = write_page(folder, make_results(folder, backends, epochs=20, seeds=5, rounds=8), mnist, learnt)
    assert path.stat().st_size < 6_000_000
    page = open_page(folder)
    expect(page.locator("#error_by_seconds-1")).to_be_attached()
    assert page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") > 0
    assert page.evaluate("typeof Plotly") == "undefined"
    scroll_through(page)
