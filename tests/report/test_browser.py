"""The pages in a real browser: no errors, hover, keys, tabs, zoom, accessibility by axe."""

from __future__ import annotations

import shutil

import pytest

from dreamquant.report.write import write_report

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"no browser: none of {', '.join(NAMES)}")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # As root, in a container, there is no other way to start it.
        launched = driver.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def comparison(folder, synthetic):
    return write_report([folder, synthetic])


@pytest.fixture
def opened(browser):
    """Open a page; at the end it must have said nothing on the console, nor asked the network."""
    said, contexts = [], []

    def open_page(path, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: check(request.url))
        page.goto(path.as_uri())
        return page

    def check(address):
        if not address.startswith(("file:", "data:")):
            said.append(address)

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize(
    ("which", "colours"),
    [("folder", "light"), ("folder", "dark"), ("unlabelled", "light"), ("comparison", "dark")],
)
def test_there_is_no_barrier(which, colours, opened, request):
    path = request.getfixturevalue(which)
    page = opened(path if path.suffix else path / "report.html", color_scheme=colours)
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out(width, folder, opened):
    page = opened(folder / "report.html", viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_a_mark_shows_follows_the_pointer_and_the_arrow_keys(folder, opened):
    page = opened(folder / "report.html")
    tip = page.locator("#tip")
    page.locator("svg.columns .mark").nth(1).hover()
    assert tip.text_content().startswith("ReLU after layer 0\n")
    assert "on" in tip.get_attribute("class")
    page.locator("svg.curve").first.focus()
    page.keyboard.press("ArrowRight")
    assert tip.text_content().startswith("iteration ")
    first = tip.text_content()
    page.keyboard.press("ArrowRight")
    assert tip.text_content() != first
    page.keyboard.press("Escape")
    assert "on" not in (tip.get_attribute("class") or "")


def test_tabs_work_by_click_and_by_key(folder, opened):
    page = opened(folder / "report.html")
    tabs = page.get_by_role("tab")
    assert tabs.all_text_contents()[:3] == ["Sensitivity", "Signal to noise", "Clipping"]
    tabs.nth(1).click()
    panel = page.locator(f"#{tabs.nth(1).get_attribute('aria-controls')}")
    assert panel.is_visible()
    assert not page.locator("#panel-0-0").is_visible()
    page.keyboard.press("ArrowRight")
    assert tabs.nth(2).get_attribute("aria-selected") == "true"
    assert page.locator("#panel-0-2").is_visible()


def test_a_curve_zooms_where_it_is_dragged(folder, opened):
    page = opened(folder / "report.html")
    curve = page.locator("svg.curve").first
    curve.scroll_into_view_if_needed()
    ticks = curve.locator("[data-share]")
    whole = ticks.all_text_contents()
    box = curve.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, y)
    page.mouse.up()
    assert int(ticks.first.text_content()) > int(whole[0])
    assert int(ticks.last.text_content()) < int(whole[-1])
    curve.dblclick()
    assert ticks.all_text_contents() == whole


def test_colours_can_be_changed(folder, opened):
    page = opened(folder / "report.html", color_scheme="light")
    paper = "getComputedStyle(document.querySelector('#result')).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Dark colours").click()
    assert page.evaluate(paper) != light
    page.get_by_role("button", name="Light colours").click()
    assert page.evaluate(paper) == light


def test_tables_sort(folder, opened):
    page = opened(folder / "report.html")
    table = page.locator("table.sortable").first
    table.get_by_role("button", name="values").click()
    values = [int(text) for text in table.locator("td:nth-child(3)").all_text_contents()]
    assert values == sorted(values, reverse=True)
    table.get_by_role("button", name="values").click()
    again = [int(text) for text in table.locator("td:nth-child(3)").all_text_contents()]
    assert again == sorted(values)


def test_it_can_be_read_without_javascript(folder, opened):
    page = opened(folder / "report.html", java_script_enabled=False)
    for text in ("Sensitivity", "Clipping", "Activations in numbers"):
        assert page.get_by_role("heading", name=text).is_visible()
    assert page.locator("table").count() == page.locator("table:visible").count()
    assert page.locator("svg.chart:visible").count() > 10


def test_it_prints_all_tabs_and_no_buttons(folder, opened):
    page = opened(folder / "report.html", color_scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("#panel-0-2").is_visible()
    assert not page.get_by_role("button", name="Light colours").is_visible()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
