import io
import os
import pickle
import zipfile

import pytest
import torch

from sah.calibration.unpickling import read_tensors
from sah.errors import ConfigurationError

TENSORS = {
    0: {"a": [torch.arange(6.0).view(2, 3)]},
    1: {"a": (torch.ones(2, dtype=torch.bfloat16), torch.nn.Parameter(torch.zeros(1)))},
    # A view: its storage is longer than itself.
    2: {"a": [torch.arange(10)[3:7:2]]},
}


def old_torch_save(value, file):
    torch.save(value, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [torch.save, old_torch_save, pickle.dump])
def test_tensors_come_back(tmp_path, write):
    with open(tmp_path / "file", "wb") as file:
        write(TENSORS, file)
    found = read_tensors(tmp_path / "file")
    assert found.keys() == TENSORS.keys()
    for layer, expected in TENSORS.items():
        for tensor, original in zip(found[layer]["a"], expected["a"], strict=True):
            assert tensor.dtype == original.dtype
            assert tensor.equal(original)


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def nested(value, file):
    """Hide the value in the bytes from which a tensor's storage is loaded."""

    class Storage:
        def __reduce__(self):
            inner = io.BytesIO()
            old_torch_save(value, inner)
            return torch.storage._load_from_bytes, (inner.getvalue(),)

    pickle.dump({0: Storage()}, file)


def through_an_attribute(value, file):
    """Reach os.system as an attribute of a torch module, by a dotted path."""

    def text(content):
        return pickle.SHORT_BINUNICODE + bytes([len(content)]) + content.encode()

    function = text("torch") + text("serialization.os.system") + pickle.STACK_GLOBAL
    call = text(value[0].command) + pickle.TUPLE1 + pickle.REDUCE
    file.write(pickle.PROTO + b"\x04" + function + call + pickle.STOP)


@pytest.mark.parametrize(
    "write", [torch.save, old_torch_save, pickle.dump, nested, through_an_attribute]
)
def test_code_in_a_file_is_not_run(tmp_path, write):
    witness = tmp_path / "was_here"
    with open(tmp_path / "file", "wb") as file:
        write([Runs(f"touch {witness}")], file)
    with pytest.raises(ConfigurationError, match=r"it refers to .+, which is not run"):
        read_tensors(tmp_path / "file")
    assert not witness.exists()


@pytest.mark.parametrize("write", [pickle.dump, through_an_attribute])
def test_an_ordinary_unpickler_runs_the_code(tmp_path, write):
    """Otherwise the test above would prove nothing."""
    witness = tmp_path / "was_here"
    with open(tmp_path / "file", "wb") as file:
        write([Runs(f"touch {witness}")], file)
    pickle.loads((tmp_path / "file").read_bytes())  # noqa: S301
    assert witness.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04.", b"PK\x03\x04", b"\x80\x04\x95"])
def test_bytes_that_are_not_a_pickle_are_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigurationError, match="file is not a file of tensors"):
        read_tensors(tmp_path / "file")


def test_another_zip_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ConfigurationError, match="file is not a file of tensors"):
        read_tensors(tmp_path / "file")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere cannot be read"):
        read_tensors(tmp_path / "nowhere")
