"""The suites that are compared, each on a scratch node of its own, and the chains of plugins they run."""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from ipcni import install
from tests.lab import BIN, GO, Node, Pod

Chain = list[dict[str, Any]]
NAMES = ("Go", "one-shot", "warm")
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
LIMITS = {"ingressRate": 10_000_000, "ingressBurst": 8_000_000, "egressRate": 20_000_000, "egressBurst": 1_600_000}


def chains(node: Node, folder: pathlib.Path, *, go: bool) -> dict[str, Chain]:
    """The chains to time, as plugin configs in order. Debian has no Go flannel: on Go's side stands the bridge config it would make."""
    ipam = {"type": "host-local", "dataDir": node.data_dir}
    base = {"cniVersion": "1.0.0", "name": "n"}
    bridge = {**base, "type": "bridge", "bridge": "br1", "isGateway": True, "ipam": {**ipam, "subnet": "10.9.0.0/16"}}
    portmap = {**base, "type": "portmap", "runtimeConfig": {"portMappings": PORTS}}
    flannel = {
        **base,
        "type": "flannel",
        "subnetFile": str(folder / "subnet.env"),
        "dataDir": str(folder / "flannel"),
        "delegate": {"hairpinMode": True, "isDefaultGateway": True},
        "ipam": ipam,
    }
    made_by_flannel = {
        **bridge,
        "bridge": "cni0",
        "hairpinMode": True,
        "isDefaultGateway": True,
        "mtu": 1450,
        "ipMasq": False,
        "ipam": {**ipam, "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "10.244.0.0/16"}]},
    }
    (folder / "subnet.env").write_text(
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )
    tuning = {**base, "type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400, "dataDir": str(folder / "tuning")}
    bandwidth = {**base, "type": "bandwidth", "runtimeConfig": {"bandwidth": LIMITS}}
    firewall = {**base, "type": "firewall"}
    return {
        "loopback": [{**base, "type": "loopback"}],
        "host-local, 250 leases": [{**base, "type": "host-local", "ipam": {**ipam, "subnet": "10.9.0.0/16"}}],
        "bridge": [bridge],
        "bridge + ipMasq": [{**bridge, "ipMasq": True}],
        "ptp + ipMasq": [{**base, "type": "ptp", "ipMasq": True, "ipam": {**ipam, "subnet": "10.9.0.0/16"}}],
        "macvlan": [{**base, "type": "macvlan", "master": "mst", "ipam": {**ipam, "subnet": "10.9.0.0/16"}}],
        "flannel + portmap": [made_by_flannel if go else flannel, portmap],
        "bridge + portmap + bandwidth + firewall + tuning": [bridge, portmap, bandwidth, firewall, tuning],
    }


class Side:
    """One suite on its node: `call` runs chains there."""

    def __init__(self, name: str, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True)
        self.name, self.folder = name, folder
        self.node = Node(folder)
        # On a node /run is in memory, as this is; leases and journal are on the disk.
        self._run_dir = tempfile.TemporaryDirectory(prefix="ipcni-bench-", dir="/dev/shm")
        self.node.env["IPCNI_RUN_DIR"] = self._run_dir.name
        self.node.run("ip", "link", "add", "mst", "type", "veth", "peer", "name", "far")
        for link in ("mst", "far"):
            self.node.run("ip", "link", "set", link, "up")
        self.bin_dir = GO
        self.chains = chains(self.node, folder, go=name == "Go")
        self._numbers = itertools.count()
        self._answers: dict[int, Any] = {}
        self._news = threading.Condition()
        argv = ["ip", "netns", "exec", self.node.name, sys.executable, str(pathlib.Path(__file__).parent / "driver.py")]
        self._driver = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._listen, daemon=True).start()
        if name != "Go":
            self.bin_dir = folder / "bin"
            install.install(str(self.bin_dir))
            socket = str(folder / "serve.sock")
            self.node.env["IPCNI_SOCKET"] = socket
        if name == "warm":
            self.ask("serve", {"argv": [str(BIN / "ipcni"), "serve", "--socket", socket], "env": self.node.env, "socket": socket})

    def _listen(self) -> None:
        assert self._driver.stdout
        for line in self._driver.stdout:
            number, found = json.loads(line)
            with self._news:
                self._answers[number] = found
                self._news.notify_all()

    def ask(self, what: str, asked: Any) -> Any:
        """One request to the driver, and its answer; any number of threads may ask."""
        assert self._driver.stdin
        with self._news:
            number = next(self._numbers)
            self._driver.stdin.write(json.dumps([number, what, asked]) + "\n")
            self._driver.stdin.flush()
            self._news.wait_for(lambda: number in self._answers)
            return self._answers.pop(number)

    def run(self, verb: str, chain: Chain, pod: Pod, container: str, prev: Any = None) -> tuple[Any, list[dict[str, Any]]]:
        """A chain's verb for one pod: the last result, and what each call cost."""
        costs = []
        for conf in chain if verb == "ADD" else reversed(chain):
            env = {
                **self.node.env,
                "CNI_COMMAND": verb,
                "CNI_CONTAINERID": container,
                "CNI_NETNS": pod.path,
                "CNI_IFNAME": "eth0",
                "CNI_PATH": str(self.bin_dir),
            }
            given = {**conf, **({"prevResult": prev} if prev else {})}
            (cost,) = self.ask("call", [[[str(self.bin_dir / conf["type"])], env, json.dumps(given)]])
            if cost["status"]:
                raise RuntimeError(f"{self.name} {conf['type']} {verb}: {cost['out']}")
            prev = json.loads(cost["out"]) if cost["out"] else prev
            costs.append(cost)
        return prev, costs

    def server(self) -> dict[str, float]:
        """Processor time (ms) and memory (KiB) of the server, if there is one."""
        found: dict[str, float] = self.ask("server", None)
        return found

    def close(self) -> None:
        assert self._driver.stdin
        self._driver.stdin.close()
        self._driver.wait()
        self.node.delete()
        self._run_dir.cleanup()


def with_sides(folder: pathlib.Path, names: tuple[str, ...], act: Callable[[list[Side]], Any]) -> Any:
    """What `act` makes of the suites, each on a fresh node."""
    sides: list[Side] = []
    try:
        sides.extend(Side(name, folder / name) for name in names)
        return act(sides)
    finally:
        for side in sides:
            side.close()
