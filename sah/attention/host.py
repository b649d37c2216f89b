"""Whether the host can read a tensor without waiting for a device."""

from torch import Tensor


def holds(tensor: Tensor) -> bool:
    """Return whether the tensor is in the host's memory.

    There the host reads numbers at no cost, NumPy is faster than torch at selection, and exact
    counts make gathering cheaper. On any other device, reading a number waits for all operations
    queued so far; a decode step must do without it, by bounds that the host knows and operations
    of fixed shapes. Every such choice in `sah` asks this function, so that tests can run the
    device's path on the CPU by replacing it.
    """
    return tensor.device.type == "cpu"
