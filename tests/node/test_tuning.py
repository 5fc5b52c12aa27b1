"""tuning on a real kernel: every key from every place, the way back, and the cases of the meta sheet (5, 9, 10)."""

import json
import pathlib
from typing import Any

import pytest

from ipcni.parts import tuning_conf
from ipcni.protocol import skel
from tests.lab import BIN, GO, Node, Pod

MAC = "c2:11:22:33:44:77"
SHAPE = ("address", "mtu", "txqlen", "promiscuity")


@pytest.fixture
def pod(node: Node) -> Pod:
    """A pod with an interface."""
    made = node.pod()
    made.run("ip", "link", "add", "name", "eth0", "type", "veth", "peer", "name", "peer0")
    return made


def conf(node: Node, **keys: Any) -> dict[str, Any]:
    prev = {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "veth1", "mac": "02:00:00:00:00:01"},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/x"},
        ],
        "ips": [{"address": "10.7.0.2/24", "interface": 1}],
    }
    folder = str(node.folder / "tuning")
    return {"cniVersion": "1.0.0", "name": "n", "type": "tuning", "dataDir": folder, "prevResult": prev, **keys}


def shape(pod: Pod) -> dict[str, Any]:
    """What the link is like."""
    link = pod.ip("-d", "link", "show", "dev", "eth0")[0]
    return {key: link[key] for key in SHAPE} | {"flags": sorted({"PROMISC", "ALLMULTI"} & set(link["flags"]))}


def backups(node: Node) -> dict[str, Any]:
    folder = node.folder / "tuning"
    return {path.name: json.loads(path.read_text()) for path in folder.iterdir()} if folder.is_dir() else {}


ALL: dict[str, Any] = {"mac": MAC, "promisc": True, "mtu": 1400, "allmulti": True, "txQLen": 2000}


@pytest.mark.parametrize("place", ["config", "args"])
@pytest.mark.parametrize("keys", [*({key: value} for key, value in ALL.items()), ALL], ids=[*ALL, "all"])
def test_each_key_and_the_way_back(node: Node, pod: Pod, keys: dict[str, Any], place: str) -> None:
    wanted = conf(node, **keys) if place == "config" else conf(node, args={"cni": keys})
    before = shape(pod)
    result = node.call("ADD", wanted, pod).ok()
    assert shape(pod) == before | {
        name: value
        for name, value in {
            "address": keys.get("mac"),
            "mtu": keys.get("mtu"),
            "txqlen": keys.get("txQLen"),
            "promiscuity": 1 if keys.get("promisc") else None,
            "flags": [flag for flag, key in (("ALLMULTI", "allmulti"), ("PROMISC", "promisc")) if keys.get(key)],
        }.items()
        if value is not None
    }
    assert result["interfaces"][1]["mac"] == keys.get("mac", "02:00:00:00:00:02")
    assert list(backups(node)) == ["cid1_eth0.json"]
    node.call("CHECK", {**wanted, "prevResult": result}, pod).ok()
    for _ in range(2):
        node.call("DEL", wanted, pod).ok()
    assert (shape(pod), backups(node)) == (before, {})


def test_the_backup_is_the_go_plugins(node: Node, pod: Pod) -> None:
    mac = shape(pod)["address"]
    node.call("ADD", conf(node, **ALL), pod, container="dummy").ok()
    file = node.folder / "tuning" / "dummy_eth0.json"
    assert (
        file.read_text() == f'{{\n "mac": "{mac}",\n "promisc": false,\n "mtu": 1500,\n "allmulti": false,\n "txQLen": 1000\n}}'
    )
    assert file.stat().st_mode & 0o777 == 0o600


def test_allmulti_false_acts_and_what_was_on_comes_back(node: Node, pod: Pod) -> None:
    pod.run("ip", "link", "set", "dev", "eth0", "allmulticast", "on", "promisc", "on")
    before = shape(pod)
    wanted = conf(node, allmulti=False, promisc=True)
    node.call("ADD", wanted, pod).ok()
    assert shape(pod)["flags"] == ["PROMISC"]
    node.call("DEL", wanted, pod).ok()
    assert shape(pod) == before


# -- kernel settings


