"""bridge on a real kernel: every key, and the cases of the main sheet (2, 14.1 to 14.34)."""

import json
import pathlib
import re
from typing import Any

import pytest

from tests.lab import BIN, GO, Node, Pod, run

V4 = {"subnet": "10.7.0.0/24"}
DUAL = {"ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]]}
MASQ_CHAIN = "CNI-e41f9a45e2c62f3b407ae51b"  # of podnet and cid1 (main sheet 1.9)


def conf(node: Node, ipam: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """A bridge config; `ipam` is host-local's."""
    made: dict[str, Any] = {"cniVersion": "1.1.0", "name": "podnet", "type": "bridge", **keys}
    if ipam is not None:
        made["ipam"] = {"type": "host-local", "dataDir": node.data_dir, **ipam}
    return made


def link(space: Pod, name: str) -> dict[str, Any]:
    """A link with addresses and details."""
    found: dict[str, Any] = space.ip("-d", "addr", "show", "dev", name)[0]
    return found


def addresses(space: Pod, name: str, *, scope: str = "global") -> list[str]:
    listed = link(space, name)["addr_info"]
    return [f"{each['local']}/{each['prefixlen']}" for each in listed if each and each["scope"] == scope]


def routes(space: Pod, family: int = 4) -> list[tuple[str, str]]:
    """Destination and gateway of each route of the main table."""
    return [(each["dst"], each.get("gateway", "")) for each in space.ip(f"-{family}", "route")]


def veths(node: Node) -> list[str]:
    return [name for name in node.links() if name.startswith("veth")]


def nft(node: Node) -> str:
    return node.run("nft", "list", "ruleset").stdout


def with_result(wanted: dict[str, Any], result: Any) -> dict[str, Any]:
    return {**wanted, "prevResult": result}


def nothing_left(node: Node) -> None:
    """No link, lease or rule of any pod."""
    assert veths(node) == []
    assert node.leases("podnet") == {}
    for tool in ("iptables", "ip6tables"):
        assert not [line for line in node.rules(tool) if "CNI-" in line]
    ruleset = nft(node)
    assert "cid" not in ruleset
    assert "cni-br-iface" not in ruleset


# -- the pod, the bridge, the result


def test_the_result_says_what_is_there(node: Node) -> None:
    pod = node.pod()
    result = node.call("ADD", conf(node, DUAL, isDefaultGateway=True), pod).ok()
    bridge, veth, eth0 = result["interfaces"]
    assert bridge == {"name": "cni0", "mac": link(node, "cni0")["address"]}
    assert veth == {"name": veths(node)[0], "mac": link(node, veths(node)[0])["address"]}
    assert eth0 == {"name": "eth0", "mac": link(pod, "eth0")["address"], "sandbox": pod.path}
    assert result["ips"] == [
        {"address": "10.7.0.2/24", "gateway": "10.7.0.1", "interface": 2},
        {"address": "fd00:7::2/64", "gateway": "fd00:7::1", "interface": 2},
    ]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.7.0.1"}, {"dst": "::/0", "gw": "fd00:7::1"}]
    assert result["cniVersion"] == "1.1.0"


def test_addresses_and_routes(node: Node) -> None:
    pod = node.pod()
    node.call("ADD", conf(node, DUAL, isDefaultGateway=True), pod).ok()
    assert addresses(pod, "eth0") == ["10.7.0.2/24", "fd00:7::2/64"]
    assert addresses(node, "cni0") == ["10.7.0.1/24", "fd00:7::1/64"]
    assert link(pod, "eth0")["addr_info"][0]["broadcast"] == "10.7.0.255"
    assert ("default", "10.7.0.1") in routes(pod)
    assert ("default", "fd00:7::1") in routes(pod, 6)
    pod.run("ping", "-c", "1", "-W", "2", "10.7.0.1")
    pod.run("ping", "-6", "-c", "1", "-W", "2", "fd00:7::1")


def test_an_ipv6_address_is_usable_at_once(node: Node) -> None:
    """No duplicate address detection: it would cost two seconds."""
    pod = node.pod()
    node.call("ADD", conf(node, DUAL, isDefaultGateway=True), pod).ok()
    assert not any(each.get("tentative") for each in link(pod, "eth0")["addr_info"] if each.get("scope") == "global")
    assert pod.sysctl("net/ipv6/conf/eth0/accept_dad") == "0"
    assert pod.sysctl("net/ipv6/conf/eth0/keep_addr_on_down") == "1"
    assert pod.sysctl("net/ipv4/conf/eth0/arp_notify") == "1"
    pod.run("ip", "link", "set", "eth0", "down")
    assert addresses(pod, "eth0") == ["10.7.0.2/24", "fd00:7::2/64"], "IPv6 addresses outlive the link's going down"


def test_enabledad_waits_for_the_address(node: Node) -> None:
    pod = node.pod()
    node.call("ADD", conf(node, DUAL, isDefaultGateway=True, enabledad=True), pod).ok()
    assert pod.sysctl("net/ipv6/conf/eth0/accept_dad") == "1"
    assert pod.sysctl("net/ipv6/conf/eth0/enhanced_dad") == "1"
    assert not any(each.get("tentative") for each in link(pod, "eth0")["addr_info"])


def test_ipv6_that_was_switched_off_in_the_pod_is_switched_on(node: Node) -> None:
    pod = node.pod()
    for name in ("lo", "default"):
        pod.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
    node.call("ADD", conf(node, DUAL), pod).ok()
    assert pod.sysctl("net/ipv6/conf/lo/disable_ipv6") == "0"
    assert addresses(pod, "eth0") == ["10.7.0.2/24", "fd00:7::2/64"]


def test_without_gateway_keys_the_node_stays_out_of_it(node: Node) -> None:
    pod = node.pod()
    result = node.call("ADD", conf(node, V4), pod).ok()
    assert result["ips"] == [{"address": "10.7.0.2/24", "gateway": "10.7.0.1", "interface": 2}]
    assert "routes" not in result
    assert addresses(node, "cni0") == []
    assert node.sysctl("net/ipv4/ip_forward") == "0"
    assert routes(pod) == [("10.7.0.0/24", "")]


def test_is_gateway_forwards_and_leaves_the_routes_alone(node: Node) -> None:
    pod = node.pod()
    node.call("ADD", conf(node, DUAL, isGateway=True), pod).ok()
    assert addresses(node, "cni0") == ["10.7.0.1/24", "fd00:7::1/64"]
    assert node.sysctl("net/ipv4/ip_forward") == "1"
    assert node.sysctl("net/ipv6/conf/all/forwarding") == "1"
    assert routes(pod) == [("10.7.0.0/24", "")]


def test_a_gateway_is_worked_out_where_ipam_gives_none(node: Node) -> None:
    """Network address plus one (main sheet 2.3, step 7)."""
    ipam = {"type": "static", "addresses": [{"address": "10.88.3.130/25"}, {"address": "fd00:1::ff/120"}]}
    result = node.call("ADD", {**conf(node, isDefaultGateway=True), "ipam": ipam}, node.pod()).ok()
    assert [ip["gateway"] for ip in result["ips"]] == ["10.88.3.129", "fd00:1::1"]
    assert addresses(node, "cni0") == ["10.88.3.129/25", "fd00:1::1/120"]


def test_one_default_route_a_family(node: Node) -> None:
    """One IPv4 and two IPv6 networks: all gateways on the bridge, the first of each family in the route (case 17)."""
    ranges = [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}], [{"subnet": "fd00:8::/64"}]]
    pod = node.pod()
    result = node.call("ADD", conf(node, {"ranges": ranges}, isDefaultGateway=True), pod).ok()
    assert sorted(addresses(node, "cni0")) == ["10.7.0.1/24", "fd00:7::1/64", "fd00:8::1/64"]
    assert [route["gw"] for route in result["routes"]] == ["10.7.0.1", "fd00:7::1"]


