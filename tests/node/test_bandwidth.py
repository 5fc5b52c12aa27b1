"""bandwidth on a real kernel: limits, devices, and the recorded cases of the meta sheet (4, 9)."""

import hashlib
import json
import pathlib
import time
from typing import Any

import pytest

from tests.lab import BIN, GO, Node, Pod
from tests.node.test_bridge import link
from tests.remains import tools
from tests.state import differences, settle, snapshot

BOTH = {"ingressRate": 10_000_000, "ingressBurst": 8_000_000, "egressRate": 20_000_000, "egressBurst": 1_600_000}
IFB = "bwp" + hashlib.sha512(b"podnetcid1").hexdigest()[:12]


def attach(node: Node, pod: Pod, container: str = "cid1", kind: str = "bridge", ifname: str = "eth0", **keys: Any) -> Any:
    """What comes before bandwidth in a chain."""
    ipam = {"type": "host-local", "dataDir": node.data_dir, "subnet": "10.9.0.0/24"}
    conf = {"cniVersion": "1.0.0", "name": "podnet", "type": kind, "isGateway": True, "ipam": ipam, **keys}
    return node.call("ADD", conf, pod, container=container, ifname=ifname).ok()


def conf(result: Any = None, **keys: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"cniVersion": "1.0.0", "name": "podnet", "type": "bandwidth", **keys}
    return {**made, "prevResult": result} if result else made


def qdiscs(node: Node, name: str) -> dict[str, Any]:
    """Kind and numbers of each queue that somebody made."""
    found = json.loads(node.run("tc", "-j", "-r", "qdisc", "show", "dev", name).stdout)
    return {each["kind"]: each["options"] for each in found if each["kind"] != "noqueue"}


def veth(result: Any) -> str:
    return str(result["interfaces"][1]["name"])


def refused(node: Node, wanted: dict[str, Any], pod: Pod | str, verb: str = "ADD", **call: Any) -> str:
    return str(node.call(verb, wanted, pod, **call).error()["msg"])


def test_both_ways(node: Node) -> None:
    pod = node.pod()
    result = attach(node, pod, mtu=1400)
    answer = node.call("ADD", conf(result, **BOTH), pod).ok()
    made = link(node, IFB)
    assert answer == {**result, "interfaces": [*result["interfaces"], {"name": IFB, "mac": made["address"]}]}
    assert (made["mtu"], "UP" in made["flags"], made.get("txqlen", 0)) == (1400, True, 0)
    host = qdiscs(node, veth(result))
    assert set(host) == {"tbf", "ingress"}
    assert (host["tbf"]["rate"], host["tbf"]["limit"], host["tbf"]["burst_raw"]) == (1_250_000, 1_031_250, "bebc20")
    ifb = qdiscs(node, IFB)["tbf"]
    assert (ifb["rate"], ifb["limit"], ifb["burst_raw"]) == (2_500_000, 262_500, "1312d0")
    shown = node.run("tc", "filter", "show", "dev", veth(result), "parent", "ffff:").stdout
    assert f"mirred (Egress Redirect to device {IFB}) stolen" in shown
    known = conf(answer, **BOTH)
    node.call("CHECK", known, pod).ok()
    pod.run("ping", "-c1", "-W2", "10.9.0.1")
    for _ in range(2):
        node.call("DEL", known, pod).ok()
        assert IFB not in node.links()
    assert not list((node.folder / "run" / "attachments").rglob("*cid1*"))[1:]  # bridge's own is there


def test_what_leaves_the_pod_is_held_back(node: Node) -> None:
    """Two megabits take a second at a megabit a second, once the burst is used up."""
    pod = node.pod()
    result = attach(node, pod)
    node.call("ADD", conf(result, egressRate=1_000_000, egressBurst=80_000), pod).ok()
    began = time.monotonic()
    pod.run("ping", "-q", "-f", "-c", "180", "-s", "1400", "-W", "5", "10.9.0.1")
    assert time.monotonic() - began > 1.5


