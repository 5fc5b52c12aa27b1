"""ptp on a real kernel: keys, kernel state, and the cases of the main sheet (3, 13, 14.35 to 14.37)."""

import json
from typing import Any

import pytest

from tests.lab import BIN, GO, Node, Pod
from tests.node.test_bridge import addresses, link, nft, nothing_left, routes, veths

V4 = {"subnet": "10.8.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
DUAL: dict[str, Any] = {
    "ranges": [[{"subnet": "10.8.0.0/24"}], [{"subnet": "fd00:8::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "192.168.0.0/16"}, {"dst": "1.2.3.4/32"}],
}


def conf(node: Node, ipam: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A ptp config; `ipam` is host-local's unless it says otherwise."""
    full = {"type": "host-local", "dataDir": node.data_dir, **ipam}
    return {"cniVersion": "1.1.0", "name": "podnet", "type": "ptp", "ipam": full, **keys}


def static(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "static", "addresses": list(entries), **more}


def pings(pod: Pod, address: str) -> bool:
    return pod.run("ping", "-c1", "-W2", address, check=False).returncode == 0


def test_the_result_says_what_is_there(node: Node) -> None:
    pod = node.pod()
    result = node.call("ADD", conf(node, V4), pod).ok()
    (veth,) = veths(node)
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": veth, "mac": link(node, veth)["address"]},
            {"name": "eth0", "mac": link(pod, "eth0")["address"], "sandbox": pod.path},
        ],
        "ips": [{"address": "10.8.0.2/24", "gateway": "10.8.0.1", "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }


def test_all_traffic_of_the_pod_goes_through_the_node(node: Node) -> None:
    pod = node.pod()
    node.call("ADD", conf(node, V4), pod).ok()
    (veth,) = veths(node)
    assert sorted(line.strip() for line in pod.run("ip", "route").stdout.splitlines()) == [
        "10.8.0.0/24 via 10.8.0.1 dev eth0 src 10.8.0.2",
        "10.8.0.1 dev eth0 scope link src 10.8.0.2",
        "default via 10.8.0.1 dev eth0",
    ]
    assert [line.strip() for line in node.run("ip", "route").stdout.splitlines()] == [f"10.8.0.2 dev {veth} scope host"]
    assert addresses(node, veth) == ["10.8.0.1/32"]
    assert addresses(pod, "eth0") == ["10.8.0.2/24"]
    assert node.sysctl("net/ipv4/ip_forward") == "1"
    assert node.sysctl(f"net/ipv6/conf/{veth}/accept_ra") == "0"


def test_both_families(node: Node) -> None:
    pod, other = node.pod(), node.pod()
    wanted = conf(node, DUAL)
    result = node.call("ADD", wanted, pod).ok()
    node.call("ADD", wanted, other, container="cid2").ok()
    assert result["routes"] == DUAL["routes"]
    for address in ("10.8.0.1", "fd00:8::1", "10.8.0.3", "fd00:8::3"):
        assert pings(pod, address), address
    six = [line.strip() for line in pod.run("ip", "-6", "route").stdout.splitlines()]
    assert "fd00:8::/64 via fd00:8::1 dev eth0 src fd00:8::2 metric 1024 pref medium" in six
    assert "fd00:8::1 dev eth0 src fd00:8::2 metric 1024 pref medium" in six
    assert not [line for line in six if line.startswith("fd00:8::/64") and "via" not in line]
    assert node.sysctl("net/ipv6/conf/all/forwarding") == "1"
    node.call("CHECK", {**wanted, "prevResult": result}, pod).ok()
    for container, each in (("cid1", pod), ("cid2", other)):
        node.call("DEL", wanted, each, container=container).ok()
    nothing_left(node)


def test_mtu(node: Node) -> None:
    pod = node.pod()
    node.call("ADD", conf(node, V4, mtu=5000), pod).ok()
    assert [link(node, veths(node)[0])["mtu"], link(pod, "eth0")["mtu"]] == [5000, 5000]
    node.call("ADD", conf(node, V4, mtu=-5), node.pod(), container="cid2").ok()


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ({}, {"nameservers": ["192.0.2.1"]}),
        ({"dns": {}}, {"nameservers": ["192.0.2.1"]}),
        ({"dns": {"domain": "example"}}, {"domain": "example"}),
        ({"dns": {"nameservers": [], "search": [], "options": []}}, None),
    ],
)
def test_dns_is_ipams_unless_configured(node: Node, configured: dict[str, Any], expected: object) -> None:
    resolv = node.folder / "resolv.conf"
    resolv.write_text("nameserver 192.0.2.1\n")
    result = node.call("ADD", conf(node, {**V4, "resolvConf": str(resolv)}, **configured), node.pod()).ok()
    assert result.get("dns") == expected


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_every_version(node: Node, version: str) -> None:
    pod = node.pod()
    wanted = {**conf(node, V4), "cniVersion": version}
    result = node.call("ADD", wanted, pod).ok()
    assert result["cniVersion"] == version
    assert "10.8.0.2/24" in json.dumps(result)
    node.call("DEL", wanted, pod).ok()
    nothing_left(node)


# -- addresses and gateways


def test_addresses_that_share_a_network_and_its_gateway(node: Node) -> None:
    pod = node.pod()
    ipam = static({"address": "10.8.0.5/24", "gateway": "10.8.0.1"}, {"address": "10.8.0.6/24", "gateway": "10.8.0.1"})
    wanted = conf(node, ipam)
    result = node.call("ADD", wanted, pod).ok()
    assert sorted(routes(pod)) == [("10.8.0.0/24", "10.8.0.1"), ("10.8.0.1", "")]
    assert sorted(routes(node)) == [("10.8.0.5", ""), ("10.8.0.6", "")]
    node.call("CHECK", {**wanted, "prevResult": result}, pod).ok()


def test_a_route_by_a_neighbour(node: Node) -> None:
    """The kernel takes it while it believes that neighbours are on the link."""
    pod = node.pod()
    both = [{"address": "10.8.0.5/24", "gateway": "10.8.0.1"}, {"address": "fd00:8::5/64", "gateway": "fd00:8::1"}]
    ways = [("198.51.100.0/24", "10.8.0.9"), ("fd00:9::/64", "fd00:8::9")]
    wanted = conf(node, static(*both, routes=[{"dst": dst, "gw": gw} for dst, gw in ways]))
    result = node.call("ADD", wanted, pod).ok()
    assert {*ways, ("10.8.0.0/24", "10.8.0.1"), ("fd00:8::/64", "fd00:8::1")} <= {*routes(pod), *routes(pod, 6)}
    node.call("CHECK", {**wanted, "prevResult": result}, pod).ok()


def test_a_gateway_outside_the_network(node: Node) -> None:
    """Its route is there before those that go by it."""
    pod = node.pod()
    ipam = static({"address": "10.8.0.5/24", "gateway": "169.254.1.1"}, routes=[{"dst": "0.0.0.0/0"}])
    node.call("ADD", conf(node, ipam), pod).ok()
    assert ("default", "169.254.1.1") in routes(pod)
    assert pings(pod, "169.254.1.1")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"address": "10.8.0.5/24"}, "address 10.8.0.5/24 has no gateway"),
        ({"address": "10.8.0.5/24", "gateway": "fd00::1"}, "address 10.8.0.5/24 has no gateway"),
        ({"address": "10.8.0.5/32", "gateway": "10.8.0.1"}, "address 10.8.0.5/32 has no network around it"),
        ({"address": "fd00:8::5/128", "gateway": "fd00:8::1"}, "address fd00:8::5/128 has no network around it"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_first(node: Node, entry: dict[str, Any], text: str) -> None:
    pod = node.pod()
    error = node.call("ADD", conf(node, static(entry)), pod).error()
    assert (error["code"], error["msg"]) == (999, text)
    assert (node.links(), [each["ifname"] for each in pod.ip("link")]) == (["lo"], ["lo"])
    assert node.sysctl("net/ipv4/ip_forward") in ("0", "1")
    assert not [entry for record in node.journal() for entry in record["commands"] if "link add" in str(entry.get("sh"))]


# -- masquerading


@pytest.mark.parametrize("backend", [None, "iptables", "nftables"])
def test_masquerading(node: Node, backend: str | None) -> None:
    pod = node.pod()
    wanted = conf(node, DUAL, ipMasq=True, ipMasqBackend=backend)
    node.call("ADD", wanted, pod).ok()
    if backend == "nftables":
        assert "ip saddr 10.8.0.2 ip daddr != 10.8.0.0/24 masquerade" in nft(node)
        assert "ip6 saddr fd00:8::2 ip6 daddr != fd00:8::/64 masquerade" in nft(node)
    else:
        assert any("-A POSTROUTING -s 10.8.0.2/32" in line for line in node.rules())
        assert any("-A POSTROUTING -s fd00:8::2/128" in line for line in node.rules("ip6tables"))
    node.call("DEL", wanted, pod).ok()
    nothing_left(node)


@pytest.mark.parametrize("netns", ["", "/run/netns/nosuch"], ids=["no netns", "netns gone"])
@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_del_without_the_namespace_leaves_no_rule(node: Node, netns: str, backend: str) -> None:
    pod = node.pod()
    wanted = conf(node, DUAL, ipMasq=True, ipMasqBackend=backend)
    node.call("ADD", wanted, pod).ok()
    if netns:
        pod.delete()
    for _ in range(2):
        node.call("DEL", wanted, netns).ok()
    nothing_left(node)


# -- failures


def test_nothing_is_done_without_ipam(node: Node) -> None:
    pod = node.pod()
    bare = {"cniVersion": "1.1.0", "name": "podnet", "type": "ptp"}
    for verb in ("ADD", "STATUS", "CHECK"):
        assert node.call(verb, bare, pod).error()["msg"] == "no plugin name provided"
    node.call("DEL", bare, pod).ok()
    node.call("GC", {**bare, "cni.dev/valid-attachments": []}).ok()
    assert node.links() == ["lo"]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"mtu": 70000}, "failed to make veth pair: "),
        ({"mtu": "1"}, "failed to load netconf: "),
        ({"ipMasq": True, "ipMasqBackend": "foo"}, 'unknown ipmasq backend "foo"'),
    ],
)
def test_a_failed_add_leaves_nothing(node: Node, keys: dict[str, Any], text: str) -> None:
    pod = node.pod()
    assert node.call("ADD", conf(node, V4, **keys), pod).error()["msg"].startswith(text)
    assert (node.links(), [each["ifname"] for each in pod.ip("link")]) == (["lo"], ["lo"])
    nothing_left(node)


