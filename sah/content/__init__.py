"""Content of what an experiment reads: digests of local files, commits on the Hub, versions."""

from sah.content.checkpoints import checkpoint_digest
from sah.content.commits import find_commit, is_commit, is_reachable
from sah.content.digests import digest, digest_of_files, last_change, package_versions
from sah.content.found import CONTENT, by_content, content_of_checkpoint, content_of_fields

__all__ = [
    "CONTENT",
    "by_content",
    "checkpoint_digest",
    "content_of_checkpoint",
    "content_of_fields",
    "digest",
    "digest_of_files",
    "find_commit",
    "is_commit",
    "is_reachable",
    "last_change",
    "package_versions",
]