def test_sysctls(node: Node, pod: Pod) -> None:
    """With blanks and dots where the kernel and people have them; DEL gives back what was there."""
    pod.run("ip", "link", "set", "dev", "eth0", "name", "eth0.7")
    wanted = conf(
        node,
        sysctl={
            "net.ipv4.conf.IFNAME.log_martians": "1",
            "net/core/somaxconn": "500",
            "net.ipv4.ip_local_port_range": "2000 3000",
        },
        args={"cni": {"sysctl": {"net/core/somaxconn": "501"}}},
    )
    keys = ("net/ipv4/conf/eth0.7/log_martians", "net/core/somaxconn", "net/ipv4/ip_local_port_range")
    before = {key: pod.sysctl(key) for key in keys}
    node.call("ADD", wanted, pod, ifname="eth0.7").ok()
    assert pod.sysctl("net/ipv4/conf/eth0.7/log_martians") == "1"
    assert pod.sysctl("net/core/somaxconn") == "501"
    assert pod.sysctl("net/ipv4/ip_local_port_range").split() == ["2000", "3000"]
    assert list(backups(node)) == ["cid1_eth0.7.json"]
    node.call("CHECK", wanted, pod, ifname="eth0.7").ok()
    node.call("DEL", wanted, pod, ifname="eth0.7").ok()
    assert {key: pod.sysctl(key) for key in keys} == before
    assert backups(node) == {}


@pytest.mark.parametrize(
    "keys",
    [
        {"sysctl": {"net.ipv4.ip_local_reserved_ports": "8080"}},  # nothing, unless somebody sets it
        {"sysctl": {"net.ipv6.conf.IFNAME.mtu": "1300"}, "mtu": 1400},  # no more than the link's
        {"sysctl": {"net.ipv4.conf.IFNAME.forwarding": "1", "net.ipv4.conf.all.forwarding": "1"}},  # the second sets the first
    ],
    ids=["empty", "bound to the link", "bound to another"],
)
def test_settings_that_depend_on_each_other_come_back(node: Node, pod: Pod, keys: dict[str, Any]) -> None:
    pod.run("ip", "link", "set", "dev", "eth0", "up")
    pod.run("sysctl", "-qw", "net/ipv4/conf/all/forwarding=0", "net/ipv4/conf/eth0/forwarding=1")
    paths = ("ip_local_reserved_ports", "conf/all/forwarding", "conf/eth0/forwarding", "../ipv6/conf/eth0/mtu")
    before, values = shape(pod), [pod.sysctl(f"net/ipv4/{path}") for path in paths]
    node.call("ADD", conf(node, **keys), pod).ok()
    node.call("DEL", conf(node, **keys), pod).ok()
    assert (shape(pod), backups(node)) == (before, {})
    assert [pod.sysctl(f"net/ipv4/{path}") for path in paths] == values


@pytest.mark.parametrize("keys", [{}, {"dataDir": None}, {"dataDir": ""}])
def test_where_backups_are_by_default(keys: dict[str, Any]) -> None:
    text = json.dumps({"cniVersion": "1.0.0", "name": "n", **keys})
    req = skel.request("tuning", "ADD", {"CNI_CONTAINERID": "cid1", "CNI_IFNAME": "eth0"}, text.encode())
    assert tuning_conf.load(req).backup == "/run/cni/tuning/cid1_eth0.json"


def test_settings_come_back_when_the_link_is_gone(node: Node, pod: Pod) -> None:
    """Those of the link itself are gone with it."""
    wanted = conf(node, mtu=1400, sysctl={"net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.log_martians": "1"})
    before = pod.sysctl("net/core/somaxconn")
    node.call("ADD", wanted, pod).ok()
    pod.run("ip", "link", "del", "dev", "eth0")
    node.call("DEL", wanted, pod).ok()
    assert (pod.sysctl("net/core/somaxconn"), backups(node)) == (before, {})


def test_gc_removes_backups_of_the_dead(node: Node, pod: Pod) -> None:
    """Of this network, and of ours: the Go plugin's do not tell whose they are."""
    for network, container in (("podnet", "dead"), ("podnet", "alive"), ("other", "dead2")):
        node.call("ADD", {**conf(node, mtu=1400), "name": network}, pod, container=container).ok()
    valid = [{"containerID": "alive", "ifname": "eth0"}]
    node.call("GC", {**conf(node), "cniVersion": "1.1.0", "name": "podnet", "cni.dev/valid-attachments": valid}).ok()
    assert sorted(backups(node)) == ["alive_eth0.json", "dead2_eth0.json"]


