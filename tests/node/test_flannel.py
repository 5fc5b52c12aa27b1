"""flannel on a node: notes, delegates of our own and of others, and the way back (flannel sheet 5 to 8, 16)."""

import json
import pathlib
from typing import Any

import pytest

from tests.lab import BIN, GO, Node

ENV = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
IPV6 = "FLANNEL_IPV6_NETWORK=fd00:244::/48\nFLANNEL_IPV6_SUBNET=fd00:244:0:1::1/64\n"


@pytest.fixture
def conf(node: Node) -> dict[str, Any]:
    (node.folder / "subnet.env").write_text(ENV)
    return {
        "cniVersion": "1.1.0",
        "name": "cbr0",
        "type": "flannel",
        "subnetFile": str(node.folder / "subnet.env"),
        "dataDir": str(node.folder / "flannel"),
        "delegate": {"hairpinMode": True, "isDefaultGateway": True},
        "ipam": {"dataDir": node.data_dir},
    }


def notes(node: Node) -> list[str]:
    folder = node.folder / "flannel"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_pod_of_both_families(node: Node, conf: dict[str, Any]) -> None:
    (node.folder / "subnet.env").write_text(ENV + IPV6)
    pod = node.pod()
    result = node.call("ADD", conf, pod).ok()
    assert [ip["address"] for ip in result["ips"]] == ["10.244.1.2/24", "fd00:244:0:1::2/64"]
    assert result["routes"] == [
        {"dst": "10.244.0.0/16"},
        {"dst": "fd00:244::/48"},
        {"dst": "0.0.0.0/0", "gw": "10.244.1.1"},
        {"dst": "::/0", "gw": "fd00:244:0:1::1"},
    ]
    assert {(route["dst"], route.get("gateway")) for route in pod.ip("route")} == {
        ("default", "10.244.1.1"),
        ("10.244.0.0/16", "10.244.1.1"),
        ("10.244.1.0/24", None),
    }
    assert pod.ip("link", "show", "dev", "eth0")[0]["mtu"] == 1450
    assert node.rules() == [line for line in node.rules() if "CNI-" not in line], "flanneld masquerades itself"
    note = node.folder / "flannel" / "cid1"
    assert note.stat().st_mode & 0o777 == 0o600
    assert note.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(note.read_text())["type"] == "bridge"
    (node.folder / "subnet.env").unlink()
    node.call("CHECK", {**conf, "prevResult": result}, pod).ok()
    node.call("DEL", {**conf, "prevResult": result}, pod).ok()
    assert (notes(node), node.leases("cbr0"), node.links()) == ([], {}, ["cni0", "lo"])
    node.call("DEL", conf, pod).ok()


def test_without_subnet_env_nothing_is_done(node: Node, conf: dict[str, Any]) -> None:
    (node.folder / "subnet.env").unlink()
    error = node.call("ADD", conf, node.pod()).error()
    assert error["code"] == 999
    assert error["msg"].startswith("failed to load flannel 'subnet.env' file: open ")
    assert "flanneld writes" in error["details"]
    assert (notes(node), node.links()) == ([], ["lo"])


def test_a_failed_add_leaves_no_note(node: Node, conf: dict[str, Any]) -> None:
    """The range is full."""
    (node.folder / "subnet.env").write_text(ENV.replace("10.244.1.1/24", "10.244.1.1/30"))
    node.call("ADD", conf, node.pod()).ok()
    error = node.call("ADD", conf, node.pod(), container="cid2").error()
    assert "no IP addresses available in range set: 10.244.1.1-10.244.1.2" in error["msg"]
    assert (notes(node), list(node.leases("cbr0"))) == (["cid1"], ["10.244.1.2"])


def test_a_second_add_does_not_spoil_the_first(node: Node, conf: dict[str, Any]) -> None:
    pod = node.pod()
    node.call("ADD", conf, pod).ok()
    assert "duplicate allocation is not allowed" in node.call("ADD", conf, pod).error()["msg"]
    assert notes(node) == ["cid1"]
    node.call("DEL", conf, pod).ok()
    assert (notes(node), node.leases("cbr0"), node.links()) == ([], {}, ["cni0", "lo"])


@pytest.mark.parametrize("content", ["", "garbage", '{"cut'])
@pytest.mark.parametrize("env", [True, False], ids=["subnet.env", "no subnet.env"])
def test_an_unreadable_note_is_made_up_for(node: Node, conf: dict[str, Any], content: str, env: bool) -> None:
    """A crash truncated it: DEL goes by what is configured now, so that neither address nor link is lost."""
    pod = node.pod()
    node.call("ADD", conf, pod).ok()
    (node.folder / "flannel" / "cid1").write_text(content)
    if not env:
        (node.folder / "subnet.env").unlink()
    node.call("DEL", conf, pod).ok()
    assert (notes(node), node.leases("cbr0"), node.links()) == ([], {}, ["cni0", "lo"])


def test_a_note_that_is_a_folder(node: Node, conf: dict[str, Any]) -> None:
    (node.folder / "flannel" / "cid1").mkdir(parents=True)
    assert node.call("DEL", conf, node.pod()).error()["msg"].endswith("cid1: is a directory")


