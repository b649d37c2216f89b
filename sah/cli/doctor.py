"""`sah doctor OVERRIDES`: check whether an experiment is ready for a sweep."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

import orjson
from rich.console import Console
from rich.text import Text

from sah.cli.arguments.parser import Parser
from sah.doctor.finding import Finding
from sah.terminal import next_command, plain

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "doctor",
        "Check tracker, prompts, model, attention, memory and files before a sweep. Takes the "
        "overrides of the experiment, and uses only files on this machine; only a tracker's "
        "server is asked whether it answers.",
        examples=[
            "doctor model=llama benchmark=longbench attention=quest",
            "doctor model=llama attention=snapkv --arms 8",
        ],
        then="`sah run -m …` with the same overrides, once there is no error; `sah fetch` "
        "downloads missing files",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="overrides, as for `sah run`"
    )
    parser.add_argument(
        "--arms",
        type=int,
        default=1,
        metavar="N",
        help="attentions that share the model (default: 1)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand; exit with status 1 if there is an error, and 0 otherwise."""
    parser = make_parser()
    options = parser.parse(arguments)
    if options.arms < 1:
        parser.error(f"--arms must be at least 1, got {options.arms}")
    # Set before huggingface_hub is imported: the doctor checks whether all files are here.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from sah.doctor.examination import examine
    from sah.execution.progress import quiet_libraries

    quiet_libraries()
    findings = examine(options.overrides, options.arms)
    if options.json:
        text = orjson.dumps([asdict(one) for one in findings], option=orjson.OPT_INDENT_2)
        sys.stdout.write(text.decode() + "\n")
    else:
        show(findings, Console())
        sys.stdout.write("\n" + _next_step(findings, options.overrides))
    if any(finding.status == "error" for finding in findings):
        sys.exit(1)


def _next_step(findings: Sequence[Finding], overrides: Sequence[str]) -> str:
    if any(finding.status == "error" for finding in findings):
        return next_command("sah", "doctor", *overrides, remark="again, without the errors above")
    return next_command("sah", "run", *overrides)


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print each finding as a paragraph, wrapped and indented to the console's width."""
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        head = f"{finding.status:7}  {finding.check:{width}}  "
        text = finding.message + (f"\n→ {finding.advice}" if finding.advice else "")
        lines = [
            line
            for part in plain(text).splitlines()
            for line in Text(part).wrap(console, max(20, console.width - len(head)))
        ]
        for number, line in enumerate(lines):
            shown = Text(head if number == 0 else " " * len(head)).append_text(line)
            shown.rstrip()
            shown.stylize(_STYLES[finding.status], 0, 7)
            console.print(shown, highlight=False, soft_wrap=True)
