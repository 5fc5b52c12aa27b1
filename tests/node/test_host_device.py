"""host-device on a real kernel: how the link is found, moved, and given back as it was (main sheet 7)."""

import json
import pathlib
import shlex
import time
from typing import Any

import pytest

from tests.lab import BIN, GO, Node, Pod, run
from tests.node.test_bridge import addresses, link, routes
from tests.state import differences, settle, snapshot

MAC = "02:00:00:00:00:d0"
V4 = {"subnet": "10.9.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
PCI = "0000:00:1f.6"
# A PCI device, as sysfs shows one: over the real one's place, for one command only.
SYSFS = """
mount -t tmpfs bus /sys/bus && cd /sys/bus && mkdir -p pci/devices/{pci}/virtio3/net/hd0 auxiliary/devices/mlx5_core.sf.4/net/hd0 drivers/{driver}
ln -s /sys/bus/drivers/{driver} pci/devices/{pci}/driver
exec "$0"
"""


SEVERAL = (
    "route append 203.0.113.0/24 via 192.0.2.1 dev hd0 metric 5",
    "route append 203.0.113.0/24 via 192.0.2.2 dev hd0 metric 5",
    "route add 203.0.114.0/24 mtu 1300 nexthop via 192.0.2.1 dev hd0 weight 2 nexthop via 198.18.0.1 dev hd1 onlink",
    "route add 203.0.115.0/24 table 77 nexthop via 192.0.2.1 dev hd0 nexthop via inet6 fd00:2::2 dev hd0",
    "route add fd00:3::/64 nexthop via fd00:4::1 dev hd1 nexthop via fd00:2::1 dev hd0",
    "route add fd00:5::/64 nexthop via fd00:2::1 dev hd0 nexthop via fd00:2::2 dev hd0",
)


def other_link(node: Node) -> None:
    """A link of the node that no pod gets."""
    for words in (
        "link add hd1 type veth peer name far1",
        "link set hd1 up",
        "link set far1 up",
        "addr add 192.0.4.5/24 dev hd1",
        "addr add fd00:4::5/64 dev hd1 nodad",
    ):
        node.run("ip", *words.split())


@pytest.fixture
def device(node: Node) -> Node:
    """A node with a link of its own, up, with addresses and a route."""
    node.run("ip", "link", "add", "hd0", "address", MAC, "type", "veth", "peer", "name", "far", "address", "02:00:00:00:00:d1")
    for words in (
        "link set hd0 up",
        "link set far up",
        "addr add 192.0.2.5/24 brd + dev hd0",
        "addr add fd00:2::5/64 dev hd0 nodad",
    ):
        node.run("ip", *words.split())
    node.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1", "metric", "7")
    return node


def conf(node: Node, ipam: dict[str, Any] | None = None, version: str = "1.1.0", **keys: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"cniVersion": version, "name": "podnet", "type": "host-device", **(keys or {"device": "hd0"})}
    if ipam:
        made["ipam"] = {"type": "host-local", "dataDir": node.data_dir, **ipam}
    return made


def there(space: Pod) -> list[str]:
    return sorted(each["ifname"] for each in space.ip("link", "show"))


def with_sysfs(node: Node, verb: str, wanted: dict[str, Any], pod: Pod, driver: str = "virtio") -> Any:
    """A call that sees a PCI device whose link is hd0."""
    env = {
        **node.env,
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "cid1",
        "CNI_NETNS": pod.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(BIN),
    }
    script = SYSFS.format(pci=PCI, driver=driver)
    argv = ("ip", "netns", "exec", node.name, "sh", "-e", "-c", script, str(BIN / "host-device"))
    done = run(*argv, check=False, env=env, input=json.dumps(wanted))
    return json.loads(done.stdout) if done.stdout else None


@pytest.mark.parametrize("keys", [{"device": "hd0"}, {"hwaddr": MAC.upper()}, {"kernelpath": "/sys/devices/virtual"}])
def test_there_and_back(device: Node, keys: dict[str, Any]) -> None:
    """By name, address or place: the pod has it, and then the node has it as it was."""
    if "kernelpath" in keys:
        device.run("ip", "link", "set", "far", "name", "zz0")  # the first by name is taken
    pod, wanted = device.pod(), conf(device, V4, **keys)
    device.run("ip", "link", "set", "hd0", "allmulticast", "on")
    settle(device, pod)
    before = snapshot(device, [pod])
    result = device.call("ADD", wanted, pod).ok()
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": MAC, "sandbox": pod.path}],
        "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    made = link(pod, "eth0")
    assert (made["address"], made["ifalias"], "UP" in made["flags"]) == (MAC, "hd0", True)
    assert addresses(pod, "eth0") == ["10.9.0.2/24"]
    assert "hd0" not in there(device)
    device.call("CHECK", {**wanted, "prevResult": result}, pod).ok()
    for words in ("mtu 1400", "address 02:00:00:00:00:99", "txqueuelen 77", "promisc on", "allmulticast off"):
        pod.run("ip", "link", "set", "eth0", *words.split())
    for _ in range(2):
        device.call("DEL", {**wanted, "prevResult": result}, pod).ok()
        settle(device, pod)
        assert differences(before, snapshot(device, [pod])) == []
    assert device.leases("podnet") == {}
    assert link(device, "hd0").get("ifalias", "") == ""


EXACT = (
    "link set hd0 alias 'uplink, to leaf 3'",
    "addr add 192.0.2.4/24 dev hd0",
    "addr add 192.0.3.5 peer 192.0.3.6/32 dev hd0 metric 200",
    "addr add 192.0.4.5/24 brd + dev hd0 scope link label hd0:1 noprefixroute",
    "addr add fd00:2::4/64 dev hd0 nodad preferred_lft 0",
    "addr add fe80::5/64 dev hd0 nodad",
    "route add 203.0.113.0/24 via 192.0.2.1 dev hd0 table 77 mtu 1300 advmss 1200",
    "route add 203.0.114.0/24 via 198.18.0.1 onlink dev hd0",
    "route add local 203.0.115.1 dev hd0 table local",
    "route add 203.0.116.0/24 via inet6 fd00:2::1 dev hd0",
    "route add fd00:3::/64 via fd00:2::1 dev hd0 metric 9",
)
PLUGGED = ("link add br9 type bridge", "addr flush dev hd0", "link set hd0 master br9")


def lent(node: Node, pod: Pod, wanted: dict[str, Any], *, fails: bool = False) -> list[str]:
    """What is different on the node when a pod has had its link, or has not got it."""
    settle(node, pod)
    before = snapshot(node, [pod])
    if fails:
        node.call(
            "ADD", {**wanted, "ipam": {**wanted["ipam"], "routes": [{"dst": "203.0.113.0/24", "gw": "198.51.100.1"}]}}, pod
        ).error()
    else:
        node.call("ADD", wanted, pod).ok()
        node.call("DEL", wanted, pod).ok()
    settle(node, pod)
    deadline = time.monotonic() + 4
    while (found := differences(before, snapshot(node, [pod]))) and time.monotonic() < deadline:
        time.sleep(0.2)  # the kernel takes a moment for carriers
    return found


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("commands", [EXACT, PLUGGED])
def test_the_node_has_everything_as_it_was(device: Node, commands: tuple[str, ...], fails: bool) -> None:
    """Alias, every detail of addresses, routes of all tables, master, the kernel's settings: after a DEL, and after a failed ADD."""
    pod = device.pod()
    for command in commands:
        device.run("ip", *shlex.split(command))
    device.run("sysctl", "-qw", "net/ipv4/conf/hd0/rp_filter=2", f"net/ipv6/conf/hd0/disable_ipv6={int(commands == PLUGGED)}")
    assert lent(device, pod, conf(device, V4), fails=fails) == []


@pytest.mark.parametrize("fails", [False, True])
def test_several_ways_to_one_place_come_back(device: Node, fails: bool) -> None:
    """As routes of their own, and as next hops of one, some of them by a link that stayed."""
    pod = device.pod()
    other_link(device)
    for command in SEVERAL:
        device.run("ip", *command.split())
    assert lent(device, pod, conf(device, V4), fails=fails) == []


def test_a_route_that_was_made_meanwhile_stays(device: Node) -> None:
    """Somebody else's way to the same place is not replaced by ours."""
    pod = device.pod()
    other_link(device)
    device.run("ip", "route", "add", "default", "via", "192.0.2.1")
    device.call("ADD", conf(device), pod).ok()
    device.run("ip", "route", "add", "default", "via", "192.0.4.1")
    device.call("DEL", conf(device), pod).ok()
    assert [each["gateway"] for each in device.ip("route", "show", "default")] == ["192.0.4.1", "192.0.2.1"]


def test_a_leased_address_is_for_its_client_to_get_again(device: Node) -> None:
    """A lease may have ended while the pod had the link; a failed ADD has taken no time."""
    pod = device.pod()
    device.run("ip", "addr", "add", "192.0.9.5/24", "dev", "hd0", "valid_lft", "5000", "preferred_lft", "4000")
    several = "203.0.115.0/24 nexthop via 192.0.9.1 dev hd0 nexthop via 192.0.2.9 dev hd0"
    for words in (
        several,
        "default via 192.0.9.1 proto dhcp",
        "203.0.113.0/24 dev hd0 src 192.0.9.5",
        "203.0.114.0/24 via 192.0.2.9",
    ):
        device.run("ip", "route", "add", *words.split())
    lent(device, pod, conf(device, V4), fails=True)
    again = next(each for each in link(device, "hd0")["addr_info"] if each["local"] == "192.0.9.5")
    assert 4900 < again["valid_life_time"] <= 5000
    assert routes(device)[0] == ("default", "192.0.9.1")
    lent(device, pod, conf(device, V4))
    assert addresses(device, "hd0") == ["192.0.2.5/24", "fd00:2::5/64"]
    assert [dst for dst, _ in routes(device)] == ["192.0.2.0/24", "198.51.100.0/24", "203.0.114.0/24"]


def test_what_cannot_be_given_back_is_said_once(device: Node) -> None:
    """The rest is given back all the same."""
    pod = device.pod()
    device.run("ip", "link", "add", "br9", "type", "bridge")
    device.run("ip", "link", "set", "hd0", "master", "br9")
    device.call("ADD", conf(device), pod).ok()
    device.run("ip", "link", "del", "br9")
    device.run("ip", "link", "add", "br9", "type", "veth", "peer", "name", "other")
    assert device.call("DEL", conf(device), pod).error()["msg"].startswith("failed to give hd0 its master br9 again: ")
    assert addresses(device, "hd0") == ["192.0.2.5/24", "fd00:2::5/64"]
    device.call("DEL", conf(device), pod).ok()


def test_an_add_too_many(device: Node) -> None:
    """The first one's link and lease stay, and its DEL still knows how things were."""
    pod, wanted = device.pod(), conf(device, V4)
    settle(device, pod)
    before = snapshot(device, [pod])
    device.call("ADD", wanted, pod).ok()
    assert "duplicate allocation is not allowed" in device.call("ADD", wanted, pod).error()["msg"]
    assert device.call("ADD", conf(device), pod).error()["msg"] == "failed to find host device: Link not found"
    assert (addresses(pod, "eth0"), list(device.leases("podnet"))) == (["10.9.0.2/24"], ["10.9.0.2"])
    device.call("DEL", wanted, pod).ok()
    settle(device, pod)
    assert differences(before, snapshot(device, [pod])) == []


def test_a_noted_namespace_that_is_another_pods_by_now(device: Node) -> None:
    """Its link is left alone: nobody but the note says that it was ours."""
    pod, wanted = device.pod(), conf(device)
    device.call("ADD", wanted, pod).ok()
    pod.run("ip", "link", "del", "eth0")
    pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    device.call("GC", {**wanted, "cni.dev/valid-attachments": []}).ok()
    device.call("DEL", wanted, "").ok()
    assert (there(pod), there(device)) == (["eth0", "lo", "peer0"], ["lo"])


def test_a_link_that_the_pod_calls_otherwise(device: Node) -> None:
    """It is the one with our alias and its MAC."""
    pod = device.pod()
    settle(device, pod)
    before = snapshot(device, [pod])
    device.call("ADD", conf(device), pod).ok()
    for words in ("eth0 down", "eth0 name lan0"):
        pod.run("ip", "link", "set", *words.split())
    device.call("DEL", conf(device), pod).ok()
    settle(device, pod)
    assert differences(before, snapshot(device, [pod])) == []


def test_a_link_that_is_called_the_same_in_the_pod(device: Node) -> None:
    """The kernel gave it back under the name that it had, but with our alias, and down."""
    device.run("ip", "link", "set", "hd0", "name", "eth0")
    pod, wanted = device.pod(), conf(device, device="eth0")
    device.call("ADD", wanted, pod).ok()
    device.run("sh", "-c", f"exec 9</proc/self/ns/net; exec ip netns exec {pod.name} ip link set dev eth0 netns /proc/self/fd/9")
    pod.delete()
    device.call("DEL", wanted, pod).ok()
    made = link(device, "eth0")
    assert ("UP" in made["flags"], made.get("ifalias", "")) == (True, "")
    assert addresses(device, "eth0") == ["192.0.2.5/24", "fd00:2::5/64"]


def test_a_link_that_was_down_stays_so(node: Node) -> None:
    """Without addresses the result has no dns either."""
    node.run("ip", "link", "add", "hd0", "type", "veth", "peer", "name", "far")
    pod = node.pod()
    result = node.call("ADD", {**conf(node), "dns": {"domain": "x"}}, pod).ok()
    assert set(result) == {"cniVersion", "interfaces"}
    assert "UP" in link(pod, "eth0")["flags"]
    node.call("DEL", conf(node), pod).ok()
    assert "UP" not in link(node, "hd0")["flags"]


@pytest.mark.parametrize(
    "keys", [{"pciBusID": PCI}, {"runtimeConfig": {"deviceID": PCI}}, {"runtimeConfig": {"deviceID": "mlx5_core.sf.4"}}]
)
def test_devices_on_a_bus(device: Node, keys: dict[str, Any]) -> None:
    pod, wanted = device.pod(), conf(device, **keys)
    assert with_sysfs(device, "ADD", wanted, pod)["interfaces"] == [{"name": "eth0", "mac": MAC, "sandbox": pod.path}]
    assert there(pod) == ["eth0", "lo"]
    assert with_sysfs(device, "DEL", wanted, pod) is None
    assert there(device) == ["far", "hd0", "lo"]


def test_a_device_that_a_program_drives(device: Node) -> None:
    """There is no link to move; the answer is what the pod gets."""
    pod = device.pod()
    wanted = conf(device, {"type": "static", "addresses": [{"address": "10.9.0.7/24"}]}, pciBusID=PCI)
    result = with_sysfs(device, "ADD", wanted, pod, driver="vfio-pci")
    assert (result["interfaces"], result["ips"][0]["address"]) == ([{"name": "eth0", "sandbox": pod.path}], "10.9.0.7/24")
    assert (there(pod), there(device)) == (["lo"], ["far", "hd0", "lo"])
    for verb in ("CHECK", "DEL", "DEL"):
        assert with_sysfs(device, verb, {**wanted, "prevResult": result}, pod, driver="vfio-pci") is None


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"other": 1}, 'specify either "device", "hwaddr", "kernelpath" or "pciBusID"'),
        ({"device": "nope"}, "failed to find host device: Link not found"),
        ({"hwaddr": "zz"}, 'failed to parse MAC address "zz": address zz: invalid MAC address'),
        ({"hwaddr": "02:00:00:00:00:ee"}, "failed to find physical interface"),
        ({"kernelpath": "/foo"}, 'kernel device path "/foo" must be absolute and begin with /sys/devices/'),
        ({"kernelpath": "/sys/devices/../../etc"}, "must be absolute and begin with /sys/devices/"),
        (
            {"kernelpath": "/sys/devices/foo"},
            'failed to read directory /sys/devices/foo/net: "open /sys/devices/foo/net: no such file',
        ),
        (
            {"pciBusID": "0000:99:99.9"},
            "error with host device: lstat /sys/bus/pci/devices/0000:99:99.9: no such file or directory",
        ),
        ({"pciBusID": "../../../etc"}, "error with host device: lstat"),
        ({"runtimeConfig": {"deviceID": "nope"}}, "runtime config DeviceID nope not found or unsupported"),
        ({"runtimeConfig": {"deviceID": "../x"}}, "runtime config DeviceID ../x not found or unsupported"),
    ],
)
def test_what_is_no_device(device: Node, keys: dict[str, Any], text: str) -> None:
    pod = device.pod()
    assert text in device.call("ADD", conf(device, V4, **keys), pod).error()["msg"]
    assert device.leases("podnet") == {}
    device.call("DEL", conf(device, V4, **keys), pod).ok()


