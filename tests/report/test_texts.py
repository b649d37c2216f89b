"""Names and settings come from files that somebody sent: no format passes on what they contain."""

import csv
import io
import logging
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from sah.cli import compare, report
from sah.report.figures.export import write_figures
from sah.report.html.page import render_page
from sah.report.tables.latex import latex_text
from sah.report.tables.layout import show
from sah.report.tables.markup import render
from sah.report.tables.table import Column, Table, label, number

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HOSTILE = "a\x1b[2Jb\x9bc\u202ed\re\nf\tg"
ESCAPED = r"a\x1b[2Jb\x9bc\u202ed\re\nf\tg"
SHOWN = {
    "table": ESCAPED,
    "md": ESCAPED.replace("\\", r"\\").replace("[", r"\["),
    "csv": ESCAPED,
    "latex": ESCAPED.replace("\\", r"\textbackslash{}"),
}


def cells(*texts, caption="", notes=()):
    """Return a table with one column of texts."""
    column = Column(name="name", header="name", numeric=False)
    return Table(
        columns=[column], rows=[[label(text)] for text in texts], caption=caption, notes=notes
    )


def written(table, text_format):
    """Return the table in a format, as a file contains it."""
    if text_format != "table":
        return render(table, text_format)
    file = io.StringIO()
    show(table, Console(file=file, width=200))
    return file.getvalue()


@pytest.mark.parametrize("text_format", list(SHOWN))
def test_control_characters_of_a_name_are_escaped(text_format):
    content = written(cells(HOSTILE), text_format)
    assert SHOWN[text_format] in content
    assert CONTROLS.sub("", content).replace("\t", "") == content


@pytest.mark.parametrize("text_format", list(SHOWN))
@pytest.mark.parametrize("place", ["model", "benchmark", "subset", "setting", "value", "task"])
def test_control_characters_leave_neither_report_nor_compare(
    write_result, root, capsys, text_format, place
):
    names = {
        "model": {"model": HOSTILE},
        "benchmark": {"benchmark": HOSTILE},
        "subset": {"subset": [HOSTILE]},
        "task": {"tasks": [HOSTILE, "task"]},
    }
    for seed in (1, 2):
        settings = {
            "setting": {HOSTILE: seed},
            "value": {"seed": f"{HOSTILE}{seed}"},
        }.get(place, {"seed": seed})
        for attention in ("dense", "sparse"):
            write_result(attention, settings=settings, **names.get(place, {}))
    report.main([str(root), "--format", text_format])
    report.main([str(root), "--by", "model,subset", "--format", text_format])
    compare.main([str(root), "--per-task", "--format", text_format])
    captured = capsys.readouterr()
    content = captured.out + captured.err
    assert CONTROLS.sub("", content).replace("\t", "") == content
    assert "x1b" in content


def test_control_characters_do_not_leave_with_an_error(tmp_path):
    for command in (report, compare):
        with pytest.raises(SystemExit, match=r"no complete experiment below .*\\x1b") as caught:
            command.main([str(tmp_path / "\x1b[2J")])
        assert "\x1b" not in str(caught.value)


