"""Suites of published data sets, on made-up rows with exactly the published columns."""

import dataclasses
import re
from pathlib import Path

import orjson
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sah.benchmarks.suites.rows import Source, load_rows
from sah.benchmarks.suites.ruler_hub import RulerHub
from sah.errors import ConfigurationError, DamagedResults, DatasetError
from sah.execution.attempts import compute
from sah.execution.rescoring import rescore
from sah.results import directory

CONF = Path(__file__).resolve().parents[3] / "conf" / "benchmark"
SUITES = sorted(path.stem for path in CONF.glob("*.yaml") if "revision" in OmegaConf.load(path))


@pytest.fixture
def suite(published):
    """Make a suite over the made-up rows, with all subsets by default."""

    def make(name, **options):
        config = OmegaConf.load(CONF / f"{name}.yaml")
        given = {"subset": None, "path": str(published(name)), **options}
        return instantiate(OmegaConf.merge(config, given), _convert_="all")

    return make


def right_answer(example):
    """Return the answer of a model that knows the references."""
    first = example.references[0]
    if example.task in ("0shot", "cot"):
        return f"The correct answer is ({first})."
    if example.task in ("math_calc",) or example.task.startswith(("niah", "vt", "cwe", "fwe")):
        return " ".join(example.references)
    if example.task.split("_")[0] in ("nq", "hotpotqa", "musique", "qampari", "quest") and (
        example.task.endswith(("32k", "128k", "1m"))
    ):
        return f"{list(example.references)}"
    return first


def test_every_suite_has_a_yaml():
    found = {"longbench", "longbench_v2", "ruler_hub", "infinite_bench", "zero_scrolls", "loogle"}
    assert set(SUITES) == found | {"aime24", "aime25", "loft"}


@pytest.mark.parametrize("name", sorted({*SUITES} - {"zero_scrolls"}))
def test_right_answers_score_one_and_empty_answers_score_zero(name, suite, tiny, predict):
    benchmark = suite(name)
    examples = benchmark.examples(tiny.prompts, seed=0)
    for score in benchmark.score(examples, predict(examples, right_answer)):
        assert score.score == pytest.approx(1.0, abs=1e-6), score
    for score in benchmark.score(examples, predict(examples, lambda example: "")):
        assert score.score == 0.0, score


@pytest.mark.parametrize("name", SUITES)
def test_prompts_and_answer_limits_come_from_the_rows(name, suite, published, tiny):
    benchmark = suite(name)
    columns = ("context", "question", "answer_prefix", "max_new_tokens")
    rows = {
        tuple(row[name] for name in columns)
        for source in benchmark.sources()
        for row in load_rows(source, path=str(published(name)), revision="main").rows
    }
    examples = benchmark.examples(tiny.prompts, seed=0)
    assert {tuple(getattr(example, name) for name in columns) for example in examples} == rows


def test_the_limit_of_one_row_does_not_change_the_next(suite, tiny):
    examples = suite("longbench", subset="qasper").examples(tiny.prompts, seed=0)
    assert [example.max_new_tokens for example in examples] == [40, 41, 42]


def test_default_answer_limits_of_longbench_are_as_published(suite):
    lengths = {name: task.max_new_tokens for name, task in suite("longbench").tasks.items()}
    documented = {
        148: "narrativeqa qasper dureader samsum",
        84: "multifieldqa_en multifieldqa_zh trec lsht lcc repobench-p",
        52: "hotpotqa 2wikimqa musique triviaqa passage_count passage_retrieval_en "
        "passage_retrieval_zh",
        532: "gov_report qmsum multi_news vcsum",
    }
    expected = {name: tokens for tokens, names in documented.items() for name in names.split()}
    assert {name: lengths[name] for name in expected} == expected
    assert len(lengths) == 21 + 13
    assert all(lengths[name] == lengths[name[:-2]] for name in lengths if name.endswith("_e"))


@pytest.mark.parametrize(
    ("name", "count"),
    [("infinite_bench", 12), ("zero_scrolls", 10), ("loogle", 4), ("loft", 15), ("ruler_hub", 13)],
)
def test_a_suite_has_this_many_subsets(name, count, suite):
    assert len(suite(name).subsets()) == count


def test_scores_of_longbench_e_are_averaged_by_length_bucket(suite, tiny, predict):
    benchmark = suite("longbench", subset="qasper_e")
    examples = benchmark.examples(tiny.prompts, seed=0)
    scores = benchmark.score(examples, predict(examples, right_answer))
    assert [score.groups for score in scores] == [
        ("length 0-4k",),
        ("length 4-8k",),
        ("length 8k+",),
    ]


