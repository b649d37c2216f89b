import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sah.errors import Busy
from sah.results import claim as claim_module
from sah.results.claim import Claim, read_claim

# Claims a directory once a file exists, says so, and holds it until a line arrives.
HOLDER = """
import sys
from pathlib import Path
from sah.errors import Busy
from sah.results.claim import Claim

print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    pass
try:
    with Claim(Path(sys.argv[1])) as claim:
        print("claimed", flush=True)
        sys.stdin.readline()
        claim.check()
        print("held", flush=True)
except Busy as error:
    print("busy", error, flush=True)
"""


def is_alive(folder):
    claim = read_claim(folder)
    return None if claim is None else claim.alive


@pytest.fixture
def start():
    """Start processes that claim a directory; those still alive end with the test."""
    started = []

    def begin(folder, *, once=Path("/")):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), str(once)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def put_claim(tmp_path):
    """Write the claim file of another process, with a heartbeat of the given age in seconds."""

    def put(seconds_ago=0.0, **holder):
        path = tmp_path / ".claim"
        path.write_text(json.dumps({"token": "another", "pid": os.getpid(), **holder}))
        then = time.time() - seconds_ago
        os.utime(path, (then, then))
        return path

    return put


def my_start_time():
    """Field 22 of /proc/self/stat, as proc(5) numbers them."""
    with open("/proc/self/stat") as file:
        return file.read().rpartition(")")[2].split()[22 - 3]