def test_control_characters_do_not_leave_with_the_warning_of_damaged_results(
    write_result, results, root, caplog
):
    write_result("dense")
    broken = root / "m" / "\x1b[2J" / "b" / "f"
    broken.mkdir(parents=True)
    (broken / "results.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        results()
    assert "\\x1b[2J" in caplog.text
    assert "\x1b" not in caplog.text


def test_figures_and_page_show_control_characters_as_escapes(write_result, results, tmp_path):
    for name in ("dense", "spar\x1bse\u202e"):
        write_result(name, subset=["on\x9be"], tasks=["ta\x1bsk", "b"])
    files = [path for path in write_figures(results(), tmp_path) if path.suffix == ".svg"]
    contents = [path.read_text(encoding="utf-8") for path in files]
    for content in contents:
        ET.fromstring(content)  # XML 1.0 forbids control characters.
    assert any(r"spar\x1bse\u202e" in content for content in contents)
    assert any(r"ta\x1bsk" in content for content in contents)
    for content in (*contents, render_page(results())):
        assert CONTROLS.sub("", content) == content


def test_a_line_end_in_a_caption_does_not_end_a_latex_comment():
    endings = ("\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029")
    for ending in endings:
        text = f"model{ending}\\input{{/etc/passwd}}"
        content = render(cells("x", caption=text, notes=[text]), "latex")
        for line in content.splitlines():
            assert "\\input" not in line or line.startswith("% model\\")


@pytest.mark.parametrize("text_format", ["table", "md"])
def test_a_line_end_in_a_caption_or_note_does_not_begin_a_line(text_format):
    content = written(cells("x", caption="a\n# b", notes=["c\n# d"]), text_format)
    assert not any(line.startswith("#") for line in content.splitlines())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|'/c calc'!A1", "'+cmd|'/c calc'!A1"),
        ("-a", "'-a"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", r"'\t=1"),
        ("\rx", r"'\rx"),
        (" =1", "' =1"),
        ("＝1", "'＝1"),
        ("-1+1", "'-1+1"),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        (-0.5, "-0.5"),
        (-3, "-3"),
        (float("-inf"), "-inf"),
        (True, "True"),
        (None, ""),
        ("a=b", "a=b"),
        ("模型 ≈ 😀", "模型 ≈ 😀"),
        (["=1"], "['=1']"),
    ],
)
def test_a_text_in_csv_is_not_a_formula_and_a_number_is_a_number(value, expected):
    rows = list(csv.reader(io.StringIO(render(cells(value), "csv"))))
    assert rows == [["name"], [expected]]


def test_a_setting_as_a_header_in_csv_is_not_a_formula():
    table = Table(columns=[Column(name="=1+1", header="1")], rows=[[number(-1.5)]])
    assert render(table, "csv") == "'=1+1\n-1.5\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<b>&amp;~~x~~", r"\<b\>\&amp;\~\~x\~\~"),
        ("[a](b)", r"\[a\](b)"),
        ("a|b", r"a\|b"),
        ("# a", r"# a"),
    ],
)
def test_markup_in_a_markdown_cell_is_text(text, expected):
    assert f"| {expected} |" in render(cells(text), "md")


def test_a_markdown_header_is_text():
    table = Table(columns=[Column(name="a", header="<b>`x`")], rows=[])
    assert render(table, "md").startswith(r"| \<b\>\`x\` |")


@pytest.mark.parametrize("text", ["# a", "- a", "+ a", "=== a"])
def test_a_markdown_caption_is_a_paragraph(text):
    assert render(cells("x", caption=text), "md").startswith(f"\\{text}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("? n≈1,200", r"? n$\approx$1,200"),
        ("≤ ≥ → × ± −", r"$\leq$ $\geq$ $\rightarrow$ $\times$ $\pm$ $-$"),
        ("α-β Ω µ", r"$\alpha$-$\beta$ $\Omega$ $\mu$"),
        ("é ü ñ ç ş ǎ", r"\'{e} \"{u} \~{n} \c{c} \c{s} \v{a}"),
        ("e\u0301 ï", r"\'{e} \"{\i}"),
        ("ß Ł ø", r"\ss{} \L{} \o{}"),
        ("0–5 — … ‘a’", r"0--5 --- \ldots{} `a'"),
        ('a|b "c"', r"a\textbar{}b \symbol{34}c\symbol{34}"),
        ("a--b ---", r"a-{}-b -{}-{}-"),
        ("中 😀 ð ǘ", "[U+4E2D] [U+1F600] [U+00F0] [U+01D8]"),
        (r"\&%$#_{}~^", r"\textbackslash{}\&\%\$\#\_\{\}\textasciitilde{}\textasciicircum{}"),
    ],
)
def test_latex_prints_the_text(text, expected):
    assert latex_text(text) == expected