def test_scores_of_longbench_v2_are_averaged_by_difficulty_and_length(suite, tiny, predict):
    benchmark = suite("longbench_v2", subset="0shot")
    examples = benchmark.examples(tiny.prompts, seed=0)
    groups = [score.groups for score in benchmark.score(examples, predict(examples, str))]
    assert groups[0] == ("difficulty easy", "length short")
    assert groups[1] == ("difficulty hard", "length short")


def test_only_the_first_line_is_scored_for_few_shot_tasks(suite, tiny, predict):
    benchmark = suite("longbench", subset=["triviaqa", "qasper"])
    examples = benchmark.examples(tiny.prompts, seed=0)
    answers = predict(examples, lambda example: "\nOtto\nand much more about something else")
    by_task = {score.task: score.score for score in benchmark.score(examples, answers)}
    assert by_task["triviaqa"] == 1.0
    assert by_task["qasper"] < 1.0


def test_without_public_references_there_is_no_score(suite, tiny, predict):
    benchmark = suite("zero_scrolls")
    examples = benchmark.examples(tiny.prompts, seed=0)
    for score in benchmark.score(examples, predict(examples, lambda example: "two words")):
        assert score.score is None
        assert score.details == {"words": 2.0}
    known = [dataclasses.replace(examples[0], references=("two words",))]
    (score,) = benchmark.score(known, predict(known, lambda example: "two words"))
    assert score.score is not None


@pytest.mark.parametrize(
    ("task", "reference", "answer", "expected"),
    [
        ("space_digest", "60%", "I think it is 50%.", 0.5),
        ("book_sum_sort", "2, 1, 3", "1, 2, 3", 2 / 3),
        ("quality", "(B) the cat", "B", 1.0),
    ],
)
def test_answers_to_rows_with_references_get_the_official_score(
    task, reference, answer, expected, suite, tiny, predict
):
    benchmark = suite("zero_scrolls", subset=task)
    example = benchmark.examples(tiny.prompts, seed=0)[0]
    known = [dataclasses.replace(example, references=(reference,))]
    (score,) = benchmark.score(known, predict(known, lambda example: answer))
    assert score.score == pytest.approx(expected)


def test_only_the_test_split_of_loft_is_read(suite, tiny):
    for example in suite("loft").examples(tiny.prompts, seed=0):
        assert example.references == ("Otto", "Anna")


@pytest.mark.parametrize("length", [4096, "8192", "16k", "32k"])
def test_ruler_hub_has_all_published_lengths(length, suite, tiny):
    benchmark = suite("ruler_hub", length=length)
    examples = benchmark.examples(tiny.prompts, seed=0)
    assert {example.task for example in examples} == set(benchmark.subsets())
    assert not any(example.may_cut for example in examples)


def test_an_unpublished_length_is_an_error():
    with pytest.raises(ConfigurationError, match=r"length='5000'.* 4096, 8192"):
        RulerHub(length="5000")


def test_aime_answers_each_problem_k_times(suite, tiny):
    once = suite("aime24").examples(tiny.prompts, seed=0)
    thrice = suite("aime24", samples=3).examples(tiny.prompts, seed=0)
    assert len(thrice) == 3 * len(once)
    assert len({example.id for example in thrice}) == len(thrice)
    assert [example.context for example in thrice[::3]] == [example.context for example in once]


# -- reading ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        ["qasper/test-00000-of-00002.jsonl", "qasper/test-00001-of-00002.jsonl"],
        ["qasper.jsonl"],
        ["data/qasper/test.jsonl"],
        ["qasper/test-00000-of-00001.jsonl", "qasper/train-00000-of-00001.jsonl"],
        ["qasper/test.jsonl", "qasper_e/test.jsonl", "hotpotqa.jsonl"],
    ],
)
def test_files_are_found_in_any_of_the_usual_layouts(files, tmp_path):
    for number, name in enumerate(files):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps({"file": name, "number": number}) + b"\n\n")
    source = Source(dataset="x/y", config="qasper")
    rows = load_rows(source, path=str(tmp_path), revision="main").rows
    expected = [name for name in files if re.search(r"qasper[./]", name) and "train" not in name]
    assert [row["file"] for row in rows] == expected