def test_a_taken_name_in_the_pod(device: Node) -> None:
    """The link stays on the node, untouched, and the pod's own keeps working."""
    pod = device.pod()
    pod.run("ip", "link", "add", "eth0", "type", "bridge")
    settle(device, pod)
    before = snapshot(device, [pod])
    error = device.call("ADD", conf(device, V4), pod).error()
    assert error["msg"].startswith("failed to move link hd0 to container NS: ")
    assert differences(before, snapshot(device, [pod])) == []
    device.call("ADD", conf(device, V4), pod, ifname="net1").ok()
    assert there(pod) == ["eth0", "lo", "net1"]
    device.call("DEL", conf(device, V4), pod, ifname="net1").ok()
    assert (there(pod), there(device)) == (["eth0", "lo"], ["far", "hd0", "lo"])


def test_a_failed_add_gives_the_link_back(device: Node) -> None:
    pod = device.pod()
    settle(device, pod)
    before = snapshot(device, [pod])
    wanted = conf(device, {"subnet": "10.9.0.0/24", "routes": [{"dst": "203.0.113.0/24", "gw": "198.51.100.1"}]}, device="hd0")
    assert device.call("ADD", wanted, pod).error()["msg"].startswith("failed to add route '203.0.113.0/24")
    settle(device, pod)
    assert differences(before, snapshot(device, [pod])) == []
    assert device.leases("podnet") == {}


