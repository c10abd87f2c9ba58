"""A real SLURM on one Debian or Ubuntu machine, for tests.

``cluster.py start | stop | status``, as root. Installs what is missing of munge, slurm-wlm
and, with ``--accounting``, slurmdbd and MariaDB; writes /etc/slurm (refused if a slurm.conf
of someone else lies there), starts the daemons beside whatever runs on the machine, with a
key, sockets and ports of its own, and remembers their process ids; ``stop`` ends those and
removes what was written.

Several slurmd of one machine are told apart by name and port; each claims many more cores
than there are, since tests are of scheduling, and GPUs that are only counted.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

STATE = Path("/var/tmp/phenopipe-slurm")
# The executor takes every SLURM_* variable out of a job's environment, SLURM_CONF too, so
# the file has to lie where SLURM looks for it.
CONF = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf", "slurmdbd.conf")
MARK = "# written by the tests of phenopipe"
NODES = ("node1", "node2")
PORT = 26817
DATABASE = PORT + 10
CPUS, GPUS, MEMORY_MB = 64, 4, 512000

SLURM_CONF = """{mark}
ClusterName=phenopipe
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={state}/munge.sock
SlurmctldPort={port}
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.%n.pid
SlurmdSpoolDir={state}/spool.%n
StateSaveLocation={state}/ctld
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0,bf_interval=5
SlurmdParameters=config_overrides
GresTypes=gpu
JobRequeue=1
ReturnToService=2
MinJobAge=300
KillWait=20
SlurmctldTimeout=30
SlurmdTimeout=300
DefMemPerCPU=500
MpiDefault=none
SwitchType=switch/none
{accounting}
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=7-00:00:00 State=UP
"""
ACCOUNTING = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={port}
AccountingStorageTRES=gres/gpu
AccountingStoragePass={state}/munge.sock"""
SLURMDBD_CONF = """{mark}
AuthType=auth/munge
AuthInfo=socket={state}/munge.sock
DbdHost=localhost
DbdPort={port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=phenopipe
PidFile={state}/slurmdbd.pid
"""
SQL = """create database if not exists phenopipe;
create user if not exists slurm@'127.0.0.1' identified by 'slurm';
create user if not exists slurm@localhost identified by 'slurm';
grant all on phenopipe.* to slurm@'127.0.0.1';
grant all on phenopipe.* to slurm@localhost;"""


def install(packages):
    """Install the packages that are missing, without starting their services."""

    def there(name):
        done = subprocess.run(["dpkg", "-s", name], capture_output=True, text=True)
        return "install ok installed" in done.stdout

    missing = [name for name in packages if not there(name)]
    if not missing:
        return
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    command = [*apt, "install", "-y", "--no-install-recommends", *missing]
    try:
        # A list that cannot be fetched may be of a repository that has none of these.
        subprocess.run([*apt, "update"], env=env)
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    finally:
        if ours:
            policy.unlink()
    if done.returncode:
        sys.exit(f"{done.stdout[-3000:]}{done.stderr[-3000:]}\nerror: {' '.join(command)}")


def since(pid):
    """When a process started, in ticks of the kernel: a number may be given out again."""
    with contextlib.suppress(OSError):
        # The name in brackets may have blanks.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return None


def launch(name, *command):
    """Start a daemon in the foreground of a session of its own; its id is written down."""
    log = (STATE / "log" / f"{name}.log").open("ab")
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    write_down({**started(), name: [process.pid, since(process.pid)]})


def started():
    """Ids of the daemons and when they started, oldest first."""
    path = STATE / "pids.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write_down(pids):
    """Keep the ids of the daemons."""
    (STATE / "pids.json").write_text(json.dumps(pids))


def wait_for(what, seconds, *command):
    """Wait until a command succeeds."""
    until = time.monotonic() + seconds
    while subprocess.run(list(map(str, command)), capture_output=True).returncode:
        if time.monotonic() > until:
            sys.exit(f"error: {what} did not come up in {seconds} s, see {STATE}/log")
        time.sleep(0.2)


def configure(accounting):
    """Write the files of /etc/slurm."""
    for conf in (CONF / name for name in FILES):
        if conf.exists() and not conf.read_text().startswith(MARK):
            sys.exit(f"error: {conf} is not of these tests; wanted a machine without a SLURM")
    facts = {"mark": MARK, "state": STATE, "host": socket.gethostname().split(".")[0]}
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={facts['host']} NodeAddr=127.0.0.1 "
        f"Port={PORT + 100 + number} CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:{GPUS}"
        for number, name in enumerate(NODES)
    )
    told = ACCOUNTING.format(**facts, port=PORT + 2) if accounting else ""
    CONF.mkdir(exist_ok=True)
    (CONF / "slurm.conf").write_text(
        SLURM_CONF.format(**facts, port=PORT, nodes=nodes, accounting=told)
    )
    for number in range(GPUS):
        (STATE / f"gpu{number}").touch()
    gpus = f"{MARK}\nName=gpu File={STATE}/gpu[0-{GPUS - 1}]\n"
    (CONF / "gres.conf").write_text(gpus)
    if accounting:
        path = CONF / "slurmdbd.conf"
        path.touch(mode=0o600)
        path.write_text(SLURMDBD_CONF.format(**facts, port=PORT + 2, database=DATABASE))


