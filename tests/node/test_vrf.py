"""vrf on a real kernel: links, tables, and what stays with a link that changes its table (meta sheet 7)."""

from typing import Any

import pytest

from tests.lab import BIN, GO, Node, Pod
from tests.node.test_bridge import addresses, link
from tests.state import differences, settle, snapshot

pytestmark = pytest.mark.kernel("vrf")

DUAL: dict[str, Any] = {
    "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "198.51.100.0/24", "gw": "10.9.0.9", "priority": 7}],
}


def attach(node: Node, pod: Pod, ifname: str = "eth0", container: str = "cid1") -> Any:
    """What comes before vrf in a chain."""
    ipam = {"type": "host-local", "dataDir": node.data_dir, **DUAL}
    conf = {"cniVersion": "1.0.0", "name": "podnet", "type": "bridge", "isGateway": True, "ipam": ipam}
    return node.call("ADD", conf, pod, ifname=ifname, container=container).ok()


def conf(result: Any = None, name: str = "blue", **keys: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"cniVersion": "1.0.0", "name": "podnet", "type": "vrf", "vrfname": name, **keys}
    return {**made, "prevResult": result} if result else made


def shown(pod: Pod, table: str, family: int = 4, name: str = "eth0") -> list[str]:
    """The routes of a table by a link, but those that every link has."""
    lines = pod.run("ip", f"-{family}", "route", "show", "table", table, "dev", name, check=False).stdout.splitlines()
    return sorted(
        line.strip() for line in lines if not line.startswith(("local", "broadcast", "multicast", "fe80", "anycast", "ff00"))
    )


def table_of(pod: Pod, name: str) -> int:
    found: int = link(pod, name)["linkinfo"]["info_data"]["table"]
    return found


def test_there_and_back(node: Node) -> None:
    """Addresses and routes of both families are in the VRF's table, and afterwards where they were."""
    pod = node.pod()
    result = attach(node, pod)
    settle(node, pod)
    before, routes = snapshot(node, [pod]), (shown(pod, "main"), shown(pod, "main", 6))
    assert node.call("ADD", conf(result), pod).ok() == result
    assert (link(pod, "eth0")["master"], table_of(pod, "blue"), "UP" in link(pod, "blue")["flags"]) == ("blue", 1, True)
    assert addresses(pod, "eth0") == ["10.9.0.2/24", "fd00:9::2/64"]
    assert (shown(pod, "1"), shown(pod, "1", 6)) == routes
    assert (shown(pod, "main"), shown(pod, "main", 6)) == ([], [])
    pod.run("ip", "vrf", "exec", "blue", "ping", "-c1", "-W2", "10.9.0.1")
    node.call("CHECK", conf(result), pod).ok()
    node.call("ADD", conf(result), pod).ok()
    for _ in range(2):
        node.call("DEL", conf(result), pod).ok()
        settle(node, pod)
        found = differences(before, snapshot(node, [pod]))
        assert [line for line in found if "l3mdev" not in line] == []  # a rule of the kernel's, from a namespace's first VRF on


@pytest.mark.parametrize("keep", ["0", "1"])
def test_addresses_keep_what_they_have(node: Node, keep: str) -> None:
    """Whether the kernel drops them with the link's going down or not; those that end by themselves it always drops."""
    pod = node.pod()
    result = attach(node, pod)
    pod.run("sysctl", "-qw", f"net/ipv6/conf/eth0/keep_addr_on_down={keep}")
    for words in (
        "fd00:9::5/64 nodad noprefixroute",
        "fd00:9::6/64 nodad preferred_lft 0",
        "fd00:9::7/64 valid_lft 900 preferred_lft 800",
    ):
        pod.run("ip", "addr", "add", *words.split(), "dev", "eth0")
    settle(node, pod)

    def details() -> list[dict[str, Any]]:
        found = [each for each in link(pod, "eth0")["addr_info"] if each.get("scope") == "global"]
        return [{key: value > 700 if "lft" in key or "life" in key else value for key, value in each.items()} for each in found]

    before = details()
    for verb in ("ADD", "DEL"):
        node.call(verb, conf(result), pod).ok()
        settle(node, pod)
        assert details() == before


SEVERAL = (
    "route append 198.18.0.0/24 via 10.9.0.8",
    "route append 198.18.0.0/24 via 10.9.0.9",
    "route append 198.19.0.0/24 nexthop via 10.9.0.8 weight 2 nexthop via 10.9.0.9",
    "route append fd00:c::/64 via fd00:9::8",
    "route append fd00:c::/64 via fd00:9::9",
)


def ways(pod: Pod, table: str) -> list[tuple[str, list[str]]]:
    """The routes of SEVERAL that are in a table, and their gateways."""
    found = [each for family in ("-4", "-6") for each in pod.ip(family, "route", "show", "table", table)]
    mine = [each for each in found if each["dst"] in str(SEVERAL)]
    return [(each["dst"], [hop["gateway"] for hop in each.get("nexthops", [each])]) for each in mine]


