"""Checkpoints in the Hugging Face format: loaded completely, or refused by one sentence.

Nothing is imported here: resolving a configuration must not import transformers.
"""