def test_missing_files_are_an_error_that_lists_the_existing_ones(tmp_path):
    (tmp_path / "hotpotqa.jsonl").write_text("{}\n")
    source = Source(dataset="x/y", config="qasper")
    with pytest.raises(DatasetError, match=r"x/y \(qasper, test\); it contains hotpotqa\.jsonl"):
        load_rows(source, path=str(tmp_path), revision="main")
    with pytest.raises(DatasetError, match="is not a folder"):
        load_rows(source, path=str(tmp_path / "none"), revision="main")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("qasper.jsonl", b"{}\n{", "line 2 is not JSON"),
        ("qasper.jsonl", b"[1]\n", "line 1 is not a JSON object"),
        ("qasper.jsonl", b"", "has no rows"),
        ("qasper.parquet", b"PAR1 or not", "not a readable parquet"),
    ],
)
def test_damaged_files_are_errors_that_name_them(name, content, match, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=match):
        load_rows(Source(dataset="x/y", config="qasper"), path=str(tmp_path), revision="main")


def test_a_missing_column_is_an_error_that_names_it(suite, tmp_path, tiny):
    (tmp_path / "qasper.jsonl").write_text('{"question": "q", "answers": ["a"]}\n')
    with pytest.raises(DatasetError, match=r"no column 'context', only answers, question"):
        suite("longbench", subset="qasper", path=str(tmp_path)).examples(tiny.prompts, seed=0)


def test_a_missing_subset_fails_the_experiment(suite, tmp_path, tiny):
    """An average over fewer tasks would be a wrong number."""
    (tmp_path / "qasper.jsonl").write_text(
        '{"context": "c", "question": "q", "answers": ["a"], "max_new_tokens": 3}\n'
    )
    with pytest.raises(DatasetError, match="narrativeqa"):
        suite("longbench", path=str(tmp_path)).examples(tiny.prompts, seed=0)


