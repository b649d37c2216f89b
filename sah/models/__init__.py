"""Loading a model, encoding a prompt, prefilling a context, answering from it.

Nothing is imported here: what a configuration names must not cost the import of transformers.
"""
