"""Rules that let pods through and keep bridges apart: the state recorded of the reference, every backend, and traffic."""

import pathlib
from typing import Any

import pytest

from ipcni.plugins import firewall
from tests.lab import ENTRY_PATH, Node, Pod
from tests.remains import tools

NETNS = "/run/netns/firewall-needs-none"
V4, V6 = "10.88.3.2/24", "fd00:88:3::2/64"
ALL = "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)"
BASE = """-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
""".splitlines()
ISOLATION = f"""-A FORWARD -m comment --comment "{ALL}" -j CNI-ISOLATION-STAGE-1
-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
-A CNI-FORWARD -d 10.88.3.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A CNI-FORWARD -s 10.88.3.2/32 -j ACCEPT
-A CNI-ISOLATION-STAGE-1 -i cni9 -o cni9 -m comment --comment "CNI firewall plugin rules (ingressPolicy: isolated)" -j DROP
-A CNI-ISOLATION-STAGE-1 -i cni9 ! -o cni9 -m comment --comment "CNI firewall plugin rules (ingressPolicy: isolated)" -j CNI-ISOLATION-STAGE-2
-A CNI-ISOLATION-STAGE-1 -i cni0 ! -o cni0 -m comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge)" -j CNI-ISOLATION-STAGE-2
-A CNI-ISOLATION-STAGE-1 -m comment --comment "{ALL}" -j RETURN
-A CNI-ISOLATION-STAGE-2 -o cni9 -m comment --comment "{ALL}" -j DROP
-A CNI-ISOLATION-STAGE-2 -o cni0 -m comment --comment "{ALL}" -j DROP
-A CNI-ISOLATION-STAGE-2 -m comment --comment "{ALL}" -j RETURN
""".splitlines()
NFT = """table inet cni_firewall {
	comment "CNI firewall plugin"
	chain forward {
		type filter hook forward priority filter; policy accept;
		jump isolation_stage_1 comment "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)"
		jump cni_forward comment "CNI firewall plugin rules"
	}

	chain cni_forward {
		jump cni_admin comment "CNI firewall plugin admin overrides"
		ip daddr 10.88.3.2 ct state established,related accept
		ip saddr 10.88.3.2 accept
		ip6 daddr fd00:88:3::2 ct state established,related accept
		ip6 saddr fd00:88:3::2 accept
	}

	chain cni_admin {
	}

	chain isolation_stage_1 {
		iifname "cni0" oifname "cni0" drop comment "CNI firewall plugin rules (ingressPolicy: isolated)"
		iifname "cni0" oifname != "cni0" jump isolation_stage_2 comment "CNI firewall plugin rules (ingressPolicy: isolated)"
	}

	chain isolation_stage_2 {
		oifname "cni0" drop comment "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)"
	}
}
"""
BUS = """printf '%s\\n' "$*" >> "$here/calls"
[ ! -e "$here/stopped" ] || { echo 'Call failed: The name org.fedoraproject.FirewallD1 was not provided by any .service files' >&2; exit 1; }
case "$*" in
*GetNameOwner*) echo 's ":1.5"' ;;
*addSource*bad*) echo 'Call failed: INVALID_ZONE: bad' >&2; exit 1 ;;
*addSource*) ! grep -qx "${*##* ss }" "$here/zones" || { echo 'Call failed: ZONE_ALREADY_SET' >&2; exit 1; }; echo "${*##* ss }" >> "$here/zones" ;;
*removeSource*) grep -vx "${*##* ss }" "$here/zones" > "$here/rest"; mv "$here/rest" "$here/zones" ;;
*querySource*) if grep -qx "${*##* ss }" "$here/zones"; then echo 'b true'; else echo 'b false'; fi ;;
esac"""


def config(*ips: str, links: tuple[str, ...] = ("cni0",), **keys: Any) -> dict[str, Any]:
    prev = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": name} for name in links],
        "ips": [{"address": ip} for ip in ips or (V4,)],
    }
    return {"cniVersion": "1.1.0", "name": "podnet", "type": "firewall", "prevResult": prev, **keys}


def without(conf: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in conf.items() if key not in keys}


def rules(node: Node, tool: str = "iptables") -> list[str]:
    return [line for line in node.rules(tool, "filter") if line.startswith("-A")]


def of(address: str) -> list[str]:
    return [
        f"-A CNI-FORWARD -d {address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-A CNI-FORWARD -s {address} -j ACCEPT",
    ]


