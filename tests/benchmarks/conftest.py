"""Predictions for examples, and made-up rows in the columns of published data sets."""

import csv
import math
import os
import shutil
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pytest
from pyarrow import parquet

from sah.types import Example, Prediction


@pytest.fixture
def predict(prediction: Callable[..., Prediction]) -> Callable[..., list[Prediction]]:
    """Answer each example with the text that a function returns for it."""

    def answer(examples: Sequence[Example], text: Callable[[Example], str]) -> list[Prediction]:
        return [
            prediction(
                example.id,
                task=example.task,
                text=text(example),
                # A continuation is predicted with certainty, or not at all.
                loss=(0.0 if text(example) else math.inf) if example.is_continuation else None,
            )
            for example in examples
        ]

    return answer


@pytest.fixture
def example() -> Callable[..., Example]:
    """Make an example with placeholder texts."""

    def make(task: str = "task", number: int = 0, references: tuple[str, ...] = ("x",)) -> Example:
        return Example(
            id=f"{task}-{number}",
            task=task,
            context="context",
            question="question",
            references=references,
            max_new_tokens=1,
        )

    return make


TEXT = "Anna has 3 cats. The cats sleep in the garden, and Otto, the oldest, is grey. " * 4
ANSWERS = {
    "en": ["the grey cat Otto", "Otto"],
    "zh": ["一只灰色的猫", "猫"],
    "class": ["Animal"],
    "count": ["3"],
    "paragraph_en": ["Paragraph 3"],
    "paragraph_zh": ["段落3"],
    "code": ["return cats + 1"],
}
CLASSES = ["Plant", "Animal", "Wild Animal"]
LONGBENCH = {
    "en": "narrativeqa qasper multifieldqa_en hotpotqa 2wikimqa musique gov_report qmsum "
    "multi_news triviaqa samsum",
    "zh": "multifieldqa_zh dureader vcsum",
    "class": "trec lsht",
    "count": "passage_count",
    "paragraph_en": "passage_retrieval_en",
    "paragraph_zh": "passage_retrieval_zh",
    "code": "lcc repobench-p",
}
LONGBENCH_E = (
    *("qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec"),
    *("triviaqa", "samsum", "passage_count", "passage_retrieval_en", "lcc", "repobench-p"),
)
RULER = (
    *("niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2"),
    *("niah_multikey_3", "niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2"),
)
OPTIONS = "\nA. a red hat\nB. a grey cat\nC. a tree\nD. a train"
INFINITE = {
    "passkey": ("What is the pass key?", ["71432"], 26),
    "kv_retrieval": ('Key: "ce06788c" ', ["00a00042-6bcb"], 70),
    "number_string": ("What is the sequence of digits?", ["2200012222"], 32),
    "longdialogue_qa_eng": ("Which character is $$MASK$$ ?", ["ACE", "ACE ROTHSTEIN"], 60),
    "longbook_qa_eng": ("Who is grey?", ["Otto", "the cat Otto"], 60),
    "longbook_choice_eng": (f"Who is Otto?\n\nOnly one is correct.{OPTIONS}", ["B"], 60),
    "longbook_sum_eng": ("", ["Anna has three cats."], 1220),
    "longbook_qa_chn": ("谁是灰色的？", ["奥托"], 60),
    "code_run": ("Please give me the exact number of func_0(3)", ["-42"], 25),
    "code_debug": (f"\n\nOptions:{OPTIONS}", ["B"], 25),
    "math_find": ("", ["7"], 23),
    "math_calc": ("", ["1", "4", "8"], 30020),
}
LOOGLE = {
    "shortdep_qa": ("\nQuestion: Who?\n", "Otto is the oldest cat of Anna", 300),
    "longdep_qa": ("\nQuestion: Why?\n", "since the garden has a place to sleep", 500),
    "shortdep_cloze": ("\n Question: <mask-0>?\n", '{"<mask-0>": "Otto Grey"}', 50),
    "longdep_summarization": ("\n", "Anna has three cats that sleep in her garden", 500),
}
ZERO_SCROLLS = {
    "gov_report": 1024,
    "summ_screen_fd": 512,
    "qmsum": 512,
    "squality": 512,
    "qasper": 128,
    "narrative_qa": 64,
    "quality": 10,
    "musique": 32,
    "space_digest": 36,
    "book_sum_sort": 256,
}

