"""The lab's provisioning, run where Vagrant isn't needed: on two scratch machines of namespaces, joined by a wire."""

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from tests.lab import ROOT, run, sh

# What provisioning writes to, as private copies that are gone with the process.
MOUNTS = """
set -e
folder=$(mktemp -d)
mount -t tmpfs tmpfs $folder
for d in etc var opt usr/local; do
    mkdir -p $folder/$d/upper $folder/$d/work
    mount -t overlay -o lowerdir=/$d,upperdir=$folder/$d/upper,workdir=$folder/$d/work overlay /$d
done
rm -rf /etc/cni /var/lib/cni
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/containers
mount -t tmpfs tmpfs /var/lib/containers # podman's own overlays do not work on this one
umount -l $folder
rmdir $folder
echo ready
exec sleep infinity
"""


class Machine:
    """Number n of the lab's machines, with eth1 at 192.168.56.1n."""

    def __init__(self, number: int, netns: str) -> None:
        self.number = number
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", netns, "unshare", "--mount", "--propagation", "private", "bash", "-c", MOUNTS],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def run(self, *argv: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return run("nsenter", "-t", str(self.process.pid), "-m", "-n", *argv, check=check, stdin=subprocess.DEVNULL)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    tag = uuid.uuid4().hex[:8]
    names = [f"lab{n}-{tag}" for n in (1, 2)]
    with contextlib.ExitStack() as stack:
        for name in names:
            sh("ip", "netns", "add", name)
            stack.callback(sh, "ip", "netns", "del", name)
        sh("ip", "-n", names[0], "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", names[1])
        for n, name in enumerate(names, 1):
            sh("ip", "-n", name, "link", "set", "lo", "up")
            sh("ip", "-n", name, "addr", "add", f"192.168.56.1{n}/24", "dev", "eth1")
            sh("ip", "-n", name, "link", "set", "eth1", "up")
        made = []
        for n, name in enumerate(names, 1):
            made.append(Machine(n, name))
            stack.callback(made[-1].end)
        yield made


def test_pods_of_two_machines_reach_each_other(machines: list[Machine]) -> None:
    """After the very script that `vagrant up` runs, run twice; and the container engine knows the network."""
    addresses = []
    for machine in machines:
        for _ in range(2):
            machine.run(str(ROOT / "vagrant" / "provision"), str(machine.number), "1", "2")
        assert "ip -n blue addr add" in machine.run("ipcni", "explain", "--netns", "blue").stdout
        result = json.loads(machine.run("ipcni", "run", "ADD", "cbr0", "--netns", "blue").stdout)
        (address,) = [ip["address"].partition("/")[0] for ip in result["ips"]]
        assert address.startswith(f"10.244.{machine.number}.")
        addresses.append(address)
        assert machine.run("podman", "info", "-f", "{{.Host.NetworkBackend}}").stdout.strip() == "cni"
        assert "cbr0" in machine.run("podman", "network", "ls", "--format", "{{.Name}}").stdout.split()
    for machine, other in zip(machines, reversed(addresses), strict=True):
        machine.run("ip", "netns", "exec", "blue", "ping", "-c", "1", "-W", "3", other)
        assert machine.run("ipcni", "journal").stdout.count("ip -n blue")
    for machine in machines:
        machine.run("ipcni", "run", "DEL", "cbr0", "blue")
        assert not machine.run("ip", "-o", "link", "show", "type", "veth", "master", "cni0").stdout
    assert not os.path.exists("/etc/cni/net.d/10-flannel.conflist"), "of this machine nothing is touched"
