"""What an experiment leaves on disk: where, in which files, and from which code."""

from sah.results.identity import directory, fingerprint
from sah.results.store import ResultStore, is_complete

__all__ = ["ResultStore", "directory", "fingerprint", "is_complete"]