def test_sysctls_of_args_alone(node: Node, pod: Pod) -> None:
    wanted = conf(node, args={"cni": {"sysctl": {"net.core.somaxconn": "500"}}})
    for verb in ("ADD", "CHECK"):
        node.call(verb, wanted, pod).ok()
    assert pod.sysctl("net/core/somaxconn") == "500"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("kernel.hostname", "x", 'invalid net sysctl key: "kernel/hostname"'),
        ("net", "x", 'invalid net sysctl key: "net"'),
        ("net/./../kernel/hostname", "x", "open /proc/sys/net/kernel/hostname: no such file or directory"),
        ("net/*/x", "1", 'invalid net sysctl key: "net/*/x"'),
        ("net.ipv4.nope", "1", "open /proc/sys/net/ipv4/nope: no such file or directory"),
        ("net.ipv4.ip_forward", "abc", "write /proc/sys/net/ipv4/ip_forward: invalid argument"),
        ("net.ipv4.ip_forward", "1\n2", None),
    ],
)
def test_settings_that_cannot_be(node: Node, pod: Pod, key: str, value: str, text: str | None) -> None:
    """Those that could be are taken back."""
    before, somaxconn = shape(pod), pod.sysctl("net/core/somaxconn")
    wanted = conf(node, sysctl={"net.core.somaxconn": "77", key: value}, **ALL)
    error = node.call("ADD", wanted, pod).error()
    assert text in (None, error["msg"])
    assert (shape(pod), pod.sysctl("net/core/somaxconn"), backups(node)) == (before, somaxconn, {})


def test_the_same_key_twice(node: Node, pod: Pod) -> None:
    wanted = conf(node, sysctl={})
    text = json.dumps(wanted).replace('"sysctl": {}', '"sysctl": {"net.core.somaxconn": "1", "net.core.somaxconn": "2"}')
    for verb in ("ADD", "CHECK"):
        assert node.call(verb, text, pod).error()["msg"] == "duplicated sysctl keys are not allowed"
    node.call("DEL", text, pod).ok()
    other = text.replace('"net.core.somaxconn": "1"', '"net/core/somaxconn": "1"')
    node.call("ADD", other, pod).ok()


# -- where the MAC comes from


@pytest.mark.parametrize(
    ("keys", "args", "expected"),
    [
        ({"mac": "02:00:00:00:01:01"}, "", 1),
        ({"mac": "02:00:00:00:01:01"}, "IgnoreUnknown=true;MAC=02:00:00:00:01:02;K=V", 2),
        ({"RuntimeConfig": {"mac": "02:00:00:00:01:03"}}, "MAC=02:00:00:00:01:02", 3),
        ({"runtimeConfig": {"mac": "02:00:00:00:01:03"}, "args": {"cni": {"mac": "02:00:00:00:01:04"}}}, "", 4),
    ],
)
def test_the_later_mac_wins(node: Node, pod: Pod, keys: dict[str, Any], args: str, expected: int) -> None:
    node.call("ADD", conf(node, **keys), pod, args=args).ok()
    assert shape(pod)["address"] == f"02:00:00:00:01:0{expected}"


@pytest.mark.parametrize("written", ["C2:11:22:33:44:77", "C2-11-22-33-44-77", "c211.2233.4477"])
def test_a_mac_in_any_form(node: Node, pod: Pod, written: str) -> None:
    """The result has it as it was written; CHECK takes it for the same."""
    wanted = conf(node, mac=written)
    result = node.call("ADD", wanted, pod).ok()
    assert shape(pod)["address"] == MAC
    assert [each["mac"] for each in result["interfaces"]] == ["02:00:00:00:00:01", written]
    node.call("CHECK", {**wanted, "prevResult": result}, pod).ok()


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_unknown_args(node: Node, pod: Pod, verb: str) -> None:
    assert node.call(verb, conf(node), pod, args="mac=x").error()["msg"] == 'ARGS: unknown args ["mac=x"]'
    assert node.call(verb, conf(node), pod, args="FOO").error()["msg"] == 'ARGS: invalid pair "FOO"'