def test_an_uncached_data_set_without_a_network_is_one_clear_error(
    suite, tiny, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(DatasetError, match=r"Xnhyacinth/LongBench .*sah fetch.*benchmark\.path"):
        suite("longbench", subset="qasper", path=None).examples(tiny.prompts, seed=0)


def test_a_data_set_is_read_by_name_with_the_datasets_library(published, tmp_path, monkeypatch):
    """A folder replaces the name of the data set; its card lists the configurations."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("qasper", "trec"):
        (folder / name).symlink_to(published("longbench") / name)
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/test-*\n"
        for name in ("qasper", "trec")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    source = Source(dataset=str(folder), config="trec")
    rows = load_rows(source, path=None, revision="main").rows
    assert [row["task"] for row in rows] == ["trec"] * 3
    assert rows[0]["all_classes"] == ["Plant", "Animal", "Wild Animal"]


# -- which commit ----------------------------------------------------------------------

OLD, NEW, OTHER = "a" * 40, "b1" * 20, "c" * 40


def qasper(answer):
    return [{"context": "c", "question": "q", "answers": [answer], "max_new_tokens": 2}]


@pytest.fixture
def two_commits(cache_commit):
    """A cache with an old and a newer commit of a data set."""
    cache_commit("Xnhyacinth/LongBench", "qasper", OLD, qasper("the old answer"))
    cache_commit("Xnhyacinth/LongBench", "qasper", NEW, qasper("the new answer"))


@pytest.mark.parametrize(
    ("revision", "answer", "commit"),
    [(OLD, "the old answer", OLD), (NEW, "the new answer", NEW), ("main", "the new answer", NEW)],
)
def test_the_requested_commit_is_read_without_a_network(
    revision, answer, commit, two_commits, suite, tiny
):
    benchmark = suite("longbench", subset="qasper", path=None, revision=revision)
    (example,) = benchmark.examples(tiny.prompts, seed=0)
    assert example.references == (answer,)
    assert example.origin == f"Xnhyacinth/LongBench@{commit}"


def test_an_uncached_commit_is_an_error_and_never_replaced_by_another(two_commits, suite, tiny):
    benchmark = suite("longbench", subset="qasper", path=None, revision=OTHER)
    with pytest.raises(DatasetError, match=rf"{OTHER} is not on this machine, only {NEW}"):
        benchmark.examples(tiny.prompts, seed=0)
    assert not benchmark.is_here()


def test_a_branch_is_reported_with_the_override_that_pins_the_cached_commit(two_commits, suite):
    moving = suite("longbench", subset="qasper", path=None, revision="main")
    note = f"revision main is not pinned to a commit; pin it with benchmark.revision={NEW}"
    assert moving.is_here()
    assert moving.revision_note() == note
    assert moving.fetch() == f"1 rows of 1 configurations; {note}"
    pinned = suite("longbench", subset="qasper", path=None, revision=NEW)
    assert pinned.fetch() == "1 rows of 1 configurations; pinned to a commit"


def test_no_pin_is_offered_for_configurations_at_different_commits(
    two_commits, cache_commit, suite
):
    cache_commit("Xnhyacinth/LongBench", "trec", OTHER, qasper("another answer"))
    moving = suite("longbench", subset=["qasper", "trec"], path=None, revision="main")
    assert moving.revision_note() == "revision main is not pinned to a commit"


def test_each_data_set_of_a_suite_is_pinned_to_its_own_commit(cache_commit, suite, compose, tiny):
    row = {**qasper("Otto")[0], "answer_prefix": ""}
    for number, corpus in enumerate(("nq", "quest")):
        cache_commit(f"f20180301/loft-rag-{corpus}-32k", "default", f"{number}b" * 20, [row])
    moving = suite("loft", subset=["nq_32k", "quest_32k"], path=None)
    found = re.search(r"pin it with '(benchmark\.revision=.*)'", moving.fetch())
    assert found is not None
    config = compose("benchmark=loft", "benchmark.subset=[nq_32k,quest_32k]", found[1])
    pinned = instantiate(config.benchmark, _convert_="all")
    assert pinned.revision_note() == "pinned to a commit"
    assert {example.origin for example in pinned.examples(tiny.prompts, seed=0)} == {
        f"f20180301/loft-rag-nq-32k@{'0b' * 20}",
        f"f20180301/loft-rag-quest-32k@{'1b' * 20}",
    }


def test_pinning_a_data_set_that_the_suite_does_not_read_is_an_error():
    with pytest.raises(ConfigurationError, match=r"names simonjegou/rules; .* simonjegou/ruler"):
        RulerHub(revision={"simonjegou/rules": OLD})


def test_a_pin_of_one_collection_does_not_apply_to_the_other(suite):
    assert suite("ruler_hub", path=None).revision_note() == "pinned to a commit"
    other = suite("ruler_hub", path=None, length="16k")
    assert other.revision_note() == "revision main is not pinned to a commit"


def test_the_commit_is_read_from_the_path_of_a_snapshot_folder(tmp_path):
    folder = tmp_path / "datasets--x--y" / "snapshots" / OLD
    folder.mkdir(parents=True)
    (folder / "qasper.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "link").symlink_to(folder)
    source = Source(dataset="x/y", config="qasper")
    for path in (folder, tmp_path / "link"):
        assert load_rows(source, path=str(path), revision="main").commit == OLD
    assert load_rows(source, path=str(tmp_path), revision="main").commit is None


def test_results_name_the_commit_and_cannot_be_rescored_with_another(
    two_commits, compose, tmp_path
):
    options = ("model=tiny", "benchmark=longbench", "benchmark.subset=qasper", "attention=dense")
    config = compose(*options, "benchmark.revision=main", f"output_root={tmp_path}/outputs")
    result = compute(config, [])
    assert result.provenance.data == [f"Xnhyacinth/LongBench@{NEW}"]
    assert rescore(directory(config)) == (result.score, result.score)
    newest = next((tmp_path / "datasets").glob(f"*/qasper/*/{NEW}"))
    newest.rename(newest.with_name(OTHER))
    with pytest.raises(DamagedResults, match=rf"LongBench@{NEW}, but .*LongBench@{OTHER}"):
        rescore(directory(config))


# -- end to end ------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUITES)
def test_every_subset_runs_on_the_tiny_model(name, published, compose, tmp_path):
    config = compose(
        *("model=tiny", f"benchmark={name}", f"benchmark.path={published(name)}"),
        *("benchmark.subset=null", "attention=streaming_llm", "generation.max_new_tokens=3"),
        *("metric_logging=off", f"output_root={tmp_path}"),
    )
    result = compute(config, [])
    assert set(result.tasks) == set(instantiate(config.benchmark).subsets())
    assert result.truncated == 0
    if name == "zero_scrolls":
        assert result.score is None
        assert all(task.metrics["words"] > 0 for task in result.tasks.values())
    else:
        assert 0 <= result.score <= 1
    assert (directory(config) / "results.json").exists()


def test_a_context_that_is_too_long_is_cut_and_counted_as_truncated(published, compose, tmp_path):
    config = compose(
        *("model=tiny", "benchmark=longbench", f"benchmark.path={published('longbench')}"),
        *("benchmark.subset=qasper", "benchmark.context_tokens=150", "attention=dense"),
        *("generation.max_new_tokens=3", f"output_root={tmp_path}"),
    )
    result = compute(config, [])
    assert result.truncated == result.n == 3
    lines = (directory(config) / "predictions.jsonl").read_bytes().splitlines()
    for line in map(orjson.loads, lines):
        assert line["truncated"]
        assert line["context_tokens"] + line["question_tokens"] + 3 == 150