def test_a_taken_name_on_the_node(device: Node) -> None:
    """DEL says so and leaves the link with the pod; when the intruder is gone the next one succeeds."""
    pod = device.pod()
    device.call("ADD", conf(device), pod).ok()
    device.run("ip", "link", "add", "hd0", "type", "bridge")
    assert device.call("DEL", conf(device), pod).error()["msg"].startswith('failed to move "hd0" to hostNS: ')
    assert "UP" in link(pod, "eth0")["flags"]
    device.run("ip", "link", "del", "hd0")
    device.call("DEL", conf(device), pod).ok()
    assert addresses(device, "hd0") == ["192.0.2.5/24", "fd00:2::5/64"]


def test_a_link_without_an_alias(device: Node, tmp_path: pathlib.Path) -> None:
    """Without our note, nobody knows where it came from."""
    pod = device.pod()
    device.call("ADD", conf(device), pod).ok()
    pod.run("ip", "link", "set", "eth0", "alias", "")
    elsewhere = {"IPCNI_RUN_DIR": str(tmp_path / "elsewhere")}
    error = device.call("DEL", conf(device), pod, env=elsewhere).error()
    assert error["msg"] == 'failed to find original ifname for "eth0" (alias is not set)'
    device.call("DEL", conf(device), pod).ok()
    assert there(device) == ["far", "hd0", "lo"]


