"""The process that jobs are forked from stays one that can be forked."""

import subprocess
import sys

UNTOUCHED = """
import threading

import torch

def refuse(*_, **__):
    raise AssertionError("a device was touched")

torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = refuse

from sah.launching.processes.fork_server import import_heavy

import_heavy()
assert not torch.cuda.is_initialized()
assert threading.active_count() == 1, threading.enumerate()
"""


def test_its_imports_touch_no_device_and_start_no_thread():
    done = subprocess.run([sys.executable, "-c", UNTOUCHED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
