"""How fast a model prefills and decodes, from the timing of finished experiments."""

import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sah.content import by_content
from sah.results.schema import Result


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Tokens per second, and where they come from."""

    prefill: float | None = None
    decode: float | None = None
    """New tokens per second over all experiments; reading the question is in it."""
    decode_by_attention: Mapping[str, float] = field(default_factory=dict)
    load_seconds: float = 0.0
    experiments: int = 0
    """Number of experiments that were measured; 0 if the rates were given or are bounds."""
    device: str | None = None
    longest_prompt: float | None = None
    """Mean length of the prompts of the experiment with the longest ones, in tokens."""
    bound: str = ""
    """Not empty: they are upper limits of the device, and this is what they follow from."""
    unknown: str = ""
    """Why there is none of prefill or decode, where there is none."""

    def decode_of(self, attention: str) -> float | None:
        """Return the rate of an attention, or that of all if it was not measured."""
        return self.decode_by_attention.get(attention, self.decode)


def measured_rates(
    results: Iterable[Result], model: Mapping[str, Any], *, device: str | None
) -> Rates:
    """Measure the rates of a model.

    Args:
        results: of any models.
        model: the resolved configuration of the model.
        device: the device of this machine that will be used, as in provenance; None for a cluster,
            where the device with the most results counts, on any node.
    """
    same = [one for one in results if _is_of(one, model)]
    if device is None:
        same = [one for one in same if one.provenance.slurm_job is not None]
        devices = Counter(one.provenance.device for one in same)
        chosen = devices.most_common(1)[0][0] if devices else None
        same = [one for one in same if one.provenance.device == chosen]
    else:
        host = socket.gethostname()
        chosen = device
        same = [
            one for one in same if (one.provenance.host, one.provenance.device) == (host, device)
        ]
    unknown = (
        f"no finished experiment of {model.get('name')} has measured its rates; give "
        "--prefill-rate and --decode-rate, or --device for a lower bound of the time"
    )
    if not same:
        return Rates(unknown=unknown)
    timings = [one.timing for one in same]
    prompts = [one.prompt_tokens for one in same if one.prompt_tokens is not None]
    prefill = _rate(
        sum(one.context_tokens for one in timings),
        sum(one.prefill_seconds + one.prefill_seconds_saved for one in timings),
    )
    decode = _decode_rate(same)
    return Rates(
        prefill=prefill,
        decode=decode,
        decode_by_attention={
            name: rate
            for name in {one.attention for one in same}
            if (rate := _decode_rate([one for one in same if one.attention == name])) is not None
        },
        load_seconds=max(one.load_seconds for one in timings),
        experiments=len(same),
        device=chosen,
        longest_prompt=max(prompts, default=None),
        # Experiments that only read continuations have no rate of decoding.
        unknown=unknown if prefill is None or decode is None else "",
    )


def _is_of(result: Result, model: Mapping[str, Any]) -> bool:
    found = result.config.get("model")
    return isinstance(found, Mapping) and by_content(found) == by_content(model)


def _decode_rate(results: Sequence[Result]) -> float | None:
    """Return the rate over the experiments that generated tokens."""
    timings = [one.timing for one in results if one.timing.new_tokens]
    return _rate(sum(one.new_tokens for one in timings), sum(one.decode_seconds for one in timings))


def _rate(tokens: int, seconds: float) -> float | None:
    return tokens / seconds if tokens and seconds > 0 else None