def test_a_failure_at_the_very_end_leaves_nothing(node: Node) -> None:
    """The same route twice: the pod is almost ready."""
    pod = node.pod()
    twice = {"subnet": "10.8.0.0/24", "routes": [{"dst": "1.2.3.0/24"}, {"dst": "1.2.3.0/24"}]}
    error = node.call("ADD", conf(node, twice, ipMasq=True), pod).error()
    assert error["msg"] == "failed to add route '1.2.3.0/24 via 10.8.0.1 dev eth0': file exists"
    assert routes(node) == []
    nothing_left(node)


def test_a_second_add_does_not_spoil_the_first(node: Node) -> None:
    pod = node.pod()
    result = node.call("ADD", conf(node, V4), pod).ok()
    wanted = conf(node, static({"address": "10.9.0.5/24", "gateway": "10.9.0.1"}))
    error = node.call("ADD", wanted, pod).error()
    assert error["msg"] == f'container veth name ("eth0") peer provided ("{veths(node)[0]}") already exists'
    node.call("CHECK", {**conf(node, V4), "prevResult": result}, pod).ok()


def test_a_namespace_that_is_none(node: Node) -> None:
    error = node.call("ADD", conf(node, V4), "/run/netns/nosuch").error()
    assert error["msg"].startswith('failed to open netns "/run/netns/nosuch": ')
    assert node.call("DEL", conf(node, V4), "/etc/passwd").error()["msg"].startswith('unknown FS magic on "/etc/passwd"')
    nothing_left(node)