def test_two_ipv4_networks_share_a_bridge(node: Node) -> None:
    ranges = [[{"subnet": "10.7.0.0/24"}], [{"subnet": "10.8.0.0/24"}]]
    wanted = conf(node, {"ranges": ranges}, isDefaultGateway=True, ipMasq=True)
    for number in range(2):
        node.call("ADD", wanted, node.pod(), container=f"cid{number}").ok()
        assert addresses(node, "cni0") == ["10.7.0.1/24", "10.8.0.1/24"], "in the order of the config, whoever comes"


def test_a_default_route_from_ipam_is_the_default_route(node: Node) -> None:
    """With or without its own gateway: the reference adds a second one and fails (main sheet 13)."""
    pod = node.pod()
    result = node.call("ADD", conf(node, {**V4, "routes": [{"dst": "0.0.0.0/0"}]}, isDefaultGateway=True), pod).ok()
    assert result["routes"] == [{"dst": "0.0.0.0/0"}]
    assert routes(pod)[0] == ("default", "10.7.0.1")


def test_every_field_of_a_route_that_main_plugins_apply(node: Node) -> None:
    listed = [
        {"dst": "9.9.9.0/24", "priority": 77, "table": 100},
        {"dst": "192.0.2.0/24", "gw": "10.7.0.9"},
        {"dst": "192.0.2.0/24", "gw": "10.7.0.10"},
    ]
    pod = node.pod()
    result = node.call("ADD", conf(node, {**V4, "routes": listed}), pod).ok()
    assert result["routes"] == listed
    assert [(each["dst"], each["metric"]) for each in pod.ip("route", "show", "table", "100")] == [("9.9.9.0/24", 77)]
    both = [each["gateway"] for each in pod.ip("route", "show", "192.0.2.0/24")]
    assert both == ["10.7.0.10", "10.7.0.9"], "both gateways, the later one in front"
    node.call("CHECK", with_result(conf(node, {**V4, "routes": listed}), result), pod).ok()


def test_a_route_without_a_gateway_has_the_global_scope(node: Node) -> None:
    pod = node.pod()
    ipam = {"type": "static", "addresses": [{"address": "10.7.0.2/24"}], "routes": [{"dst": "1.2.3.0/24"}]}
    node.call("ADD", {**conf(node), "ipam": ipam}, pod).ok()
    assert "scope" not in pod.ip("route", "show", "1.2.3.0/24")[0]


@pytest.mark.parametrize("route", [{"dst": "1.2.3.4/24"}, {"dst": "5.5.5.0/24", "scope": 253}])
def test_a_route_the_kernel_refuses_fails_the_add(node: Node, route: dict[str, Any]) -> None:
    error = node.call("ADD", conf(node, {**V4, "routes": [route]}), node.pod()).error()
    assert "failed to add route" in error["msg"]
    assert route["dst"] in error["msg"]
    nothing_left(node)


def test_without_ipam_there_is_a_wire_and_nothing_else(node: Node) -> None:
    """L2: link up, no addresses, nothing on the bridge whatever the gateway keys say (cases 5, main sheet 2.3.10)."""
    pod = node.pod()
    ways: tuple[dict[str, Any], ...] = ({}, {"ipam": {}}, {"ipam": {"type": ""}}, {"ipam": None})
    for ipam in ways:
        wanted = {**conf(node, isDefaultGateway=True, ipMasq=True), **ipam}
        result = node.call("ADD", wanted, pod).ok()
        assert "ips" not in result
        assert len(result["interfaces"]) == 3
        assert "UP" in link(pod, "eth0")["flags"]
        assert addresses(pod, "eth0") == addresses(node, "cni0") == []
        assert node.sysctl("net/ipv4/ip_forward") == "0"
        node.call("CHECK", with_result(wanted, result), pod).ok()
        node.call("DEL", with_result(wanted, result), pod).ok()
        nothing_left(node)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_without_ipam_old_versions_are_refused_first(node: Node, version: str) -> None:
    error = node.call("ADD", conf(node, cniVersion=version), node.pod()).error()
    assert error["msg"] == "cannot convert: no valid IP addresses"
    assert node.links() == ["lo"]


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_every_version(node: Node, version: str) -> None:
    pod = node.pod()
    wanted = conf(node, DUAL, cniVersion=version, isDefaultGateway=True)
    result = node.call("ADD", wanted, pod).ok()
    assert result["cniVersion"] == version
    if version in ("0.1.0", "0.2.0"):
        assert result["ip4"]["ip"] == "10.7.0.2/24"
        assert result["ip6"]["ip"] == "fd00:7::2/64"
    checked = node.call("CHECK", with_result(wanted, result), pod)
    if version in ("0.1.0", "0.2.0", "0.3.0", "0.3.1"):
        assert checked.error() == {"code": 1, "msg": "config version does not allow CHECK"}
    else:
        checked.ok()
    node.call("DEL", with_result(wanted, result), pod).ok()
    nothing_left(node)


# -- the pair


