"""Runs command lines of run.py, each in a process forked from one that has imported everything.

Reads a JSON list of arguments per line, writes what became of it: status, output, and every file
that is there afterwards. Importing torch and transformers for each would take three seconds.
"""

import json
import os
import resource
import sys
import tempfile
from pathlib import Path

SECONDS = 60
BYTES = 8 * 2**30


def main() -> None:
    import transformers  # noqa: F401 - for the children

    from sah.cli import main  # noqa: F401
    from sah.execution import attempts  # noqa: F401
    from sah.models import tiny  # noqa: F401

    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder, "home")
            home.mkdir()
            status = run(json.loads(line), home, Path(folder, "said"))
            report = {
                "status": status,
                "said": Path(folder, "said").read_text(encoding="utf-8", errors="replace"),
                "files": contents(Path(folder)),
            }
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()


def run(arguments: list[str], home: Path, said: Path) -> int:
    """Run it in a child; the exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        os.chdir(home)
        to = os.open(said, os.O_WRONLY | os.O_CREAT, 0o600)
        for stream in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDONLY) if stream == 0 else to, stream)
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        sys.argv = ["run.py", *arguments]
        os._exit(ended())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ended() -> int:
    """Run the command line as the interpreter would, and the status it would end with."""
    from sah.cli.main import main

    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # noqa: BLE001 - printed, as the interpreter would
        sys.excepthook(*sys.exc_info())
        status = 1
    else:
        status = 0
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def contents(folder: Path) -> dict[str, str]:
    """Every file below the folder; the text of configurations and results."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        if path.name in ("config.yaml", "results.json", "error.json")
        else ""
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    main()
