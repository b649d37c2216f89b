"""Model loading, prompt encoding, prefill and decoding.

Nothing is imported here: resolving a configuration must not import transformers.
"""