def test_the_host_end(node: Node) -> None:
    """Queue length 0 on the node's side only, no route advertisements, flags always written (main sheet 2.3, steps 2 and 3)."""
    pod = node.pod()
    node.call("ADD", conf(node, V4), pod).ok()
    veth = link(node, veths(node)[0])
    assert re.fullmatch("veth[0-9a-f]{8}", veth["ifname"])
    queues = [space.ip("link", "show", "dev", name)[0].get("txqlen") for space, name in ((node, veth["ifname"]), (pod, "eth0"))]
    assert queues == [None, 1000]
    assert veth["master"] == "cni0"
    assert veth["operstate"] == "UP"
    assert node.sysctl(f"net/ipv6/conf/{veth['ifname']}/accept_ra") == "0"
    assert node.sysctl("net/ipv6/conf/cni0/accept_ra") == "0"


@pytest.mark.parametrize("mtu", [0, -5, 1280, 9000])
def test_mtu(node: Node, mtu: int) -> None:
    pod = node.pod()
    node.call("ADD", conf(node, V4, mtu=mtu), pod).ok()
    assert {link(space, name)["mtu"] for space, name in ((node, "cni0"), (node, veths(node)[0]), (pod, "eth0"))} == {
        mtu if mtu > 0 else 1500
    }


def test_an_mtu_the_kernel_cannot_do(node: Node) -> None:
    error = node.call("ADD", conf(node, V4, mtu=70000), node.pod()).error()
    assert 'failed to create bridge "cni0": could not add "cni0"' in error["msg"]
    nothing_left(node)


@pytest.mark.parametrize(
    ("keys", "hairpin", "isolated"),
    [
        ({}, False, False),
        ({"hairpinMode": True}, True, False),
        ({"portIsolation": True}, False, True),
        ({"portIsolation": False, "hairpinMode": False}, False, False),
    ],
)
def test_port_flags(node: Node, keys: dict[str, Any], hairpin: bool, isolated: bool) -> None:
    node.call("ADD", conf(node, V4, **keys), node.pod()).ok()
    port = link(node, veths(node)[0])["linkinfo"]["info_slave_data"]
    assert (port["hairpin"], port["isolated"]) == (hairpin, isolated)


def test_isolated_ports_reach_the_node_and_not_each_other(node: Node) -> None:
    pods = [node.pod(), node.pod()]
    for number, pod in enumerate(pods):
        node.call("ADD", conf(node, V4, isGateway=True, portIsolation=True), pod, container=f"cid{number}").ok()
    pods[0].run("ping", "-c", "1", "-W", "2", "10.7.0.1")
    assert pods[0].run("ping", "-c", "1", "-W", "1", "10.7.0.3", check=False).returncode == 1


@pytest.mark.parametrize(
    ("args", "cni", "runtime", "expected"),
    [
        ("MAC=02:00:00:00:00:01", "", "", "02:00:00:00:00:01"),
        ("MAC=02:00:00:00:00:01", "02:00:00:00:00:02", "", "02:00:00:00:00:02"),
        ("MAC=02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:03"),
        ("", "", "02-00-00-00-00-AB", "02:00:00:00:00:ab"),
        ("", "0200.0000.00CD", "", "02:00:00:00:00:cd"),
        ("IgnoreUnknown=1;MAC=02:00:00:00:00:01;K8S_POD_NAME=x", "", "", "02:00:00:00:00:01"),
    ],
)
def test_whose_mac_wins(node: Node, args: str, cni: str, runtime: str, expected: str) -> None:
    """CNI_ARGS, then args.cni, then runtimeConfig (case 23)."""
    pod = node.pod()
    wanted = conf(node, args={"cni": {"mac": cni}}, runtimeConfig={"mac": runtime})
    result = node.call("ADD", wanted, pod, args=args).ok()
    assert result["interfaces"][2]["mac"] == link(pod, "eth0")["address"] == expected


def test_runtime_config_in_any_letter_case(node: Node) -> None:
    wanted = {**conf(node), "RuntimeConfig": {"MAC": "02:00:00:00:00:07"}}
    assert node.call("ADD", wanted, node.pod()).ok()["interfaces"][2]["mac"] == "02:00:00:00:00:07"


@pytest.mark.parametrize(
    ("mac", "told"),
    [
        ("zz", "failed to make veth pair: address zz: invalid MAC address"),
        ("01:00:5e:00:00:01", "failed to make veth pair: cannot assign requested address"),
    ],
)
def test_a_mac_that_is_none(node: Node, mac: str, told: str) -> None:
    error = node.call("ADD", conf(node, V4, runtimeConfig={"mac": mac}), node.pod()).error()
    assert error["msg"] == told
    nothing_left(node)


def test_names_and_macs_are_decided(node: Node, other_node: Node) -> None:
    """The same attachment gets the same on every try; two attachments never do."""
    first = node.call("ADD", conf(node, V4), node.pod()).ok()["interfaces"]
    again = other_node.call("ADD", conf(other_node, V4), other_node.pod()).ok()["interfaces"]
    other = node.call("ADD", conf(node, V4), node.pod(), container="cid2").ok()["interfaces"]
    assert [each["mac"] for each in first] == [each["mac"] for each in again]
    assert first[1]["name"] == again[1]["name"] != other[1]["name"]
    assert len({each["mac"] for each in first + other}) == 5


def test_a_taken_host_name_is_gone_round(node: Node) -> None:
    pod = node.pod()
    taken = node.call("ADD", conf(node), pod).ok()["interfaces"][1]["name"]
    node.call("DEL", conf(node), pod).ok()
    node.run("ip", "link", "add", taken, "type", "bridge")
    result = node.call("ADD", conf(node), pod).ok()
    assert result["interfaces"][1]["name"] != taken
    node.call("DEL", conf(node)).ok()
    assert veths(node) == [taken], "DEL without a namespace takes the pod's link and no other"


def test_the_pod_may_have_an_odd_namespace_path(node: Node) -> None:
    pod = node.pod()
    path = node.folder / "some dir"
    path.mkdir()
    place = path / "ns"
    place.touch()
    run("mount", "--bind", pod.path, str(place))
    try:
        result = node.call("ADD", conf(node, DUAL, isDefaultGateway=True), str(place)).ok()
        assert result["interfaces"][2]["sandbox"] == str(place)
        assert addresses(pod, "eth0") == ["10.7.0.2/24", "fd00:7::2/64"]
        node.call("CHECK", with_result(conf(node, DUAL, isDefaultGateway=True), result), str(place)).ok()
        node.call("DEL", conf(node, DUAL), str(place)).ok()
    finally:
        run("umount", str(place))
    nothing_left(node)


