"""`sah plan`: what a sweep will do, against what the same experiments did."""

import json
from dataclasses import replace

import pytest

import sah
from sah.cli import plan
from sah.models.tiny import TinyModel

EXPERIMENT = (
    "model=tiny",
    "benchmark=ruler",
    "benchmark.subset=niah_single_1",
    "benchmark.context_tokens=512",
    "benchmark.samples=2",
    "generation.max_new_tokens=4",
)

RATES = ("--prefill-rate", "512", "--decode-rate", "2")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The results of two finished experiments, and the output root that holds them."""
    root = tmp_path_factory.mktemp("measured")
    names = ("dense", "quest")
    return root, [
        sah.run(*EXPERIMENT, f"attention={name}", f"output_root={root}") for name in names
    ]


@pytest.fixture
def planned(capsys, tmp_path, monkeypatch):
    """Call `sah plan` in an empty folder; return its output, or with --json its content."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments):
        plan.main(list(arguments))
        shown = capsys.readouterr().out
        return json.loads(shown) if "--json" in arguments else shown

    return call


def test_it_writes_nothing_and_loads_no_model(planned, tmp_path, monkeypatch):
    def load(self):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(TinyModel, "load", load)
    shown = planned("-m", *EXPERIMENT, "attention=dense,quest,snapkv")
    assert "3 experiments: 3 to run in 1 job" in shown
    assert list(tmp_path.iterdir()) == []
    assert max(map(len, shown.splitlines()[:-1])) <= 80


def test_finished_cells_are_complete_and_other_spellings_are_duplicates(planned, measured):
    root, _ = measured
    found = planned(
        *EXPERIMENT, "attention=dense,quest,snapkv,snapkv", f"output_root={root}", "--json"
    )
    counts = [found[name] for name in ("complete", "duplicate", "to_run")]
    assert counts == [2, 1, 1]
    assert [arm["attention"] for job in found["jobs"] for arm in job["arms"]] == ["snapkv"]


def test_planned_tokens_are_those_of_the_finished_experiment_or_more(planned, measured):
    _, (dense, _) = measured
    (bound,) = planned(*EXPERIMENT, "attention=dense", "--json")["jobs"]
    assert bound["prefill_tokens"] == 2 * 512 >= dense.timing.context_tokens
    assert bound["new_tokens"] == 2 * 4 >= dense.timing.new_tokens
    (counted,) = planned(*EXPERIMENT, "attention=dense", "--count", "--json")["jobs"]
    assert counted["prefill_tokens"] == dense.timing.context_tokens
    assert counted["sizes_of_one_arm"]["contexts"] == 2
    assert counted["new_tokens"] == 2 * 4


def test_seconds_follow_from_the_timing_of_finished_experiments_of_the_model(planned, measured):
    root, results = measured
    arguments = (*EXPERIMENT, "attention=dense,quest", "seed=1", f"output_root={root}", "--json")
    (job,) = planned(*arguments)["jobs"]
    timings = [result.timing for result in results]
    prefill = sum(one.context_tokens for one in timings) / sum(
        one.prefill_seconds + one.prefill_seconds_saved for one in timings
    )
    answering = sum(2 * 4 * one.decode_seconds / one.new_tokens for one in timings)
    load = max(one.load_seconds for one in timings)
    assert job["seconds"] == pytest.approx(load + 2 * 512 / prefill + answering)
    (other,) = planned(*arguments, "model.layers=2")["jobs"]
    assert other["seconds"] is None
    assert "give --prefill-rate" in other["unknown"][0]


def test_rates_of_another_machine_are_not_those_of_this_one(measured):
    from sah.launching.forecast.rates import measured_rates

    _, results = measured
    model, device = results[0].config["model"], results[0].provenance.device
    assert measured_rates(results, model, device=device).experiments == 2
    elsewhere = [
        replace(one, provenance=replace(one.provenance, host="elsewhere", slurm_job="7"))
        for one in results
    ]
    assert measured_rates(elsewhere, model, device=device).experiments == 0
    untold = [replace(one, timing=replace(one.timing, new_tokens=0)) for one in results]
    assert "has measured its rates" in measured_rates(untold, model, device=device).unknown
    # On a cluster every node counts.
    assert measured_rates(elsewhere, model, device=None).experiments == 2
    assert measured_rates(results, model, device=None).experiments == 0


def test_given_rates_replace_measured_ones(planned):
    (job,) = planned(*EXPERIMENT, "attention=dense,quest", *RATES, "--json")["jobs"]
    assert job["seconds"] == 2 * 512 / 512 + 2 * 2 * 4 / 2


