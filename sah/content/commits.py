"""Commits on the Hugging Face Hub: what a tag or branch means on this machine."""

import functools
import os
import re
import socket
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from sah.errors import category

_CONNECT_SECONDS = 5.0


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit hash, which is fixed, and not a branch or tag."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def find_commit(repository: str, revision: str, kind: Literal["model", "dataset"]) -> str | None:
    """Return the commit of a revision: the one in the cache, else the one on the Hub.

    A branch keeps the commit that the cache has; downloading it again (`sah fetch`) moves it.

    Returns:
        None if the cache does not have it and the Hub cannot be asked.
    """
    if is_commit(revision):
        return revision
    return cached_commit(repository, revision, kind) or _commit_on_hub(repository, revision, kind)


def cached_commit(repository: str, revision: str, kind: Literal["model", "dataset"]) -> str | None:
    """Return the commit that the Hub's cache knows for a branch or tag; None if it has none."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    try:
        folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type=kind))
        commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        # Not cached, or not a name that the Hub could have.
        return None
    return commit if is_commit(commit) else None


def is_reachable(endpoint: str) -> bool:
    """Whether the Hub's host accepts connections; assumed to be so if there is a proxy."""
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    url = urlsplit(endpoint)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        with socket.create_connection((url.hostname, port), timeout=_CONNECT_SECONDS):
            return True
    except OSError:
        return False


@functools.lru_cache(maxsize=256)
def _commit_on_hub(repository: str, revision: str, kind: str) -> str | None:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError

    if constants.HF_HUB_OFFLINE or not is_reachable(constants.ENDPOINT):
        return None
    try:
        found = HfApi().repo_info(
            repository, revision=revision, repo_type=kind, timeout=_CONNECT_SECONDS
        )
    except HFValidationError:
        return None
    except Exception as error:
        # The HTTP library is not ours to choose; loading fails too, and says why.
        if category(error) not in ("network", "model_not_found", "filesystem"):
            raise
        return None
    return found.sha