def test_disable_container_interface(node: Node) -> None:
    """The pod's end stays down, so there is no port state to wait for (case 27)."""
    pod = node.pod()
    wanted = conf(node, disableContainerInterface=True)
    result = node.call("ADD", wanted, pod).ok()
    assert "UP" not in link(pod, "eth0")["flags"]
    assert addresses(pod, "eth0", scope="link") == []
    node.call("CHECK", with_result(wanted, result), pod).ok()
    error = node.call("ADD", conf(node, V4, disableContainerInterface=True), pod, ifname="eth1").error()
    assert error["msg"] == "cannot use IPAM when DisableContainerInterface flag is set"
    assert node.leases("podnet") == {}


# -- the bridge


def test_the_bridge_keeps_its_mac(node: Node) -> None:
    """Whoever comes and goes (case 20): pods have it in their neighbour tables."""
    pods = [node.pod(), node.pod()]
    macs = set()
    for keys in ({"isGateway": True}, {}):
        for number, pod in enumerate(pods):
            macs.add(node.call("ADD", conf(node, V4, **keys), pod, container=f"cid{number}").ok()["interfaces"][0]["mac"])
            macs.add(link(node, "cni0")["address"])
        for number, pod in enumerate(pods):
            node.call("DEL", conf(node, V4), pod, container=f"cid{number}").ok()
            macs.add(link(node, "cni0")["address"])
    assert len(macs) == 1


def test_a_bridge_that_is_there_is_used_as_it_is(node: Node) -> None:
    node.run("ip", "link", "add", "br7", "mtu", "1400", "type", "bridge", "ageing_time", "1234")
    before = link(node, "br7")
    node.call("ADD", conf(node, V4, bridge="br7", isGateway=True, mtu=1300), node.pod()).ok()
    after = link(node, "br7")
    assert after["ifindex"] == before["ifindex"]
    assert after["linkinfo"]["info_data"]["ageing_time"] == 1234
    assert after["address"] == before["address"], "the MAC it had before the first port joined, pinned"
    assert node.sysctl("net/ipv6/conf/br7/accept_ra") == "0"
    assert "UP" in after["flags"]


def test_route_advertisements_are_switched_off_on_a_bridge_that_was_up(node: Node) -> None:
    node.run("ip", "link", "add", "br7", "up", "type", "bridge")
    assert node.sysctl("net/ipv6/conf/br7/accept_ra") == "1"
    node.call("ADD", conf(node, bridge="br7"), node.pod()).ok()
    assert node.sysctl("net/ipv6/conf/br7/accept_ra") == "0"


def test_a_bridge_whose_mac_is_zero_gets_one(node: Node) -> None:
    """The kernel zeroes it when the last port of a bridge without a MAC of its own leaves (main sheet 2.3, defect)."""
    node.run("ip", "link", "add", "br7", "type", "bridge")
    node.run("ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
    node.run("ip", "link", "set", "d0", "master", "br7")
    node.run("ip", "link", "del", "d0")
    node.call("ADD", conf(node, V4, bridge="br7", isGateway=True), node.pod()).ok()
    assert link(node, "br7")["address"].strip("0:")


def test_a_link_that_is_no_bridge(node: Node) -> None:
    node.run("ip", "link", "add", "foo0", "type", "veth", "peer", "name", "foo1")
    error = node.call("ADD", conf(node, V4, bridge="foo0"), node.pod()).error()
    assert error["msg"] == 'failed to create bridge "foo0": "foo0" already exists but is not a bridge'
    nothing_left(node)
    assert node.links() == ["foo0", "foo1", "lo"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", 'failed to create bridge "": could not add "": LinkAttrs.Name cannot be empty'),
        ("a" * 16, f'failed to create bridge "{"a" * 16}": could not add "{"a" * 16}": numerical result out of range'),
    ],
)
def test_bridge_names_that_are_none(node: Node, name: str, told: str) -> None:
    assert node.call("ADD", conf(node, V4, bridge=name), node.pod()).error()["msg"] == told
    assert node.links() == ["lo"]
    nothing_left(node)


def test_promiscuous_mode(node: Node) -> None:
    """Switched on, never off (case 22), and CHECK compares it."""
    pods = [node.pod(), node.pod()]
    wanted = conf(node, V4, promiscMode=True)
    result = node.call("ADD", wanted, pods[0]).ok()
    assert link(node, "cni0")["promiscuity"] == 1
    node.call("CHECK", with_result(wanted, result), pods[0]).ok()
    node.call("ADD", conf(node, V4), pods[1], container="cid2").ok()
    assert link(node, "cni0")["promiscuity"] == 1
    error = node.call("CHECK", with_result(conf(node, V4), result), pods[0]).error()
    assert error["msg"] == "Bridge interface cni0 configured Promisc Mode false doesn't match current state: true "


def test_promiscuous_mode_on_a_bridge_that_is_there(node: Node) -> None:
    node.call("ADD", conf(node), node.pod()).ok()
    node.call("ADD", conf(node, promiscMode=True), node.pod(), container="cid2").ok()
    assert link(node, "cni0")["promiscuity"] == 1


def test_hairpin_and_promiscuous_mode_exclude_each_other(node: Node) -> None:
    error = node.call("ADD", conf(node, V4, hairpinMode=True, promiscMode=True), node.pod()).error()
    assert error["msg"] == "cannot set hairpin mode and promiscuous mode at the same time"
    assert node.links() == ["lo"]


@pytest.mark.parametrize(
    ("there", "subnet", "gateway", "kept"),
    [
        ("10.0.0.1/8", "10.1.0.0/16", "10.1.2.3/16", False),
        ("2001:db8:1::1/48", "2001:db8:1:2::/64", "2001:db8:1:2::1/64", False),
        ("2001:db8:1:2::1/64", "fd00:1234::/64", "fd00:1234::1/64", True),
    ],
)
def test_another_address_on_the_bridge(node: Node, there: str, subnet: str, gateway: str, kept: bool) -> None:
    """Any other IPv4 address conflicts, an IPv6 one where the networks meet; forceAddress removes it (case 21)."""
    node.run("ip", "link", "add", "cni0", "type", "bridge")
    node.run("ip", "addr", "add", there, "dev", "cni0")
    wanted = conf(node, {"subnet": subnet, "gateway": gateway.partition("/")[0]}, isGateway=True)
    answer = node.call("ADD", wanted, node.pod())
    if kept:
        answer.ok()
        assert set(addresses(node, "cni0")) == {there, gateway}
        return
    assert answer.error()["msg"] == f'failed to set bridge addr: "cni0" already has an IP address different from {gateway}'
    assert there in answer.error()["details"]
    nothing_left(node)
    node.call("ADD", {**wanted, "forceAddress": True}, node.pod()).ok()
    assert addresses(node, "cni0") == [gateway]


