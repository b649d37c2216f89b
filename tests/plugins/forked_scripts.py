"""The fixture `script`: runs a shell script whose `sah` and `python FILE` are forks."""

import json
import os
import socketserver
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked_runs import Runs

CLIENT = """#!{python} -IS
import json, os, socket, sys
program, *arguments = sys.argv
name = os.path.basename(program)
request = dict(
    program=arguments.pop(0) if name == "python" else name, arguments=arguments,
    folder=os.getcwd(), environment=dict(os.environ), process=os.getpid(),
)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    connection.sendall(json.dumps(request).encode() + b"\\n")
    sys.exit(int(connection.makefile().readline()))
"""


class _Handler(socketserver.StreamRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        descriptors = f"/proc/{request['process']}/fd"
        status = self.server.runs.run(
            Path(request["folder"]),
            *request["arguments"],
            program=request["program"],
            log=Path(descriptors, "1"),
            errors=Path(descriptors, "2"),
            environment=request["environment"],
        )
        # As a shell shows a process that a signal ended.
        self.wfile.write(f"{status if status >= 0 else 128 - status}\n".encode())


class _Server(socketserver.UnixStreamServer):
    def __init__(self, address: str, runs: Runs) -> None:
        super().__init__(address, _Handler)
        self.runs = runs


@pytest.fixture
def script(
    runs: Runs, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run a shell script in tmp_path; its output has stdout and stderr in their order.

    Like `bash -eu FILE`; `environment` adds to the environment. The script ends at the first
    command that fails, and runs one command at a time.
    """
    programs = tmp_path_factory.mktemp("bin")
    # Paths of unix sockets are short.
    address = f"\0sah-test-{os.getpid()}-{programs.name}"
    for name in ("sah", "python"):
        path = programs / name
        path.write_text(CLIENT.format(python=sys.executable, address=address))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def call(
        path: Path, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        whole = {**os.environ, "COLUMNS": "80", **(environment or {})}
        return subprocess.run(
            ["bash", "-eu", str(path)],
            cwd=tmp_path,
            env={**whole, "PATH": f"{programs}{os.pathsep}{whole['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    with _Server(address, runs) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield call
        finally:
            server.shutdown()
            thread.join()