def test_del_of_what_was_never_added(node: Node) -> None:
    for netns in (node.pod(), "", "/run/netns/nosuch"):
        node.call("DEL", conf(node, V4, ipMasq=True), netns).ok()


# -- the other verbs


def test_check_notices_what_is_missing(node: Node) -> None:
    pod = node.pod()
    wanted = conf(node, V4)
    assert node.call("ADD", wanted, pod).ok()
    result = node.call("ADD", wanted, other := node.pod(), container="cid2").ok()
    given = {**wanted, "prevResult": result}
    assert node.call("CHECK", wanted, other, container="cid2").error()["msg"] == "ptp: Required prevResult missing"
    assert "doesn't match configured netns" in node.call("CHECK", given, pod, container="cid2").error()["msg"]
    other.run("ip", "route", "del", "default")
    assert node.call("CHECK", given, other, container="cid2").error()["msg"].startswith("Expected Route 0.0.0.0/0")
    other.run("ip", "link", "set", "dev", "eth0", "address", "02:00:00:00:00:09")
    assert "doesn't match container Mac: 02:00:00:00:00:09" in node.call("CHECK", given, other, container="cid2").error()["msg"]
    other.run("ip", "link", "del", "dev", "eth0")
    error = node.call("CHECK", given, other, container="cid2").error()
    assert error["msg"] == "ptp: Container Interface name in prevResult: eth0 not found"
    other.run("ip", "link", "add", "name", "eth0", "type", "bridge")
    assert "not of type veth/p2p" in node.call("CHECK", given, other, container="cid2").error()["msg"]