def test_an_unfiltered_bridge_is_left_so(node: Node) -> None:
    """A `vlan` on a bridge somebody else made without filtering: as in the reference it is not switched on, but it is remarked."""
    node.run("ip", "link", "add", "cni0", "type", "bridge")
    answer = node.call("ADD", conf(node, vlan=100), node.pod())
    if answer.status == 0:
        assert link(node, "cni0")["linkinfo"]["info_data"].get("vlan_filtering", 0) == 0
    notes = [entry["note"] for record in node.journal() for entry in record["commands"] if "note" in entry]
    assert any("cni0 does not filter VLANs" in note for note in notes)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"vlan": -100}, "invalid VLAN ID -100 (must be between 0 and 4094)"),
        ({"vlan": 5000}, "invalid VLAN ID 5000 (must be between 0 and 4094)"),
        ({"vlanTrunk": [{"minID": 1}]}, "minID and maxID should be configured simultaneously, maxID is missing"),
        ({"vlanTrunk": [{"id": 5000}]}, "incorrect trunk id parameter"),
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_vlan_ids_that_are_none(node: Node, keys: dict[str, Any], told: str, verb: str) -> None:
    assert node.call(verb, conf(node, V4, **keys), node.pod()).error()["msg"] == told
    assert node.links() == ["lo"]


def test_vlan_0_is_no_vlan(node: Node) -> None:
    node.call("ADD", conf(node, V4, vlan=0), node.pod()).ok()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"mtu": "1500"}, "mtu"),
        ({"isGateway": "yes"}, "isGateway"),
        ({"ipam": 5}, "ipam"),
        ({"vlanTrunk": [{"id": 1.5}]}, "vlanTrunk"),
        ({"args": []}, "args"),
    ],
)
def test_a_key_of_the_wrong_type_is_named(node: Node, keys: dict[str, Any], told: str) -> None:
    error = node.call("ADD", {**conf(node, V4), **keys}, node.pod()).error()
    assert error["msg"].startswith("failed to load netconf")
    assert told in error["msg"] + error.get("details", "")
    assert node.links() == ["lo"]


@pytest.mark.parametrize(
    ("dns", "from_ipam"),
    [
        (None, True),
        ({}, True),
        ({"nameservers": None}, True),
        ({"domain": ""}, True),
        ({"nameservers": []}, False),
        ({"search": ["a.example"]}, False),
        ({"domain": "b.example"}, False),
    ],
)
def test_whose_dns(node: Node, dns: dict[str, Any] | None, from_ipam: bool) -> None:
    """The config's as a whole if any of it is given, an empty list included, else IPAM's (case 32)."""
    resolv = node.folder / "resolv.conf"
    resolv.write_text("nameserver 192.0.2.53\nsearch ipam.example\n")
    result = node.call("ADD", conf(node, {**V4, "resolvConf": str(resolv)}, dns=dns), node.pod()).ok()
    theirs = {"nameservers": ["192.0.2.53"], "search": ["ipam.example"]}
    mine = {key: value for key, value in (dns or {}).items() if value}
    assert {key: value for key, value in result.get("dns", {}).items() if value} == (theirs if from_ipam else mine)


# -- CHECK


@pytest.fixture
def added(node: Node) -> tuple[Node, Pod, dict[str, Any]]:
    """A pod, and the config that CHECK is to be called with."""
    pod = node.pod()
    wanted = conf(node, DUAL, isDefaultGateway=True)
    return node, pod, with_result(wanted, node.call("ADD", wanted, pod).ok())


def test_check_passes_after_add(added: tuple[Node, Pod, dict[str, Any]]) -> None:
    node, pod, wanted = added
    for _ in range(3):
        assert node.call("CHECK", wanted, pod).stdout == b""


def change(result: dict[str, Any], path: str, value: Any) -> None:
    *folders, name = path.split("/")
    place: Any = result
    for folder in folders:
        place = place[int(folder)] if folder.isdigit() else place[folder]
    place[name] = value


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("node ip link del cni0", "Interface name cni0 not found"),
        ("pod ip link del eth0", "Interface name VETH not found|Interface name eth0 not found"),
        ("node ip link set VETH nomaster", "CNI veth created for bridge cni0 was not found"),
        ("node ip link set cni0 address 02:00:00:00:00:99", "Bridge interface cni0 Mac doesn't match: "),
        ("node ip link set VETH address 02:00:00:00:00:99", "Interface VETH Mac doesn't match: .* not found"),
        (
            "pod ip link set eth0 address 02:00:00:00:00:99",
            "Interface eth0 Mac .* doesn't match container Mac: 02:00:00:00:00:99",
        ),
        ("pod ip addr del 10.7.0.2/24 dev eth0", "Failed to match addr 10.7.0.2/24 on interface eth0"),
        ("pod ip addr del fd00:7::2/64 dev eth0", "Failed to match addr fd00:7::2/64 on interface eth0"),
        ("pod ip route del 10.7.0.0/24", "Failed to find Gateway 10.7.0.1 for interface eth0"),
        ("pod ip route del default", "Expected Route 0.0.0.0/0 via 10.7.0.1 not found in routing table"),
        ("pod ip -6 route del default", "Expected Route ::/0 via fd00:7::1 not found in routing table"),
        ("node rm LEASE", ""),
        ("prev interfaces []", "Interface name missing "),
        ("prev interfaces/0/name other0", "Interface name missing "),
        ("prev interfaces/0/sandbox /run/x", "Interface cni0 should not be in sandbox"),
        ("prev interfaces/1/name gone0", "Interface name gone0 not found"),
        ("prev interfaces/1/sandbox /run/x", "Interface VETH should not be in sandbox"),
        ("prev interfaces/2/sandbox /run/x", "Sandbox in prevResult  doesn't match configured netns: POD"),
        ("prev interfaces/2/name eth7", "Sandbox in prevResult  doesn't match configured netns: POD"),
        ("prev ips/0/address 10.7.0.77/24", "Failed to match addr 10.7.0.77/24 on interface eth0"),
    ],
)
def test_check_finds(added: tuple[Node, Pod, dict[str, Any]], damage: str, told: str) -> None:
    """Each thing that may be wrong, in the reference's words (main sheet 2.7)."""
    node, pod, wanted = added
    where, *words = damage.split()
    veth = veths(node)[0]
    words = [word.replace("VETH", veth).replace("LEASE", f"{node.data_dir}/podnet/10.7.0.2") for word in words]
    if where == "prev":
        change(wanted["prevResult"], words[0], [] if words[1] == "[]" else words[1])
    else:
        (node if where == "node" else pod).run(*words)
    answer = node.call("CHECK", wanted, pod)
    if not told:
        assert answer.status == 0, "the other range set's lease is the container's too"
        return
    assert re.fullmatch(told.replace("VETH", veth).replace("POD", pod.path) + ".*", answer.error()["msg"])


