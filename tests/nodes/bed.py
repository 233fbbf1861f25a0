"""Nodes on one machine: network and UTS namespaces joined by a bridge. Nothing of the machine's own network is touched,
and all of it is gone with the processes that hold the namespaces."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

# What mpirun calls instead of ssh: AGENT NODE COMMAND ...
AGENT = """#!/bin/sh
node=$1
shift
exec nsenter --target "$(cat {dir}/$node.pid)" --net --uts /bin/sh -c "$*"
"""


def address_of(number):
    return f"10.73.0.{number}"


class Unavailable(Exception):
    """Namespaces cannot be made here; the text says why."""


def holder(name):
    """A process that holds a network and a UTS namespace until its standard input is closed."""
    process = subprocess.Popen(["unshare", "--net", "--uts", "sh", "-c", f"hostname {name} && echo ready && exec cat"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if process.stdout.readline().strip() != "ready":
        raise Unavailable(process.communicate()[1].strip() or "unshare says nothing")
    return process


class Bed:
    def __init__(self, nodes):
        self.names = [f"n{i + 1}" for i in range(nodes)]
        self.dir = tempfile.TemporaryDirectory(prefix="moerun-nodes-")
        self.path = pathlib.Path(self.dir.name)
        self.holders = {}
        try:
            self._start()
        except FileNotFoundError as error:
            self.end()
            raise Unavailable(f"{error.filename} is not installed") from error
        except BaseException:
            self.end()
            raise

    def _start(self):
        self.holders["switch"] = holder("switch")
        self.ip("switch", "link add bridge0 type bridge")
        self.ip("switch", "link set bridge0 up")
        for number, name in enumerate(self.names, 1):
            self.holders[name] = holder(name)
            pid = self.holders[name].pid
            (self.path / f"{name}.pid").write_text(str(pid))
            self.ip("switch", f"link add {name} type veth peer name eth0 netns {pid}")
            self.ip("switch", f"link set {name} master bridge0 up")
            self.ip(name, f"address add {address_of(number)}/24 dev eth0")
            self.ip(name, "link set eth0 up")
            self.ip(name, "link set lo up")
        agent = self.path / "agent"
        agent.write_text(AGENT.format(dir=self.path))
        agent.chmod(0o755)
        self.agent = str(agent)

    def ip(self, name, arguments):
        done = subprocess.run(self.inside(name, "ip", *arguments.split()), capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(f"ip {arguments}: {done.stderr.strip()}")

    def inside(self, name, *command):
        return ["nsenter", "--target", str(self.holders[name].pid), "--net", "--uts", *command]

    def set_link(self, name, state):
        """Pulls the node's cable at the switch ("down"), or plugs it in again ("up") and waits until all nodes reach each other."""
        self.ip("switch", f"link set {name} {state}")
        if state == "up":
            for other in self.names:
                if other != name:
                    self.wait_reached(other, name)
                    self.wait_reached(name, other)

    def wait_reached(self, here, there):
        """A port on which nobody listens is refused by a node that is there, and silence or no route says that it is not."""
        address = address_of(self.names.index(there) + 1)
        probe = f"import socket\nsocket.create_connection(({address!r}, 9), timeout=1)"
        end = time.monotonic() + 30
        while time.monotonic() < end:
            done = subprocess.run(self.inside(here, sys.executable, "-c", probe), capture_output=True, text=True)
            if "ConnectionRefusedError" in done.stderr:
                return
            time.sleep(0.1)
        raise AssertionError(f"{here} does not reach {there} 30 s after its link came up: {done.stderr.strip()[-300:]}")

    def processes(self, name):
        """Ids of what runs on a node, but for its holder."""
        here = os.stat(f"/proc/{self.holders[name].pid}/ns/net")
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                at = os.stat(entry / "ns/net")
            except OSError:
                continue  # it ended, or is not ours
            if (at.st_dev, at.st_ino) == (here.st_dev, here.st_ino) and int(entry.name) != self.holders[name].pid:
                found.append(int(entry.name))
        return found

    def clear(self, name):
        """Ends what still runs on a node, as a power cut would."""
        for pid in self.processes(name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        end = time.monotonic() + 5
        while self.processes(name) and time.monotonic() < end:
            time.sleep(0.05)

    def end(self):
        for name in self.holders:
            if name != "switch":
                self.clear(name)
        for process in self.holders.values():
            process.stdin.close()
            process.wait()
            process.stdout.close()
            process.stderr.close()
        self.dir.cleanup()
