"""A network with a DHCP server on a scratch node, and daemons of either suite: for tests of the dhcp plugin."""

import contextlib
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.lab import BIN, Node, Pod, sh

MASK = "255.255.255.0"


def wait_for(happened: Callable[[], Any], seconds: float = 10) -> Any:
    """What `happened` returns as soon as that is something."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)
    return found


class Server:
    """dnsmasq on the bridge `lan` of a node, which has 192.168.1.1."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._leases = node.folder / "dnsmasq.leases"
        self._log = node.folder / "dnsmasq.log"
        self._process: subprocess.Popen[bytes] | None = None
        for command in (
            "link add lan type bridge",
            "addr add 192.168.1.1/24 dev lan",
            "link set lan up",
        ):
            sh("ip", "-n", node.name, *command.split())

    def start(self, *options: str, pool: str = f"192.168.1.5,192.168.1.50,{MASK},1h") -> None:
        command = ["dnsmasq", "-C", "/dev/null", "--keep-in-foreground", "--no-ping", "--port=0", "--interface=lan"]
        command += ["--bind-interfaces", "--dhcp-sequential-ip", f"--dhcp-range={pool}", f"--dhcp-leasefile={self._leases}"]
        command += ["--log-dhcp", f"--log-facility={self._log}", "--user=root", f"--pid-file={self.node.folder}/dnsmasq.pid"]
        self._process = subprocess.Popen(["ip", "netns", "exec", self.node.name, *command, *options])
        wait_for(lambda: "DHCP, IP range" in self.log)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None
            self._log.unlink(missing_ok=True)

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    @property
    def leases(self) -> dict[str, str]:
        """Address to client identifier, as text."""
        lines = self._leases.read_text().splitlines() if self._leases.exists() else []
        words = [line.split() for line in lines if not line.startswith("duid")]
        return {each[2]: bytes.fromhex(each[4].replace(":", "")[2:]).decode() if ":" in each[4] else "" for each in words}

    def settled(self, leases: dict[str, str]) -> None:
        """Waits until these are the leases: nobody tells when the server has read a release."""
        wait_for(lambda: self.leases == leases, 3)


class Daemon:
    """`dhcp daemon` of a suite on a node."""

    def __init__(self, node: Node, *options: str, bin_dir: pathlib.Path = BIN) -> None:
        self.node, self.options, self.bin_dir = node, options, bin_dir
        self.socket = str(node.folder / "cni" / "dhcp.sock")
        self.stderr = node.folder / "daemon.log"
        self.start()

    def start(self) -> None:
        with self.stderr.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "/usr/sbin/ip",
                    "netns",
                    "exec",
                    self.node.name,
                    self.bin_dir / "dhcp",
                    "daemon",
                    "-socketpath",
                    self.socket,
                    *self.options,
                ],
                env=self.node.env,
                stderr=log,
            )
        wait_for(self._listens)

    def _listens(self) -> bool:
        """A socket that a killed one left does not."""
        assert self.process.poll() is None, self.said
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.socket) == 0

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)

    @property
    def said(self) -> str:
        return self.stderr.read_text()


def conf(daemon: Daemon | str, **ipam: Any) -> dict[str, Any]:
    """The IPAM plugin called by itself."""
    socket = daemon if isinstance(daemon, str) else daemon.socket
    return {
        "cniVersion": "1.1.0",
        "name": "lan",
        "type": "dhcp",
        "ipam": {"type": "dhcp", "daemonSocketPath": socket, **ipam},
    }


def bridge(daemon: Daemon | str, **ipam: Any) -> dict[str, Any]:
    """A pod on the server's wire."""
    return {**conf(daemon, **ipam), "type": "bridge", "bridge": "lan"}


def wired(node: Node, ifname: str = "eth0", pod: Pod | None = None) -> Pod:
    """A pod with a link on the server's wire that nobody has configured."""
    pod = pod or node.pod()
    end = f"{ifname}-{len(node.pods)}"
    sh("ip", "-n", node.name, "link", "add", end, "type", "veth", "peer", "name", ifname, "netns", pod.name)
    sh("ip", "-n", node.name, "link", "set", end, "master", "lan", "up")
    return pod


def clients(pod: Pod) -> list[str]:
    """The command lines of what runs in a pod. What has just ended has none."""
    found = []
    for number in sh("ip", "netns", "pids", pod.name).split():
        with contextlib.suppress(OSError):
            found.append(pathlib.Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return [line for line in found if line]


@contextlib.contextmanager
def served(node: Node, *options: str, **keys: Any) -> Iterator[Server]:
    """A server, and its end."""
    server = Server(node)
    server.start(*options, **keys)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running(node: Node, *options: str, bin_dir: pathlib.Path = BIN) -> Iterator[Daemon]:
    """A daemon, and its end."""
    daemon = Daemon(node, *options, bin_dir=bin_dir)
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.stop()