def nft(node: Node, *table: str) -> str:
    return node.run("nft", "list", "table", *(table or ("inet", "cni_firewall")), check=False).stdout


def noted(node: Node) -> list[str]:
    folder = node.folder / "run" / "attachments" / "podnet" / "firewall"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def processes(node: Node) -> list[list[str]]:
    """What the latest call started."""
    return [
        each["argv"]
        for each in node.journal()[-1]["commands"]
        if "argv" in each and each["argv"][0].endswith(("tables", "tables-restore", "nft"))
    ]


class Bus:
    """A busctl with firewalld behind it, as far as it goes: which addresses are in which zone."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.env = tools(folder, busctl=BUS)
        (folder / "zones").touch()
        (folder / "socket").touch()
        self.env["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={folder}/socket"

    @property
    def zones(self) -> list[str]:
        return (self.folder / "zones").read_text().splitlines()

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def stop(self) -> None:
        (self.folder / "stopped").touch()


@pytest.fixture
def bus(tmp_path: pathlib.Path) -> Bus:
    return Bus(tmp_path / "bus")


# -- iptables (sheet 3.2)


def test_the_recorded_iptables_state(node: Node) -> None:
    conf = config(V4, V6)
    for _ in range(2):
        answer = node.call("ADD", conf, NETNS).ok()
        assert answer["ips"] == conf["prevResult"]["ips"]
        assert rules(node) == [*BASE, *of("10.88.3.2/32")]
        assert rules(node, "ip6tables") == [*BASE, *of("fd00:88:3::2/128")]
    node.call("CHECK", conf, NETNS).ok()
    for _ in range(2):
        node.call("DEL", conf).ok()
        assert rules(node) == rules(node, "ip6tables") == BASE
        assert noted(node) == []
    said = node.call("CHECK", conf, NETNS).error()["msg"]
    assert said == "expected rule [-d 10.88.3.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT] not found"


def test_a_family_without_addresses_is_left_alone(node: Node) -> None:
    node.call("ADD", config(V6), NETNS).ok()
    assert rules(node) == []
    node.call("ADD", config(V4), NETNS, container="cid2", env=None).ok()
    assert rules(node, "ip6tables") == [*BASE, *of("fd00:88:3::2/128")]


def test_an_ordinary_add_and_del_are_a_transaction_for_each_family(node: Node) -> None:
    node.call("ADD", config("10.88.3.9/24", "fd00:88:3::9/64"), NETNS, container="first").ok()
    node.call("ADD", config(V4, V6), NETNS).ok()
    expected = [[f"{tool}-restore", "--noflush", "-w", "10"] for tool in ("iptables", "ip6tables")]
    assert processes(node) == expected
    node.call("DEL", config(V4, V6)).ok()
    assert processes(node) == expected
    assert rules(node) == [*BASE, *of("10.88.3.9/32")]


def test_the_administrators_chain(node: Node) -> None:
    node.call("ADD", config(), NETNS, container="first").ok()
    conf = config("10.88.3.3/24", V6, iptablesAdminChainName="CNI-foobar")
    node.call("ADD", conf, NETNS).ok()
    jump = BASE[1].replace("CNI-ADMIN", "CNI-foobar")
    assert rules(node)[:3] == [BASE[0], jump, BASE[1]]
    assert rules(node, "ip6tables")[:2] == [BASE[0], jump]
    node.call("CHECK", conf, NETNS).ok()


def test_check_makes_nothing(node: Node) -> None:
    said = node.call("CHECK", config(), NETNS).error()["msg"]
    assert said == "expected FORWARD rule [-m comment --comment CNI firewall plugin rules -j CNI-FORWARD] not found"
    assert [line for line in node.rules("iptables", "filter") if "CNI" in line] == []
    node.call("ADD", config(), NETNS).ok()
    node.run("iptables", "-F", "CNI-FORWARD")
    said = node.call("CHECK", config(), NETNS).error()["msg"]
    assert said == "expected CNI-FORWARD rule [-m comment --comment CNI firewall plugin admin overrides -j CNI-ADMIN] not found"


# -- what is refused


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
@pytest.mark.parametrize(
    ("conf", "said"),
    [
        (without(config(), "prevResult"), "missing prevResult from earlier plugin"),
        (config(ingressPolicy="foo"), 'unknown ingress policy: "foo"'),
        (config(iptablesAdminChainName="C" * 29), f'chain name "{"C" * 29}" is longer than 28 characters'),
        (config(firewalldZone="two words"), '"two words" is no name of a zone'),
        (config(ingressPolicy="isolated", links=("",)), "got empty bridge name"),
        (
            config(ingressPolicy="isolated", links=()),
            'interface needs to be set for ingress policy "isolated", make sure to chain "firewall" plugin with "bridge"',
        ),
        (config(backend="nftables", ingressPolicy="isolated", links=('a"b',)), 'nft has no rules for a link of the name a"b'),
        (config(backend="nftables", iptablesAdminChainName="1;x"), 'nft takes no chain of the name "1;x"'),
    ],
)
def test_what_is_refused_before_anything_is_made(node: Node, verb: str, conf: dict[str, Any], said: str) -> None:
    assert node.call(verb, conf, NETNS).error()["msg"] == said
    assert rules(node) == []
    assert nft(node) == ""
    assert noted(node) == []
    node.call("DEL", conf).ok()


def test_the_json_and_the_versions(node: Node) -> None:
    assert node.call("ADD", config(backend=5), NETNS).error()["msg"].startswith("failed to load netconf: ")
    old = {**config(), "cniVersion": "0.3.1"}
    assert node.call("ADD", old, NETNS).error()["code"] == 1
    node.call("DEL", config(backend=5)).ok()


@pytest.mark.parametrize("tool", ["iptables", "ip6tables"])
def test_an_add_that_fails_leaves_no_rule(node: Node, tmp_path: pathlib.Path, tool: str) -> None:
    node.call("ADD", config("10.88.3.9/24", "fd00:88:3::9/64"), NETNS, container="first").ok()
    before = rules(node), rules(node, "ip6tables")
    bad = 'case "$*" in *-s*) echo "iptables: no" >&2; exit 1;; esac; exec $real "$@"'
    restore = "echo no >&2; exit 1"
    env = tools(tmp_path / "tools", **{tool: bad, f"{tool}_restore": restore})
    assert "failed to let the pod's packets pass" in node.call("ADD", config(V4, V6), NETNS, env=env).error()["msg"]
    assert (rules(node), rules(node, "ip6tables")) == before
    assert noted(node) == ["first:eth0"]


# -- ingressPolicy (sheet 3.3)


def test_the_recorded_isolation(node: Node) -> None:
    first = config(ingressPolicy="same-bridge", links=("cni0",))
    second = config(V6, ingressPolicy="isolated", links=("cni9",))
    node.call("ADD", first, NETNS).ok()
    both = config(V4, ingressPolicy="isolated", links=("cni9",))
    for conf in (both, second):
        node.call("ADD", conf, NETNS, container="cid2").ok()
        node.call("CHECK", conf, NETNS, container="cid2").ok()
    # 10.88.3.2 has been another attachment's as well: cid2's move to IPv6 left it alone.
    assert rules(node) == ISOLATION
    six = [line for line in rules(node, "ip6tables") if "ISOLATION" in line]
    assert six == [line for line in ISOLATION if "ISOLATION" in line and "cni0" not in line]
    node.call("CHECK", first, NETNS).ok()
    node.call("DEL", first).ok()
    assert rules(node) == [line for line in ISOLATION if "10.88.3.2" not in line]
    node.run("iptables", "-F", "CNI-ISOLATION-STAGE-2")
    assert "expected CNI-ISOLATION-STAGE-2 rule [-o cni9" in node.call("CHECK", both, NETNS).error()["msg"]


def bridged(node: Node, name: str, bridge: str, subnet: str, **keys: Any) -> tuple[Pod, str]:
    """A pod behind a bridge and this plugin, and its address."""
    pod = node.pod()
    ipam = {"type": "host-local", "subnet": subnet, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": node.data_dir}
    conf = {"cniVersion": "1.1.0", "name": name, "type": "bridge", "bridge": bridge, "isGateway": True, "ipam": ipam}
    container = pod.name
    result = node.call("ADD", conf, pod, container=container).ok()
    node.call(
        "ADD", {"cniVersion": "1.1.0", "name": name, "type": "firewall", "prevResult": result, **keys}, pod, container=container
    ).ok()
    return pod, str(result["ips"][0]["address"]).partition("/")[0]


def pings(pod: Pod, address: str) -> bool:
    return pod.run("ping", "-c", "1", "-W", "1", address, check=False).returncode == 0


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_traffic_between_bridges(node: Node, backend: str) -> None:
    one, one_ip = bridged(node, "one", "cni1", "10.71.0.0/24", backend=backend, ingressPolicy="same-bridge")
    two, two_ip = bridged(node, "one", "cni1", "10.71.0.0/24", backend=backend, ingressPolicy="same-bridge")
    other, other_ip = bridged(node, "two", "cni2", "10.72.0.0/24", backend=backend, ingressPolicy="isolated")
    free, free_ip = bridged(node, "three", "cni3", "10.73.0.0/24", backend=backend)
    assert pings(one, two_ip)
    assert pings(two, "10.71.0.1")
    assert pings(one, free_ip)
    assert not pings(one, other_ip)
    assert not pings(other, one_ip)
    assert pings(free, one_ip)


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_node_that_drops_what_it_forwards(node: Node, backend: str) -> None:
    if backend == "iptables":
        node.run("iptables", "-P", "FORWARD", "DROP")
    else:
        node.run(
            "nft", "-f", "-", input="table inet filter { chain through { type filter hook forward priority 0; policy drop; }; }"
        )
    one, one_ip = bridged(node, "one", "cni1", "10.71.0.0/24", backend=backend)
    far = node.pod()
    node.run("ip", "link", "add", "far", "type", "veth", "peer", "name", "eth0", "netns", far.name)
    node.run("sh", "-c", "ip addr add 10.99.0.1/24 dev far; ip link set far up")
    far.run("sh", "-c", "ip addr add 10.99.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.99.0.1")
    assert pings(one, "10.99.0.2")
    assert not pings(far, one_ip)
    conf = {"cniVersion": "1.1.0", "name": "one", "type": "firewall", "backend": backend}
    node.call("DEL", conf, container=one.name).ok()
    assert not pings(one, "10.99.0.2")


# -- nftables


def test_the_nftables_state(node: Node) -> None:
    conf = config(V4, V6, backend="nftables", ingressPolicy="isolated")
    for _ in range(2):
        node.call("ADD", conf, NETNS).ok()
        assert nft(node) == NFT
    assert processes(node) == [["nft", "--json", "--terse", "list", "ruleset"]]
    node.call("ADD", config("10.88.3.3/24", backend="nftables", ingressPolicy="isolated"), NETNS, container="cid2").ok()
    assert [argv[:2] for argv in processes(node)] == [["nft", "--json"], ["nft", "-f"]]
    node.call("CHECK", conf, NETNS).ok()
    assert "CNI-" not in "".join(rules(node))
    for container in ("cid2", "cid1", "cid1"):
        node.call("DEL", without(conf, "prevResult") if container == "cid2" else conf, container=container).ok()
    assert nft(node) == "".join(line for line in NFT.splitlines(keepends=True) if "88:3" not in line and "10.88" not in line)
    assert noted(node) == []
    said = node.call("CHECK", conf, NETNS).error()["msg"]
    assert said == "expected rule [ip daddr 10.88.3.2 ct state related,established accept] not found"


@pytest.mark.parametrize(
    ("flushed", "said"),
    [
        ("forward", "expected forward rule [jump cni_forward] not found"),
        ("cni_forward", "expected cni_forward rule [jump my_own] not found"),
        ("isolation_stage_1", "expected isolation_stage_1 rule [iifname cni0 oifname != cni0 jump isolation_stage_2] not found"),
        ("isolation_stage_2", "expected isolation_stage_2 rule [oifname cni0 drop] not found"),
    ],
)
def test_nftables_check(node: Node, flushed: str, said: str) -> None:
    conf = config(backend="nftables", ingressPolicy="same-bridge", iptablesAdminChainName="MY-own")
    node.call("ADD", conf, NETNS).ok()
    node.call("CHECK", conf, NETNS).ok()
    node.run("nft", "flush", "chain", "inet", "cni_firewall", flushed)
    assert node.call("CHECK", conf, NETNS).error()["msg"] == said
    node.call("ADD", conf, NETNS).ok()
    node.call("CHECK", conf, NETNS).ok()


def test_nftables_tables_that_drop(node: Node) -> None:
    """They get what is of their family; iptables' own, and chains that accept, are left alone."""
    chain = "{ chain through { type filter hook forward priority 0; policy %s; }; }"
    text = f"table inet a {chain % 'drop'}\ntable ip6 b {chain % 'drop'}\ntable ip c {chain % 'accept'}\n"
    node.run("nft", "-f", "-", input=text)
    node.run("iptables", "-P", "FORWARD", "DROP")
    conf = config(V4, V6, backend="nftables")
    node.call("ADD", conf, NETNS).ok()
    node.call("CHECK", conf, NETNS).ok()
    assert any("chain FORWARD of table ip filter drops" in each.get("note", "") for each in node.journal()[-2]["commands"])
    assert nft(node, "inet", "a").count("accept") == 4
    assert nft(node, "ip6", "b").count("accept") == 2
    assert "cni_forward" not in nft(node, "ip", "c") + nft(node, "ip", "filter")
    node.run("nft", "flush", "chain", "ip6", "b", "through")
    said = node.call("CHECK", conf, NETNS).error()["msg"]
    assert said == "expected through rule [jump cni_forward] not found in table ip6 b"
    node.call("DEL", conf).ok()
    assert "88:3" not in node.run("nft", "list", "ruleset").stdout


