"""The screen of `sah` and `sah --help`, and `sah --version`. Standard library only."""

from sah import __version__

COMMANDS = {
    "set up": {
        "help": "explain an option, a group or a key: sah help quest",
        "benchmarks": "list the benchmarks, their subsets and their data",
        "doctor": "check model, prompts, memory and files before a sweep",
        "fetch": "download a model and a data set for offline nodes",
        "calibrate": "fit a method to a model",
        "convert": "convert the published weights of a method",
    },
    "run": {
        "plan": "show jobs, tokens, memory and hours of a sweep before it starts",
        "match": "find the budgets at which methods hold or read the same",
        "run": "run an experiment, or a sweep with -m; same as python run.py",
        "work": "compute what is left of a sweep, beside other workers",
        "status": "show what is done, running and failed, and the time left",
    },
    "read results": {
        "report": "scores, densities and costs: table, CSV, LaTeX, HTML, figures",
        "view": "serve the HTML page on this machine; it follows a running sweep",
        "compare": "differences from a baseline, with intervals and tests",
        "rescore": "score stored answers again, without the model",
        "track": "send results to MLflow, Weights & Biases, TensorBoard, Trackio",
    },
    "shell": {"completion": "print the completion script for bash, zsh or fish"},
}
"""Every subcommand, with what it does, in sections.

Each is the module of its name in sah.cli, with `make_parser()` and `main(arguments)`.
"""

SUBCOMMANDS = tuple(name for commands in COMMANDS.values() for name in commands)

_EXAMPLES = """
examples:
  sah run model=tiny benchmark=mock attention=quest    # takes seconds
  sah run -m attention=dense,quest,snapkv seed=1,2     # a sweep; again: resumes
  sah compare --baseline attention=dense --pool seed   # are differences real?

`sah COMMAND --help` explains a command, `sah help` lists models, methods and
benchmarks. An override without a command is run: sah attention=quest.

next: sah run model=tiny benchmark=mock"""


def overview() -> str:
    """Return the overview of all commands: one screen of 80 columns."""
    lines = [
        f"SAH {__version__}: sparse-attention and KV-cache experiments, composed with Hydra",
        "",
        "usage: sah COMMAND ...",
    ]
    for section, commands in COMMANDS.items():
        lines += ["", f"{section}:"]
        lines += [f"  {name:<12}{text}" for name, text in commands.items()]
    return "\n".join(lines) + "\n" + _EXAMPLES + "\n"


def versions() -> str:
    """Return the version of SAH, and on a second line those of what decides its numbers."""
    names = ("torch", "transformers", "hydra-core")
    return f"sah {__version__}\n{', '.join(f'{name} {_version(name)}' for name in names)}\n"


def _version(package: str) -> str:
    # Takes as long to import as the rest of the screen.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
