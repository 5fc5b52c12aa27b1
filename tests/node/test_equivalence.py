"""What explain prints, run by sh on one node, leaves the same state as the plugins on another."""

import json
import pathlib
import re
import subprocess
import time
from typing import Any

import pytest

from tests.kernel import PROBES
from tests.lab import BIN, ROOT, Node, Pod, run
from tests.state import differences, settle, snapshot

ENV = (
    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd00:244::/48\n"
    "FLANNEL_IPV6_SUBNET=fd00:244:0:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
)
PORTS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 8053, "containerPort": 53, "protocol": "udp"},
    {"hostPort": 8443, "containerPort": 443, "protocol": "tcp", "hostIP": "192.0.2.10"},
]
DUAL = {
    "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]],
    "routes": [{"dst": "198.51.100.0/24", "priority": 7}],
}
MAC = "c2:11:22:33:44:88"
V4 = {"subnet": "10.7.0.0/24"}
ASKED = {"capabilities": {"mac": True}}  # a MAC of the runtime's
GATEWAY = {"type": "bridge", "isDefaultGateway": True}
PTP_V4 = {**V4, "routes": [{"dst": "0.0.0.0/0"}]}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
TUNING = {
    "type": "tuning",
    "dataDir": "FOLDER/tuning",
    "sysctl": {"net.ipv4.conf.IFNAME.log_martians": "1", "net.core.somaxconn": "500"},
    "mac": "c2:11:22:33:44:77",
    "promisc": True,
    "mtu": 1400,
    "allmulti": True,
    "txQLen": 2000,
}

