"""Errors that a researcher can act on, and the categories that error.json files them under.

Standard library only, so that every layer may raise them.
"""

import errno
import socket
from collections.abc import Iterator


class SahError(Exception):
    """Something a user can put right: reported as one message, without a traceback."""


class ConfigurationError(SahError, ValueError):
    """The experiment as configured cannot work."""


class DamagedResults(SahError):
    """Files of an output directory are not what this version wrote; never overwritten."""


class Busy(SahError):
    """The directory is not this process's: another one works in it, or it is gone."""


class ModelNotFound(SahError):
    """The model is neither in the local cache nor reachable."""


class TokenizerError(SahError):
    """The tokenizer cannot be loaded or cannot encode the prompt as it should."""


class ModelLoadingError(SahError):
    """The model's files are there, but do not make a model."""


class DatasetError(SahError):
    """A benchmark's data are missing or not as published."""


class ExperimentTimeout(SahError, TimeoutError):
    """`timeout_minutes` is over; what was answered is kept."""


class NonFiniteLogits(SahError, ArithmeticError):
    """The model's output is NaN or infinite: no answer can be trusted."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived. Like KeyboardInterrupt, no `except Exception` swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum


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
"""What may go well the next time without anybody doing anything."""

_BY_TYPE: tuple[tuple[type[BaseException], str], ...] = (
    (Interrupted, "interrupt"),
    (KeyboardInterrupt, "interrupt"),
    # submitit leaves a job that is to be requeued this way.
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

# Types of libraries that this module must not import, by module and name.
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

# Only for exceptions whose type says nothing (RuntimeError and the like).
_BY_MESSAGE = (
    ("out of memory", "gpu_out_of_memory"),
    ("can't allocate memory", "memory"),
    ("cuda", "gpu"),
    ("nccl", "gpu"),
)


def ends_process(error: BaseException) -> bool:
    """Whether an exception is about the process, and not about what it was doing.

    submitit raises one in the middle of the work when SLURM wants a job back and does not
    take it into the queue again; the others are no `Exception`.
    """
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    return not isinstance(error, Exception) or "submitit.core.utils.UncompletedJobError" in names


def category(error: BaseException) -> str:
    """File an exception under one of CATEGORIES, by its type first.

    The cause counts where the exception itself says nothing, and before a wrapper's word:
    neither hides an out-of-memory error.
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
