"""A Slurm of this machine's own: munged, slurmctld and two slurmd, in a folder that goes with them."""
import os
import pathlib
import shutil
import socket
import stat
import subprocess
import tempfile
import time

DAEMONS = ("munged", "slurmctld", "slurmd")
NODES = ("n1", "n2")
# Declared, not counted: several jobs that ask for a whole real node are to run at once.
CPUS, GPUS = 256, 32

CONFIG = """
ClusterName=moerun
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={dir}/munge.socket,cred_expire=5
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool.%n
TmpFS={dir}/tmp.%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd.%n.log
SlurmdParameters=config_overrides
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,defer_batch
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
KillWait=5
InactiveLimit=0
ReturnToService=2
NodeName=DEFAULT CPUs={cpus} RealMemory=4000 Gres=gpu:{gpus} State=UNKNOWN
{nodes}
PartitionName=normal Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=100 PreemptMode=OFF
"""


class Unavailable(Exception):
    """Slurm cannot run here; the text says why."""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    def __init__(self):
        if os.geteuid() != 0:
            raise Unavailable("slurmd starts steps as root alone, and this is not root")
        missing = [name for name in (*DAEMONS, "srun", "sbatch") if not shutil.which(name, path=self._path())]
        if missing:
            raise Unavailable(f"not installed: {', '.join(missing)}")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="moerun-slurm-"))
        self.daemons = []
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "OMPI", "PMIX"))}
        # Ranks that wait would take the cores of those that work: this machine has fewer than Slurm believes.
        self.env.update(OMPI_MCA_mpi_yield_when_idle="1", OMP_NUM_THREADS="1",
                        SLURM_CONF=str(self.dir / "slurm.conf"), PATH=self._path())
        try:
            self._start()
        except PermissionError as error:
            self.end()
            raise Unavailable(f"not permitted here: {error}") from error
        except BaseException:
            self.end()
            raise

    @staticmethod
    def _path():
        return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

    def _start(self):
        host = socket.gethostname().split(".")[0]
        ctld_port, *ports = free_ports(1 + len(NODES))
        nodes = "\n".join(f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
                          for name, port in zip(NODES, ports))
        (self.dir / "slurm.conf").write_text(
            CONFIG.format(dir=self.dir, host=host, ctld_port=ctld_port, cpus=CPUS, gpus=GPUS, nodes=nodes))
        # GPUs in name only: the scripts ask for 8 a node, the jobs run on CPUs.
        for gpu in range(GPUS):
            os.mknod(self.dir / f"gpu{gpu}", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        (self.dir / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={self.dir}/gpu[0-{GPUS - 1}]\n")
        (self.dir / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (self.dir / "state").mkdir()
        key = self.dir / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.dir}/munge.socket",
                     f"--pid-file={self.dir}/munge.pid", f"--log-file={self.dir}/munge.log",
                     f"--seed-file={self.dir}/munge.seed")
        self._wait("munged answers", lambda: (self.dir / "munge.socket").exists())
        self._daemon("slurmctld", "-D", "-f", self.env["SLURM_CONF"])
        for name in NODES:
            (self.dir / f"spool.{name}").mkdir()
            (self.dir / f"tmp.{name}").mkdir()
            self._daemon("slurmd", "-D", "-N", name, "-f", self.env["SLURM_CONF"])
        self._wait("both nodes are idle", lambda: self.run("sinfo", "-h", "-o", "%D %t").stdout.split()[:2] ==
                   [str(len(NODES)), "idle"])

    def _daemon(self, name, *arguments):
        log = open(self.dir / f"{name}.{len(self.daemons)}.out", "w")
        self.daemons.append(subprocess.Popen([shutil.which(name, path=self._path()), *arguments], env=self.env,
                                             stdout=log, stderr=subprocess.STDOUT, start_new_session=True))

    def _wait(self, what, condition, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return
            for daemon in self.daemons:
                if daemon.poll() is not None:
                    raise Unavailable(f"{daemon.args[0]} ended by itself: {self._last_words()}")
            time.sleep(0.1)
        raise Unavailable(f"not within {seconds} s: {what}; {self._last_words()}")

    def _last_words(self):
        words = []
        for path in sorted([*self.dir.glob("*.log"), *self.dir.glob("*.out")]):
            lines = [line for line in path.read_text(errors="replace").splitlines() if "error" in line.lower()]
            words += [f"{path.name}: {line}" for line in lines[-2:]]
        return " | ".join(words)

    def run(self, *command, timeout=60, env=None, **options):
        return subprocess.run(command, env={**self.env, **(env or {})}, capture_output=True, text=True, timeout=timeout, **options)

    def end(self):
        if len(self.daemons) > 2:
            self.run("scancel", "--full", "--signal=KILL", "--user=root", timeout=20)
            self.run("scancel", "--user=root", timeout=20)
        for daemon in reversed(self.daemons):  # munged last: the others need it to say goodbye
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
