#!/usr/bin/env python3
"""ADD and DEL of ipcni beside the Go plugins, interleaved in one run: medians in milliseconds, ratios, processes per ADD.

    sudo .venv/bin/python benchmarks/bench.py [--rounds 20] [--go /usr/lib/cni] [--bin bin]

Each round attaches and deletes one pod with either suite, in turn, on a scratch node each. Debian has no Go flannel; its side of
"flannel + portmap" is the bridge config that flannel would make, then portmap.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from tests.lab import BIN, GO, Node, Pod

Chain = list[dict[str, Any]]


def chains(node: Node, folder: pathlib.Path, *, go: bool) -> dict[str, Chain]:
    """The chains to time, as plugin configs in order."""
    ipam = {"type": "host-local", "dataDir": node.data_dir}
    base = {"cniVersion": "1.0.0", "name": "n"}
    bridge = {**base, "type": "bridge", "isGateway": True, "ipam": {**ipam, "subnet": "10.9.0.0/16"}}
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
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
        "hairpinMode": True,
        "isDefaultGateway": True,
        "mtu": 1450,
        "ipam": {**ipam, "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "10.244.0.0/16"}]},
    }
    (folder / "subnet.env").write_text(
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )
    portmap = {**base, "type": "portmap", "runtimeConfig": {"portMappings": ports}}
    return {
        "loopback": [{**base, "type": "loopback"}],
        "bridge": [{**bridge, "bridge": "br1"}],
        "bridge + ipMasq": [{**bridge, "bridge": "br1", "ipMasq": True}],
        "flannel + portmap": [made_by_flannel if go else flannel, portmap],
    }


class Side:
    """One suite on its own node."""

    def __init__(self, name: str, bin_dir: pathlib.Path, folder: pathlib.Path) -> None:
        self.name, self.bin_dir = name, bin_dir
        folder.mkdir()
        self.node = Node(folder)
        self.chains = chains(self.node, folder, go=name == "Go")
        self.times: dict[tuple[str, str], list[float]] = {}

    def round(self, chain: str, pod: Pod, number: int) -> None:
        """One pod's ADD and DEL."""
        prev: Any = None
        for verb in ("ADD", "DEL"):
            began = time.perf_counter()
            for conf in self.chains[chain] if verb == "ADD" else reversed(self.chains[chain]):
                given = {**conf, **({"prevResult": prev} if prev else {})}
                answer = self.node.call(verb, given, pod, container=f"c{number}", bin_dir=self.bin_dir)
                answer.ok()
                prev = answer.json if answer.stdout else prev
            self.times.setdefault((chain, verb), []).append((time.perf_counter() - began) * 1000)

    def median(self, chain: str, verb: str) -> float:
        return statistics.median(self.times[chain, verb][1:])  # the first round makes bridges and chains

    def processes(self, chain: str) -> float:
        """Processes one steady ADD starts, from the journal."""
        adds = [line for line in self.node.journal() if line["verb"] == "ADD"]
        plugins = [conf["type"] for conf in self.chains[chain]]
        found = [
            sum(1 for command in line["commands"] if "argv" in command and command["argv"][0] not in FILES)
            for line in adds
            if line["plugin"] in plugins
        ]
        return statistics.median(found) * len(plugins)


FILES = ("printf", "mkdir", "rm", "mv", "sync", "cat")


def main() -> None:
    """Runs all chains and prints the table; --json for a machine."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--go", type=pathlib.Path, default=GO)
    options.add_argument("--bin", type=pathlib.Path, default=BIN)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for chain in ("loopback", "bridge", "bridge + ipMasq", "flannel + portmap"):
            folder = pathlib.Path(name) / chain.replace(" ", "")
            folder.mkdir()
            sides = [Side("Go", given.go, folder / "go"), Side("ipcni", given.bin, folder / "ours")]
            try:
                for number, side in itertools.product(range(given.rounds + 1), sides):
                    pod = Pod(f"bench-{os.getpid()}-{side.name}-{number}")
                    try:
                        side.round(chain, pod, number)
                    finally:
                        pod.delete()
                go, ours = sides
                rows.append(
                    {
                        "chain": chain,
                        **{
                            f"{side.name} {verb}": round(side.median(chain, verb), 1) for side in sides for verb in ("ADD", "DEL")
                        },
                        "ratio ADD": round(ours.median(chain, "ADD") / go.median(chain, "ADD"), 2),
                        "ratio DEL": round(ours.median(chain, "DEL") / go.median(chain, "DEL"), 2),
                        "processes ADD": ours.processes(chain),
                    }
                )
            finally:
                for side in sides:
                    side.node.delete()
    if given.json:
        print(json.dumps(rows))
        return
    print("| " + " | ".join(rows[0]) + " |")
    print("|---" * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    main()