def test_check_without_a_lease(added: tuple[Node, Pod, dict[str, Any]]) -> None:
    node, pod, wanted = added
    for address in node.leases("podnet"):
        (node.folder / "networks" / "podnet" / address).unlink()
    error = node.call("CHECK", wanted, pod).error()
    assert error["msg"] == "host-local: Failed to find address added by container cid1"


def test_check_of_another_kind_of_link(added: tuple[Node, Pod, dict[str, Any]]) -> None:
    node, pod, wanted = added
    pod.run("ip", "link", "del", "eth0")
    pod.run("ip", "link", "add", "eth0", "type", "bridge")
    error = node.call("CHECK", wanted, pod).error()
    assert error["msg"] == "Error: Container interface eth0 not of type veth"


def test_check_needs_prev_result_and_namespace(added: tuple[Node, Pod, dict[str, Any]]) -> None:
    node, pod, wanted = added
    del wanted["prevResult"]
    assert node.call("CHECK", wanted, pod).error()["msg"] == "Required prevResult missing"
    error = node.call("CHECK", wanted, "/run/netns/none").error()
    assert error["msg"] == 'failed to open netns "/run/netns/none": failed to Statfs "/run/netns/none": no such file or directory'


def test_check_takes_host_addresses_and_multipath(node: Node) -> None:
    """/32 and /128 have no route for their network; two IPv6 gateways are one multipath route (main sheet 1.10, defects)."""
    pod = node.pod()
    ipam = {
        "type": "static",
        "addresses": [{"address": "10.7.0.2/24"}, {"address": "10.9.9.9/32"}, {"address": "fd00:7::2/64"}],
        "routes": [{"dst": "fd01::/64", "gw": "fd00:7::8"}, {"dst": "fd01::/64", "gw": "fd00:7::9"}],
    }
    wanted = {**conf(node), "ipam": ipam}
    result = node.call("ADD", wanted, pod).ok()
    node.call("CHECK", with_result(wanted, result), pod).ok()


def test_an_older_prev_result_in_a_newer_config(node: Node) -> None:
    pod = node.pod()
    result = node.call("ADD", conf(node, DUAL, cniVersion="1.0.0"), pod).ok()
    node.call("CHECK", with_result(conf(node, DUAL), result), pod).ok()


# -- DEL


def test_add_twice(added: tuple[Node, Pod, dict[str, Any]]) -> None:
    """The second fails, the first stays whole (case 1)."""
    node, pod, wanted = added
    assert "has been allocated to cid1" in node.call("ADD", conf(node, DUAL), pod).error()["msg"]
    node.call("CHECK", wanted, pod).ok()
    error = node.call("ADD", conf(node), pod, container="cid2").error()
    assert re.fullmatch(r'container veth name \("eth0"\) peer provided \("veth.*"\) already exists', error["msg"])
    node.call("CHECK", wanted, pod).ok()
    assert len(veths(node)) == 1


FULL = {"isDefaultGateway": True, "ipMasq": True, "macspoofchk": True}


def test_add_twice_leaves_the_rules_of_the_first(node: Node) -> None:
    pod = node.pod()
    wanted = conf(node, macspoofchk=True)
    node.call("ADD", wanted, pod).ok()
    before = nft(node)
    assert "already exists" in node.call("ADD", wanted, pod).error()["msg"]
    assert nft(node) == before


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
@pytest.mark.parametrize("way", ["with prevResult", "plain", "no netns", "netns gone", "netns path gone", "link gone", "twice"])
def test_del_leaves_nothing(node: Node, backend: str, way: str) -> None:
    """Whatever is known still (USERS 1, 2; cases 2, 3): no link, lease, rule or chain of the pod."""
    pod = node.pod()
    wanted = conf(node, DUAL, ipMasqBackend=backend, **FULL)
    result = node.call("ADD", wanted, pod).ok()
    bystander = node.call("ADD", wanted, node.pod(), container="cid2").ok()
    given: Pod | str = pod
    match way:
        case "with prevResult":
            wanted = with_result(wanted, result)
        case "no netns":
            given = ""
        case "netns gone":
            pod.delete()
        case "netns path gone":
            given = "/run/netns/elsewhere"  # the runtime forgot where, but the namespace lives
        case "link gone":
            pod.run("ip", "link", "del", "eth0")
    for _ in range(2 if way == "twice" else 1):
        assert node.call("DEL", wanted, given).stdout == b""
    text = nft(node) + "\n".join(node.rules() + node.rules("ip6tables")) + json.dumps(node.leases("podnet"))
    assert "cid1" not in text
    assert "10.7.0.2/" not in text
    assert MASQ_CHAIN not in text
    assert veths(node) == [bystander["interfaces"][1]["name"]]
    assert "cid2" in text
    wanted.pop("prevResult", None)
    node.call("DEL", wanted, container="cid2").ok()
    nothing_left(node)


def test_del_of_what_was_never_added(node: Node) -> None:
    for given in (node.pod(), "", "/run/netns/none"):
        assert node.call("DEL", conf(node, DUAL, **FULL), given).stdout == b""
    assert node.links() == ["lo"]
    assert not (node.folder / "networks").exists(), "DEL makes no lease directory"


def test_three_dels_at_once(node: Node) -> None:
    pod = node.pod()
    wanted = conf(node, DUAL, **FULL)
    result = node.call("ADD", wanted, pod).ok()
    calls = [node.start("DEL", with_result(wanted, result), pod) for _ in range(3)]
    for call in calls:
        node.wait(call).ok()
    nothing_left(node)


def test_del_of_something_else_than_a_namespace(node: Node) -> None:
    error = node.call("DEL", conf(node, V4), "/etc/passwd").error()
    assert re.fullmatch('unknown FS magic on "/etc/passwd": [0-9a-f]+', error["msg"])


def test_del_reports_what_ipam_says_and_removes_the_rest(node: Node) -> None:
    pod = node.pod()
    wanted = conf(node, V4, **FULL)
    node.call("ADD", wanted, pod).ok()
    error = node.call("DEL", {**wanted, "ipam": {"type": "nope"}}, pod).error()
    assert 'failed to find plugin "nope" in path' in error["msg"]
    assert veths(node) == []
    assert not [line for line in node.rules() if "CNI-" in line]


