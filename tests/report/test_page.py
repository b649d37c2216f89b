"""The HTML file without a browser: complete, self-contained, and data never becomes markup."""

import base64
import gzip
import re
from html.parser import HTMLParser

import orjson
import pytest

from sah.cli import report
from sah.report.html.page import write_page

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=window.hacked=2>"


class Scripts(HTMLParser):
    """Collects script elements as a browser would."""

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
def page(write_result, results, tmp_path):
    """A parsed page of results with hostile texts."""
    for attention in ("dense", "sparse"):
        write_result(
            attention,
            [1.0, 0.0],
            texts=[HOSTILE, "fine"],
            questions=HOSTILE,
            context_text="long " * 2000 + HOSTILE,
            model=f"m{HOSTILE[:9]}".replace("/", "_"),
            provenance={"git_commit": "<b>x</b>", "versions": {HOSTILE: HOSTILE}},
        )
    return written(results(), tmp_path / "report.html")


def written(results, target):
    """Write a page and parse it."""
    write_page(results, target)
    parsed = Scripts()
    parsed.text = target.read_text(encoding="utf-8")
    parsed.feed(parsed.text)
    return parsed


def script(page, name):
    (text,) = [content for attributes, content in page.scripts if attributes.get("id") == name]
    return text


def blob(page, name):
    return orjson.loads(gzip.decompress(base64.b64decode(script(page, name))))


def test_hostile_texts_do_not_become_elements(page):
    assert "img" not in page.tags
    assert page.tags.count("script") == len(page.scripts)
    # Data, details of two results, their examples, two figures, and the program.
    assert len(page.scripts) == 1 + 2 + 1 + 2 + 1
    executed = [text for attributes, text in page.scripts if "type" not in attributes]
    assert len(executed) == 1
    assert "hacked" not in executed[0]


def test_nothing_is_loaded_from_elsewhere(page):
    outside = re.sub(r"(?s)<script.*?</script>", "", page.text)
    assert "<svg" in outside
    assert not re.search(r"(src|href)=[\"'](?!#|data:)|url\((?!#)", outside)
    assert "default-src 'none'" in page.text


def test_details_have_the_answers_and_examples_are_stored_once(page):
    found = orjson.loads(script(page, "data"))["results"]
    assert {one["attention"] for one in found} == {"dense", "sparse"}
    assert len({one["examples"] for one in found}) == 1
    assert blob(page, "result-0")["answers"][0][3] == HOSTILE
    context, question, _, references = blob(page, f"examples-{found[0]['examples']}")["task-0"]
    assert question == HOSTILE
    assert references == ["right"]
    assert len(context) < 3100
    assert "characters …]" in context


def test_results_are_compared_with_dense(page):
    by_name = {one["attention"]: one for one in orjson.loads(script(page, "data"))["results"]}
    assert "difference" not in by_name["dense"]
    assert by_name["sparse"]["difference"] == 0.0


def test_the_same_results_make_the_same_page(write_result, results, tmp_path):
    write_result("dense", [1.0, 0.0])
    for name in ("a.html", "b.html"):
        write_page(results(), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_without_a_dense_result_has_no_differences(write_result, results, tmp_path):
    write_result("sparse", [1.0])
    page = written(results(), tmp_path / "a.html")
    (only,) = orjson.loads(script(page, "data"))["results"]
    assert (only["attention"], "difference" in only) == ("sparse", False)
    assert len(page.text.encode()) < 200_000


def test_groups_stand_above_the_results(write_result, root, tmp_path):
    for seed, right in ((1, 1.0), (2, 0.0)):
        for name in ("dense", "sparse<b>"):
            write_result(name, [right, right, right, 0.0], settings={"seed": seed})
    target = tmp_path / "a.html"
    report.main([str(root), "--by", "attention", "--format", "html", "-o", str(target)])
    text = target.read_text(encoding="utf-8")
    (section,) = re.findall(r'(?s)<section id="groups".*?</section>', text)
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in section.split("<tr>")[1:]]
    assert rows[0][:3] == ["attention", "results", "score"]
    # Means over two seeds, of 3 of 4 and 0 of 4 right answers.
    assert [row[:3] for row in rows[1:]] == [
        ["dense", "2", "37.5"],
        ["sparse&lt;b&gt;", "2", "37.5"],
    ]
    assert "Means over the results of a row." in section
    data = re.search(r'(?s)id="data">(.*?)</script>', text.partition(section)[2])[1]
    assert len(orjson.loads(data)["results"]) == 4