def test_a_claim_is_released_at_the_end(tmp_path):
    with Claim(tmp_path) as claim:
        assert claim.path.exists()
        assert is_alive(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert is_alive(tmp_path) is None


def test_a_claim_is_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), Claim(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_learns_which_process_is_busy(tmp_path, start):
    with Claim(tmp_path) as claim:
        answer = start(tmp_path).stdout.readline()
        assert answer.startswith("busy")
        assert f"process {os.getpid()} on {socket.gethostname()}" in answer
        claim.check()


def test_a_live_process_keeps_its_claim_regardless_of_its_heartbeat(tmp_path, start):
    process = start(tmp_path)
    assert process.stdout.readline() == "claimed\n"
    os.utime(tmp_path / ".claim", (0, 0))
    with pytest.raises(Busy, match=f"process {process.pid} "), Claim(tmp_path):
        pass
    assert process.communicate("\n")[0] == "held\n"


def test_a_second_claim_of_the_same_process_is_busy_too(tmp_path):
    with Claim(tmp_path) as claim:
        with pytest.raises(Busy), Claim(tmp_path):
            pass
        claim.check()


def test_the_claim_of_a_killed_owner_is_taken_over(tmp_path, start):
    process = start(tmp_path)
    assert process.stdout.readline() == "claimed\n"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert is_alive(tmp_path) is False
    with Claim(tmp_path) as claim:
        claim.check()
    assert list(tmp_path.iterdir()) == []


def test_a_zombie_is_dead(tmp_path, start):
    """Killed, and not waited for by its parent."""
    process = start(tmp_path)
    assert process.stdout.readline() == "claimed\n"
    process.kill()
    # Its end of the pipe closes when the process is gone; `wait` would bury it.
    assert select.select([process.stdout], [], [])[0]
    assert process.stdout.read() == ""
    while is_alive(tmp_path):
        time.sleep(0.01)
    with Claim(tmp_path) as claim:
        claim.check()


def test_a_reused_process_id_is_not_the_owner(tmp_path, put_claim):
    put_claim(host=socket.gethostname(), process_start=f"{int(my_start_time()) - 1}")
    assert is_alive(tmp_path) is False
    with Claim(tmp_path) as claim:
        claim.check()


def test_the_same_process_id_and_start_is_the_owner(tmp_path, put_claim):
    put_claim(host=socket.gethostname(), process_start=my_start_time())
    assert is_alive(tmp_path) is True
    with pytest.raises(Busy), Claim(tmp_path):
        pass


def test_a_fresh_heartbeat_on_another_host_is_alive(tmp_path, put_claim):
    path = put_claim(seconds_ago=100, host="another-host", process_start="1")
    assert is_alive(tmp_path) is True
    with pytest.raises(Busy, match=r"another-host \(last heartbeat 100 s ago\)"):
        Claim(tmp_path).__enter__()
    assert json.loads(path.read_text())["token"] == "another"
    assert list(tmp_path.iterdir()) == [path]


def test_an_old_heartbeat_on_another_host_is_dead(tmp_path, put_claim):
    """Though a process of this host has the same id and start time."""
    put_claim(seconds_ago=1000, host="another-host", process_start=my_start_time())
    assert is_alive(tmp_path) is False
    with Claim(tmp_path) as claim:
        claim.check()


def test_a_link_that_nfs_reports_as_failed_is_recognised(tmp_path, monkeypatch):
    """NFS repeats a request whose reply was lost, and then finds its own link."""
    real = os.link

    def link(source, target):
        real(source, target)
        raise FileExistsError(target)

    monkeypatch.setattr(os, "link", link)
    with Claim(tmp_path) as claim:
        claim.check()


def test_parentheses_in_a_process_name_do_not_hide_the_process(tmp_path, put_claim):
    name = Path("/proc/self/comm")
    before = name.read_text()
    start_time = my_start_time()
    try:
        name.write_text("a) b (c")
        put_claim(host=socket.gethostname(), process_start=start_time)
        assert is_alive(tmp_path) is True
    finally:
        name.write_text(before)


@pytest.mark.parametrize(("seconds_ago", "alive"), [(100, True), (1000, False)])
def test_in_another_container_on_this_host_the_heartbeat_counts(
    seconds_ago, alive, tmp_path, put_claim
):
    """Process ids of another namespace are meaningless here."""
    put_claim(seconds_ago, host=socket.gethostname(), pid_namespace="pid:[1]", process_start="1")
    assert is_alive(tmp_path) is alive


@pytest.mark.parametrize(("seconds_ago", "alive"), [(100, True), (1000, False)])
def test_for_a_process_hidden_in_proc_the_heartbeat_counts(
    seconds_ago, alive, tmp_path, put_claim, monkeypatch
):
    put_claim(seconds_ago, host=socket.gethostname(), process_start="1")
    real = Path.read_text

    def read_text(path, *arguments, **options):
        if path.parts[:3] == ("/", "proc", str(os.getpid())):
            raise FileNotFoundError(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    assert is_alive(tmp_path) is alive


def test_other_processes_see_the_owner(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    before = time.time()
    with Claim(tmp_path):
        view = read_claim(tmp_path)
    assert (view.host, view.pid, view.job, view.device, view.alive) == (
        *(socket.gethostname(), os.getpid(), "17", "3", True),
    )
    assert before <= view.since <= time.time()


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_an_unreadable_claim_is_dead_once_it_is_stale(tmp_path, content):
    """A machine that loses power leaves empty files."""
    path = tmp_path / ".claim"
    path.write_text(content)
    with pytest.raises(Busy):
        Claim(tmp_path).__enter__()
    os.utime(path, (0, 0))
    with Claim(tmp_path) as claim:
        claim.check()


def test_the_heartbeat_keeps_a_claim_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(claim_module, "HEARTBEAT_SECONDS", 0.01)
    with Claim(tmp_path) as claim:
        os.utime(claim.path, (0, 0))
        while claim.path.stat().st_mtime == 0:
            time.sleep(0.01)


def test_a_file_system_that_fails_once_does_not_end_the_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(claim_module, "HEARTBEAT_SECONDS", 0.01)
    real_read, failures = claim_module._read, []

    def read(path):
        if threading.current_thread() is not threading.main_thread() and not failures:
            failures.append(path)
            raise OSError(errno.ESTALE, "Stale file handle")
        return real_read(path)

    monkeypatch.setattr(claim_module, "_read", read)
    with Claim(tmp_path) as claim:
        while not failures:
            time.sleep(0.01)
        os.utime(claim.path, (0, 0))
        while claim.path.stat().st_mtime == 0:
            time.sleep(0.01)


def test_an_owner_that_lost_its_claim_notices_and_leaves_the_new_one(tmp_path, put_claim):
    claim = Claim(tmp_path)
    with claim:
        claim.check()
        path = put_claim(host="another-host")
        with pytest.raises(Busy, match="taken over"):
            claim.check()
    assert json.loads(path.read_text())["token"] == "another"


def test_an_owner_whose_claim_was_deleted_notices(tmp_path):
    with Claim(tmp_path) as claim:
        claim.path.unlink()
        with pytest.raises(Busy):
            claim.check()


def test_a_claim_renewed_while_it_was_taken_over_is_put_back(tmp_path, put_claim, monkeypatch):
    """Another process was faster and renewed the claim between reading and renaming it."""
    put_claim(host="another-host", seconds_ago=1000)
    real_rename = os.rename

    def late_rename(one, other):
        put_claim(host="another-host", token="faster")
        real_rename(one, other)

    monkeypatch.setattr(os, "rename", late_rename)
    with pytest.raises(Busy):
        Claim(tmp_path).__enter__()
    assert json.loads((tmp_path / ".claim").read_text())["token"] == "faster"
    assert [path.name for path in tmp_path.iterdir()] == [".claim"]


def test_only_one_of_several_processes_takes_over(tmp_path, start, put_claim):
    put_claim(seconds_ago=1000, host="another-host")
    racing = [start(tmp_path, once=tmp_path / "go") for _ in range(6)]
    (tmp_path / "go").touch()
    said = [process.stdout.readline() for process in racing]
    # All have claimed or given up by now; who claimed checks again, as before each write.
    ends = [said[n] + process.communicate("\n")[0] for n, process in enumerate(racing)]
    assert sum("held" in end for end in ends) == 1
    assert sum("busy" in end for end in ends) == 5
    assert list(tmp_path.iterdir()) == [tmp_path / "go"]


@pytest.mark.parametrize(
    ("job", "restart", "free"), [("7", "1", True), ("7", "0", False), ("8", "1", False)]
)
def test_a_requeued_job_takes_over_from_its_earlier_start(
    tmp_path, put_claim, monkeypatch, job, restart, free
):
    put_claim(host="another-host", job="7", restart="0")
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    if free:
        with Claim(tmp_path) as claim:
            claim.check()
    else:
        with pytest.raises(Busy):
            Claim(tmp_path).__enter__()


def test_other_processes_see_the_number_of_examples(tmp_path):
    with Claim(tmp_path) as claim:
        assert read_claim(tmp_path).examples is None
        claim.note_examples(12)
        view = read_claim(tmp_path)
        assert (view.examples, view.pid, view.host) == (12, os.getpid(), socket.gethostname())
        claim.check()
    assert list(tmp_path.iterdir()) == []


def test_a_lost_claim_is_not_written_to(tmp_path, put_claim):
    with Claim(tmp_path) as claim:
        path = put_claim(host="another-host")
        with pytest.raises(Busy):
            claim.note_examples(12)
        assert json.loads(path.read_text())["token"] == "another"
        assert list(tmp_path.iterdir()) == [path]
