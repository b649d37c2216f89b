"""A real, private SLURM on this machine: munge, accounting, controller and a node of fake GPUs.

Everything is in a temporary folder, on loopback and free ports, with its own keys; nothing in
/etc is read or written, and every daemon is stopped by its process id.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

GPUS = 4
PROGRAMS = (
    *("munged", "munge", "mariadbd", "slurmdbd", "slurmctld", "slurmd"),
    *("sbatch", "squeue", "scancel", "sacct", "sacctmgr", "sinfo", "srun", "scontrol"),
)
# Daemons are installed where only root's PATH leads.
SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits for cred_expire before it starts again; the minimum is 5.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
PlugStackConfig={folder}/plugstack.conf
MailProg=/bin/true
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
PriorityType=priority/basic
SlurmctldTimeout=5
SlurmdTimeout=6
MessageTimeout=5
KillWait=3
InactiveLimit=0
ReturnToService=2
EnforcePartLimits=ALL
JobRequeue=1
# A job in partition high preempts one in main: first by its own signal, then by a requeue.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting_port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=16 RealMemory=64000 \\
    Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 \\
    PreemptMode=REQUEUE GraceTime=15
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""

ACCOUNTING = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={accounting_port}
SlurmUser={user}
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
"""


class Cluster:
    """The daemons of one cluster in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))
            },
            "PATH": SEARCH_PATH,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(folder / "db.socket"),
            "OMP_NUM_THREADS": "1",
        }
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start everything and wait until the node is idle."""
        ports = _free_ports(3)
        values = {
            "folder": self.folder,
            "host": socket.gethostname().split(".")[0],
            "user": subprocess.check_output(["id", "-un"], text=True).strip(),
            "controller_port": ports[0],
            "accounting_port": ports[1],
            "node_port": ports[2],
            "gpus": GPUS,
        }
        for name in ("state", "spool", "db", "dev"):
            (self.folder / name).mkdir()
        (self.folder / "plugstack.conf").touch()
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
        self._secret("slurmdbd.conf", ACCOUNTING.format(**values).encode())
        self._secret("munge.key", secrets.token_bytes(128))
        for number in range(GPUS):
            # SLURM wants a character device whose name ends in the number of the GPU.
            (self.folder / "dev" / f"gpu{number}").symlink_to("/dev/null")
        gres = f"Name=gpu File={self.folder}/dev/gpu[0-{GPUS - 1}] Flags=nvidia_gpu_env\n"
        (self.folder / "gres.conf").write_text(gres)

        self._daemon(
            "munged",
            *("munged", "--force", "-F", "-S", self.folder / "munge.socket"),
            *(f"--key-file={self.folder}/munge.key", f"--pid-file={self.folder}/munged.pid"),
            *(f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munge.seed"),
        )
        self._database(str(values["user"]))
        self._until(lambda: self.ask("munge", "-S", f"{self.folder}/munge.socket", "-n") != "")
        self._until((self.folder / "db.socket").exists)
        self._daemon("slurmdbd", "slurmdbd", "-D")
        self._until(lambda: self._works("sacctmgr", "-n", "-i", "show", "cluster"))
        self._works("sacctmgr", "-i", "-Q", "add", "cluster", "test")
        self._daemon("slurmctld", "slurmctld", "-D", "-i")
        self._until(lambda: self._works("scontrol", "ping"))
        self.start_node()

    def start_node(self) -> None:
        """Start slurmd and wait until its node is idle."""
        self._daemon("slurmd", "slurmd", "-D", "-N", "n0")
        self._until(lambda: "idle" in self.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%t"))

    def kill_node(self) -> None:
        """Kill slurmd, as a crash would."""
        self._daemons.pop("slurmd").kill()

    def stop(self) -> None:
        """Cancel all jobs and stop every daemon by its process id."""
        self.ask("scancel", "-u", str(os.getuid()))
        while self.ask("squeue", "-h"):
            time.sleep(0.2)
        for name in ("slurmctld", "slurmd", "slurmdbd", "mariadbd", "munged"):
            daemon = self._daemons.pop(name, None)
            if daemon is not None:
                daemon.terminate()
                daemon.wait()
        self._kill_left_over_steps()

    def ask(self, *command: str) -> str:
        """Return the output of a command of this cluster; empty if it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    def jobs(self) -> list[str]:
        """Return the ids of all jobs so far."""
        listed = self.ask("sacct", "-X", "-n", "-P", "-a", "-o", "JobID")
        return [line for line in listed.splitlines() if line]

    def running(self) -> list[str]:
        """Return the ids of the running jobs."""
        return self.ask("squeue", "--array", "-h", "-t", "RUNNING", "-o", "%i").split()

    def _database(self, user: str) -> None:
        options = [
            *("--no-defaults", f"--user={user}", f"--datadir={self.folder}/db"),
            *("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--skip-log-bin"),
        ]
        tables = Path("/usr/share/mysql/mysql_system_tables.sql").read_text()
        subprocess.run(
            ["mariadbd", *options, "--bootstrap"],
            env=self.environment,
            input=f"create database mysql;\nuse mysql;\n{tables}",
            text=True,
            check=True,
            capture_output=True,
        )
        self._daemon(
            *("mariadbd", "mariadbd", *options, "--skip-grant-tables", "--skip-networking"),
            *(f"--socket={self.folder}/db.socket", f"--pid-file={self.folder}/db.pid"),
        )

    def _daemon(self, name: str, *command: str | Path) -> None:
        with open(self.folder / f"{name}.out", "ab") as output:
            self._daemons[name] = subprocess.Popen(
                [str(part) for part in command],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _secret(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)

    def _works(self, *command: str) -> bool:
        done = subprocess.run(command, env=self.environment, capture_output=True)
        return done.returncode == 0

    def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition; the error of a daemon that has ended shows its log."""
        while not condition():
            for name, daemon in self._daemons.items():
                if daemon.poll() is not None:
                    log = (self.folder / f"{name}.out").read_text(errors="replace")[-1500:]
                    raise RuntimeError(f"{name} has ended with {daemon.returncode}\n{log}")
            time.sleep(0.1)

    def _kill_left_over_steps(self) -> None:
        """Kill what a killed slurmd left: processes with this cluster in their environment."""
        mark = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes()
                name = (folder / "comm").read_text().strip()
            except OSError:
                continue
            is_job = re.search(rb"(^|\0)SLURM_JOB_ID=", environment) is not None
            if mark in environment and (is_job or name == "slurmstepd"):
                os.kill(int(folder.name), signal.SIGKILL)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster; without SLURM an error if SAH_REQUIRE_SLURM is set, else a skip."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]
    if missing:
        reason = f"no SLURM on this machine: {', '.join(missing)} not found"
        if os.environ.get("SAH_REQUIRE_SLURM"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Short, because paths of unix sockets are; private, because the database has no password.
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
