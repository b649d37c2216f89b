"""The HTML file without a browser: that it is whole, small, and that data stays data."""

import base64
import gzip
import re
from html.parser import HTMLParser

import orjson
import pytest

from sah.report.html.page import write_page

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=window.hacked=2>"


class Scripts(HTMLParser):
    """What a browser takes for script elements."""

    def __init__(self):
        super().__init__()
        self.scripts, self.tags, self._open = [], [], None

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "script":
            self._open = (dict(attributes), [])

    def handle_data(self, data):
        if self._open:
            self._open[1].append(data)

    def handle_endtag(self, tag):
        if tag == "script" and self._open:
            self.scripts.append((self._open[0], "".join(self._open[1])))
            self._open = None


@pytest.fixture
def page(write_run, runs, tmp_path):
    """A parsed page of hostile runs."""
    for attention in ("dense", "sparse"):
        write_run(
            attention,
            [1.0, 0.0],
            texts=[HOSTILE, "fine"],
            questions=HOSTILE,
            context_text="long " * 2000 + HOSTILE,
            model=f"m{HOSTILE[:9]}".replace("/", "_"),
            provenance={"git_commit": "<b>x</b>", "versions": {HOSTILE: HOSTILE}},
        )
    return written(runs(), tmp_path / "report.html")


def written(runs, target):
    """Write a page and read it as a browser does."""
    write_page(runs, target)
    parsed = Scripts()
    parsed.text = target.read_text(encoding="utf-8")
    parsed.feed(parsed.text)
    return parsed


def script(page, name):
    (text,) = [content for attributes, content in page.scripts if attributes.get("id") == name]
    return text


def blob(page, name):
    return orjson.loads(gzip.decompress(base64.b64decode(script(page, name))))


def test_hostile_texts_open_no_element(page):
    assert "img" not in page.tags
    assert page.tags.count("script") == len(page.scripts)
    # Data, details of two runs, what was asked, plotly, and the program.
    assert len(page.scripts) == 1 + 2 + 1 + 1 + 1
    executed = [text for attributes, text in page.scripts if "type" not in attributes]
    assert len(executed) == 1
    assert "hacked" not in executed[0]


def test_nothing_is_loaded_from_elsewhere(page):
    outside = re.sub(r"(?s)<script.*?</script>", "", page.text)
    assert not re.search(r"(src|href)=[\"'](?!#|data:)", outside)
    assert "default-src 'none'" in page.text


def test_details_hold_answers_and_what_was_asked_is_there_once(page):
    runs = orjson.loads(script(page, "data"))["runs"]
    assert {run["attention"] for run in runs} == {"dense", "sparse"}
    assert len({run["asked"] for run in runs}) == 1
    assert blob(page, "run-0")["examples"][0][3] == HOSTILE
    context, question, _, references = blob(page, f"asked-{runs[0]['asked']}")["task-0"]
    assert question == HOSTILE
    assert references == ["right"]
    assert len(context) < 3100
    assert "characters …]" in context


def test_runs_are_compared_with_dense(page):
    by_name = {run["attention"]: run for run in orjson.loads(script(page, "data"))["runs"]}
    assert "difference" not in by_name["dense"]
    assert by_name["sparse"]["difference"] == 0.0


def test_the_same_results_make_the_same_page(write_run, runs, tmp_path):
    write_run("dense", [1.0, 0.0])
    for name in ("a.html", "b.html"):
        write_page(runs(), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_runs_without_a_dense_one_have_a_page_too(write_run, runs, tmp_path):
    write_run("sparse", [1.0])
    page = written(runs(), tmp_path / "a.html")
    (run,) = orjson.loads(script(page, "data"))["runs"]
    assert (run["attention"], "difference" in run) == ("sparse", False)
    assert len(page.text.encode()) < 6_000_000
