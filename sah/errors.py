"""Errors that a user can act on, and the error categories that error.json records.

Standard library only, so that every layer can raise them.
"""

import errno
import socket
from collections.abc import Collection, Iterator


class SahError(Exception):
    """An error that the user can fix; reported as one message, without a traceback."""


class ConfigurationError(SahError, ValueError):
    """The experiment cannot run as configured."""


class DamagedResults(SahError):
    """An output directory holds files that this version did not write; never overwritten."""


class Busy(SahError):
    """The output directory is claimed by another process, or no longer exists."""


class ModelNotFound(SahError):
    """The model is neither in the local cache nor downloadable."""


class TokenizerError(SahError):
    """The tokenizer cannot be loaded, or cannot encode the prompt correctly."""


class ModelLoadingError(SahError):
    """The model's files exist but cannot be loaded."""


class DatasetError(SahError):
    """A benchmark's data are missing or differ from the published version."""


class ExperimentTimeout(SahError, TimeoutError):
    """`timeout_minutes` has passed; the answers so far are kept."""


class NonFiniteLogits(SahError, ArithmeticError):
    """The model's logits are NaN or infinite, so that no answer can be trusted."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived. Like KeyboardInterrupt, it passes through `except Exception`."""

    def __init__(self, signum: int, *, progress: str = "", cancelled: Collection[int] = ()) -> None:
        """Note the signal and what it stopped.

        Args:
            signum: number of the signal.
            progress: what was done until then, such as "8 of 60 answered"; empty if unknown.
            cancelled: numbers of the cells of a sweep whose jobs may still be about to end.
        """
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum
        self.progress = progress
        self.cancelled = frozenset(cancelled)


CATEGORIES = (
    "gpu_out_of_memory",
    "gpu",
    "model_not_found",
    "tokenizer",
    "model_loading",
    "dataset",
    "network",
    "filesystem",
    "timeout",
    "interrupt",
    "memory",
    "non_finite",
    "configuration",
    "unknown",
)

RETRYABLE = frozenset({"gpu_out_of_memory", "network", "filesystem"})
"""Transient failures that are worth retrying."""

_BY_TYPE: tuple[tuple[type[BaseException], str], ...] = (
    (Interrupted, "interrupt"),
    (KeyboardInterrupt, "interrupt"),
    # submitit exits this way from a job that it requeues.
    (SystemExit, "interrupt"),
    (ExperimentTimeout, "timeout"),
    (ModelNotFound, "model_not_found"),
    (TokenizerError, "tokenizer"),
    (ModelLoadingError, "model_loading"),
    (DatasetError, "dataset"),
    (DamagedResults, "configuration"),
    (ConfigurationError, "configuration"),
    (MemoryError, "memory"),
    (NonFiniteLogits, "non_finite"),
    (ConnectionError, "network"),
    (TimeoutError, "network"),
    (socket.gaierror, "network"),
)

# Exception types by qualified name, from libraries that this module must not import.
_BY_TYPE_NAME = {
    "submitit.core.utils.UncompletedJobError": "timeout",
    "torch.OutOfMemoryError": "gpu_out_of_memory",
    "torch.AcceleratorError": "gpu",
    "hydra.errors.HydraException": "configuration",
    "omegaconf.errors.OmegaConfBaseException": "configuration",
    "httpx.HTTPError": "network",
    "httpx2.HTTPError": "network",
    "requests.exceptions.RequestException": "network",
    "datasets.exceptions.DatasetsError": "dataset",
    "huggingface_hub.errors.RepositoryNotFoundError": "model_not_found",
    "safetensors._safetensors_rust.SafetensorError": "model_loading",
}

_NETWORK_ERRNO = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ETIMEDOUT}

# Only for plain RuntimeErrors, whose type tells nothing.
_BY_MESSAGE = (
    ("out of memory", "gpu_out_of_memory"),
    ("can't allocate memory", "memory"),
    ("cuda", "gpu"),
    ("nccl", "gpu"),
)


def ends_process(error: BaseException) -> bool:
    """Whether an exception ends the whole process, not just the arm that raised it.

    These are submitit's UncompletedJobError, raised in the middle of the work when SLURM reclaims
    a job without requeueing it, and everything that does not derive from `Exception`.
    """
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    return not isinstance(error, Exception) or "submitit.core.utils.UncompletedJobError" in names


def category(error: BaseException) -> str:
    """Return the category of an exception, one of CATEGORIES, judging by its type first.

    An exception that matches nothing is filed under its cause, and so is Hydra's
    InstantiationException, so that neither hides an out-of-memory error.
    """
    wrapped = False
    for link in _chain(error):
        if type(link).__qualname__ == "InstantiationException":
            wrapped = True
            continue
        for kind, name in _BY_TYPE:
            if isinstance(link, kind):
                return name
        for ancestor in type(link).__mro__:
            found = _BY_TYPE_NAME.get(f"{ancestor.__module__}.{ancestor.__qualname__}")
            if found:
                return found
        if isinstance(link, OSError):
            return "network" if link.errno in _NETWORK_ERRNO else "filesystem"
        if type(link) is RuntimeError:
            text = str(link).lower()
            for part, name in _BY_MESSAGE:
                if part in text:
                    return name
    return "configuration" if wrapped else "unknown"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__
