"""The HTML page in a real Chromium: mouse, keyboard and a small screen."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
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
from selenium.webdriver.support.expected_conditions import (  # noqa: E402
    text_to_be_present_in_element,
)
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


@pytest.fixture(scope="module")
def report_file(write_below, write_metrics, budget, tmp_path_factory) -> Path:
    """Write a page of six results."""
    folder = tmp_path_factory.mktemp("page")
    root, target = folder / "outputs", folder / "report.html"
    for benchmark, right in (("ruler", 1.0), ("mock", 0.5)):
        write_below(
            root,
            "dense",
            [right, 1.0, 0.0],
            benchmark=benchmark,
            texts=["yes", "good", HOSTILE],
            questions=f"Which? {HOSTILE}",
        )
        for share in (0.05, 0.2):
            folder = write_below(
                root,
                "sparse",
                [right, 0.0, 1.0 if share > 0.1 else 0.0],
                benchmark=benchmark,
                maskers=budget(share),
                texts=["yes", HOSTILE, "no"],
                questions=f"Which? {HOSTILE}",
                fields={"density": share},
                settings={"metric_logging": {"name": "default", "per_head": True}},
            )
            write_metrics(
                folder,
                [
                    (metric, share, layer, step)
                    for metric in ("output_error", "recall")
                    for layer in range(2)
                    for step in (110, 111)
                ],
                heads=3,
            )
    results = collect(root)
    write_page(results, target, group_table(results, ["attention"]))
    return target


@pytest.fixture
def page(chromium, report_file) -> Iterator[Any]:
    """The page, open at its experiments; its console must end without errors."""
    chromium.set_window_size(1280, 900)
    chromium.get("about:blank")
    chromium.get(f"{report_file.as_uri()}#/experiments")
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


def go_to(page, address):
    """Open a view by its address."""
    page.execute_script("location.hash = arguments[0]", address)
    page.execute_script(
        "return new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))"
    )


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
    until(page, '[data-section="figures"] svg')
    headings = '[data-section="figures"] h2'
    titles = {title.text for title in page.find_elements(By.CSS_SELECTOR, headings)}
    assert {"Score by task", "Output error by layer", "Answer lengths"} <= titles
    assert not page.find_element(By.ID, "filters").is_displayed()
    page.find_element(By.LINK_TEXT, "Summary").click()
    fronts = page.find_elements(By.CSS_SELECTOR, '[data-section="summary"] h3')
    assert fronts[0].text == "Score against density"
    title = page.find_element(By.CSS_SELECTOR, "#figure-score_density svg title")
    assert title.get_attribute("textContent").startswith("sparse fraction=0.05: ")
    page.find_element(By.CSS_SELECTOR, "#figure-score_density svg a").click()
    until(page, ".example")
    assert not page.find_element(By.ID, "figure-score_density").is_displayed()


def test_the_page_opens_with_claims_and_the_matrix(page):
    go_to(page, "")
    claims = [claim.text for claim in page.find_elements(By.CSS_SELECTOR, ".claims li")]
    assert len(claims) == 4
    assert all(claim.startswith("sparse fraction=0.") for claim in claims)
    detail = page.find_element(By.CSS_SELECTOR, ".matrix .detail")
    assert detail.size["width"] <= 1, "only screen readers see it"
    page.find_element(By.ID, "details").click()
    assert detail.text.startswith("95 % CI ")
    page.find_element(By.LINK_TEXT, "sparse fraction=0.05").click()
    until(page, "#results")
    assert page.find_element(By.ID, "count").text == "1 of 6 experiments"


def test_every_view_has_an_address(page):
    go_to(page, "#/figures/tasks")
    assert page.find_element(By.ID, "figure-tasks").is_displayed()
    go_to(page, "#/experiments?fraction=0.05&search=mock&sort=-score")
    assert column(page, "density") == ["0.050"]
    assert chip(page, "0.05").get_attribute("aria-pressed") == "true"
    assert page.find_element(By.ID, "search").get_attribute("value") == "mock"
    chip(page, "0.05").click()
    assert page.current_url.endswith("#/experiments?search=mock&sort=-score")


def test_settings_of_methods_are_filters(page):
    chip(page, "0.2").click()
    assert column(page, "density") == ["0.200", "0.200"]


def test_the_csv_has_the_shown_experiments_and_no_formulas(page):
    chip(page, "mock").click()
    chip(page, "0.05").click()
    head, line = page.execute_script("return csvText(visible())").splitlines()
    found = dict(zip(head.split(","), line.split(","), strict=True))
    assert (found["benchmark"], found["attention"], found["fraction"]) == ("mock", "sparse", "0.05")
    assert float(found["density"]) == 0.05
    fields = page.execute_script("return ['=1+1', 'a\"b', 'a,b', -2, null].map(csvField)")
    assert fields == ["'=1+1", '"a""b"', '"a,b"', "-2", ""]


def test_words_that_only_one_answer_has_are_marked(page):
    marked = page.execute_script(
        "return wordDiff('the cat sat down', 'the dog sat').map("
        "(side) => side.filter((one) => one instanceof Node).map((one) => one.textContent))"
    )
    assert marked == [["cat", "down"], ["dog"]]


def test_the_expected_answer_is_shown_in_its_context(page):
    marked = "return withNeedle('the right way', ['wrong', 'right']).mark.textContent"
    assert page.execute_script(marked) == "right"
    assert page.execute_script("return withNeedle('the way', ['right'])") is None


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


def address_of(page, view):
    if view != "experiment":
        return view
    link = page.find_element(By.CSS_SELECTOR, "#results tr:nth-child(6) a").get_attribute("href")
    return f"#{link.partition('#')[2]}"


def open_heads(page):
    page.find_element(By.CSS_SELECTOR, ".heads summary").click()
    return until(page, ".heads tbody td")


def test_an_experiment_has_a_map_of_its_layers_and_heads(page):
    go_to(page, address_of(page, "experiment"))
    cells = open_heads(page)
    titles = page.find_elements(By.CSS_SELECTOR, ".heads h3")
    names = ["Output error by layer and head", "Recall by layer and head"]
    assert [title.text for title in titles] == names
    assert len(cells) == 2 * 2 * 3
    assert cells[5].get_attribute("title") == "layer 1, head 2: output error 0.400"
    assert cells[5].get_attribute("textContent") == "0.400"
    colours = {cell.value_of_css_property("background-color") for cell in cells[:3]}
    assert len(colours) == 3
    (number,) = cells[5].find_elements(By.TAG_NAME, "span")
    assert number.size["width"] == 1
    page.find_element(By.CSS_SELECTOR, ".heads input").click()
    assert number.size["width"] > 10


VIEWS = ["#/", "#/figures", "#/experiments", "experiment"]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [400, 800, 1400])
def test_no_table_is_wider_than_the_window(page, view, width):
    address = address_of(page, view)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    go_to(page, address)
    wider = page.execute_script(
        "const wide = (one) => one.scrollWidth > one.clientWidth + 1;"
        "return [document.documentElement, ...document.querySelectorAll('.scroll')]"
        ".filter(wide).map((one) => one.outerHTML.slice(0, 200))"
    )
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wider == []


def test_a_served_page_follows_new_results_and_keeps_the_view(
    chromium, serve, write_below, budget, tmp_path
):
    def write(share):
        fields = {"density": share}
        write_below(tmp_path, "sparse", maskers=budget(share), texts=["yes", "no"], fields=fields)

    write_below(tmp_path, "dense")
    write(0.05)
    with serve(tmp_path) as server:
        chromium.get(f"{server.address}#/experiments?method=sparse&sort=-density")
        counts = until(chromium, "#counts:not(:empty)")[0]
        assert counts.text == "2 done"
        chromium.find_element(By.ID, "search").send_keys("ruler")
        write(0.2)
        WebDriverWait(chromium, 60).until(lambda _: len(rows(chromium)) == 2)
        assert counts.text == "3 done"
        assert column(chromium, "density") == ["0.200", "0.050"]
        assert chromium.current_url.endswith("?method=sparse&search=ruler&sort=-density")
        focused = chromium.switch_to.active_element
        assert (focused.get_attribute("id"), focused.get_attribute("value")) == ("search", "ruler")
        chromium.find_element(By.ID, "follow").click()
        write(0.4)
        told = (By.ID, "progress"), "there are new results"
        WebDriverWait(chromium, 60).until(text_to_be_present_in_element(*told))
        assert len(rows(chromium)) == 2
        chromium.get("about:blank")
    assert [one for one in chromium.get_log("browser") if one["level"] == "SEVERE"] == []


def axe_source():
    """Return axe-core, from the file that SAH_AXE names or from node_modules."""
    path = Path(os.environ.get("SAH_AXE", "node_modules/axe-core/axe.min.js"))
    if not path.is_file():
        pytest.skip("axe-core is not installed; npm install axe-core, or set SAH_AXE to its file")
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible(page, scheme):
    source = axe_source()
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    violations = []
    for address in [address_of(page, view) for view in reversed(VIEWS)]:
        go_to(page, address)
        if "experiment/" in address:
            open_heads(page)
        page.execute_script(source)
        found = page.execute_async_script(
            "axe.run().then((result) => arguments[0](result.violations))"
        )
        violations += [(address, one["id"], one["nodes"][0]["target"]) for one in found]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert violations == []