@pytest.mark.parametrize("known", [True, False])
def test_two_interfaces_of_a_container_share_the_chain(node: Node, known: bool) -> None:
    """DEL of one leaves the other's masquerading, with or without prevResult (main sheet 2.8, defect)."""
    pod = node.pod()
    wanted = conf(node, V4, isDefaultGateway=True, ipMasq=True)
    plain = {**wanted, "isDefaultGateway": False, "isGateway": True}
    results = [
        node.call("ADD", wanted, pod, ifname="eth0").ok(),
        node.call(
            "ADD", {**plain, "bridge": "cni1", "ipam": {**wanted["ipam"], "subnet": "10.8.0.0/24"}}, pod, ifname="eth1"
        ).ok(),
    ]
    networks = [line.split()[3] for line in node.rules() if line.startswith(f"-A {MASQ_CHAIN} -d")]
    last = [line for line in node.rules() if line.startswith(f"-A {MASQ_CHAIN} ")][-1]
    assert sorted(networks) == ["10.7.0.0/24", "10.8.0.0/24"]
    assert last.endswith("-j MASQUERADE"), "networks are excepted before anything is masqueraded"
    node.call("DEL", with_result(wanted, results[0]) if known else wanted, pod, ifname="eth0").ok()
    jumps = [line for line in node.rules() if line.startswith("-A POSTROUTING")]
    assert [line.split()[3] for line in jumps] == ["10.8.0.2/32"]
    assert any(line.startswith(f"-A {MASQ_CHAIN} ! -d 224.0.0.0/4") for line in node.rules())
    node.call("DEL", with_result(wanted, results[1]) if known else wanted, pod, ifname="eth1").ok()
    nothing_left(node)


# -- masquerading


def test_the_rules_of_ip_masq(node: Node) -> None:
    """Chain, comment, order and words are the reference's: either suite can remove them (main sheet 1.9)."""
    node.call("ADD", conf(node, DUAL, ipMasq=True), node.pod()).ok()
    comment = '-m comment --comment "name: \\"podnet\\" id: \\"cid1\\""'
    for tool, ip, network, multicast in (
        ("iptables", "10.7.0.2/32", "10.7.0.0/24", "224.0.0.0/4"),
        ("ip6tables", "fd00:7::2/128", "fd00:7::/64", "ff00::/8"),
    ):
        rules = [line for line in node.rules(tool) if line.startswith("-A")]
        assert rules == [
            f"-A POSTROUTING -s {ip} {comment} -j {MASQ_CHAIN}",
            f"-A {MASQ_CHAIN} -d {network} {comment} -j ACCEPT",
            f"-A {MASQ_CHAIN} ! -d {multicast} {comment} -j MASQUERADE",
        ]


def test_the_rules_of_ip_masq_by_nft(node: Node) -> None:
    node.call("ADD", conf(node, DUAL, ipMasq=True, ipMasqBackend="nftables"), node.pod()).ok()
    tag = "fa98a27bbcc17b2e-0b65a318f52e521b, net: podnet, if: eth0, id: cid1"
    text = node.run("nft", "list", "table", "inet", "cni_plugins_masquerade").stdout
    assert f'ip saddr 10.7.0.2 ip daddr != 10.7.0.0/24 masquerade comment "{tag}"' in text
    assert f'ip6 saddr fd00:7::2 ip6 daddr != fd00:7::/64 masquerade comment "{tag}"' in text
    assert text.index("224.0.0.0/4") < text.index("ff00::/8") < text.index("goto masq_checks")
    assert not [line for line in node.rules() if "CNI-" in line]


