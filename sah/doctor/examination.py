"""All checks of one experiment, in the order in which they depend on each other."""

from collections.abc import Sequence

from omegaconf.errors import OmegaConfBaseException

from sah.doctor.finding import Finding, counted, error, ok
from sah.doctor.memory_estimate import check_memory
from sah.doctor.numerics import check_attention, check_numbers
from sah.doctor.prompt_checks import (
    check_answer_limit,
    check_bos,
    check_eos,
    check_needles,
    check_split,
    check_thoughts,
)
from sah.doctor.tracker_check import check_tracker
from sah.errors import ConfigurationError, SahError, TokenizerError
from sah.execution.building import compose
from sah.execution.experiment import Experiment
from sah.types import Example

_EXAMPLES = 8
"""Number of prompts to check, from as many tasks as possible."""


def examine(overrides: Sequence[str], arms: int = 1) -> list[Finding]:
    """Check the experiment that these overrides compose; stop where later checks cannot run."""
    try:
        config = compose(overrides)
        experiment = Experiment.from_config(config)
    except (SahError, OmegaConfBaseException) as problem:
        lines = str(problem).strip().splitlines()
        return [error("configuration", lines[0], "correct the override that the message names")]
    findings = [ok("configuration", _described(experiment)), *check_tracker(config)]
    try:
        model = experiment.model.load()
    except ConfigurationError as problem:
        return [*findings, error("model", str(problem), "fix this, or choose another model")]
    except SahError as problem:
        failed = "tokenizer" if isinstance(problem, TokenizerError) else "weights"
        return [*findings, error(failed, str(problem), "fix this before the sweep starts")]
    findings.append(ok("weights", f"found on this machine, loaded on {model.device}"))
    # Generating samples takes time.
    benchmark = experiment.benchmark.with_one_sample()
    try:
        examples = _few(benchmark.examples(model.prompts, experiment.seed))
        encoded = [(example, model.prompts.encode(example)) for example in examples]
        rooms = [
            model.prompts.room(example, prompt, experiment.generation)
            for example, prompt in encoded
        ]
        for (example, prompt), room in zip(encoded, rooms, strict=True):
            model.prompts.fit([example], [prompt], [room])
    except SahError as problem:
        return [*findings, error("data", str(problem), "fix this before the sweep starts")]
    if not examples:
        advice = "check benchmark.subset and benchmark.limit"
        return [*findings, error("data", "the benchmark has no examples", advice)]
    tasks = len({example.task for example in examples})
    made = f"{counted(len(examples), 'prompt')} from {counted(tasks, 'task')}"
    findings.append(ok("data", f"found on this machine, made {made}"))
    _, first = encoded[0]
    return [
        *findings,
        check_bos(model, encoded),
        check_split(model, encoded),
        check_needles(model, encoded),
        check_answer_limit(model, encoded, experiment.generation),
        check_thoughts(model, encoded, experiment.generation),
        check_eos(model),
        *check_numbers(model),
        check_attention(experiment, model, first),
        check_memory(experiment, model, [prompt for _, prompt in encoded], max(rooms), arms),
    ]


def _described(experiment: Experiment) -> str:
    names = (experiment.model, experiment.sparse_attention, experiment.benchmark)
    return "  ".join(one.name for one in names)


def _few(examples: Sequence[Example]) -> list[Example]:
    """Return the first example of every task, then others, at most `_EXAMPLES` in all."""
    firsts = list({example.task: example for example in reversed(examples)}.values())[::-1]
    others = [example for example in examples if example not in firsts]
    return [*firsts, *others][:_EXAMPLES]