def test_a_page_without_groups_has_no_table_of_them(page):
    assert 'id="groups"' not in page.text


def test_the_head_has_title_numbers_and_command(write_result, root, tmp_path):
    for seed in (1, 2):
        write_result("dense", settings={"seed": seed})
    target = str(tmp_path / "a b.html")
    report.main([str(root), "--format", "html", "-o", target, "--title", "Mine <b>"])
    text = (tmp_path / "a b.html").read_text()
    assert "<h1>Mine &lt;b&gt;</h1>" in text
    assert "2 experiments: 1 model, 1 method, 1 benchmark, 2 seeds, 4 answers." in text
    command = (
        f"sah report {root} --format html -o &#39;{target}&#39; --title &#39;Mine &lt;b&gt;&#39;"
    )
    assert f"<code>{command}</code>" in text


def test_a_title_without_a_page_is_refused(write_result, root):
    write_result("dense")
    with pytest.raises(SystemExit, match="--title 'Mine' is about the HTML page; add --format"):
        report.main([str(root), "--title", "Mine"])


def test_an_experiment_has_the_command_that_computes_it(write_result, results, tmp_path):
    folder = write_result("sparse")
    (folder / "overrides.yaml").write_text("- model=tiny\n- benchmark.path=my file\n")
    page = written(results(), tmp_path / "a.html")
    command = blob(page, "result-0")["command"]
    assert command == "python run.py model=tiny 'benchmark.path=my file'"


@pytest.mark.parametrize("content", ["model: [", "model=tiny", "- a: 1"])
def test_damaged_overrides_do_not_lose_the_page(content, write_result, results, tmp_path):
    (write_result("sparse") / "overrides.yaml").write_text(content)
    page = written(results(), tmp_path / "a.html")
    assert blob(page, "result-0")["command"] is None


def test_a_long_context_keeps_the_text_around_the_answer(write_result, results, tmp_path):
    write_result("dense", [1.0], context_text="a" * 8000 + " right " + "b" * 8000)
    page = written(results(), tmp_path / "a.html")
    (found,) = orjson.loads(script(page, "data"))["results"]
    context = blob(page, f"examples-{found['examples']}")["task-0"][0]
    assert "a right b" in context
    assert len(context) < 3100


def test_fifty_experiments_without_answers_stay_below_one_megabyte(
    write_result, results, budget, tmp_path
):
    for number in range(50):
        write_result(f"method_{number % 10}", maskers=budget(0.02 * (number + 1)))
    page = written(results(), tmp_path / "a.html")
    answers = [
        text
        for attributes, text in page.scripts
        if attributes.get("id", "").startswith(("result-", "examples-"))
    ]
    assert len(answers) == 51
    assert len(page.text.encode()) - sum(map(len, answers)) < 1_000_000


@pytest.mark.parametrize("by", ["colour", ""])
def test_an_unknown_group_is_refused_before_anything_is_written(by, write_result, root, tmp_path):
    write_result("dense")
    target, figures = tmp_path / "a.html", tmp_path / "figures"
    arguments = ["--by", by, "--format", "html", "-o", str(target), "--figures", str(figures)]
    with pytest.raises(SystemExit, match=f"no experiment has the key '{by}'"):
        report.main([str(root), *arguments])
    assert not target.exists()
    assert not figures.exists()


def test_figures_are_elements_of_the_page_whose_ids_are_unique(page):
    names = [attributes.get("id", "") for attributes, _ in page.scripts]
    packed = "".join(blob(page, name) for name in names if name.startswith("svg-"))
    outside = re.sub(r"(?s)<script.*?</script>", "", page.text) + packed
    figure = "".join(re.findall(r"(?s)<svg.*?</svg>", outside))
    assert "Score by task" in page.text
    assert "<title>sparse: 50.0" in figure
    assert re.search(r'xlink:href="#/experiment/[0-9a-f]{12}"', figure)
    ids = re.findall(r'\bid="([^"]*)"', outside)
    assert len(set(ids)) == len(ids)
    for reference in re.findall(r'(?:xlink:href="#|url\(#)(?!/)([^")]*)', figure):
        assert reference in ids