def test_status_is_ipams(node: Node) -> None:
    node.call("STATUS", conf(node, V4)).ok()


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_gc_keeps_the_living(node: Node, backend: str) -> None:
    wanted = conf(node, V4, ipMasq=True, ipMasqBackend=backend)
    for container in ("cid1", "cid2"):
        node.call("ADD", wanted, node.pod(), container=container).ok()
    node.call("GC", {**wanted, "cni.dev/valid-attachments": [{"containerID": "cid2", "ifname": "eth0"}]}).ok()
    assert list(node.leases("podnet")) == ["10.8.0.3"]
    assert len([name for name in node.links() if name.startswith("veth")]) == 1
    assert node.pods[1].ip("link", "show", "eth0")
    rules = nft(node) if backend == "nftables" else "\n".join(node.rules())
    assert "10.8.0.3" in rules
    assert "10.8.0.2" not in rules


@pytest.mark.parametrize(("first", "second"), [(GO, BIN), (BIN, GO)], ids=["Go to ours", "ours to Go"])
def test_the_other_suite_takes_over(node: Node, first: Any, second: Any) -> None:
    pod = node.pod()
    # Of Go's 1.1.1 not even its own routes pass its CHECK, unless they are default routes or say their gateway.
    ipam = {**DUAL, "routes": DUAL["routes"][:2]}
    wanted = {**conf(node, ipam, ipMasq=True), "cniVersion": "1.0.0"}
    result = node.call("ADD", wanted, pod, bin_dir=first).ok()
    given = {**wanted, "prevResult": result}
    node.call("CHECK", given, pod, bin_dir=second).ok()
    node.call("DEL", given, pod, bin_dir=second).ok()
    nothing_left(node)


@pytest.mark.parametrize("path", [f"{GO}", f"{BIN}"], ids=["Go's IPAM", "our IPAM"])
def test_an_ipam_of_either_suite(node: Node, path: str) -> None:
    pod = node.pod()
    wanted = {**conf(node, V4), "cniVersion": "1.0.0"}
    result = node.call("ADD", wanted, pod, path=path).ok()
    assert list(node.leases("podnet")) == ["10.8.0.2"]
    node.call("CHECK", {**wanted, "prevResult": result}, pod, path=path).ok()
    assert node.call("ADD", {**wanted, "mtu": 70000}, node.pod(), container="cid2", path=path).status == 1
    assert list(node.leases("podnet")) == ["10.8.0.2"]
    node.call("DEL", wanted, pod, path=path).ok()
    nothing_left(node)
