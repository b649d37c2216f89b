"""The output directory of an experiment: identity, claim, files, results.

The package is callable: `sah.results("outputs")` reads results into a data frame.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

from sah.results.identity import directory, fingerprint
from sah.results.schema import Result
from sah.results.store import ResultStore, is_complete

__all__ = ["Result", "ResultStore", "directory", "fingerprint", "is_complete"]


class _CallablePackage(ModuleType):
    """The function `sah.results` and the package of this name are one object."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Read results into a data frame; see docs/python.md."""
        return importlib.import_module("sah")._results(*arguments, **keywords)


sys.modules[__name__].__class__ = _CallablePackage
