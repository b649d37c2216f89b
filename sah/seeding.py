"""Derive independent seeds by purpose, regardless of call order."""

import hashlib


def derive(seed: int, *parts: str | int) -> int:
    """Derive a 63-bit seed from a base seed and the parts that name its purpose.

    The same arguments give the same seed on every machine and Python version; different
    arguments give an unrelated one.
    """
    # Separators inside a part are doubled, so that they cannot be mistaken for one between parts.
    named = [f"{type(part).__name__}:{part}".replace("\x1f", "\x1f\x1f") for part in parts]
    text = "\x1f".join([str(seed), *named])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
