"""The studies in experiments/ compose, and the search finds the best objective."""

from pathlib import Path

import orjson
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sah.execution.experiment import Experiment

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted((ROOT / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_study_composes_from_any_folder(run, study):
    done = run("--config-name", study.stem, "--cfg", "job")
    assert done.returncode == 0, done.stderr


def test_a_shipped_study_takes_options_of_your_own(run, tmp_path):
    (tmp_path / "mine" / "masker").mkdir(parents=True)
    text = (ROOT / "conf" / "masker" / "sink.yaml").read_text()
    (tmp_path / "mine" / "masker" / "wide_sink.yaml").write_text(text.replace("4", "7"))
    options = ("--config-dir", "mine", "--config-name", "budget_frontier")
    masker = "+masker@sparse_attention.maskers.wide_sink=wide_sink"
    done = run(*options, "sparse_attention=custom", masker, "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "tokens: 7" in done.stdout


def values_of(key, node):
    """Every value of a key, at any depth."""
    children = node.values() if isinstance(node, dict) else []
    return [
        *([node[key]] if isinstance(node, dict) and key in node else []),
        *(value for child in children for value in values_of(key, child)),
    ]


@pytest.mark.parametrize(
    ("study", "budget"),
    [
        ("llama31_8b_ruler", "fraction"),
        ("llama31_8b_longbench", "tokens"),
        ("qwen3_8b_reasoning", "tokens"),
    ],
)
def test_every_method_of_a_study_of_8b_models_has_its_smallest_budget(study, budget):
    folder = ROOT / "experiments"
    sweeper = yaml.safe_load((folder / f"{study}.yaml").read_text())["hydra"]["sweeper"]
    methods, benchmarks = (
        str(sweeper["params"].get(group, "")).replace(",", " ").split()
        for group in ("sparse_attention", "benchmark")
    )
    smallest = min(map(float, sweeper["params"][f"study.{budget}"].split(",")))
    fixed = [f"hydra.searchpath=[file://{ROOT / 'conf'}]", f"study.{budget}={smallest:g}"]
    names = set()
    with initialize_config_dir(str(folder), version_base="1.3"):
        for method in methods:
            config = compose(study, [*fixed, f"sparse_attention={method}"])
            Experiment.from_config(config)
            names.add(config.sparse_attention.name)
            attention = OmegaConf.to_container(config.sparse_attention, resolve=True)
            assert method == "dense" or smallest in values_of(budget, attention), method
        for benchmark in benchmarks:
            Experiment.from_config(compose(study, [*fixed, f"benchmark={benchmark}"]))
    assert len(names) == len(methods)


def test_search_finds_the_best_objective_with_optuna_and_resumes_from_results(run, tmp_path):
    pytest.importorskip("optuna", reason="the extra optuna is not installed")
    search = (
        *("--config-name", "density_search", "model=tiny", "benchmark.context_tokens=400"),
        *("benchmark.samples=1", "generation.max_new_tokens=4", "hydra/launcher=basic"),
        *("hydra.sweeper.n_jobs=2", "objective=-density"),
    )

    def best_of(trials):
        done = run(*search, f"hydra.sweeper.n_trials={trials}")
        assert done.returncode == 0, done.stderr
        return yaml.safe_load((tmp_path / "outputs" / "optimization_results.yaml").read_text())

    def starts():
        return {path: path.read_text() for path in tmp_path.glob("outputs/**/starts.jsonl")}

    def trials():
        (record,) = tmp_path.glob("outputs/.searches/*.json")
        return [
            (trial["parameters"], trial["value"])
            for trial in orjson.loads(record.read_bytes())["trials"]
        ]

    best = best_of(4)
    assert -1 <= best["best_value"] < 0
    assert len(best["best_params"]) == 2
    computed, first = starts(), trials()
    assert max(first, key=lambda trial: trial[1]) == (best["best_params"], best["best_value"])
    assert best_of(4) == best
    assert starts() == computed, "the same search reads the results that are there"
    assert best_of(6)["best_value"] >= best["best_value"]
    assert starts().items() >= computed.items(), "more trials go on from the earlier ones"
    assert (len(first), len(trials())) == (4, 6)
    assert trials()[:4] == first
