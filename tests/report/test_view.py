"""`sah view`: the served page follows the results, and answers this machine alone."""

import http.client
import re
import signal
from contextlib import nullcontext

import orjson
import pytest

from sah.cli import view
from sah.cli.view import make_parser
from sah.errors import Interrupted, SahError
from sah.report.html.live import BuiltPage, LivePage, Snapshot
from sah.report.html.server import PageServer
from sah.results.claim import Claim
from sah.results.store import write_error


def ask(server, path="/", host="localhost:1", method="GET"):
    """Return status and text of an answer."""
    connection = http.client.HTTPConnection(*server.server_address)
    connection.request(method, path, headers={"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def state(server):
    return orjson.loads(ask(server, "/state.json")[1])


def version(page):
    return re.search(r'<html lang="en" data-version="(\w+)">', page)[1]


def test_a_new_result_is_in_the_next_page_and_changes_the_version(write_result, root, serve):
    write_result("dense")
    with serve(root, "--title", "Mine") as server:
        first, before = ask(server)[1], state(server)
        assert before == {"version": version(first), "counts": ["1 done"], "problems": []}
        assert "<h1>Mine</h1>" in first
        assert '"attention":"quest"' not in first
        write_result("quest")
        after = state(server)
        assert after["counts"] == ["2 done"]
        second = ask(server)[1]
        assert version(second) == after["version"] != before["version"]
        assert '"attention":"quest"' in second


def test_a_page_of_unchanged_results_is_not_built_again(write_result, root, serve, monkeypatch):
    folder, built = write_result("dense"), []
    monkeypatch.setattr(
        "sah.report.html.page.render_page",
        lambda results, *_, **options: built.append(len(results)) or options["version"],
    )
    with serve(root) as server:
        pages = {ask(server)[1] for _ in range(3)}
        assert (len(pages), built) == (1, [1])
        (folder / "results.json").touch()
        assert ask(server)[1] not in pages
        assert built == [1, 1]


def test_states_are_counted_as_in_status_and_failures_have_their_reason(write_result, root, serve):
    write_result("dense")
    running_one, failed = root / "a" / "b" / "c" / ("0" * 12), root / "a" / "b" / "c" / ("1" * 12)
    for folder in (running_one, failed):
        folder.mkdir(parents=True)
        for name in ("config.yaml", "overrides.yaml"):
            (folder / name).write_text("[]")
    write_error(failed, "gpu_out_of_memory", "OutOfMemory", "CUDA out of memory", "")
    with Claim(running_one), serve(root) as server:
        found = state(server)
        assert found["counts"][0] == "1 done, 1 running, 1 failed"
        assert found["problems"][0] == "gpu_out_of_memory: CUDA out of memory"


def test_a_folder_without_results_waits_for_the_first_one(write_result, root, serve):
    root.mkdir()
    with serve(root) as server:
        waiting = ask(server)[1]
        assert "No experiment has a result yet." in waiting
        assert state(server)["counts"] == ["no experiments yet"]
        write_result("dense")
        assert state(server)["version"] != version(waiting)
        assert '"attention":"dense"' in ask(server)[1]


def test_a_damaged_result_is_named_and_the_others_are_shown(write_result, root, serve, capsys):
    write_result("dense")
    damaged = write_result("quest")
    (damaged / "results.json").write_text("{")
    with serve(root) as server:
        for _ in range(2):
            page = ask(server)[1]
            assert '"attention":"dense"' in page
            assert '"attention":"quest"' not in page
        (problem,) = state(server)["problems"]
        assert str(damaged / "results.json") in problem
    assert capsys.readouterr().err.count(str(damaged)) == 1


def test_a_page_without_a_whole_result_says_so(write_result, root, serve):
    (write_result("dense") / "predictions.jsonl").write_text("{")
    with serve(root) as server:
        assert "every result was left out; the warnings say why" in ask(server)[1]
        assert "predictions.jsonl" in state(server)["problems"][0]


def test_conditions_choose_results_and_counts(write_result, root, serve):
    write_result("dense")
    write_result("quest")
    with serve(root, "--where", "attention=quest") as server:
        assert state(server)["counts"] == ["1 done"]
        assert '"attention":"dense"' not in ask(server)[1]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:1", "localhost.evil.example", ""])
@pytest.mark.parametrize("path", ["/", "/state.json"])
def test_the_name_of_another_host_is_refused(host, path, write_result, root, serve):
    write_result("dense")
    with serve(root) as server:
        status, text = ask(server, path, host=host)
        assert status == 403
        assert f"{host!r} is not this machine; open http://127.0.0.1:{server.server_port}/" in text


def test_only_the_page_and_its_state_are_answered(write_result, root, serve):
    write_result("dense")
    with serve(root) as server:
        for path in ("/results.json", "/../etc/passwd", "/?x", "/state.json/"):
            assert ask(server, path)[0] == 404
        for host in ("127.0.0.1:1", "localhost", "[::1]:80"):
            assert ask(server, "/state.json", host=host)[0] == 200
        assert ask(server, method="HEAD") == (200, "")
        assert ask(server, method="POST")[0] == 501
        assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "'nowhere' is not a folder; start a sweep first, or give another one"),
        (["outputs", "--where", "colour=red"], "no experiment has the key 'colour'"),
        (["outputs", "--by", "colour"], "no experiment has the key 'colour'"),
    ],
)
def test_wrong_arguments_are_refused_before_a_port_is_open(
    arguments, message, write_result, root, monkeypatch
):
    write_result("dense")
    monkeypatch.chdir(root.parent)
    with pytest.raises(SystemExit, match=message):
        view.main(arguments)


def test_a_taken_port_is_refused(write_result, root, serve):
    write_result("dense")
    with serve(root) as server:
        port = str(server.server_port)
        with pytest.raises(SystemExit, match=f"port {port} cannot be opened: "):
            view.main([str(root), "--port", port])


@pytest.mark.parametrize(
    ("number", "ends"),
    [(signal.SIGINT, nullcontext()), (signal.SIGTERM, pytest.raises(Interrupted))],
)
def test_ctrl_c_ends_it_without_an_error(number, ends, write_result, root, monkeypatch, capsys):
    def interrupt(server):
        raise Interrupted(number)

    write_result("dense")
    monkeypatch.setattr(PageServer, "serve_forever", interrupt)
    with ends:
        view.main([str(root)])
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_what_is_not_a_port_is_refused(port, capsys):
    with pytest.raises(SystemExit):
        make_parser().parse([f"--port={port}"])
    assert f"'{port}' is not a port, which is 0 to 65535" in capsys.readouterr().err


def test_builds_and_readings_pause_as_a_multiple_of_the_time_they_took():
    """With a pause that does not end, neither happens twice."""
    calls = []

    def read():
        calls.append("read")
        return Snapshot(version=str(len(calls)), results=[], counts=[], problems=[])

    def build(snapshot):
        calls.append("build")
        return BuiltPage(version=snapshot.version, content="")

    page = LivePage(read, build, pause_seconds=3600)
    for _ in range(3):
        page.content()
        page.state()
    assert calls == ["read", "build"]


def test_what_was_read_last_stays_when_the_folders_cannot_be_read():
    outcomes = iter([Snapshot(version="1", results=[], counts=["1 done"], problems=[])])

    def read():
        for snapshot in outcomes:
            return snapshot
        raise SahError("gone")

    page = LivePage(
        read,
        lambda snapshot: BuiltPage(version="1", content=""),
        pause_seconds=0,
        pause_factor=0,
    )
    assert page.state() == {"version": "1", "counts": ["1 done"], "problems": ["gone"]}