def test_an_nftables_add_that_fails(node: Node, tmp_path: pathlib.Path) -> None:
    conf = config(V4, V6, backend="nftables")
    node.call("ADD", config("10.88.3.9/24", backend="nftables"), NETNS, container="first").ok()
    before = nft(node)
    bad = 'case "$*" in "-f -"|*saddr*) echo "Error: no" >&2; exit 1;; esac; exec $real "$@"'
    env = tools(tmp_path / "tools", nft=bad)
    assert node.call("ADD", conf, NETNS, env=env).error()["msg"] == "failed to let the pod's packets pass: no"
    assert nft(node) == before
    assert noted(node) == ["first:eth0"]


# -- firewalld (sheet 3.4)


@pytest.mark.parametrize(
    "keys", [{}, {"backend": "firewalld"}, {"backend": "nonsense"}, {"firewalldZone": "work"}, {"zone": "work"}]
)
def test_firewalld(node: Node, bus: Bus, keys: dict[str, Any]) -> None:
    conf = config(V4, V6, **keys)
    zone = keys.get("firewalldZone", "trusted")
    for _ in range(2):
        node.call("ADD", conf, NETNS, env=bus.env).ok()
        assert bus.zones == [f"{zone} 10.88.3.2/32", f"{zone} fd00:88:3::2/128"]
    node.call("CHECK", conf, NETNS, env=bus.env).ok()
    assert rules(node) == []
    for _ in range(2):
        node.call("DEL", conf, env=bus.env).ok()
        assert bus.zones == []
    said = node.call("CHECK", conf, NETNS, env=bus.env).error()["msg"]
    assert said == f"failed to find the address 10.88.3.2/32 in {zone} zone"
    socket = bus.env["DBUS_SYSTEM_BUS_ADDRESS"]
    name = "org.fedoraproject.FirewallD1"
    wanted = f"--address={socket} call {name} /org/fedoraproject/FirewallD1 {name}.zone addSource ss {zone} 10.88.3.2/32"
    assert wanted in bus.calls