# -- failures


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"mac": "zz"}, "invalid args zz for MAC addr: address zz: invalid MAC address"),
        ({"mtu": 70000}, "failed to set the MTU of eth0: "),
        ({"mtu": -5}, "failed to set the MTU of eth0: "),
        ({"sysctl": {"net.core.somaxconn": 5}}, "failed to load netconf: "),
        ({"prevResult": None}, "Required prevResult missing"),
    ],
)
def test_a_failed_add_leaves_the_link_as_it_was(node: Node, pod: Pod, keys: dict[str, Any], text: str) -> None:
    before, somaxconn = shape(pod), pod.sysctl("net/core/somaxconn")
    error = node.call("ADD", conf(node, **{**ALL, "sysctl": {"net.core.somaxconn": "77"}, **keys}), pod).error()
    assert error["code"] == 999
    assert error["msg"].startswith(text)
    assert (shape(pod), pod.sysctl("net/core/somaxconn"), backups(node)) == (before, somaxconn, {})


def test_a_link_that_is_not_there(node: Node, pod: Pod) -> None:
    assert node.call("ADD", conf(node, mtu=1400), pod, ifname="eth7").error()["msg"] == 'failed to get "eth7": Link not found'
    assert node.call("ADD", conf(node, mtu=1400), "/run/netns/nosuch").error()["msg"].startswith("failed to open netns")
    assert node.call("CHECK", conf(node), pod, ifname="eth7").error()["msg"] == "Cannot find container link eth7"
    assert backups(node) == {}


def test_a_second_add_keeps_the_first_backup(node: Node, pod: Pod) -> None:
    before = shape(pod)
    node.call("ADD", conf(node, mtu=1400), pod).ok()
    node.call("ADD", conf(node, mtu=1300, mac=MAC), pod).ok()
    assert backups(node) == {"cid1_eth0.json": {"mac": before["address"], "mtu": 1500}}
    node.call("ADD", conf(node, mtu=70000), pod).error()
    assert (shape(pod)["mtu"], list(backups(node))) == (1300, ["cid1_eth0.json"])
    node.call("DEL", conf(node), pod).ok()
    assert (shape(pod), backups(node)) == (before, {})


@pytest.mark.parametrize("way", ["no netns", "netns gone", "link gone"])
def test_a_backup_without_its_link_goes(node: Node, pod: Pod, way: str) -> None:
    wanted = conf(node, **ALL)
    node.call("ADD", wanted, pod).ok()
    if way == "link gone":
        pod.run("ip", "link", "del", "dev", "eth0")
    else:
        pod.delete()
    node.call("DEL", wanted, "" if way == "no netns" else pod).ok()
    assert backups(node) == {}


def test_a_del_that_cannot_restore_keeps_the_backup(node: Node, pod: Pod) -> None:
    wanted = conf(node, **ALL)
    before = shape(pod)
    node.call("ADD", wanted, pod).ok()
    node.call("DEL", wanted, "/etc/passwd").ok()
    file = node.folder / "tuning" / "cid1_eth0.json"
    good = file.read_text()
    file.write_text(good.replace("1500", "70000"))
    node.call("DEL", wanted, pod).ok()
    assert shape(pod) == before | {"mtu": 1400}
    assert file.exists()
    file.write_text(good)
    node.call("DEL", wanted, pod).ok()
    assert (shape(pod), file.exists()) == (before, False)


@pytest.mark.parametrize("content", ["", "garbage", '{"mtu": "x"}', '{"mac": "; reboot"}', "[]"])
def test_an_unreadable_backup(node: Node, pod: Pod, content: str) -> None:
    folder = pathlib.Path(node.folder / "tuning")
    folder.mkdir()
    (folder / "cid1_eth0.json").write_text(content)
    before = shape(pod)
    node.call("DEL", conf(node), pod).ok()
    assert (shape(pod), backups(node)) == (before, {})


def test_nothing_asked_for(node: Node, pod: Pod) -> None:
    wanted = conf(node)
    before = shape(pod)
    assert node.call("ADD", wanted, pod).ok()["interfaces"] == wanted["prevResult"]["interfaces"]
    for netns in (pod, "", "/run/netns/nosuch"):
        node.call("DEL", wanted, netns).ok()
    assert (shape(pod), backups(node)) == (before, {})


# -- the allowlist


