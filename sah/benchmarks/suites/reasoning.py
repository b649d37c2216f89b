"""What suites of short problems with long answers have in common."""

ANSWER_TOKENS = 32_768
"""Answer limit, thought included, as in DeepSeek-R1's evaluation (arXiv:2501.12948)."""
STEP_BY_STEP = "\nPlease reason step by step, and put your final answer within \\boxed{}."
"""The instruction that DeepSeek-R1's model card recommends for mathematics."""
