"""macvlan, ipvlan, vlan, dummy and tap on a real kernel: links that are the pod's alone (main sheet 4 to 6, 9, 10)."""

import json
import pathlib
from typing import Any

import pytest

from ipcni import names
from ipcni.model import Attachment
from tests.lab import BIN, Node, Pod, run
from tests.node.test_bridge import addresses, link, routes
from tests.remains import remains, tools

MASTER_MAC = "02:00:00:00:00:aa"
V4: dict[str, Any] = {"subnet": "10.9.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
DUAL: dict[str, Any] = {"ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]], "routes": [{"dst": "::/0"}]}
OWN: dict[str, dict[str, Any]] = {
    "macvlan": {"master": "mst"},
    "ipvlan": {"master": "mst"},
    "vlan": {"master": "mst", "vlanId": 77},
    "dummy": {},
    "tap": {},
}
LACKING = ("ipvlan", "vlan", "dummy")
KINDS = [pytest.param(kind, marks=[pytest.mark.kernel(kind)] if kind in LACKING else []) for kind in OWN]
# What all of them do in the same way is tried with those that every kernel has.
COMMON = ["macvlan", "tap"]
ON_A_MASTER = [each for each in KINDS if "master" in OWN[str(each.values[0])]]
MODES = [
    *(("macvlan", mode) for mode in ("bridge", "private", "vepa", "passthru")),
    *(pytest.param("ipvlan", mode, marks=pytest.mark.kernel("ipvlan")) for mode in ("l3", "l3s")),
]


@pytest.fixture
def wire(node: Node) -> Node:
    """A node with a link that is plugged in."""
    master(node)
    return node


def master(space: Pod, mtu: int = 1500) -> None:
    near = ("name", "mst", "address", MASTER_MAC, "mtu", str(mtu))
    far = ("name", "far", "address", "02:00:00:00:00:ab", "mtu", str(mtu))
    space.run("ip", "link", "add", *near, "type", "veth", "peer", *far)
    for name in ("mst", "far"):
        space.run("ip", "link", "set", name, "up")


def conf(node: Node, kind: str, ipam: dict[str, Any] | None = V4, version: str = "1.1.0", **keys: Any) -> dict[str, Any]:
    made = {"cniVersion": version, "name": "podnet", "type": kind, **OWN[kind], **keys}
    if ipam:
        made["ipam"] = {"type": "host-local", "dataDir": node.data_dir, **ipam}
    return made


def refused(node: Node, wanted: dict[str, Any], pod: Pod | str, verb: str = "ADD", **call: Any) -> str:
    """What an error says; an ADD has left everything as it was."""
    before = (remains(node), pod.ip("link", "show")) if isinstance(pod, Pod) else None
    error = node.call(verb, wanted, pod, **call).error()
    if verb == "ADD" and isinstance(pod, Pod):
        assert (remains(node), pod.ip("link", "show")) == before
    return str(error["msg"])


# -- what they have in common


@pytest.mark.parametrize("kind", KINDS)
def test_add_check_del(wire: Node, kind: str) -> None:
    pod, wanted = wire.pod(), conf(wire, kind)
    result = wire.call("ADD", wanted, pod).ok()
    made = link(pod, "eth0")
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": made["address"], "sandbox": pod.path}],
        "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    assert made["linkinfo"]["info_kind"] == ("tun" if kind == "tap" else kind)
    assert "UP" in made["flags"]
    assert addresses(pod, "eth0") == ["10.9.0.2/24"]
    assert ("default", "10.9.0.1") in routes(pod)
    if kind in ("ipvlan", "vlan"):
        assert made["address"] == MASTER_MAC
    known = {**wanted, "prevResult": result}
    wire.call("CHECK", known, pod).ok()
    assert set(wire.links()) == {"lo", "mst", "far"}
    for _ in range(2):
        wire.call("DEL", known, pod).ok()
    assert [each["ifname"] for each in pod.ip("link", "show")] == ["lo"]
    assert wire.leases("podnet") == {}


@pytest.mark.parametrize("kind", KINDS)
def test_both_families_and_older_versions(wire: Node, kind: str) -> None:
    for number, version in enumerate(("0.2.0", "0.4.0", "1.0.0")):
        pod = wire.pod()
        result = wire.call(
            "ADD", conf(wire, kind, DUAL, version, **({"vlanId": number} if kind == "vlan" else {})), pod, container=f"c{number}"
        ).ok()
        assert addresses(pod, "eth0") == [f"10.9.0.{number + 2}/24", f"fd00:9::{number + 2}/64"]
        assert ("default", "fd00:9::1") in routes(pod, 6)
        assert ("ip4" in result) == (version == "0.2.0")


@pytest.mark.parametrize("kind", COMMON)
def test_del_without_namespace_or_master(wire: Node, kind: str) -> None:
    """The lease goes; the link went with the pod, or goes with it."""
    pod, wanted = wire.pod(), conf(wire, kind)
    wire.call("ADD", wanted, pod).ok()
    wire.call("DEL", wanted, "").ok()
    assert wire.leases("podnet") == {}
    wire.call("DEL", wanted, pod).ok()
    wire.call("ADD", wanted, pod).ok()
    wire.run("ip", "link", "del", "mst")
    pod.delete()
    for netns in (pod.path, ""):
        wire.call("DEL", wanted, netns).ok()
    assert wire.leases("podnet") == {}


@pytest.mark.parametrize("kind", COMMON)
def test_a_failed_add_leaves_nothing(wire: Node, kind: str, tmp_path: pathlib.Path) -> None:
    """Whatever step of it fails."""
    pod = wire.pod()
    full = conf(wire, kind, {"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.2"})
    wire.call("ADD", {**full, **({"vlanId": 5} if kind == "vlan" else {})}, pod, ifname="one", container="other").ok()
    error = wire.call("ADD", full, pod).error()
    assert "no IP addresses available" in error["msg"]
    wanted = conf(wire, kind, {**V4, "routes": [{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]})
    error = wire.call("ADD", wanted, pod).error()
    assert error["msg"].startswith("failed to add route '192.0.2.0/24 via")
    assert [each["ifname"] for each in pod.ip("link", "show")] == ["lo", "one"]
    assert list(wire.leases("podnet")) == ["10.9.0.2"]


@pytest.mark.parametrize("kind", COMMON)
def test_a_name_that_is_taken(wire: Node, kind: str) -> None:
    pod = wire.pod()
    pod.run("ip", "link", "add", "eth0", "type", "bridge")
    error = wire.call("ADD", conf(wire, kind), pod).error()
    assert "File exists" in error["msg"] or "File exists" in error.get("details", ""), error
    assert [each["ifname"] for each in pod.ip("link", "show")] == ["lo", "eth0"]
    assert wire.leases("podnet") == {}


@pytest.mark.parametrize("kind", ON_A_MASTER)
@pytest.mark.parametrize("inside", [False, True])
def test_an_add_that_was_killed_before_the_link_had_its_name(wire: Node, kind: str, inside: bool) -> None:
    """DEL removes what was half made, and the pod can be added again."""
    pod, wanted = wire.pod(), conf(wire, kind, linkInContainer=inside)
    if inside:
        master(pod)
    half = names.host_veth(Attachment("podnet", "cid1", "eth0"))
    type_ = ("type", kind, *(("id", "77") if kind == "vlan" else ()))
    space, where = (pod, ()) if inside else (wire, ("netns", pod.name))
    before = sorted(each["ifname"] for each in pod.ip("link", "show"))
    for _ in range(2):
        space.run("ip", "link", "add", "link", "mst", "name", half, *where, *type_)
        wire.call("DEL", wanted, pod).ok()
        assert sorted(each["ifname"] for each in pod.ip("link", "show")) == before
        wire.call("ADD", wanted, pod).ok()
        wire.call("DEL", wanted, pod).ok()
    assert sorted(each["ifname"] for each in pod.ip("link", "show")) == before


@pytest.mark.parametrize("kind", KINDS)
def test_check_sees_what_changed(wire: Node, kind: str) -> None:
    pod, wanted = wire.pod(), conf(wire, kind)
    result = wire.call("ADD", wanted, pod).ok()
    known = {**wanted, "prevResult": result}
    assert "missing" in refused(wire, wanted, pod, "CHECK")
    pod.run("ip", "addr", "del", "10.9.0.2/24", "dev", "eth0")
    assert refused(wire, known, pod, "CHECK") == "Failed to match addr 10.9.0.2/24 on interface eth0"
    pod.run("ip", "link", "del", "eth0")
    assert refused(wire, known, pod, "CHECK") == "container Interface name in prevResult: eth0 not found"
    pod.run("ip", "link", "add", "eth0", "type", "bridge")
    assert f"not of type {'tun' if kind == 'tap' else kind}" in refused(wire, known, pod, "CHECK")


@pytest.mark.parametrize("kind", COMMON)
def test_gc_releases_leases(wire: Node, kind: str) -> None:
    wanted = conf(wire, kind)
    for number in (1, 2):
        each = {**wanted, **({"vlanId": number} if kind == "vlan" else {})}
        wire.call("ADD", each, wire.pod(), container=f"cid{number}").ok()
    wire.call("GC", {**wanted, "cni.dev/valid-attachments": [{"containerID": "cid2", "ifname": "eth0"}]}).ok()
    assert list(wire.leases("podnet")) == ["10.9.0.3"]


@pytest.mark.parametrize("kind", KINDS)
def test_status(wire: Node, kind: str) -> None:
    wire.call("STATUS", conf(wire, kind)).ok()
    gone = wire.call("STATUS", conf(wire, kind, {"type": "nope"})).error()
    assert gone["msg"].startswith('failed to find plugin "nope"')


@pytest.mark.parametrize("kind", COMMON)
def test_another_suites_ipam_comes_after_the_link(wire: Node, kind: str, tmp_path: pathlib.Path) -> None:
    """It may need one, as DHCP does; when it fails the link goes."""
    answer = json.dumps({"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.7/24"}]})
    pod = wire.pod()
    tools(
        tmp_path / "ipam",
        other=f"case $CNI_COMMAND in ADD) ip -n {pod.name} link show eth0 >/dev/null && printf %s '{answer}';; esac",
    )
    path = f"{tmp_path}/ipam:{BIN}"
    wire.call("ADD", conf(wire, kind, {"type": "other"}), pod, path=path).ok()
    assert addresses(pod, "eth0") == ["10.9.0.7/24"]
    wire.call("DEL", conf(wire, kind, {"type": "other"}), pod, path=path).ok()
    tools(tmp_path / "ipam", other='echo \'{"code": 11, "msg": "later"}\'; exit 1')
    assert refused(wire, conf(wire, kind, {"type": "other"}), pod, path=path) == "later"


# -- on a master


@pytest.mark.parametrize("kind", ON_A_MASTER)
def test_the_default_routes_link_is_the_master(wire: Node, kind: str) -> None:
    pod, wanted = wire.pod(), conf(wire, kind, master="")
    if kind == "vlan":
        for verb in ("ADD", "CHECK", "STATUS"):
            assert refused(wire, wanted, pod, verb).startswith('"master" field is required')
        return
    assert refused(wire, wanted, pod) == "no default route interface found"
    assert wire.call("STATUS", wanted).error()["code"] == 50 if kind == "macvlan" else True
    wire.run("ip", "-6", "route", "add", "default", "dev", "mst")
    result = wire.call("ADD", wanted, pod).ok()
    wire.call("CHECK", {**wanted, "prevResult": result}, pod).ok()


@pytest.mark.parametrize("kind", ["macvlan"])
def test_a_master_that_is_nowhere(wire: Node, kind: str) -> None:
    assert refused(wire, conf(wire, kind, master="nope"), wire.pod()) == 'failed to lookup master "nope": Link not found'
    error = wire.call("STATUS", conf(wire, kind, master="nope")).error()
    assert (error["code"], error["msg"]) == (50, 'failed to lookup master "nope": Link not found')


@pytest.mark.parametrize("kind", ["macvlan", pytest.param("vlan", marks=pytest.mark.kernel("vlan"))])
def test_a_master_in_the_pod(node: Node, kind: str) -> None:
    pod = node.pod()
    wanted = conf(node, kind, linkInContainer=True)
    assert "Link not found" in refused(node, wanted, pod)
    master(pod)
    result = node.call("ADD", wanted, pod).ok()
    assert link(pod, "eth0")["link"] == "mst"
    known = {**wanted, "prevResult": result}
    node.call("CHECK", known, pod).ok()
    nowhere = f"{pod.path}-not"
    assert refused(node, known, nowhere, "CHECK").startswith(f'failed to open netns "{nowhere}": ')
    node.call("DEL", wanted, pod).ok()
    assert sorted(each["ifname"] for each in pod.ip("link", "show")) == ["far", "lo", "mst"]


@pytest.mark.parametrize("kind", ON_A_MASTER)
def test_mtu(wire: Node, kind: str) -> None:
    pod = wire.pod()
    if kind != "ipvlan":
        assert refused(wire, conf(wire, kind, mtu=9000), pod) == "invalid MTU 9000, must be [0, master MTU(1500)]"
        assert refused(wire, conf(wire, kind, mtu=-1), pod) == "invalid MTU -1, must be [0, master MTU(1500)]"
    result = wire.call("ADD", conf(wire, kind, mtu=1300), pod).ok()
    assert link(pod, "eth0")["mtu"] == 1300
    other = wire.call("CHECK", {**conf(wire, kind, mtu=1400), "prevResult": result}, pod)
    if kind == "vlan":
        assert other.error()["msg"] == "vlan: eth0 has MTU 1300, and `mtu` is 1400"
    else:
        other.ok()


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_modes(wire: Node, kind: str, mode: str) -> None:
    pod, wanted = wire.pod(), conf(wire, kind, mode=mode)
    result = wire.call("ADD", wanted, pod).ok()
    assert link(pod, "eth0")["linkinfo"]["info_data"]["mode"] == mode
    assert result["interfaces"][0]["mac"] == link(pod, "eth0")["address"]
    assert link(wire, "mst")["address"] == MASTER_MAC
    other = "vepa" if mode == "bridge" else "bridge" if kind == "macvlan" else "l2" if mode != "l2" else "l3"
    assert "does not match expected value" in refused(wire, {**wanted, "mode": other, "prevResult": result}, pod, "CHECK")
    wire.call("CHECK", {**wanted, "prevResult": result}, pod).ok()


@pytest.mark.parametrize("kind", ["macvlan", pytest.param("ipvlan", marks=pytest.mark.kernel("ipvlan"))])
def test_an_unknown_mode(wire: Node, kind: str) -> None:
    assert refused(wire, conf(wire, kind, mode="bad"), wire.pod()) == f'unknown {kind} mode: "bad"'


# -- macvlan's and tap's own


@pytest.mark.parametrize("kind", ["macvlan", "tap"])
def test_who_says_which_mac(wire: Node, kind: str) -> None:
    """`mac`, before it CNI_ARGS, before that the capability."""
    wanted = conf(wire, kind, mac="C2-11-22-33-44-01")
    asked = "IgnoreUnknown=1;MAC=c2:11:22:33:44:02"
    more = {**wanted, "runtimeConfig": {"mac": "c2:11:22:33:44:03"}}
    for number, (config, args) in enumerate([(wanted, ""), (wanted, asked), (more, asked)], 1):
        result = wire.call("ADD", config, wire.pod(), container=f"c{number}", args=args).ok()
        assert result["interfaces"][0]["mac"] == f"c2:11:22:33:44:0{number}"
        assert link(wire.pods[-1], "eth0")["address"] == f"c2:11:22:33:44:0{number}"
    assert (
        refused(wire, conf(wire, kind, None, mac="zz"), wire.pod())
        == "invalid args zz for MAC addr: address zz: invalid MAC address"
    )


@pytest.mark.parametrize("kind", ["macvlan", "tap"])
def test_without_addresses_it_is_up(wire: Node, kind: str) -> None:
    pod = wire.pod()
    result = wire.call("ADD", conf(wire, kind, None), pod).ok()
    assert set(result) == {"cniVersion", "interfaces"}
    assert "UP" in link(pod, "eth0")["flags"]
    wire.call("CHECK", {**conf(wire, kind, None), "prevResult": result}, pod).ok()
    wire.call("DEL", conf(wire, kind, None), pod).ok()


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_the_masters_mac_can_only_be_passed_through(wire: Node, mode: str) -> None:
    pod, wanted = wire.pod(), conf(wire, "macvlan", mode=mode, mac=MASTER_MAC)
    if mode != "passthru":
        assert refused(wire, wanted, pod) == 'failed to set "eth0" UP: address already in use'
        assert wire.leases("podnet") == {}
        return
    result = wire.call("ADD", wanted, pod).ok()
    assert result["interfaces"][0]["mac"] == link(pod, "eth0")["address"] == MASTER_MAC
    wire.call("CHECK", {**wanted, "prevResult": result}, pod).ok()


@pytest.mark.parametrize("keys", [{"type": "macvlan"}, {"type": "tap"}, {"type": "host-device", "device": "mst"}])
@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_without_addresses_old_versions_are_refused_first(wire: Node, keys: dict[str, str], version: str) -> None:
    """Their results need one."""
    wanted = {"cniVersion": version, "name": "podnet", "master": "mst", **keys}
    assert refused(wire, wanted, wire.pod()) == "cannot convert: no valid IP addresses"
    assert [entry for entry in wire.journal()[-1]["commands"] if not entry.get("look")] == []


def test_macvlans_reach_each_other(wire: Node) -> None:
    pods = [wire.pod(), wire.pod()]
    for number, pod in enumerate(pods):
        wire.call("ADD", conf(wire, "macvlan", DUAL), pod, container=f"c{number}").ok()
        assert (pod.sysctl("net/ipv4/conf/eth0/arp_notify"), pod.sysctl("net/ipv6/conf/eth0/ndisc_notify")) == ("1", "1")
    for address in ("10.9.0.3", "fd00:9::3"):
        pods[0].run("ping", "-c1", "-W2", address)


def test_without_a_carrier_nothing_is_waited_for_in_vain(wire: Node) -> None:
    """No duplicate can be found then; the pod gets its address all the same."""
    wire.run("ip", "link", "set", "far", "down")
    pod = wire.pod()
    wire.call("ADD", conf(wire, "macvlan", DUAL), pod).ok()
    assert addresses(pod, "eth0") == ["10.9.0.2/24", "fd00:9::2/64"]


def test_the_broadcast_queue(wire: Node) -> None:
    pod = wire.pod()
    wire.call("ADD", conf(wire, "macvlan", bcqueuelen=2000), pod).ok()
    assert link(pod, "eth0")["linkinfo"]["info_data"]["bcqueuelen"] == 2000
    assert refused(wire, conf(wire, "macvlan", None, bcqueuelen=-1), wire.pod(), container="c2") == "invalid bcqueuelen -1"


def test_a_master_that_is_a_port(wire: Node) -> None:
    wire.run("ip", "link", "add", "brx", "type", "bridge")
    wire.run("ip", "link", "set", "mst", "master", "brx")
    error = wire.call("ADD", conf(wire, "macvlan"), wire.pod()).error()
    assert error["msg"].startswith("failed to create macvlan: ")
    assert "busy" in error["msg"]
    assert wire.leases("podnet") == {}


@pytest.mark.parametrize("kind", ["macvlan", "tap"])
def test_the_dns_is_the_configs(wire: Node, kind: str) -> None:
    result = wire.call("ADD", conf(wire, kind, dns={"nameservers": ["192.0.2.53"]}), wire.pod()).ok()
    assert result["dns"] == {"nameservers": ["192.0.2.53"]}


def test_what_a_tap_is_like(node: Node) -> None:
    def flags(**keys: Any) -> dict[str, Any]:
        pod = node.pod()
        node.call("ADD", conf(node, "tap", None, **keys), pod, container=f"c{len(node.pods)}").ok()
        found: dict[str, Any] = link(pod, "eth0")["linkinfo"]["info_data"]
        return found

    plain = flags(mtu=1400)
    assert (plain["type"], plain["pi"], plain["vnet_hdr"], plain["persist"], plain["multi_queue"]) == (
        "tap",
        False,
        False,
        True,
        False,
    )
    assert link(node.pods[-1], "eth0")["mtu"] == 1400
    both = flags(owner=54321, group=54322, mac="c2:11:22:33:44:09", mtu=1300)
    assert (both["user"], both["group"], both["vnet_hdr"], both["pi"]) == (54321, 54322, True, True)
    made = link(node.pods[-1], "eth0")
    assert (made["address"], made["mtu"]) == ("c2:11:22:33:44:09", 1300)
    many = flags(owner=54321, group=54322, multiQueue=True)
    assert (many["group"], many["multi_queue"], many["vnet_hdr"], many["pi"]) == (54322, True, True, False)
    assert flags(owner=54321)["user"] == 54321
    assert refused(node, conf(node, "tap", None, owner=-1), node.pod(), container="x") == "invalid owner -1"


def test_a_taps_bridge_is_the_pods(node: Node) -> None:
    pod = node.pod()
    assert refused(node, conf(node, "tap", bridge="brt"), pod) == "failed to get bridge brt: Link not found"
    assert refused(node, conf(node, "tap", bridge="lo"), pod).startswith("failed to set tap eth0 as a port of bridge lo")
    pod.run("ip", "link", "add", "brt", "type", "bridge")
    node.call("ADD", conf(node, "tap", bridge="brt"), pod).ok()
    assert link(pod, "eth0")["master"] == "brt"


def test_a_security_label_where_there_is_no_selinux(node: Node) -> None:
    assert refused(node, conf(node, "tap", selinuxContext="u:r:t:s0"), node.pod()).startswith("failed to create tap")


@pytest.mark.parametrize(
    ("lacks", "keys", "text"),
    [
        ("mount -t tmpfs none /dev/net", {}, "this kernel makes no taps: /dev/net/tun: no such file or directory"),
        ("mount --bind /dev/null /usr/bin/runcon", {"selinuxContext": "u:r:t:s0"}, "this node has no runcon"),
    ],
)
def test_a_tap_that_cannot_be(node: Node, lacks: str, keys: dict[str, Any], text: str) -> None:
    """STATUS knows beforehand."""
    env = {**node.env, "CNI_COMMAND": "STATUS", "CNI_PATH": str(BIN)}
    argv = ("ip", "netns", "exec", node.name, "sh", "-c", f"{lacks} && exec {BIN}/tap")
    error = json.loads(run(*argv, check=False, env=env, input=json.dumps(conf(node, "tap", None, **keys))).stdout)
    assert (error["code"], error["msg"]) == (50, text)


@pytest.mark.parametrize("kind", COMMON)
def test_an_add_too_many(wire: Node, kind: str) -> None:
    """The first one's link and lease stay."""
    pod, wanted = wire.pod(), conf(wire, kind)
    result = wire.call("ADD", wanted, pod).ok()
    assert refused(wire, wanted, pod)
    assert list(wire.leases("podnet")) == ["10.9.0.2"]
    wire.call("CHECK", {**wanted, "prevResult": result}, pod).ok()


# -- ipvlan's, vlan's and dummy's own


@pytest.mark.kernel("ipvlan")
def test_an_ipvlan_in_a_chain(wire: Node) -> None:
    """Addresses and master come from what the chain has so far."""
    pod = wire.pod()
    prev = {"cniVersion": "1.1.0", "interfaces": [{"name": "mst"}], "ips": [{"address": "10.9.0.9/24", "interface": 0}]}
    wanted = conf(wire, "ipvlan", None, master="", prevResult=prev)
    result = wire.call("ADD", wanted, pod).ok()
    assert result["ips"] == [{"address": "10.9.0.9/24", "interface": 0}]
    assert addresses(pod, "eth0") == ["10.9.0.9/24"]
    wire.call("DEL", {**wanted, "prevResult": result}, pod).ok()
    several = {**prev, "interfaces": [{"name": "mst"}, {"name": "far"}]}
    assert refused(wire, {**wanted, "prevResult": several}, pod).startswith("chained master failure")
    assert refused(wire, conf(wire, "ipvlan", None), pod) == "no plugin name provided"


@pytest.mark.kernel("vlan")
def test_vlan_ids(wire: Node) -> None:
    for number in (-1, 4095):
        assert refused(wire, conf(wire, "vlan", vlanId=number), wire.pod()).startswith(f"invalid VLAN ID {number} ")
    pod = wire.pod()
    result = wire.call("ADD", conf(wire, "vlan", vlanId=4094), pod).ok()
    data = link(pod, "eth0")["linkinfo"]["info_data"]
    assert (data["protocol"], data["id"]) == ("802.1Q", 4094)
    known = {**conf(wire, "vlan", vlanId=5), "prevResult": result}
    assert refused(wire, known, pod, "CHECK") == "vlan: eth0 has VLAN ID 4094, and `vlanId` is 5"
    error = wire.call("ADD", conf(wire, "vlan", vlanId=4094), wire.pod(), container="c2").error()
    assert error["msg"].startswith("failed to create vlan: ")
    assert refused(wire, conf(wire, "vlan", None), wire.pod(), container="c3") == "no plugin name provided"


@pytest.mark.kernel("dummy")
def test_a_dummy_needs_addresses_and_is_up(node: Node) -> None:
    pod = node.pod()
    assert refused(node, conf(node, "dummy", None), pod) == "dummy interface requires an IPAM configuration"
    assert refused(node, conf(node, "dummy", None), pod, "STATUS") == "no plugin name provided"
    node.call("DEL", conf(node, "dummy", None), pod).ok()
    result = node.call("ADD", conf(node, "dummy"), pod).ok()
    pod.run("ip", "link", "set", "eth0", "down")
    assert refused(node, {**conf(node, "dummy"), "prevResult": result}, pod, "CHECK") == "Interface eth0 is down"
    assert refused(node, conf(node, "dummy"), pod, container="c2") == "failed to create dummy: file exists"