def start_accounting():
    """Start MariaDB and slurmdbd."""
    data, sock = STATE / "mysql", STATE / "mysql.sock"
    command = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}"]
    command.append("--auth-root-authentication-method=normal")
    subprocess.run(command, check=True, capture_output=True)
    flags = [f"--datadir={data}", f"--socket={sock}", f"--port={DATABASE}"]
    flags += ["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M"]
    flags += ["--innodb-lock-wait-timeout=900", f"--pid-file={STATE}/mariadbd.pid"]
    launch("mariadbd", "mariadbd", "--no-defaults", "--user=root", *flags)
    client = ["--no-defaults", f"--socket={sock}", "-uroot"]
    wait_for("MariaDB", 60, "mariadb-admin", *client, "ping")
    subprocess.run(["mariadb", *client, "-e", SQL], check=True)
    launch("slurmdbd", "slurmdbd", "-D")
    wait_for("slurmdbd", 60, "sacctmgr", "-n", "list", "cluster")
    command = ["sacctmgr", "-i", "add", "cluster", "phenopipe"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def start(accounting):
    """Bring up the cluster; a clean one each time."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit("error: a SLURM for tests needs root on Debian or Ubuntu")
    # Where root's shell is not a login, daemons are not on its path.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    stop()
    packages = ["munge", "slurm-wlm"]
    install(packages + (["slurmdbd", "mariadb-server"] if accounting else []))
    for name in ("log", "ctld", *(f"spool.{node}" for node in NODES)):
        (STATE / name).mkdir(parents=True)
    STATE.chmod(0o755)
    configure(accounting)
    key = STATE / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    files = [f"--key-file={key}", f"--socket={STATE}/munge.sock"]
    files += [f"--pid-file={STATE}/munged.pid", f"--log-file={STATE}/log/munge.log"]
    launch("munged", "munged", "-F", "--force", *files, f"--seed-file={STATE}/munge.seed")
    wait_for("munge", 20, "test", "-S", f"{STATE}/munge.sock")
    if accounting:
        start_accounting()
    launch("slurmctld", "slurmctld", "-D")
    wait_for("slurmctld", 30, "scontrol", "ping")
    for node in NODES:
        launch(f"slurmd-{node}", "slurmd", "-D", "-N", node)
    idle = f"[ $(sinfo -h -N -t idle -o %N | wc -l) = {len(NODES)} ]"
    wait_for("slurmd", 60, "bash", "-c", idle)


def tell():
    """Print the ends of the daemons' logs."""
    for log in sorted((STATE / "log").glob("*.log")):
        print(f"--- {log.name}", *log.read_text().splitlines()[-15:], sep="\n", file=sys.stderr)


def end(name):
    """End one daemon by the id that it was started with."""
    pids = started()
    pid, then = pids.pop(name)
    write_down(pids)
    for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
        if since(pid) == then:
            os.kill(pid, number)
        until = time.monotonic() + seconds
        while since(pid) == then and time.monotonic() < until:
            # A child of this process has to be waited for; of another one only looked for.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.1)


def restart(name, *command):
    """End one daemon and start it again."""
    end(name)
    launch(name, *command)


def stop():
    """End what was started, newest first, and remove what was written."""
    pids = started()
    if any(since(pid) == then for name, (pid, then) in pids.items() if name == "slurmctld"):
        # Nodes that end before their jobs would leave them running.
        subprocess.run(["scancel", "--me"], capture_output=True, timeout=60)
        with contextlib.suppress(SystemExit):
            wait_for("an empty queue", 60, "bash", "-c", '[ -z "$(squeue -h)" ]')
    for name in reversed(pids):
        end(name)
    # A slurm.conf without a slurmctld makes every start of Snakemake wait for ten seconds.
    for conf in (CONF / name for name in FILES):
        if conf.exists() and conf.read_text().startswith(MARK):
            conf.unlink()
    shutil.rmtree(STATE, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("start", "stop", "status"))
    parser.add_argument("--accounting", action="store_true", help="with slurmdbd and MariaDB")
    args = parser.parse_args()
    if args.verb == "start":
        try:
            start(args.accounting)
        except BaseException:
            tell()
            stop()
            raise
    elif args.verb == "stop":
        stop()
    else:
        subprocess.run(["sinfo", "-N", "-o", "%N %P %t %c %m %G"], check=True)


if __name__ == "__main__":
    main()
