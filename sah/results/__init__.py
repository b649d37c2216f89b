"""The output directory of an experiment: identity, claim, files, results."""

from sah.results.identity import directory, fingerprint
from sah.results.schema import Result
from sah.results.store import ResultStore, is_complete

__all__ = ["Result", "ResultStore", "directory", "fingerprint", "is_complete"]