def test_masquerading_works(node: Node) -> None:
    """Seen from outside, packets come from the node; between pods they keep their source."""
    pods, outside = [node.pod(), node.pod()], node.pod()
    node.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", outside.name)
    node.run("ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
    node.run("ip", "link", "set", "up0", "up")
    outside.run("ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
    outside.run("ip", "link", "set", "eth0", "up")
    for number, (pod, backend) in enumerate(zip(pods, ("iptables", "nftables"), strict=True)):
        wanted = conf(node, V4, isDefaultGateway=True, ipMasq=True, ipMasqBackend=backend)
        node.call("ADD", wanted, pod, container=f"cid{number}").ok()
        pod.run("ping", "-c", "1", "-W", "2", "192.0.2.2")  # the way back has no route but to the node
    pods[0].run("ping", "-c", "1", "-W", "2", "10.7.0.3")


def test_the_chain_of_an_earlier_try_is_used(node: Node) -> None:
    node.run("iptables", "-t", "nat", "-N", MASQ_CHAIN)
    node.call("ADD", conf(node, V4, ipMasq=True), node.pod()).ok()
    assert len([line for line in node.rules() if line.startswith(f"-A {MASQ_CHAIN}")]) == 2
    node.call("DEL", conf(node, V4, ipMasq=True), "").ok()
    nothing_left(node)


def test_an_unknown_backend(node: Node) -> None:
    error = node.call("ADD", conf(node, V4, ipMasq=True, ipMasqBackend="foo"), node.pod()).error()
    assert error["msg"] == 'unknown ipmasq backend "foo"'
    nothing_left(node)


# -- the spoof check


def test_the_rules_of_macspoofchk(node: Node) -> None:
    """One rule in PREROUTING, one in the port's chain, two in the MAC's (case 26)."""
    pod = node.pod()
    node.call("ADD", conf(node, V4, macspoofchk=True), pod).ok()
    entries = json.loads(node.run("nft", "-j", "list", "table", "bridge", "nat").stdout)["nftables"]
    rules = [entry["rule"] for entry in entries if "rule" in entry]
    assert [rule["chain"] for rule in rules] == [
        "PREROUTING",
        "cni-br-iface-cid1-eth0",
        "cni-br-iface-cid1-eth0-mac",
        "cni-br-iface-cid1-eth0-mac",
    ]
    assert {rule["comment"] for rule in rules} == {"macspoofchk-cid1-eth0"}
    chain = next(entry["chain"] for entry in entries if entry.get("chain", {}).get("name") == "PREROUTING")
    assert (chain["type"], chain["hook"], chain["prio"], chain["policy"]) == ("filter", "prerouting", -300, "accept")


def test_a_pod_cannot_use_another_mac(node: Node) -> None:
    pod = node.pod()
    node.call("ADD", conf(node, V4, isGateway=True, macspoofchk=True), pod).ok()
    pod.run("ping", "-c", "1", "-W", "2", "10.7.0.1")
    pod.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:66")
    assert pod.run("ping", "-c", "1", "-W", "1", "10.7.0.1", check=False).returncode == 1


def test_the_spoof_check_of_a_failed_add_is_gone(node: Node) -> None:
    """Its chains are jumped to, so they cannot go before the rules that do."""
    other = node.pod()
    node.call("ADD", conf(node, V4, macspoofchk=True), other, container="other").ok()
    before = nft(node)
    bad = {**V4, "routes": [{"dst": "1.2.3.4/24"}]}
    node.call("ADD", conf(node, bad, macspoofchk=True), node.pod()).error()
    assert nft(node) == before
    ipam = {"type": "static", "addresses": [], "dataDir": ""}
    node.call("ADD", {**conf(node, macspoofchk=True), "ipam": ipam}, node.pod()).error()
    assert nft(node) == before


def test_names_nft_cannot_take(node: Node) -> None:
    """A chain's name has the pod interface's in it; what would end the word is refused, and nothing runs."""
    for ifname in ("a;b", "a{b", "a#b", 'a"b', "a$b"):
        error = node.call("ADD", conf(node, V4, macspoofchk=True), node.pod(), ifname=ifname).error()
        assert "macspoofchk" in error["msg"] + error.get("details", "")
        node.call("DEL", conf(node, V4, macspoofchk=True), "", ifname=ifname).ok()
        nothing_left(node)


def test_a_container_id_too_long_for_a_comment(node: Node) -> None:
    """nftables takes 128 bytes of comment (main sheet 2.5)."""
    error = node.call("ADD", conf(node, V4, macspoofchk=True), node.pod(), container="c" * 120).error()
    assert "macspoofchk" in error["msg"] + error.get("details", "")
    nothing_left(node)
    node.call("DEL", conf(node, V4, macspoofchk=True), "", container="c" * 120).ok()


# -- STATUS, GC


def test_status(node: Node) -> None:
    assert node.call("STATUS", conf(node, V4)).stdout == b""
    assert node.call("STATUS", conf(node)).stdout == b""
    assert 'failed to find plugin "nope"' in node.call("STATUS", {**conf(node), "ipam": {"type": "nope"}}).error()["msg"]
    old = node.call("STATUS", conf(node, cniVersion="1.0.0")).error()
    assert old == {"code": 1, "msg": "config version does not allow STATUS"}


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_gc_removes_the_rules_and_leases_of_the_dead(node: Node, backend: str) -> None:
    """Of this network only."""
    pods = [node.pod() for _ in range(3)]
    wanted = conf(node, DUAL, isGateway=True, ipMasq=True, ipMasqBackend=backend, macspoofchk=True)
    elsewhere = {**wanted, "name": "other", "bridge": "cni1", "ipam": {**wanted["ipam"], "ranges": [[{"subnet": "10.9.0.0/24"}]]}}
    node.call("ADD", wanted, pods[0], container="alive").ok()
    node.call("ADD", wanted, pods[1], container="dead").ok()
    node.call("ADD", elsewhere, pods[2], container="dead").ok()
    valid = [{"containerID": "alive", "ifname": "eth0"}]
    assert node.call("GC", {**wanted, "cni.dev/valid-attachments": valid}).stdout == b""
    text = nft(node) + "\n".join(node.rules() + node.rules("ip6tables"))
    assert "10.7.0.2" in text
    assert "10.7.0.3" not in text
    assert "10.9.0.2" in text
    assert list(node.leases("podnet")) == ["10.7.0.2", "fd00:7::2"]
    assert list(node.leases("other")) == ["10.9.0.2"]
    assert len([name for name in node.links() if name.startswith("veth")]) == 2
    assert pods[0].ip("link", "show", "eth0")
    assert "macspoofchk-alive-eth0" in text
    # The other network's container has the same id, and so its rules the same comment: they are the first DEL's that comes.
    assert "macspoofchk-dead-eth0" not in text
    node.call("GC", {**wanted, "cni.dev/valid-attachments": []}).ok()
    assert node.leases("podnet") == {}
    assert len(node.leases("other")) == 1


def test_gc_without_a_list_removes_nothing(node: Node) -> None:
    wanted = conf(node, V4, ipMasq=True)
    node.call("ADD", wanted, node.pod()).ok()
    node.call("GC", wanted).ok()
    assert len(node.leases("podnet")) == 1
    assert any(MASQ_CHAIN in line for line in node.rules())


# -- others' IPAM


def test_another_suites_ipam(node: Node) -> None:
    """It is run after the pair is made, and undone by its DEL."""
    wanted = conf(node, DUAL, isDefaultGateway=True, cniVersion="1.0.0")
    pod = node.pod()
    result = node.call("ADD", wanted, pod, path=str(GO)).ok()
    assert list(node.leases("podnet")) == ["10.7.0.2", "fd00:7::2"]
    assert link(node, "cni0")["address"] == result["interfaces"][0]["mac"]
    node.call("CHECK", with_result(wanted, result), pod, path=f"{BIN}:{GO}").ok()
    node.call("DEL", with_result(wanted, result), pod, path=str(GO)).ok()
    bad = {**wanted, "ipam": {**wanted["ipam"], "routes": [{"dst": "1.2.3.4/24"}]}}
    node.call("ADD", bad, pod, path=str(GO)).error()
    nothing_left(node)


def test_ipam_that_gives_no_address(node: Node) -> None:
    wanted = {**conf(node), "ipam": {"type": "static"}}
    error = node.call("ADD", wanted, node.pod()).error()
    assert error["msg"] == "IPAM plugin returned missing IP config"
    nothing_left(node)
    error = node.call("ADD", {**conf(node), "ipam": {"type": "nope"}}, node.pod()).error()
    assert error["msg"].startswith('failed to find plugin "nope" in path [')
    nothing_left(node)


def test_a_namespace_by_a_relative_path(node: Node, tmp_path: pathlib.Path) -> None:
    """From the caller's folder, whatever the folder of those who do the work; the result has it as it was given."""
    pod = node.pod()
    (tmp_path / "bin").mkdir()
    for plugin in ("bridge", "host-local"):
        (tmp_path / "bin" / plugin).write_text(f"#!/bin/sh\ncd /run && exec {BIN}/{plugin}\n")
        (tmp_path / "bin" / plugin).chmod(0o755)
    wanted = conf(node, V4, isGateway=True, ipMasq=True)
    result = node.call("ADD", wanted, f"netns/{pod.name}", bin_dir=tmp_path / "bin", path=str(BIN)).ok()
    assert result["interfaces"][2]["sandbox"] == f"netns/{pod.name}"
    assert addresses(pod, "eth0") == ["10.7.0.2/24"]
    node.call("DEL", wanted, f"netns/{pod.name}", bin_dir=tmp_path / "bin", path=str(BIN)).ok()
    assert veths(node) == []