def test_the_note_stays_until_the_delegate_has_done_its_part(node: Node, conf: dict[str, Any], tmp_path: pathlib.Path) -> None:
    stub = tmp_path / "plugins"
    stub.mkdir()
    (stub / "stub").write_text(
        '#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = ADD ] && echo "{}" && exit\ntest -e $0.ok || { echo "{\\"code\\": 107, \\"msg\\": \\"not now\\"}"; exit 1; }\n'
    )
    (stub / "stub").chmod(0o755)
    conf["delegate"] = {"type": "stub"}
    path = f"{stub}:{BIN}"
    node.call("ADD", conf, node.pod(), path=path).ok()
    assert node.call("DEL", conf, node.pods[0], path=path).error() == {"code": 107, "msg": "not now"}
    assert notes(node) == ["cid1"]
    (stub / "stub.ok").touch()
    node.call("DEL", conf, node.pods[0], path=path).ok()
    assert notes(node) == []


def test_a_delegate_of_another_suite(node: Node, conf: dict[str, Any]) -> None:
    """Go's bridge with Go's host-local does the work, then ours does the rest, and the reverse."""
    conf["cniVersion"] = "1.0.0"
    pod = node.pod()
    for first, second in ((GO, BIN), (BIN, GO)):
        result = node.call("ADD", conf, pod, path=str(first)).ok()
        assert list(node.leases("cbr0")) == [result["ips"][0]["address"].partition("/")[0]]
        node.call("DEL", {**conf, "prevResult": result}, pod, path=str(second)).ok()
        assert (notes(node), node.leases("cbr0"), node.links()) == ([], {}, ["cni0", "lo"])


def test_a_delegate_that_is_nowhere(node: Node, conf: dict[str, Any]) -> None:
    conf["delegate"] = {"type": "nosuch"}
    error = node.call("ADD", conf, node.pod()).error()
    assert error["msg"] == f'failed to delegate add: failed to find plugin "nosuch" in path [{BIN}]'
    (node.folder / "flannel" / "cid1").write_text("{}")
    assert node.call("DEL", conf, node.pods[0]).error()["msg"] == "no plugin name provided"


def test_status_says_whether_there_is_a_subnet(node: Node, conf: dict[str, Any]) -> None:
    node.call("STATUS", conf).ok()
    (node.folder / "subnet.env").unlink()
    error = node.call("STATUS", conf).error()
    assert error["code"] == 50
    assert "no such file or directory" in error["msg"]


def test_gc_keeps_the_living(node: Node, conf: dict[str, Any]) -> None:
    for name in ("cid1", "cid2"):
        node.call("ADD", conf, node.pod(), container=name).ok()
    conf["cni.dev/valid-attachments"] = [{"containerID": "cid2", "ifname": "eth0"}]
    node.call("GC", conf).ok()
    assert (notes(node), list(node.leases("cbr0").values())) == (["cid2"], ["cid2\r\neth0"])
    del conf["cni.dev/valid-attachments"]
    node.call("GC", conf).ok()
    assert notes(node) == ["cid2"], "without a list nothing is known to be dead"


def test_gc_deletes_by_the_notes(node: Node, conf: dict[str, Any], tmp_path: pathlib.Path) -> None:
    """A delegate without a GC of its own, like Go's; what is no note stays, and one that fails does not keep the others from going."""
    stub = tmp_path / "plugins" / "stub"
    stub.parent.mkdir()
    stub.write_text(
        '#!/bin/sh\nconf=$(cat)\necho "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $conf" >> $0.calls\n'
        '[ $CNI_COMMAND = ADD ] && echo "{}"\n[ $CNI_COMMAND$CNI_CONTAINERID != DELcid2 ]\n'
    )
    stub.chmod(0o755)
    conf["delegate"] = {"type": "stub"}
    path = f"{stub.parent}:{BIN}"
    for name in ("cid1", "cid2", "cid3"):
        node.call("ADD", conf, node.pod(), container=name, path=path).ok()
    (node.folder / "flannel" / "folder").mkdir()
    given = (node.folder / "flannel" / "cid1").read_text()
    pathlib.Path(f"{stub}.calls").unlink()
    error = node.call("GC", {**conf, "cni.dev/valid-attachments": []}, path=path).error()
    assert error["msg"].startswith("netplugin failed")
    calls = pathlib.Path(f"{stub}.calls").read_text().splitlines()
    assert [line.partition(" ")[0] for line in calls] == ["GC", "DEL", "DEL", "DEL"]
    assert calls[1] == f"DEL cid1 eth0  {given}"
    assert notes(node) == ["cid2", "folder"]


def test_check_notices_what_is_missing(node: Node, conf: dict[str, Any]) -> None:
    pod = node.pod()
    result = node.call("ADD", conf, pod).ok()
    pod.run("ip", "addr", "flush", "dev", "eth0", "scope", "global")
    assert "Failed to match addr 10.244.1.2/24" in node.call("CHECK", {**conf, "prevResult": result}, pod).error()["msg"]
