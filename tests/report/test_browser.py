"""The HTML page in a real Chromium: mouse, keyboard and a small screen."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from sah.report.html.page import write_page
from sah.report.reading.collect import collect
from sah.report.tables.overview import group_table

selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.browser

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium; without one tests are skipped, or fail if SAH_REQUIRE_BROWSER is set."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        reason = f"no browser on this machine: {', '.join(missing)} not found"
        if os.environ.get("SAH_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs["chromium"])
    # Root, as in a container, has no sandbox; /dev/shm may be tiny there.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium, write_result, write_metrics, root, tmp_path, budget) -> Iterator[Any]:
    """A page of six results, open in the browser; its console must end without errors."""
    for benchmark, right in (("ruler", 1.0), ("mock", 0.5)):
        write_result(
            "dense",
            [right, 1.0, 0.0],
            benchmark=benchmark,
            texts=["yes", "good", HOSTILE],
            questions=f"Which? {HOSTILE}",
        )
        for share in (0.05, 0.2):
            folder = write_result(
                "sparse",
                [right, 0.0, 1.0 if share > 0.1 else 0.0],
                benchmark=benchmark,
                maskers=budget(share),
                texts=["yes", HOSTILE, "no"],
                questions=f"Which? {HOSTILE}",
                fields={"density": share},
            )
            write_metrics(
                folder,
                [
                    (metric, share, layer, step)
                    for metric in ("output_error", "recall")
                    for layer in range(2)
                    for step in (110, 111)
                ],
            )
    target = tmp_path / "report.html"
    results = collect(root)
    write_page(results, target, group_table(results, ["attention"]))
    chromium.set_window_size(1280, 900)
    chromium.get("about:blank")
    chromium.get(target.as_uri())
    yield chromium
    problems = [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]
    assert problems == []
    assert chromium.execute_script("return window.hacked") is None


def rows(page):
    return page.find_elements(By.CSS_SELECTOR, "#results tbody tr")


def column(page, header):
    """Return the texts of a column, from top to bottom."""
    headers = [
        cell.text.split(" ▲")[0].split(" ▼")[0]
        for cell in page.find_elements(By.CSS_SELECTOR, "#results th")
    ]
    number = headers.index(header)
    return [row.find_elements(By.TAG_NAME, "td")[number].text for row in rows(page)]


def chip(page, value):
    return page.find_element(By.CSS_SELECTOR, f'[data-value="{value}"]')


def until(page, selector):
    found = WebDriverWait(page, 20).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, selector)
    )
    return found


def test_filters_filter_and_can_be_combined(page):
    assert len(rows(page)) == 6
    chip(page, "sparse").click()
    assert len(rows(page)) == 4
    chip(page, "mock").click()
    assert set(column(page, "benchmark")) == {"mock"}
    assert page.find_element(By.ID, "count").text == "2 of 6 experiments"
    chip(page, "sparse").click()
    chip(page, "mock").click()
    assert len(rows(page)) == 6
    page.find_element(By.ID, "search").send_keys("mock fraction=0.05")
    assert len(rows(page)) == 1


def test_sorting_works_in_both_directions_and_sets_aria_sort(page):
    button = page.find_element(By.CSS_SELECTOR, '[data-sort="density"]')
    button.click()
    assert column(page, "density") == ["1.000", "1.000", "0.200", "0.200", "0.050", "0.050"]
    page.find_element(By.CSS_SELECTOR, '[data-sort="density"]').click()
    assert column(page, "density")[0] == "0.050"
    head = page.find_element(By.CSS_SELECTOR, 'th:has([data-sort="density"])')
    assert head.get_attribute("aria-sort") == "ascending"


def test_groups_stand_above_the_results_and_in_no_other_view(page):
    cells = page.find_elements(By.CSS_SELECTOR, "#groups tbody tr td:first-child")
    assert [cell.text for cell in cells] == ["dense", "sparse"]
    page.find_element(By.LINK_TEXT, "Figures").click()
    until(page, ".figure svg")
    assert not page.find_element(By.ID, "groups").is_displayed()
    page.back()
    until(page, "#results")
    assert page.find_element(By.ID, "groups").is_displayed()


def test_unmeasured_values_sort_last(page):
    for _ in range(2):
        page.find_element(By.CSS_SELECTOR, '[data-sort="error"]').click()
        assert column(page, "output error")[-2:] == ["–", "–"]


def test_figures_are_shown_and_their_points_lead_to_experiments(page):
    page.find_element(By.LINK_TEXT, "Figures").click()
    figures = until(page, ".figure svg")
    titles = [title.text for title in page.find_elements(By.CSS_SELECTOR, "#figures h2")]
    assert len(titles) == len(figures)
    assert {"Score against density", "Output error by layer"} <= set(titles)
    assert not page.find_element(By.ID, "filters").is_displayed()
    assert not page.find_element(By.ID, "main").is_displayed()
    title = page.find_element(By.CSS_SELECTOR, "#figures svg title")
    assert title.get_attribute("textContent").startswith("sparse fraction=0.05: ")
    page.find_element(By.CSS_SELECTOR, "#figures svg a").click()
    until(page, ".example")
    assert not page.find_element(By.ID, "figures").is_displayed()


def test_answers_are_side_by_side_with_flips_first_and_scripts_remain_text(page):
    page.find_element(By.CSS_SELECTOR, "#results tr:nth-child(6) a").click()
    examples = until(page, ".example")
    badges = [one.text for one in page.find_elements(By.CSS_SELECTOR, ".badge")]
    assert badges == ["lost", "gained"]
    first = examples[0]
    assert "task-1" in first.text
    answers = [one.text for one in first.find_elements(By.CSS_SELECTOR, "pre")][:2]
    assert answers == [HOSTILE, "good"]
    assert HOSTILE in first.find_element(By.CLASS_NAME, "question").text
    assert page.find_elements(By.CSS_SELECTOR, "main img, main script") == []
    summaries = [one.text for one in page.find_elements(By.TAG_NAME, "summary")]
    assert summaries[:2] == ["Configuration", "Provenance"]
    page.back()
    until(page, "#results")


def test_everything_works_from_the_keyboard(page):
    body = page.switch_to.active_element
    body.send_keys(Keys.TAB)
    assert page.switch_to.active_element.get_attribute("class") == "skip"
    for _ in range(40):
        active = page.switch_to.active_element
        if active.get_attribute("data-sort") == "score":
            break
        active.send_keys(Keys.TAB)
    active.send_keys(Keys.ENTER)
    scores = [float(text) for text in column(page, "score")]
    assert scores == sorted(scores, reverse=True)
    focused = page.switch_to.active_element
    assert focused.get_attribute("data-sort") == "score", "the focus remains on the button"
    outline = page.execute_script("return getComputedStyle(arguments[0]).outlineStyle", focused)
    assert outline == "solid"


@pytest.mark.parametrize("view", ["#/", "#/figures", "experiment"])
def test_a_narrow_screen_scrolls_only_inside_the_table(page, view):
    page.set_window_size(500, 900)
    if view == "experiment":
        view = page.find_element(By.CSS_SELECTOR, "#results a").get_attribute("href")
        view = f"#{view.partition('#')[2]}"
    page.execute_script("location.hash = arguments[0]", view)
    until(page, "#results, .figure svg, .example")
    page.execute_script(
        "return new Promise((done) => requestAnimationFrame(() => setTimeout(done, 300)))"
    )
    sizes = page.execute_script(
        "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]"
    )
    assert sizes[0] <= sizes[1]
