"""Measure how long RULER's samples take to generate, and how often whole prompts are tokenised.

    python perf/ruler_generation.py [TOKENS ...]

Uses the bundled model's tokenizer. The second sample of a task reuses the first one's token counts.
"""

import sys
import time

from transformers import AutoTokenizer

from sah.benchmarks.ruler import Ruler
from sah.models.prompts import PromptEncoder
from sah.models.smollm2 import converted


class Counting(PromptEncoder):
    """A prompt encoder that counts the prompts tokenised as a whole."""

    measured = 0

    def prompt_length(self, example):
        self.measured += 1
        return super().prompt_length(example)


def main() -> None:
    lengths = [int(argument) for argument in sys.argv[1:]] or [4_096, 32_768, 131_072]
    tokenizer = AutoTokenizer.from_pretrained(converted())
    print(f"{'task':<18}{'tokens':>9}{'used':>9}{'seconds/sample':>16}{'whole prompts/sample':>22}")
    for length in lengths:
        for task in Ruler().available_subsets():
            encoder = Counting(tokenizer, None)
            started = time.perf_counter()
            samples = Ruler(subset=task, context_tokens=length, samples=2).examples(encoder, 0)
            seconds = (time.perf_counter() - started) / 2
            measured = encoder.measured / 2
            used = max(encoder.prompt_length(item) + item.max_new_tokens for item in samples)
            print(f"{task:<18}{length:>9}{used:>9}{seconds:>16.2f}{measured:>22.1f}")


if __name__ == "__main__":
    main()