def test_del_without_a_namespace_and_gc_know_where_it_is(device: Node) -> None:
    pod, wanted = device.pod(), conf(device, V4)
    device.call("ADD", wanted, pod).ok()
    device.call("DEL", wanted, "").ok()
    assert (there(device), device.leases("podnet")) == (["far", "hd0", "lo"], {})
    device.call("ADD", wanted, pod).ok()
    device.call("GC", {**wanted, "cni.dev/valid-attachments": [{"containerID": "cid1", "ifname": "eth0"}]}).ok()
    assert there(device) == ["far", "lo"]
    device.call("GC", {**wanted, "cni.dev/valid-attachments": []}).ok()
    assert (there(device), device.leases("podnet")) == (["far", "hd0", "lo"], {})


def test_a_physical_link_that_the_kernel_gave_back(device: Node) -> None:
    """Its pod's namespace is gone: it is on the node under the pod's name for it, with the alias."""
    pod, wanted = device.pod(), conf(device, V4)
    device.call("ADD", wanted, pod).ok()
    back = "/proc/self/fd/9"
    device.run("sh", "-c", f"exec 9</proc/self/ns/net; exec ip netns exec {pod.name} ip link set dev eth0 netns {back} name dev7")
    pod.delete()
    device.call("DEL", wanted, pod).ok()
    assert there(device) == ["far", "hd0", "lo"]
    assert addresses(device, "hd0") == ["192.0.2.5/24", "fd00:2::5/64"]


