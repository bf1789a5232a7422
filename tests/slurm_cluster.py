"""A real Slurm of one machine, without accounting: munged, slurmctld and slurmd by hand."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=5,bf_interval=5
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def reason_to_skip():
    """Why there can be no cluster here; empty if there can."""
    os.environ["PATH"] += ":/usr/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"no {missing[0]} here: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "slurmd needs root"


@contextmanager
def cluster(folder, cpus=2):
    """Start a cluster; yield the environment of its users; end all of its processes."""
    host = socket.gethostname().partition(".")[0]
    folder.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    values = {"host": host, "folder": folder, "cpus": cpus}
    ports = dict(zip(("controller_port", "node_port"), _free_ports(2), strict=True))
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(**values, **ports))
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    munge = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket"]
    munge += [f"--key-file={key}", f"--pid-file={folder}/munge.pid"]
    munge += [f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munge.log"]
    commands = [
        munge,
        ["slurmctld", "-D", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration)],
    ]
    daemons = []
    try:
        for command in commands:
            log = (folder / f"{command[0]}.log").open("w")
            daemons.append(subprocess.Popen(command, stderr=log, stdout=log, env=environment))
            time.sleep(0.5)
        _await_idle(folder, environment)
        yield environment
    finally:
        with suppress(subprocess.TimeoutExpired):
            _cancel_all(environment)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in processes(configuration):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes(configuration):
    """The processes of a cluster, by the variable that names its configuration."""
    variable = f"SLURM_CONF={configuration}".encode()
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with suppress(OSError):
                if variable in (folder / "environ").read_bytes().split(b"\0"):
                    pids.append(int(folder.name))
    return pids


def _free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _await_idle(folder, environment):
    end = time.monotonic() + 60
    while True:
        command = ["sinfo", "--noheader", "--format=%T"]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True)
        if shown.stdout.strip() == "idle":
            return
        if time.monotonic() > end:
            logs = "\n".join(path.read_text()[-3000:] for path in folder.glob("*.log"))
            raise RuntimeError(f"no Slurm after a minute: {shown.stdout}{shown.stderr}\n{logs}")
        time.sleep(0.5)


def _cancel_all(environment):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        shown = subprocess.run(
            ["squeue", "--noheader"], env=environment, capture_output=True, text=True, timeout=20
        )
        if not shown.stdout.strip():
            return
        subprocess.run(["scancel", "--user=root"], env=environment, timeout=20)
        time.sleep(0.5)
