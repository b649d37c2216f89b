import contextlib
import errno
import socket
import sys

import datasets
import huggingface_hub.errors
import omegaconf
import pytest
import requests
import safetensors.torch
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from submitit.core.utils import UncompletedJobError

from sah import errors
from sah.errors import CATEGORIES, Interrupted, SahError, category, ends_process

# The HTTP library of huggingface_hub; its name differs between versions.
http = sys.modules[huggingface_hub.errors.HfHubHTTPError.__mro__[1].__module__]


def raised(function, *arguments, **keywords):
    """Return the exception that a call raises."""
    try:
        function(*arguments, **keywords)
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError


def caused_by(error, cause):
    """Return an exception raised from another."""
    error.__cause__ = cause
    return error


def refused_connection():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        socket.create_connection(closed.getsockname(), timeout=5)


RESPONSE = http.Response(503, request=http.Request("GET", "https://huggingface.co"))

REAL = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "gpu_out_of_memory"),
    (torch.cuda.OutOfMemoryError("CUDA out of memory"), "gpu_out_of_memory"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "gpu_out_of_memory"),
    (torch.AcceleratorError("CUDA error: device-side assert triggered"), "gpu"),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), "gpu"),
    (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp"), "gpu"),
    (raised(torch.empty, 2**60), "memory"),
    (MemoryError(), "memory"),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "unknown"),
    (errors.ModelNotFound("x"), "model_not_found"),
    (errors.TokenizerError("x"), "tokenizer"),
    (errors.ModelLoadingError("x"), "model_loading"),
    (raised(safetensors.torch.load, b"no tensors"), "model_loading"),
    (
        huggingface_hub.errors.RepositoryNotFoundError("404", response=RESPONSE),
        "model_not_found",
    ),
    (huggingface_hub.errors.GatedRepoError("403", response=RESPONSE), "model_not_found"),
    (huggingface_hub.errors.HfHubHTTPError("503", response=RESPONSE), "network"),
    (errors.DatasetError("x"), "dataset"),
    (datasets.exceptions.DatasetNotFoundError("x"), "dataset"),
    (ConnectionResetError(errno.ECONNRESET, "reset by peer"), "network"),
    (raised(refused_connection), "network"),
    (raised(socket.getaddrinfo, "no-such-host.invalid", 443), "network"),
    (TimeoutError("timed out"), "network"),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), "network"),
    (http.ConnectError("x"), "network"),
    (http.ReadTimeout("x"), "network"),
    (requests.exceptions.ConnectionError("x"), "network"),
    (requests.exceptions.ReadTimeout("x"), "network"),
    (OSError(errno.ENOSPC, "No space left on device"), "filesystem"),
    (OSError(errno.EIO, "Input/output error"), "filesystem"),
    (raised(open, "/no/such/file"), "filesystem"),
    (PermissionError(errno.EACCES, "Permission denied"), "filesystem"),
    (errors.ExperimentTimeout("x"), "timeout"),
    (errors.NonFiniteLogits("x"), "non_finite"),
    (KeyboardInterrupt(), "interrupt"),
    (Interrupted(15), "interrupt"),
    (errors.ConfigurationError("x"), "configuration"),
    (raised(instantiate, {"_target_": "no.such.thing"}), "configuration"),
    (raised(lambda: omegaconf.OmegaConf.create({"a": "???"}).a), "configuration"),
    (raised(lambda: 1 / 0), "unknown"),
    (KeyError("x"), "unknown"),
]


@pytest.mark.parametrize(
    ("error", "expected"), REAL, ids=[f"{type(e).__name__}-{c}" for e, c in REAL]
)
def test_category_of_an_error(error, expected):
    assert category(error) == expected


def test_every_category_is_tested():
    assert {expected for _, expected in REAL} == set(CATEGORIES)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (caused_by(RuntimeError("failed"), torch.OutOfMemoryError("x")), "gpu_out_of_memory"),
        (caused_by(ValueError("failed"), MemoryError()), "memory"),
        (caused_by(SahError("x"), caused_by(KeyError("y"), ConnectionError("z"))), "network"),
        # A wrapper whose own type is known comes first.
        (caused_by(errors.ModelLoadingError("x"), OSError(errno.EIO, "x")), "model_loading"),
        (caused_by(errors.ExperimentTimeout("x"), KeyboardInterrupt()), "timeout"),
        (caused_by(InstantiationException("x"), ValueError("y")), "configuration"),
    ],
)
def test_an_error_that_matches_nothing_is_filed_under_its_cause(error, expected):
    assert category(error) == expected


def test_the_context_of_an_error_is_not_its_cause():
    """An error raised while another is handled has a context but not a cause."""
    error = KeyError("unrelated")
    error.__context__ = MemoryError()
    assert category(error) == "unknown"


def test_circular_causes_terminate():
    one, other = ValueError(), ValueError()
    one.__cause__, other.__cause__ = other, one
    assert category(one) == "unknown"


@pytest.mark.parametrize(
    "message", ["the file cuda.txt is missing", "CUDA error", "out of memory", "nccl"]
)
def test_messages_are_read_only_of_plain_runtime_errors(message):
    assert category(ValueError(message)) == "unknown"


def test_a_class_of_the_same_name_in_another_module_does_not_match():
    error = type("OutOfMemoryError", (Exception,), {})("x")
    assert category(error) == "unknown"


def test_except_exception_does_not_swallow_interrupted():
    with pytest.raises(Interrupted, match="15") as caught, contextlib.suppress(Exception):
        raise Interrupted(15)
    assert caught.value.signum == 15


def test_errors_derive_from_the_matching_builtin_exceptions():
    assert issubclass(errors.ConfigurationError, ValueError)
    assert issubclass(errors.ExperimentTimeout, TimeoutError)
    assert issubclass(errors.NonFiniteLogits, ArithmeticError)


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (UncompletedJobError("SLURM did not take the job back"), True),
        (KeyboardInterrupt(), True),
        (SystemExit(1), True),
        (Interrupted(15), True),
        (RuntimeError("bug"), False),
        (MemoryError(), False),
    ],
)
def test_errors_that_end_the_process(error, ends):
    assert ends_process(error) == ends