@pytest.mark.parametrize(
    ("lines", "key", "refused"),
    [
        (r"^net\.ipv4\.conf\.other\.[a-z_]*$", "net.ipv4.conf.all.log_martians", True),
        (r"^net\.ipv4\.conf\.all\.[a-z_]*$", "net.ipv4.conf.all.log_martians", False),
        (" x \n\n ipv4.conf \n", "net.ipv4.conf.all.log_martians", False),
        (r"^net\.ipv4\.conf\.IFNAME\.[a-z_]*$", "net.ipv4.conf.IFNAME.log_martians", False),
        (r"^net\.ipv4\.conf\.eth0\.[a-z_]*$", "net.ipv4.conf.IFNAME.log_martians", True),
        ("", "net.core.somaxconn", True),
    ],
)
def test_the_allowlist(node: Node, pod: Pod, lines: str, key: str, refused: bool) -> None:
    """Each pattern may match anywhere in the key as it is written. Only ADD asks."""
    etc = pathlib.Path(f"/etc/netns/{node.name}/cni/tuning")  # `ip netns exec` puts it over /etc/cni
    etc.mkdir(parents=True)
    try:
        (etc / "allowlist.conf").write_text(lines)
        answer = node.call("ADD", conf(node, sysctl={key: "1"}), pod)
        assert answer.status == refused
        if refused:
            listed = " ".join(filter(None, lines.split()))
            text = f"Sysctl {key} is not allowed. Only the following sysctls are allowed: [{listed}]"
            assert answer.error()["msg"] == text
        (etc / "allowlist.conf").write_text("(")
        assert node.call("ADD", conf(node, sysctl={key: "1"}), pod).error()["msg"].startswith("error parsing regexp: ")
        node.call("DEL", conf(node, sysctl={key: "1"}), pod).ok()
    finally:
        (etc / "allowlist.conf").unlink()
        for folder in (etc, etc.parent, etc.parent.parent):
            folder.rmdir()


# -- CHECK


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("ip link set dev eth0 address 02:00:00:00:00:09", f"Ethernet of eth0 is {MAC}, current value is 02:00:00:00:00:09"),
        ("ip link set dev eth0 promisc off", "configured promisc is true, current value is 0"),
        ("ip link set dev eth0 mtu 1450", "configured MTU of eth0 is 1400, current value is 1450"),
        ("ip link set dev eth0 allmulticast off", "configured all-multicast mode of eth0 is true, current value is false"),
        ("ip link set dev eth0 txqueuelen 7", "configured Transmit Queue Length of eth0 is 2000, current value is 7"),
        ("sysctl -qw net.core.somaxconn=9", "configured value of /proc/sys/net/core/somaxconn is 500, current value is 9"),
    ],
)
def test_check_notices_what_was_changed(node: Node, pod: Pod, command: str, text: str) -> None:
    wanted = conf(node, **ALL, sysctl={"net.core.somaxconn": "500"})
    node.call("ADD", wanted, pod).ok()
    node.call("CHECK", wanted, pod).ok()
    pod.run(*command.split())
    assert node.call("CHECK", wanted, pod).error()["msg"].endswith(text)


def test_check_notices_promiscuity_nobody_configured(node: Node, pod: Pod) -> None:
    pod.run("ip", "link", "set", "dev", "eth0", "promisc", "on")
    text = "Error: Tuning link eth0 configured promisc is false, current value is 1"
    assert node.call("CHECK", conf(node), pod).error()["msg"] == text


@pytest.mark.parametrize(("first", "second"), [(GO, BIN), (BIN, GO)], ids=["Go to ours", "ours to Go"])
def test_the_other_suite_takes_over(node: Node, pod: Pod, first: pathlib.Path, second: pathlib.Path) -> None:
    before = shape(pod)
    wanted = conf(node, mac=MAC, mtu=1400, promisc=True, allmulti=True, sysctl={"net.core.somaxconn": "500"})
    result = node.call("ADD", wanted, pod, bin_dir=first).ok()
    again = node.call("ADD", wanted, pod, container="other", bin_dir=second).ok()
    assert {**result, "dns": {}} == {**again, "dns": {}}
    node.call("CHECK", {**wanted, "prevResult": result}, pod, bin_dir=second).ok()
    node.call("DEL", {**wanted, "prevResult": result}, pod, bin_dir=second).ok()
    assert (shape(pod), list(backups(node))) == (before, ["other_eth0.json"])