# Commands that the format of LaTeX defines for every font encoding.
KNOWN = r"""
    textbackslash textasciitilde textasciicircum textless textgreater textbar symbol ldots
    ss ae AE oe OE o O l L i j S P copyright pounds dag ddag u r H v d c b alpha beta gamma delta
    epsilon zeta eta theta iota kappa lambda mu nu xi pi rho varsigma sigma tau upsilon phi chi psi
    omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega times div pm cdot approx leq
    geq neq equiv sim rightarrow leftarrow leftrightarrow Rightarrow uparrow downarrow infty in surd
    sum prod partial nabla propto cup cap bullet neg ll gg circ
"""
EVERY_CHARACTER = [*map(chr, range(0x3000)), *"中文ﬁ＝\ufeff\ufffd😀", "\ud800"]


def test_latex_of_every_character_is_ascii_with_known_commands_and_balanced_maths():
    for character in EVERY_CHARACTER:
        text = latex_text(character)
        assert text.isascii()
        assert text.isprintable()
        assert set(re.findall(r"\\([A-Za-z]+)", text)) <= set(KNOWN.split())
        bare = re.sub(r"\\[^A-Za-z]", "", text)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") in (0, 2)
        assert not set(bare) & set('#%&"_')


@pytest.mark.parametrize("first", ["[1cm]", "*", "(a)"])
def test_the_first_cell_of_a_row_is_not_an_argument_of_the_line_above(first):
    assert f"\n{{}}{first} \\\\\n" in render(cells(first), "latex")


needs_pdflatex = pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")


def compile_latex(file):
    """Compile a file; fail with the end of the log if LaTeX reports an error."""
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape"]
    done = subprocess.run(
        [*command, "-draftmode", file.name], cwd=file.parent, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


@needs_pdflatex
@pytest.mark.parametrize("encoding", ["", r"\usepackage[T1]{fontenc}"])
def test_latex_compiles_with_pdflatex(tmp_path, encoding):
    texts = [character * 2 for character in EVERY_CHARACTER]
    texts += ["[1cm]", "*", "(a)", HOSTILE, "? n≈1,200"]
    tables = [
        render(
            cells(*texts[start : start + 40], caption=HOSTILE, notes=["a\n\\undefined"]), "latex"
        )
        for start in range(0, len(texts), 40)
    ]
    (tmp_path / "tables.tex").write_text(
        rf"\documentclass{{article}}{encoding}\usepackage{{booktabs,xcolor}}\begin{{document}}"
        + "\n\n".join(["", *tables, r"\end{document}"]),
        encoding="utf-8",
    )
    compile_latex(tmp_path / "tables.tex")


@needs_pdflatex
def test_latex_of_report_and_compare_compiles_with_pdflatex(write_result, root, tmp_path):
    write_result("dense", [1.0, 0.0] * 4, model="模型_é[1]")
    write_result("sparse", [0.0, 1.0] * 4, model="模型_é[1]")
    write_result("dense", model="b#~")
    write_result("sparse", model="b#~")
    report.main([str(root), "--format", "latex", "--output", str(tmp_path / "a.tex")])
    report.main(
        [str(root), "--by", "model", "--format", "latex", "--output", str(tmp_path / "b.tex")]
    )
    compare.main([str(root), "--format", "latex", "--output", str(tmp_path / "c.tex")])
    (tmp_path / "tables.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,xcolor}\begin{document}"
        r"\input{a}\input{b}\input{c}\end{document}"
    )
    compile_latex(tmp_path / "tables.tex")


def test_latex_names_the_packages_it_needs():
    table = cells("x")
    assert "% Needs \\usepackage{booktabs}\n" in render(table, "latex")


@pytest.mark.parametrize("text_format", list(SHOWN))
def test_a_terminal_without_unicode_shows_escapes(write_result, root, monkeypatch, text_format):
    write_result("dense", model="模型")
    written_bytes = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written_bytes, encoding="latin-1"))
    report.main([str(root), "--format", text_format])
    sys.stdout.flush()
    shown = written_bytes.getvalue().decode("latin-1")
    assert (r"\u6a21\u578b" if text_format != "latex" else "dense") in shown