@pytest.mark.parametrize(
    ("keys", "host", "ifb"),
    [
        ({"egressRate": 8000, "egressBurst": 80}, {"ingress"}, True),
        ({"ingressRate": 8000, "ingressBurst": 80}, {"tbf"}, False),
        ({}, set(), False),
        ({"ingressRate": 0, "runtimeConfig": {"bandwidth": BOTH}}, set(), False),
        ({"egressBurst": None, "runtimeConfig": {"bandwidth": BOTH}}, set(), False),
        ({"runtimeConfig": {"bandWidth": BOTH}}, {"tbf", "ingress"}, True),
    ],
)
def test_one_way_or_none(node: Node, keys: dict[str, Any], host: set[str], ifb: bool) -> None:
    pod = node.pod()
    result = attach(node, pod)
    answer = node.call("ADD", conf(result, **keys), pod).ok()
    assert (set(qdiscs(node, veth(result))), IFB in node.links()) == (host, ifb)
    assert len(answer["interfaces"]) == 3 + ifb
    node.call("CHECK", conf(answer, **keys), pod).ok()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"ingressRate": 5}, "if rate is set, burst must also be set"),
        ({"egressBurst": 123, "egressRate": 0}, "if burst is set, rate must also be set"),
        ({"ingressRate": 8, "ingressBurst": 34359738360}, "burst cannot be more than 4GB"),
        ({"ingressRate": 7, "ingressBurst": 8}, "create qdisc: invalid argument"),
        ({"egressBurst": -1}, "failed to parse network configuration: "),
        ({"egressRate": "x"}, "failed to parse network configuration: "),
        ({"ingressRate": 5, "runtimeConfig": {"bandwidth": BOTH}}, "if rate is set, burst must also be set"),
    ],
)
def test_what_is_no_limit(node: Node, keys: dict[str, Any], text: str) -> None:
    pod = node.pod()
    result = attach(node, pod)
    for verb in ("ADD", "CHECK"):
        assert refused(node, conf(result, **keys), pod, verb).startswith(text)
    node.call("DEL", conf(result, **keys), pod).ok()
    assert (IFB in node.links(), qdiscs(node, veth(result))) == (False, {})