# Each a list of plugins; "DATA" and "FOLDER" stand for the node's lease and state folders.
CHAINS: dict[str, list[dict[str, Any]]] = {
    "loopback": [{"type": "loopback"}],
    "bridge": [{"type": "bridge", "ipam": V4}],
    "bridge and static": [{**GATEWAY, "ipam": {"type": "static", "addresses": [{"address": "10.7.0.9/24"}]}}],
    "bridge without addresses": [{"type": "bridge", "bridge": "l2", **ASKED}],
    "bridge, no interface": [{"type": "bridge", "disableContainerInterface": True}],
    "bridge, dual stack gateway": [{**GATEWAY, "ipam": DUAL, "hairpinMode": True, "mtu": 1400}],
    "bridge, ipMasq": [{**GATEWAY, "ipam": DUAL, "ipMasq": True}],
    "bridge, ipMasq by nft": [{**GATEWAY, "ipam": DUAL, "ipMasq": True, "ipMasqBackend": "nftables"}],
    "bridge, gateway of the range, dns": [
        {
            "type": "bridge",
            "isGateway": True,
            "forceAddress": True,
            "dns": {"nameservers": ["192.0.2.53"]},
            "ipam": {
                "ranges": [
                    [{"subnet": "10.7.0.0/24", "rangeStart": "10.7.0.20", "rangeEnd": "10.7.0.30", "gateway": "10.7.0.254"}]
                ],
                "resolvConf": "FOLDER/resolv.conf",
            },
        }
    ],
    "bridge, vlan": [{"type": "bridge", "isGateway": True, "vlan": 100, "preserveDefaultVlan": True, "mtu": 1400, "ipam": V4}],
    "bridge, trunk": [{"type": "bridge", "vlanTrunk": [{"minID": 100, "maxID": 105}, {"id": 7}], "ipam": V4}],
    "bridge and static, routes": [
        {
            "type": "bridge",
            "ipam": {
                "type": "static",
                "addresses": [{"address": "10.7.0.9/24", "gateway": "10.7.0.1"}],
                "routes": [{"dst": "198.51.100.0/24"}],
                "dns": {"nameservers": ["192.0.2.53"]},
            },
        }
    ],
    "bridge, dad": [{**GATEWAY, "ipam": DUAL, "enabledad": True}],
    "bridge, promisc": [{"type": "bridge", "promiscMode": True, "args": {"cni": {"mac": "c2:11:22:33:44:66"}}, "ipam": V4}],
    "bridge, isolation and spoof check": [{"type": "bridge", "portIsolation": True, "macspoofchk": True, "ipam": V4}],
    "bridge and portmap": [{**GATEWAY, "ipam": DUAL, "ipMasq": True}, PORTMAP],
    "bridge and portmap, no snat": [{**GATEWAY, "ipam": V4}, {**PORTMAP, "snat": False}],
    "bridge and portmap, masqAll": [{**GATEWAY, "ipam": V4}, {**PORTMAP, "masqAll": True, "markMasqBit": 5}],
    "bridge and portmap by nft": [{**GATEWAY, "ipam": DUAL}, {**PORTMAP, "backend": "nftables"}],
    "bridge and portmap, conditions": [
        {**GATEWAY, "ipam": DUAL},
        {**PORTMAP, "conditionsV4": ["!", "-s", "198.51.100.0/24"], "conditionsV6": ["!", "-s", "2001:db8::/32"]},
    ],
    "bridge and portmap, another mark": [{**GATEWAY, "ipam": V4}, {**PORTMAP, "externalSetMarkChain": "MINE"}],
    "ptp": [{"type": "ptp", "ipam": {**V4, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "198.51.100.0/24", "gw": "10.7.0.9"}]}}],
    "ptp, dual stack, ipMasq": [{"type": "ptp", "ipam": DUAL, "ipMasq": True, "mtu": 1400}],
    "ptp, ipMasq by nft, and portmap": [{"type": "ptp", "ipam": PTP_V4, "ipMasq": True, "ipMasqBackend": "nftables"}, PORTMAP],
    "bridge and tuning": [{"type": "bridge", "ipam": V4}, TUNING],
    "bridge and tuning, args": [
        {"type": "bridge", "ipam": V4, "mtu": 1450},
        {
            "type": "tuning",
            "dataDir": "FOLDER/tuning",
            "sysctl": {},
            "args": {"cni": {key: TUNING[key] for key in ("sysctl", "mac", "promisc", "mtu", "allmulti", "txQLen")}},
        },
    ],
    "bridge and tuning, by the runtime": [
        {"type": "bridge", "ipam": V4},
        {"type": "tuning", "dataDir": "FOLDER/tuning", "capabilities": {"mac": True}},
    ],
    "ptp, tuning and portmap": [{"type": "ptp", "ipam": PTP_V4, "mtu": 1450}, TUNING, PORTMAP],
    "bridge and firewall": [{**GATEWAY, "ipam": DUAL}, {"type": "firewall", "iptablesAdminChainName": "CNI-mine"}],
    "bridge and firewall, isolated": [
        {**GATEWAY, "ipam": DUAL, "ipMasq": True},
        {"type": "firewall", "backend": "iptables", "ingressPolicy": "isolated"},
        PORTMAP,
    ],
    "bridge and firewall by nft": [
        {**GATEWAY, "ipam": DUAL},
        {"type": "firewall", "backend": "nftables", "ingressPolicy": "isolated"},
    ],
    "flannel and portmap": [
        {
            "type": "flannel",
            "subnetFile": "FOLDER/subnet.env",
            "dataDir": "FOLDER/flannel",
            "delegate": {"isDefaultGateway": True},
            "ipam": {},
        },
        PORTMAP,
    ],
}
ROUTED = {**DUAL, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "198.51.100.0/24", "gw": "10.7.0.9", "priority": 7}]}
CHILDREN: dict[str, list[dict[str, Any]]] = {
    "macvlan": [{"type": "macvlan", "master": "mst", "dns": {"domain": "x"}, "ipam": DUAL}],
    "macvlan, all keys": [
        {
            "type": "macvlan",
            "master": "mst",
            "mode": "vepa",
            "mtu": 1300,
            "mac": "c2:11:22:33:44:55",
            "bcqueuelen": 500,
            "ipam": V4,
        },
        TUNING,
    ],
    "macvlan, passthru": [{"type": "macvlan", "master": "mst", "mode": "passthru"}],
    "ipvlan": [{"type": "ipvlan", "master": "mst", "mode": "l3", "mtu": 1300, "dns": {"domain": "x"}, "ipam": DUAL}],
    "vlan": [{"type": "vlan", "master": "mst", "vlanId": 77, "mtu": 1300, "dns": {"domain": "x"}, "ipam": DUAL}],
    "dummy": [{"type": "dummy", "ipam": DUAL}],
    "tap": [{"type": "tap", "multiQueue": True, "mtu": 1400, "owner": 54321, "ipam": V4}],
    "macvlan, in the pod": [
        {"type": "macvlan", "master": "inner", "linkInContainer": True, "dns": {"domain": "x"}, "ipam": V4, **ASKED}
    ],
    "ipvlan, in the pod": [{"type": "ipvlan", "master": "inner", "linkInContainer": True, "dns": {"domain": "x"}, "ipam": V4}],
    "vlan, in the pod": [
        {"type": "vlan", "master": "inner", "vlanId": 77, "linkInContainer": True, "dns": {"domain": "x"}, "ipam": V4}
    ],
    "tap, port of a bridge": [{"type": "tap", "bridge": "inside", "dns": {"domain": "x"}, **ASKED}],
    "host-device, dns": [{"type": "host-device", "device": "mst", "dns": {"domain": "x"}, "ipam": V4}],
    "ptp, dns": [{"type": "ptp", "dns": {"domain": "x"}, "ipam": PTP_V4}],
    "vrf": [{"type": "bridge", "ipam": ROUTED}, {"type": "vrf", "vrfname": "blue", "table": 42}],
    "host-device": [{"type": "host-device", "device": "mst", "ipam": DUAL}, TUNING],
    "host-device, by address": [{"type": "host-device", "hwaddr": "02:00:00:00:00:aa"}],
    "tap, owner and group": [{"type": "tap", "owner": 54321, "group": 54322, "mac": "c2:11:22:33:44:55"}],
}
CHAINS |= CHILDREN
BANDWIDTH = {
    "type": "bandwidth",
    "ingressRate": 1_000_000,
    "ingressBurst": 80_000,
    "egressRate": 2_000_000,
    "egressBurst": 160_000,
}
CHAINS |= {
    "bridge and bandwidth": [{"type": "bridge", "ipam": V4, "mtu": 1400}, BANDWIDTH],
    "bridge and bandwidth, by the runtime": [
        {"type": "bridge", "ipam": V4},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ],
    "ptp and bandwidth, one way": [
        {"type": "ptp", "ipam": PTP_V4},
        {"type": "bandwidth", "ingressRate": 8000, "ingressBurst": 80},
    ],
    "bridge and sbr": [{"type": "bridge", "ipam": ROUTED}, {"type": "sbr"}],
    "bridge and sbr, hints": [
        {"type": "bridge", "ipam": ROUTED},
        {"type": "sbr", "gateways": ["10.7.0.9"], "addSourceHints": True},
    ],
    "bridge and sbr, table": [{"type": "bridge", "ipam": DUAL}, {"type": "sbr", "table": 5000}],
}
NEEDS = {"bridge, vlan": ["vlan_filtering", "vlan"], "bridge, trunk": ["vlan_filtering"]}
NAMES = [
    pytest.param(
        name,
        marks=[
            pytest.mark.kernel(each)
            for each in (*NEEDS.get(name, ()), *(each["type"] for each in chain if each["type"] in PROBES))
        ],
    )
    for name, chain in CHAINS.items()
]
# Documented keys without a chain: what they are about is not on a scratch node.
ELSEWHERE = {
    "dhcp": {"daemonSocketPath", "provide", "request", "priority"},  # a script ends where a daemon has to do the work
    "firewall": {"firewalldZone"},  # firewalld
    "host-device": {"kernelpath", "pciBusID"},  # devices of the machine
    "host-local": {"dataDir"},  # every chain has one
    "tap": {"selinuxContext"},  # SELinux
}


