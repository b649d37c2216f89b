"""Seeds that depend on what they are for, never on the order in which they are asked for."""

import hashlib


def derive(seed: int, *parts: str | int) -> int:
    """Derive a 63-bit seed from a base seed and the names of what it is for.

    The same arguments give the same seed on every machine and Python version; any
    other combination gives an unrelated one.
    """
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in parts)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
