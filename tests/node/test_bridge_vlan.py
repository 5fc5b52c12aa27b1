"""bridge with VLANs on a kernel that filters them (main sheet 2.2 to 2.4)."""

import pathlib
from typing import Any

import pytest

from tests.lab import BIN, GO, Node, Pod

pytestmark = pytest.mark.kernel("vlan_filtering")


def conf(node: Node, **keys: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "dataDir": node.data_dir, "subnet": "10.7.0.0/24"}
    return {"cniVersion": "1.1.0", "name": "n", "type": "bridge", "bridge": "brv0", "ipam": ipam, **keys}


def vlans(node: Node, dev: str) -> list[tuple[int, int, str]]:
    """First and last id and the flags of each VLAN entry of a port."""
    import json

    shown = json.loads(node.run("bridge", "-j", "vlan", "show", "dev", dev).stdout)
    entries = shown[0]["vlans"] if shown else []
    return [(each["vlan"], each.get("vlanEnd", each["vlan"]), " ".join(each.get("flags", []))) for each in entries]


UNTAGGED = "PVID Egress Untagged"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"vlan": 100}, [(100, 100, UNTAGGED)]),
        ({"vlan": 100, "preserveDefaultVlan": True}, [(1, 1, "Egress Untagged"), (100, 100, UNTAGGED)]),
        (
            {"vlanTrunk": [{"id": 101}, {"minID": 200, "maxID": 203}]},
            [(1, 1, UNTAGGED), *((n, n, "") for n in (101, 200, 201, 202, 203))],
        ),
        ({"vlan": 100, "vlanTrunk": [{"id": 101}]}, [(100, 100, UNTAGGED), (101, 101, "")]),
        ({"vlanTrunk": []}, [(1, 1, UNTAGGED)]),
    ],
)
def test_the_port_is_in_its_vlans(node: Node, keys: dict[str, Any], expected: list[tuple[int, int, str]]) -> None:
    result = node.call("ADD", conf(node, **keys), node.pod()).ok()
    assert vlans(node, result["interfaces"][1]["name"]) == expected
    info = node.ip("-d", "link", "show", "dev", "brv0")[0]["linkinfo"]["info_data"]
    assert info["vlan_filtering"] == 1


def test_the_gateway_of_a_vlan_has_a_link_of_its_own(node: Node) -> None:
    pod = node.pod()
    wanted = conf(node, vlan=100, isDefaultGateway=True)
    result = node.call("ADD", wanted, pod).ok()
    assert [each["name"] for each in result["interfaces"]][3] == "brv0.100"
    assert len(node.links()) == 5
    assert node.ip("addr", "show", "dev", "brv0.100")[0]["addr_info"][0]["local"] == "10.7.0.1"
    pod.run("ping", "-c", "1", "-W", "2", "10.7.0.1")
    node.call("CHECK", {**wanted, "prevResult": result}, pod).ok()
    node.call("DEL", {**wanted, "prevResult": result}, pod).ok()
    assert node.links() == sorted(["lo", "brv0", "brv0.100", *(name for name in node.links() if name.startswith("veth"))])
    assert len(node.links()) == 4


def test_vlans_keep_pods_apart(node: Node) -> None:
    pods: list[Pod] = [node.pod() for _ in range(3)]
    for number, (pod, vlan) in enumerate(zip(pods, (100, 100, 200), strict=True)):
        node.call("ADD", conf(node, vlan=vlan), pod, container=f"c{number}").ok()
    assert pods[0].run("ping", "-c", "1", "-W", "2", "10.7.0.3").returncode == 0
    assert pods[0].run("ping", "-c", "1", "-W", "1", "10.7.0.4", check=False).returncode == 1


def test_a_gateway_that_was_never_finished_is_finished(node: Node) -> None:
    """Killed before the VLAN was set and the link up: the next pod's ADD does the rest."""
    wanted = conf(node, vlan=100, isDefaultGateway=True)
    pod = node.pod()
    node.call("ADD", wanted, pod).ok()
    node.call("DEL", wanted, pod).ok()
    (peer,) = [name for name in node.links() if name.startswith("veth")]
    node.run("ip", "link", "set", "brv0.100", "down")
    node.run("bridge", "vlan", "del", "dev", peer, "vid", "100", "master")
    node.call("ADD", wanted, pod).ok()
    pod.run("ping", "-c", "1", "-W", "2", "10.7.0.1")
    assert vlans(node, peer) == [(100, 100, UNTAGGED)]


@pytest.mark.parametrize(("adder", "remover"), [(GO, BIN), (BIN, GO)], ids=["go first", "ipcni first"])
def test_the_other_suite_takes_over(node: Node, adder: pathlib.Path, remover: pathlib.Path) -> None:
    """The gateway link that one made is the other's, too."""
    if not (GO / "bridge").exists():
        pytest.skip("containernetworking-plugins is not installed")
    pods = [node.pod(), node.pod()]
    wanted = {**conf(node, vlan=100, isDefaultGateway=True), "cniVersion": "1.0.0"}
    result = node.call("ADD", wanted, pods[0], bin_dir=adder, path=str(adder)).ok()
    node.call("ADD", wanted, pods[1], bin_dir=remover, path=str(remover), container="cid2").ok()
    pods[1].run("ping", "-c", "1", "-W", "2", "10.7.0.1")
    pods[1].run("ping", "-c", "1", "-W", "2", "10.7.0.2")
    assert sum(name.startswith("brv0.") for name in node.links()) == 1
    node.call("DEL", {**wanted, "prevResult": result}, pods[0], bin_dir=remover, path=str(remover)).ok()
    assert list(node.leases("n")) == ["10.7.0.3"]
