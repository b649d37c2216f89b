"""Seeds that depend on what they are for, never on the order in which they are asked for."""

import hashlib


def derive(seed: int, *parts: str | int) -> int:
    """Derive a 63-bit seed from a base seed and the names of what it is for.

    The same arguments give the same seed on every machine and Python version; any
    other combination gives an unrelated one.
    """
    # A separator inside a part is doubled, so that it never looks like one between parts.
    named = [f"{type(part).__name__}:{part}".replace("\x1f", "\x1f\x1f") for part in parts]
    text = "\x1f".join([str(seed), *named])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