PAGES = sorted((ROOT / "docs" / "plugins").glob("*.md"))


def kind_of(value: dict[str, Any], kind: str) -> str:
    """Whose keys these are, inside a configuration of that kind."""
    if ("ranges" in value or "subnet" in value) and kind != "flannel":
        kind = "host-local"
    return str(value.get("type", kind))


def keys(value: Any, kind: str) -> set[tuple[str, str]]:
    """Plugin and key of everything in a configuration."""
    if isinstance(value, list):
        return {found for each in value for found in keys(each, kind)}
    if not isinstance(value, dict):
        return set()
    kind = kind_of(value, kind)
    return {(kind, key) for key in value} | {found for each in value.values() for found in keys(each, kind)}


def documented(page: pathlib.Path) -> set[str]:
    """The keys in the table of a plugin's page."""
    rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| `")]
    return {name.split(".")[-1] for row in rows for name in re.findall(r"`([\w.]+)`", row)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_documented_key_has_a_chain(page: pathlib.Path) -> None:
    used = {key for kind, key in keys(list(CHAINS.values()), "") if kind == page.stem}
    assert documented(page) - used == ELSEWHERE.get(page.stem, set())


def conflist(chain: list[dict[str, Any]], node: Node, version: str) -> pathlib.Path:
    text = json.dumps(chain).replace("FOLDER", "/run/lab")
    plugins = json.loads(text)
    for plugin in plugins:
        if "ipam" in plugin:
            plugin["ipam"] = {
                **({} if plugin["type"] == "flannel" else {"type": "host-local"}),
                **plugin["ipam"],
                "dataDir": "/run/lab/networks",
            }
    path = node.folder / "net.conflist"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cniVersion": version, "name": "n", "plugins": plugins}))
    (node.folder / "subnet.env").write_text(ENV)
    (node.folder / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch example.org\n")
    return path


def on_node(node: Node, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command with the node's folder at the same place, so that both nodes have the same paths."""
    script = 'mkdir -p /run/lab && mount --bind "$0" /run/lab && exec "$@"'
    return run(
        "unshare",
        "--mount",
        "ip",
        "netns",
        "exec",
        node.name,
        "sh",
        "-c",
        script,
        str(node.folder),
        *argv,
        env=node.env,
        **options,
    )


def commands(node: Node, pod: Pod, path: pathlib.Path, bin_dir: pathlib.Path = BIN) -> list[str]:
    given = ["--netns", pod.name, "--container-id", "cid1", "--cni-path", str(bin_dir), "--cache-dir", "/run/lab/cache"]
    asked = {"portMappings": PORTS, "mac": MAC, "bandwidth": {"egressRate": 8000, "egressBurst": 80}}
    return [str(path), *given, "--capability-args", json.dumps(asked)]


def state(node: Node, pod: Pod, *, anonymous: bool = False) -> dict[str, Any]:
    settle(node, pod)
    folders = {
        title: node.folder / name for title, name in (("leases", "networks"), ("flannel", "flannel"), ("tuning", "tuning"))
    }
    return snapshot(node, [pod], folders, anonymous=anonymous)


def settled_differences(left: Node, left_pod: Pod, right: Node, right_pod: Pod) -> list[str]:
    """What stays different when the kernel has had its time to notice carriers and to drop addresses."""
    deadline = time.monotonic() + 4
    while found := differences(state(left, left_pod), state(right, right_pod)):
        if time.monotonic() > deadline:
            break
    return found


@pytest.mark.parametrize("chain", NAMES)
def test_the_script_does_what_the_plugins_do(chain: str, node: Node, other_node: Node) -> None:
    """As it is printed."""
    compared(chain, [], node, other_node)


@pytest.mark.parametrize("chain", [name for name in NAMES if not name.marks])
def test_the_joined_script_does_so_too(chain: str, node: Node, other_node: Node) -> None:
    """As it is run: neighbours are one process."""
    compared(chain, ["--as-run"], node, other_node)


GARBAGE = (
    "bridge",
    "ptp, dual stack, ipMasq",
    "macvlan",
    "bridge and portmap",
    "bridge and portmap by nft",
    "bridge and bandwidth",
    "bridge and tuning",
    "flannel and portmap",
    "host-device",
)


@pytest.mark.parametrize("chain", GARBAGE)
def test_the_script_of_a_gc_does_what_the_plugins_do(chain: str, node: Node, other_node: Node) -> None:
    """A pod is forgotten: its runtime knows nothing of it any more. Another one, which is valid, keeps what it has."""
    paths = [conflist(CHAINS[chain], each, "1.1.0") for each in (node, other_node)]
    pods, keys = [each.pod() for each in (node, other_node)], ["--valid", "other/eth0"]
    for each, pod, path in zip((node, other_node), pods, paths, strict=True):
        prepare(chain, each, pod)
        on_node(each, str(BIN / "ipcni"), "run", "ADD", *commands(each, pod, path))
    made = state(node, pods[0])
    given = ["--cni-path", str(BIN), "--cache-dir", "/run/lab/forgotten"]
    kept = on_node(node, str(BIN / "ipcni"), "explain", "GC", str(paths[0]), *given, "--valid", "cid1/eth0").stdout
    on_node(node, "sh", input=kept)
    script = on_node(node, str(BIN / "ipcni"), "explain", "gc", str(paths[0]), *given, *keys).stdout
    assert state(node, pods[0]) == made
    on_node(node, "sh", input=script)
    on_node(other_node, str(BIN / "ipcni"), "run", "GC", str(paths[1]), *given, *keys)
    assert settled_differences(node, pods[0], other_node, pods[1]) == []
    assert differences(made, state(node, pods[0])) != []


def veth(place: Node | Pod, name: str, peer: str, digit: str) -> None:
    """A pair of links there."""
    ends = [
        word for end, last in ((name, "a"), (peer, "b")) for word in ("name", end, "address", f"02:00:00:00:00:{digit}{last}")
    ]
    place.run("ip", "link", "add", *ends[:4], "type", "veth", "peer", *ends[4:])


def prepare(chain: str, node: Node, pod: Pod) -> None:
    """What the chain expects to find."""
    if chain in CHILDREN:
        veth(node, "mst", "far", "a")
        for name in ("mst", "far"):
            node.run("ip", "link", "set", name, "up")
        veth(pod, "inner", "outer", "b")
        pod.run("ip", "link", "set", "inner", "up")
        pod.run("ip", "link", "add", "inside", "address", "02:00:00:00:00:c0", "type", "bridge")
    if "another mark" in chain:
        node.run("iptables", "-t", "nat", "-N", "MINE")


def compared(chain: str, form: list[str], node: Node, other_node: Node) -> None:
    """ADD of a pod and its DEL, by the script on one node and by the plugins on the other."""
    version = "1.0.0"
    paths = [conflist(CHAINS[chain], each, version) for each in (node, other_node)]
    pods = [each.pod() for each in (node, other_node)]
    for each, pod in zip((node, other_node), pods, strict=True):
        prepare(chain, each, pod)
    for verb in ("ADD", "DEL"):
        before = state(node, pods[0])
        script = on_node(node, str(BIN / "ipcni"), "explain", verb, *commands(node, pods[0], paths[0]), *form).stdout
        assert state(node, pods[0]) == before, "explaining changed something"
        on_node(node, "sh", "-e", "-c", script)
        on_node(other_node, str(BIN / "ipcni"), "run", verb, *commands(other_node, pods[1], paths[1]))
        assert settled_differences(node, pods[0], other_node, pods[1]) == [], script


# How many processes an ADD may start beyond one for each tool in each namespace and one look.
MORE = {
    "bridge, dad": 2,  # an address is waited for, and then looked at: nobody can use one that the kernel has refused
    "ptp, dual stack, ipMasq": 2,
    "macvlan": 3,  # the same, and a name that the link can only have in the pod
    **dict.fromkeys(
        ("bridge and portmap", "bridge and portmap, conditions", "bridge and firewall, isolated", "flannel and portmap"),
        2,  # a look at the shared rules for each family, beside its transaction; and one conntrack a family
    ),
    "bridge and portmap by nft": 1,  # one transaction and one conntrack a family
    "host-device": 5,  # the node's link and its routes, by family: DEL gives them back; and the waiting
    "host-device, dns": 2,
    "host-device, by address": 2,
    "bridge and sbr": 5,  # rules and routes, by family; and `ip -6 rule`, which no batch takes
    "bridge and sbr, hints": 5,
}


@pytest.mark.parametrize("chain", [name for name in NAMES if not getattr(name, "marks", ())])
def test_no_process_too_many(chain: str, node: Node) -> None:
    """Once the node has what all pods share, which the first one makes."""
    path, pod = conflist(CHAINS[chain], node, "1.0.0"), node.pod()
    prepare(chain, node, pod)
    for verb in ("ADD", "DEL", "ADD"):
        before = len(node.journal())
        on_node(node, str(BIN / "ipcni"), "run", verb, *commands(node, pod, path))
    for record in node.journal()[before:]:
        started = [words for each in record["commands"] if (words := _started(each))]
        places = {words[:2] for words in started}
        assert len(started) <= len(places) + 1 + MORE.get(chain, 0), started


def _started(entry: dict[str, Any]) -> tuple[str, ...]:
    """Namespace, tool and the rest of what was started; nothing for what is done without a process."""
    match entry.get("argv", ()):
        case ["ip", "netns", "exec", netns, *words] | ["ip", "-n", netns, *words]:
            words = words if "exec" in entry["argv"] else ["ip", *words]
        case words:
            netns = ""
    if not words or entry.get("direct"):
        return ()
    return (netns, words[0].removesuffix("-restore"), *words[1:])