def test_firewalld_has_no_isolation_of_its_own(node: Node, bus: Bus) -> None:
    conf = config(backend="firewalld", ingressPolicy="same-bridge")
    node.call("ADD", conf, NETNS, env=bus.env).ok()
    assert rules(node) == [line for line in ISOLATION if "ISOLATION" in line and "cni9" not in line]
    assert bus.zones == ["trusted 10.88.3.2/32"]
    node.call("CHECK", conf, NETNS, env=bus.env).ok()
    node.run("iptables", "-F", "CNI-ISOLATION-STAGE-1")
    assert "CNI-ISOLATION-STAGE-1" in node.call("CHECK", conf, NETNS, env=bus.env).error()["msg"]


def test_firewalld_stops(node: Node, bus: Bus) -> None:
    conf = config()
    node.call("ADD", conf, NETNS, env=bus.env).ok()
    bus.stop()
    asked = {**conf, "backend": "firewalld"}
    assert "failed to find the address" in node.call("CHECK", asked, NETNS, env=bus.env).error()["msg"]
    said = node.call("ADD", asked, NETNS, container="cid2", env=bus.env).error()["msg"]
    assert said.startswith("failed to add the address 10.88.3.2/32 to trusted zone: ")
    node.call("DEL", conf, env=bus.env).ok()
    assert noted(node) == []
    assert node.call("STATUS", asked, env=bus.env).error()["msg"] == "firewalld does not run"