_VALIDATION = (
    *("Feedback", "Validator Revision Suggestion", "Is First Validation", "Post hoc agreement"),
    *("Sufficient Expertise?", "Understand the question?", "Question Difficulty"),
    *("Validator Answered Correctly", "Self-reported time (minutes)", "Probability Correct"),
    *("Manual Correctness Adjustment", "Expert Validator"),
)
_NON_EXPERT = (
    *("Feedback", "Validator Answered Correctly", "Explanation", "Self-reported time (minutes)"),
    *("Websites visited", "Probability Correct", "Manual Correctness Adjustment"),
    "Non-Expert Validator",
)
_REVISED = ("Question", "Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3)))
GPQA_COLUMNS = (
    *(f"Pre-Revision {name}" for name in (*_REVISED, "Explanation")),
    "Self-reported question-writing time (minutes)",
    *(*_REVISED, "Explanation", "Revision Comments (from Question Writer)", "Subdomain"),
    "Writer's Difficulty Estimate",
    *(f"Extra Revised {name}" for name in ("Question", "Explanation", *_REVISED[1:])),
    *("Non-Expert Validator Accuracy", "Majority Non-Expert Vals Incorrect"),
    *("Expert Validator Accuracy", "Record ID", "High-level domain", "Question Writer"),
    *(f"{name}_EV_{n}" for n in (1, 2) for name in _VALIDATION),
    *(f"{name}_NEV_{n}" for n in (1, 2, 3) for name in _NON_EXPERT),
    *("Expert Validator Disagreement Category", "Canary String"),
)


def _gpqa(number: int) -> dict[str, Any]:
    known = {
        "Question": f"What, then,\nis {number} + 1?\n",
        "Correct Answer": f"{number + 1}\n",
        **{f"Incorrect Answer {n}": f' "{number + 1 + n}" ' for n in (1, 2, 3)},
        "Record ID": f"rec{number}",
        "High-level domain": ("Physics", "Chemistry", "Physics")[number],
    }
    return {name: known.get(name, "") for name in GPQA_COLUMNS}


def _base(task: str, question: str, max_new_tokens: int, number: int) -> dict[str, Any]:
    return {
        "context": f"{number}: {TEXT}",
        "question": question,
        "answer_prefix": "Answer:",
        "task": task,
        "max_new_tokens": max_new_tokens,
    }


def _longbench(task: str, kind: str) -> list[dict[str, Any]]:
    more = {"dataset": task, "language": "zh" if "zh" in kind else "en"}
    return [
        {
            **_base(task, "Question: who?\n", 40 + number, number),
            **more,
            "_id": f"{task}{number}",
            "answers": ANSWERS[kind],
            "all_classes": CLASSES if kind == "class" else None,
            "length": (1000, 5000, 9000)[number],
        }
        for number in range(3)
    ]


def _longbench_v2(way: str) -> list[dict[str, Any]]:
    form = 'Format your response as follows: "The correct answer is (insert answer here)".'
    opening = "Please read the following text and answer the question below."
    question = "What is the correct answer to this question: who?\nChoices:\n(A) a\n(B) b\n\n"
    return [
        {
            **_base(way, question, 148 if way == "0shot" else 1044, n),
            "context": f"{opening}\n\n<text>\n{n}: {TEXT}\n</text>\n\n",
            "answer_prefix": form if way == "0shot" else f"{form}\n\nLet’s think step by step:",
            **{f"choice_{letter}": letter.lower() for letter in "ABCD"},
            "_id": f"{n}",
            "domain": "Single-Document QA",
            "sub_domain": "Detective",
            "difficulty": ("easy", "hard", "easy")[n],
            "length": ("short", "short", "medium")[n],
            "answer": "B",
        }
        for n in range(3)
    ]


def _ruler(task: str) -> list[dict[str, Any]]:
    answer = ["1234567", "7654321"]
    return [{**_base(task, "What are the numbers?", 128, n), "answer": answer} for n in range(2)]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a suite's rows: files in the layout of `hf download`.

    Made-up text in exactly the published columns; two or three rows of each subset.
    """
    tables: dict[str, dict[str, list[dict[str, Any]]]] = {
        "longbench": {
            f"{task}{even}/test-00000-of-00001": _longbench(task, kind)
            for kind, names in LONGBENCH.items()
            for task in names.split()
            for even in (("", "_e") if task in LONGBENCH_E else ("",))
        },
        "longbench_v2": {
            f"{way}/test-00000-of-00001": _longbench_v2(way) for way in ("0shot", "cot")
        },
        "ruler_hub": {
            **{
                f"{length}/test-00000-of-00001": [row for task in RULER for row in _ruler(task)]
                for length in (4096, 8192, 16384)
            },
            # The other collection has a configuration and a split for each task.
            **{f"{task}/{task}-00000-of-00001": _ruler(task) for task in RULER},
        },
        "infinite_bench": {
            f"{task}/test-00000-of-00001": [
                {**_base(task, question, limit, n), "answer": answer} for n in range(2)
            ]
            for task, (question, answer, limit) in INFINITE.items()
        },
        "zero_scrolls": {
            "data/test-00000-of-00001": [
                {
                    **_base(task, "Question: who?\n", limit, n),
                    "id": f"{task}{n}",
                    "pid": "p",
                    "input": TEXT,
                    "output": None,
                    "document_start_index": 0,
                    "document_end_index": 9,
                    "query_end_index": 9,
                    "query_start_index": 9,
                    "truncation_seperator": "",
                    "answer": "",
                }
                for task, limit in ZERO_SCROLLS.items()
                for n in range(2)
            ]
        },
        "loogle": {
            f"{task}/test-00000-of-00001": [
                {**_base(task, question, limit, n), "answer": answer} for n in range(2)
            ]
            for task, (question, answer, limit) in LOOGLE.items()
        },
        **{
            f"aime{year}": {
                f"aime20{year}/test-00000-of-00001": [
                    {
                        "context": f"Solve the problem.\n\nProblem: what is {n} + 33?",
                        "question": "What is the answer to this problem?",
                        "answer_prefix": "",
                        "answer": f"{33 + n:03d}",
                        "id": f"20{year}-I-{n}",
                        "max_new_tokens": 32_000,
                    }
                    for n in range(3)
                ]
            }
            for year in (24, 25)
        },
        "aime26": {
            "data/train-00000-of-00001": [
                {"problem_idx": n + 1, "problem": f"what is {n} + 33?", "answer": 33 + n}
                for n in range(3)
            ]
        },
        "math500": {
            "test.jsonl": [
                {
                    "problem": f"Solve $2x = {n}$ for $x$.",
                    "solution": f"$x = \\boxed{{\\frac{{{n}}}{{2}}}}$",
                    "answer": f"\\frac{{{n}}}{{2}}",
                    "subject": ("Algebra", "Algebra", "Precalculus")[n],
                    "level": n + 1,
                    "unique_id": f"test/algebra/{n}.json",
                }
                for n in range(3)
            ]
        },
        "gsm8k": {
            f"{config}/{split}-00000-of-00001": [
                {
                    "question": f"Anna has {n}000 cats and gets 33 more. How many has she?",
                    "answer": f"She has {n}000+33=<<{n}000+33={n}033>>{n},033.\n#### {n},033",
                }
                for n in range(1, 4)
            ]
            for config in ("main", "socratic")
            for split in ("test", "train")
        },
        "gpqa": {
            f"gpqa_{subset}.csv": [_gpqa(n) for n in range(3)]
            for subset in ("diamond", "main", "extended", "experts")
        },
        "loft": {
            f"loft-rag-{corpus}-{length}/data/{split}-00000-of-00001": [
                {
                    **_base(f"{corpus}_{length}", "query: who? ", 256, n),
                    "answer_prefix": "Final Answer: ",
                    "answers": ["Otto", "Anna"] if split == "test" else ["a dev row"],
                }
                for n in range(2)
            ]
            for corpus in ("nq", "hotpotqa", "musique", "qampari", "quest")
            for length in ("32k", "128k", "1m")
            for split in ("dev", "test")
        },
    }

    def folder(name: str) -> Path:
        found = root / name
        if not found.exists():
            for path, rows in tables[name].items():
                file = found / path
                file.parent.mkdir(parents=True, exist_ok=True)
                if file.suffix == ".jsonl":
                    file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
                elif file.suffix == ".csv":
                    with open(file, "w", newline="") as lines:
                        writer = csv.DictWriter(lines, GPQA_COLUMNS)
                        writer.writeheader()
                        writer.writerows(rows)
                else:
                    parquet.write_table(pyarrow.Table.from_pylist(rows), f"{file}.parquet")
        return found

    root = tmp_path_factory.mktemp("published")
    return folder


@pytest.fixture
def cache_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Cache rows as one commit of a data set, as if they had been loaded from the Hub.

    Each call is newer than the one before.
    """
    import datasets

    cache = tmp_path / "datasets"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    times = count(1_000_000_000)

    def put(dataset: str, config: str, commit: str, rows: list[dict[str, Any]]) -> None:
        owner, name = dataset.split("/")
        source = tmp_path / "hub" / commit / name
        source.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), source / "test.parquet")
        data = "  data_files:\n  - split: test\n    path: test.parquet\n"
        (source / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n{data}---\n")
        loaded = datasets.load_dataset(
            str(source), config, split="test", cache_dir=str(tmp_path / "made" / commit)
        )
        made = Path(loaded.cache_files[0]["filename"]).parent
        folder = cache / f"{owner}___{made.parts[-4]}" / config / "0.0.0" / commit
        shutil.copytree(made, folder)
        os.utime(folder, (now := next(times), now))

    return put