@pytest.mark.parametrize(
    ("rate", "burst", "limit"), [(16, 9, 1), (10_000_000, 2147483647, 268466705), (8_000_000_000, 34359738352, 24999998)]
)
def test_numbers(node: Node, rate: int, burst: int, limit: int) -> None:
    pod = node.pod()
    result = attach(node, pod)
    keys = {"ingressRate": rate, "ingressBurst": burst}
    node.call("ADD", conf(result, **keys), pod).ok()
    found = qdiscs(node, veth(result))["tbf"]
    assert (found["rate"], found["limit"]) == (rate // 8, limit)
    node.call("CHECK", conf(result, **keys), pod).ok()


def test_links_that_cannot_be_limited(node: Node) -> None:
    pod = node.pod()
    result = attach(node, pod)
    assert refused(node, conf(**BOTH), pod) == "must be called as chained plugin"
    assert refused(node, conf(**BOTH), pod, "CHECK") == "must be called as a chained plugin"
    assert refused(node, conf({**result, "interfaces": []}, **BOTH), pod) == "no interfaces provided"
    assert "Statfs" in refused(node, conf(result, **BOTH), "/run/netns/none")
    missing = refused(node, conf(result, **BOTH), pod, ifname="eth9")
    assert missing == 'container interface eth9 has no veth peer: could not look up "eth9": Link not found'
    pod.run("ip", "link", "add", "br9", "type", "bridge")
    assert refused(node, conf(result, **BOTH), pod, ifname="br9").endswith('interface "br9" was not a veth interface')
    unknown = {**result, "interfaces": [result["interfaces"][0], result["interfaces"][2]]}
    assert refused(node, conf(unknown, **BOTH), pod) == "no veth peer of container interface found in host ns"
    elsewhere = node.pod()
    node.run("ip", "link", "set", veth(result), "netns", elsewhere.name)
    assert refused(node, conf(result, **BOTH), pod).startswith("veth peer with index ")


def test_a_failed_add_leaves_nothing(node: Node, tmp_path: pathlib.Path) -> None:
    pod = node.pod()
    result = attach(node, pod)
    stops = r'head -n 2 | $real -batch -; printf "RTNETLINK answers: no\nCommand failed -:3\n" >&2; exit 1'
    env = tools(tmp_path / "tools", tc=f'case "$*" in *batch*) {stops};; esac; exec $real "$@"')
    node.call("ADD", conf(result, **BOTH), pod, env=env).error()
    assert (IFB in node.links(), set(qdiscs(node, veth(result)))) == (False, set())
    node.call("ADD", conf(result, **BOTH), pod).ok()
    assert refused(node, conf(result, **BOTH), pod).startswith(("adding link", "create qdisc"))
    assert (IFB in node.links(), set(qdiscs(node, veth(result)))) == (True, {"tbf", "ingress"})


def test_check_sees_what_changed(node: Node) -> None:
    pod = node.pod()
    known = conf(node.call("ADD", conf(attach(node, pod), **BOTH), pod).ok(), **BOTH)
    for key, value, what in (("ingressRate", 8_000_000, "Rate"), ("egressBurst", 1_600_080, "Limit")):
        assert refused(node, {**known, key: value}, pod, "CHECK") == f"{what} doesn't match"
    name = veth(known["prevResult"])
    node.run("tc", "filter", "del", "dev", name, "parent", "ffff:")
    assert refused(node, known, pod, "CHECK") == "Failed to find filter"
    node.run("tc", "qdisc", "del", "dev", name, "ingress")
    assert refused(node, known, pod, "CHECK") == "Failed to find filter"
    node.run("tc", "qdisc", "del", "dev", name, "root")
    assert refused(node, known, pod, "CHECK") == "Failed to find qdisc"
    node.run("ip", "link", "del", IFB)
    assert refused(node, {**known, "ingressRate": 0, "ingressBurst": 0}, pod, "CHECK") == "get ifb device: Link not found"


def test_another_interface_of_the_container(node: Node) -> None:
    """The device's name is of network and container: the second interface's end must not take the first one's device."""
    pod = node.pod()
    first = conf(attach(node, pod), **BOTH)
    node.call("ADD", first, pod).ok()
    second = conf(attach(node, pod, ifname="eth1"), **BOTH)
    error = node.call("ADD", second, pod, ifname="eth1").error()
    assert (error["msg"], "container's eth0" in error["details"]) == ("adding link: file exists", True)
    node.call("DEL", second, pod, ifname="eth1").ok()
    one_way = {**second, "egressRate": 0, "egressBurst": 0}
    node.call("ADD", one_way, pod, ifname="eth1").ok()
    node.call("DEL", one_way, pod, ifname="eth1").ok()
    valid = [{"containerID": "cid1", "ifname": "eth0"}]
    node.call("GC", {**conf(), "cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}).ok()
    node.call("CHECK", {**first, "prevResult": first["prevResult"]}, pod).ok()
    pod.run("ping", "-c1", "-W2", "-I", "eth0", "10.9.0.1")
    node.call("DEL", first, pod).ok()
    assert IFB not in node.links()


def test_del_without_anything_and_gc(node: Node) -> None:
    pods = [node.pod(), node.pod()]
    for number, pod in enumerate(pods, 1):
        node.call("ADD", conf(attach(node, pod, f"cid{number}"), **BOTH), pod, container=f"cid{number}").ok()
    node.call("DEL", conf(**BOTH), "").ok()
    assert [name for name in node.links() if name.startswith("bwp")] != []
    node.call("DEL", conf(**BOTH), "", container="never").ok()
    node.call("ADD", conf(attach(node, node.pod(), "cid3"), **BOTH), node.pods[-1], container="cid3").ok()
    valid = [{"containerID": "cid3", "ifname": "eth0"}]
    node.call("GC", {**conf(), "cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}).ok()
    assert len([name for name in node.links() if name.startswith("bwp")]) == 1
    node.call("STATUS", {**conf(), "cniVersion": "1.1.0"}).ok()


@pytest.mark.skipif(not (GO / "bandwidth").exists(), reason="containernetworking-plugins is not installed")
@pytest.mark.parametrize(("adder", "remover"), [(GO, BIN), (BIN, GO)])
def test_the_go_plugin_takes_over(node: Node, adder: pathlib.Path, remover: pathlib.Path) -> None:
    pod = node.pod()
    known = conf(node.call("ADD", conf(attach(node, pod), **BOTH), pod, bin_dir=adder).ok(), **BOTH)
    for suite in (adder, remover):
        node.call("CHECK", known, pod, bin_dir=suite).ok()
    for _ in range(2):
        node.call("DEL", known, pod, bin_dir=remover).ok()
    assert IFB not in node.links()


@pytest.mark.skipif(not (GO / "bandwidth").exists(), reason="containernetworking-plugins is not installed")
def test_both_make_the_same(node: Node, other_node: Node) -> None:
    states = []
    for suite, each in ((GO, node), (BIN, other_node)):
        pod = each.pod()
        each.call("ADD", conf(attach(each, pod), **BOTH), pod, bin_dir=suite).ok()
        settle(each, pod)
        states.append(snapshot(each, [pod]))
    found = [
        line for line in differences(states[0], states[1]) if not line.startswith(f"/node/links/{IFB}/") and "fe80" not in line
    ]
    assert found == [], "\n".join(found)