def test_a_firewalld_add_that_fails(node: Node, bus: Bus) -> None:
    (bus.folder / "busctl").write_text((bus.folder / "busctl").read_text().replace("*addSource*bad*)", "*addSource*fd00*)"))
    said = node.call("ADD", config(V4, V6), NETNS, env=bus.env).error()["msg"]
    assert said == "failed to add the address fd00:88:3::2/128 to trusted zone: Call failed: INVALID_ZONE: bad"
    assert bus.zones == []
    assert noted(node) == []


def test_no_bus(node: Node, tmp_path: pathlib.Path) -> None:
    env = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/none"}
    conf = config(backend="firewalld")
    for verb in ("ADD", "CHECK"):
        said = node.call(verb, conf, NETNS, env=env).error()["msg"]
        assert said == f"dial unix {tmp_path}/none: connect: no such file or directory"
    node.call("DEL", conf, env=env).ok()
    node.call("ADD", config(), NETNS, env=env).ok()
    assert rules(node) == [*BASE, *of("10.88.3.2/32")]


# -- DEL, GC, STATUS


@pytest.mark.parametrize("backend", firewall.BACKENDS)
def test_del_without_prev_result(node: Node, bus: Bus, backend: str) -> None:
    conf = config(V4, V6, backend=backend)
    node.call("ADD", conf, NETNS, env=bus.env).ok()
    node.call("DEL", without(conf, "prevResult", "backend"), env=bus.env).ok()
    assert "10.88" not in "".join([*rules(node), nft(node), *bus.zones])
    assert rules(node, "ip6tables") == (BASE if backend == "iptables" else [])