def test_several_ways_to_one_place(node: Node) -> None:
    """IPv4's are routes of their own or the next hops of one, IPv6's always the latter."""
    pod = node.pod()
    result = attach(node, pod)
    for command in SEVERAL:
        pod.run("ip", *command.split())
    settle(node, pod)
    before, there = snapshot(node, [pod]), ways(pod, "main")
    assert [dst for dst, _ in there] == ["198.18.0.0/24", "198.18.0.0/24", "198.19.0.0/24", "fd00:c::/64"]
    node.call("ADD", conf(result), pod).ok()
    assert (ways(pod, "1"), ways(pod, "main")) == (there, [])
    node.call("DEL", conf(result), pod).ok()
    settle(node, pod)
    assert [line for line in differences(before, snapshot(node, [pod])) if "l3mdev" not in line] == []


def test_tables(node: Node) -> None:
    """One that is configured, or the first that no other VRF of the pod has."""
    pod = node.pod()
    first, second = attach(node, pod), attach(node, pod, "eth1")
    pod.run("ip", "link", "add", "other", "type", "vrf", "table", "1")
    node.call("ADD", conf(first), pod).ok()
    assert table_of(pod, "blue") == 2
    error = node.call("ADD", conf(second, table=7), pod, ifname="eth1").error()
    assert error["msg"] == "cmdAdd failed: VRF blue already exist with different routing table 2"
    node.call("ADD", conf(second, "red", table=7), pod, ifname="eth1").ok()
    assert table_of(pod, "red") == 7
    assert "has routing table 7" in node.call("CHECK", conf(second, "red", table=8), pod, ifname="eth1").error()["msg"]


def test_links_share_a_vrf(node: Node) -> None:
    """It goes with the last of them."""
    pod = node.pod()
    results = {name: attach(node, pod, name) for name in ("eth0", "eth1")}
    for name, result in results.items():
        node.call("ADD", conf(result), pod, ifname=name).ok()
    assert shown(pod, "1", name="eth1") == [line.replace("eth0", "eth1") for line in shown(pod, "1", name="eth1")]
    node.call("DEL", conf(results["eth0"]), pod).ok()
    assert link(pod, "eth1")["master"] == "blue"
    pod.run("ip", "link", "del", "eth1")
    node.call("DEL", conf(results["eth1"]), pod, ifname="eth1").ok()
    assert "blue" not in [each["ifname"] for each in pod.ip("link", "show")]


def test_errors(node: Node) -> None:
    pod = node.pod()
    result = attach(node, pod)

    def told(verb: str, wanted: dict[str, Any], ifname: str = "eth0") -> str:
        return str(node.call(verb, wanted, pod, ifname=ifname).error()["msg"])

    for verb in ("ADD", "CHECK", "DEL"):
        assert told(verb, conf(result, "")) == "configuration is expected to have a valid vrf name"
    for verb in ("ADD", "CHECK"):
        assert told(verb, conf()) == "missing prevResult from earlier plugin"
    assert "table -1" in told("ADD", conf(result, table=-1))
    assert told("ADD", conf(result), "net1") == "cmdAdd failed: could not get link by name net1"
    for verb, prefix in (("ADD", "cmdAdd failed: "), ("DEL", ""), ("CHECK", "")):
        assert told(verb, conf(result, "eth0")) == f"{prefix}Netlink eth0 is not a VRF"
    assert told("CHECK", conf(result)) == "Link not found"
    pod.run("ip", "link", "add", "brx", "address", "02:00:00:00:00:01", "type", "bridge")
    pod.run("ip", "link", "set", "eth0", "master", "brx")
    assert told("ADD", conf(result)) == "cmdAdd failed: interface eth0 has already a master set: brx"
    assert "blue" not in [each["ifname"] for each in pod.ip("link", "show")]
    pod.run("ip", "link", "add", "blue", "type", "vrf", "table", "5")
    assert told("CHECK", conf(result)) == "failed to find eth0 associated to vrf blue"
    for netns in ("", "/run/netns/none"):
        node.call("DEL", conf(result), netns).ok()


@pytest.mark.skipif(not (GO / "vrf").exists(), reason="containernetworking-plugins is not installed")
@pytest.mark.parametrize(("adder", "remover"), [(GO, BIN), (BIN, GO)])
def test_the_go_plugin_takes_over(node: Node, adder: Any, remover: Any) -> None:
    pod = node.pod()
    result = attach(node, pod)
    node.call("ADD", conf(result, table=42), pod, bin_dir=adder).ok()
    for suite in (adder, remover):
        node.call("CHECK", conf(result, table=42), pod, bin_dir=suite).ok()
    node.call("DEL", conf(result, table=42), pod, bin_dir=remover).ok()
    assert sorted(each["ifname"] for each in pod.ip("link", "show")) == ["eth0", "lo"]


@pytest.mark.skipif(not (GO / "vrf").exists(), reason="containernetworking-plugins is not installed")
def test_both_make_the_same(node: Node, other_node: Node) -> None:
    found = []
    for suite, each in ((GO, node), (BIN, other_node)):
        pod = each.pod()
        each.call("ADD", conf(attach(each, pod), table=42), pod, bin_dir=suite).ok()
        settle(each, pod)
        found.append((shown(pod, "42"), shown(pod, "42", 6), addresses(pod, "eth0"), link(pod, "eth0")["master"]))
    go, ours = found
    assert go[2:] == ours[2:]
    assert set(go[0]) <= set(ours[0])
    assert set(go[1]) <= set(ours[1])