def test_the_time_on_a_device_is_a_lower_bound_by_weights_and_peak_numbers(planned):
    shape = ("model=tiny", *EXPERIMENT[1:], "model.layers=2", "attention=dense,quest")
    shape = (*shape, "generation.batch_rows=1")
    (job,) = planned(*shape, "--device", "h100", "--json")["jobs"]
    model = TinyModel(layers=2)
    width, inner = model.heads * model.head_dim, 2 * model.heads * model.head_dim
    groups = model.key_value_heads * model.head_dim
    words = len(model.prompts().tokenizer)
    linear = 2 * (2 * width * width + 2 * width * groups + 3 * width * inner)
    norms = 2 * 2 * width + width
    read = 2 * (linear + norms + words * width)  # bfloat16
    rates = job["rates"]
    assert rates["prefill"] == pytest.approx(989.5e12 / (2 * linear))
    assert rates["decode"] == pytest.approx(3.35e12 / read)
    answering = 2 * 2 * 4 / rates["decode"]
    assert job["seconds"] == pytest.approx(2 * 512 / rates["prefill"] + answering)
    shown = " ".join(planned(*shape, "--device", "h100").split())
    assert "time: at least 0 s if every prompt and answer reaches its limit" in shown
    assert "a lower bound, not a forecast: tiny prefills at most" in shown
    assert "NVIDIA H100 SXM 80 GB (989.5 TFLOPS, 3.35 TB/s; https://www.nvidia.com" in shown


def test_the_rows_of_a_batch_share_the_reading_of_the_weights(planned):
    arguments = (*EXPERIMENT, "attention=dense", "--device", "a100", "--json")
    alone, together = (
        planned(*arguments, *batch)["jobs"][0]["rates"]
        for batch in (["generation.batch_rows=1"], ["generation.batch_rows=4"])
    )
    assert together["decode"] == pytest.approx(4 * alone["decode"])
    assert together["prefill"] == alone["prefill"]


@pytest.mark.parametrize("count", [(), ("--count",)], ids=["bounded", "counted"])
def test_rows_beyond_the_tokens_of_a_batch_share_nothing(planned, count):
    arguments = (*EXPERIMENT, "benchmark.samples=5", "attention=dense", "--device", "a100")
    alone, together = (
        planned(*arguments, "--json", *count, *batch)["jobs"][0]
        for batch in (["generation.batch_rows=1"], ["generation.batch_tokens=1100"])
    )
    # Two prompts of at most 512 tokens fit; the limit of rows is 8.
    assert together["sizes_of_one_arm"]["batch_rows"] == 2
    assert together["rates"]["decode"] == pytest.approx(2 * alone["rates"]["decode"])


def test_the_bound_of_a_mixture_leaves_its_experts_out():
    from transformers import AutoConfig, AutoModelForCausalLM

    from sah.launching.forecast.bounds import DEVICES

    def rates(experts):
        config = AutoConfig.for_model(
            "qwen3_moe",
            **dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, head_dim=4),
            **dict(num_key_value_heads=1, vocab_size=16, moe_intermediate_size=8),
            **dict(num_experts=experts, num_experts_per_tok=1, intermediate_size=8),
        )
        model = AutoModelForCausalLM.from_config(config)
        return DEVICES["h100"].rates(model, rows=1, gpus=1)

    attention, router = 8 * 8 + 2 * 8 * 4 + 8 * 8, 8
    assert [rates(n).prefill for n in (1, 4)] == [
        pytest.approx(989.5e12 / (2 * (attention + n * router))) for n in (1, 4)
    ]


def test_one_refused_cell_is_shown_with_its_reason_and_fails_the_command(capsys, planned):
    with pytest.raises(SystemExit) as ended:
        planned(*EXPERIMENT, "attention=dense", "benchmark.limit=0,1")
    shown = capsys.readouterr().out
    assert ended.value.code == 1
    assert "2 experiments: 1 refused, 1 to run in 1 job" in shown
    assert "benchmark.limit must be at least 1, got 0" in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["seed=range(0,0)"], "is a range without values"),
        (["hydra/sweeper=optuna"], "hydra/sweeper=optuna chooses its experiments while it runs"),
        (["--config-dir", "nowhere"], "--config-dir nowhere: there is no such folder"),
        (["output_root=file/outputs"], "is not a folder"),
        (["--prefill-rate", "5"], "give both --prefill-rate and --decode-rate"),
        (["--device", "b100"], "--device b100 is not one of a100, h100, h200, l40s; for another"),
        (["--device", "h100", *RATES], "give rates or --device, not both"),
        (["--prefill-rate", "0"], "--prefill-rate must be above 0"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_reason(
    capsys, planned, tmp_path, arguments, reason
):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        planned("model=tiny", "benchmark=mock", *arguments)
    captured = capsys.readouterr()
    assert reason in " ".join([str(ended.value.code), captured.err, captured.out])


def test_unknown_sizes_are_said_to_be_unknown_and_why(planned):
    shown = planned("model=tiny", "benchmark=mock")
    assert "prefill" not in shown.splitlines()[3].split()
    assert "unknown: mock sets no benchmark.context_tokens" in shown
    shown = planned("model=tiny", "benchmark=gsm8k")
    assert "the data of gsm8k are not on this machine" in shown