def test_another_add_replaces_the_addresses(node: Node, bus: Bus) -> None:
    node.call("ADD", config(V4, V6), NETNS).ok()
    node.call("ADD", config("10.88.3.7/24"), NETNS).ok()
    assert rules(node) == [*BASE, *of("10.88.3.7/32")]
    assert rules(node, "ip6tables") == BASE
    node.call("ADD", config("10.88.3.7/24"), NETNS, env=bus.env).ok()
    assert rules(node) == BASE
    assert bus.zones == ["trusted 10.88.3.7/32"]
    node.call("ADD", config("10.88.3.7/24", backend="nftables"), NETNS, env=bus.env).ok()
    assert bus.zones == []
    assert "10.88.3.7" in nft(node)


def test_a_late_del_finds_the_address_with_another_pod(node: Node) -> None:
    node.call("ADD", config(), NETNS).ok()
    node.call("DEL", config()).ok()
    node.call("ADD", config(), NETNS, container="cid2").ok()
    node.call("DEL", config()).ok()
    assert rules(node) == [*BASE, *of("10.88.3.2/32")]


@pytest.mark.parametrize("backend", firewall.BACKENDS)
def test_gc(node: Node, bus: Bus, backend: str) -> None:
    for number, network in ((2, "podnet"), (3, "podnet"), (4, "other")):
        conf = {**config(f"10.88.3.{number}/24", f"fd00:88::{number}/64", backend=backend), "name": network}
        node.call("ADD", conf, NETNS, container=f"cid{number}", env=bus.env).ok()
    gc = without(config(), "prevResult")
    node.call("GC", gc, env=bus.env).ok()
    assert noted(node) == ["cid2:eth0", "cid3:eth0"]
    alive = [{"containerID": "cid3", "ifname": "eth0"}]
    node.call("GC", {**gc, "cni.dev/valid-attachments": alive}, env=bus.env).ok()
    left = "\n".join([*rules(node), *rules(node, "ip6tables"), nft(node), *bus.zones])
    assert "10.88.3.2" not in left
    assert "fd00:88::2" not in left
    for number in (3, 4):
        assert f"10.88.3.{number}" in left
        assert f"fd00:88::{number}" in left
    assert noted(node) == ["cid3:eth0"]


def test_status(node: Node, bus: Bus, tmp_path: pathlib.Path) -> None:
    def error(env: dict[str, str] | None = None, **keys: Any) -> tuple[int, str]:
        said = node.call("STATUS", without(config(**keys), "prevResult"), env=env).error()
        return said["code"], said["msg"]

    for backend in firewall.BACKENDS:
        node.call("STATUS", config(backend=backend), env=bus.env).ok()
    broken = tools(tmp_path / "tools", iptables="echo 'no such table' >&2; exit 3")
    assert error(broken) == (50, "iptables cannot use the filter table: no such table")
    assert error(ingressPolicy="foo") == (999, 'unknown ingress policy: "foo"')
    no_bus = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/none", "PATH": ENTRY_PATH}
    assert error(no_bus, backend="firewalld") == (50, "firewalld does not run")