def test_check_sees_another_link(device: Node) -> None:
    pod, wanted = device.pod(), conf(device, V4)
    known = {**wanted, "prevResult": device.call("ADD", wanted, pod).ok()}
    pod.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
    assert "doesn't match container Mac" in device.call("CHECK", known, pod).error()["msg"]
    pod.run("ip", "link", "del", "eth0")
    assert device.call("CHECK", known, pod).error()["msg"] == "Container Interface name in prevResult: eth0 not found"


def test_status_is_ipams(device: Node) -> None:
    device.call("STATUS", conf(device, V4)).ok()
    device.call("STATUS", conf(device)).ok()


@pytest.mark.skipif(not (GO / "host-device").exists(), reason="containernetworking-plugins is not installed")
@pytest.mark.parametrize(("adder", "remover"), [(GO, BIN), (BIN, GO)])
def test_the_go_plugin_takes_over(device: Node, adder: pathlib.Path, remover: pathlib.Path) -> None:
    pod, wanted = device.pod(), conf(device, V4, "1.0.0")

    def call(verb: str, keys: dict[str, Any], suite: pathlib.Path) -> Any:
        return device.call(verb, keys, pod, bin_dir=suite, path=str(suite)).ok()

    known = {**wanted, "prevResult": call("ADD", wanted, adder)}
    for suite in (adder, remover):
        call("CHECK", known, suite)
    call("DEL", known, remover)
    assert (there(device), there(pod), device.leases("podnet")) == (["far", "hd0", "lo"], ["lo"], {})


@pytest.mark.skipif(not (GO / "host-device").exists(), reason="containernetworking-plugins is not installed")
def test_both_make_the_same(device: Node, other_node: Node) -> None:
    found = []
    for suite, each in ((GO, device), (BIN, other_node)):
        if each is other_node:
            each.run(
                "ip", "link", "add", "hd0", "address", MAC, "type", "veth", "peer", "name", "far", "address", "02:00:00:00:00:d1"
            )
            each.run("ip", "link", "set", "far", "up")
        pod = each.pod()
        each.call("ADD", conf(each, V4, "1.0.0"), pod, bin_dir=suite, path=str(suite)).ok()
        settle(each, pod)
        found.append(snapshot(each, [pod])["pod0"])
    assert differences(found[0], found[1]) == []
