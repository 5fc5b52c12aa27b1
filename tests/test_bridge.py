"""bridge's plans, without a node: VLANs (main sheet 2.2 to 2.4) and the order of what is done."""

import json
from typing import Any

import pytest

from ipcni.errors import CniError
from ipcni.model import Step
from ipcni.parts import bridge_vlan, masquerade
from ipcni.parts.bridge_vlan import Trunk
from ipcni.protocol import skel
from ipcni.shell.facts import Rules
from ipcni.shell.iproute import Link, LinkData, LinkInfo
from tests.lab import BIN
from tests.nowhere import Nowhere


def vlan_commands(vlan: int, *trunk: Trunk, preserve: bool = False, pvid: int = 1) -> list[str]:
    """What puts a port into its VLANs."""
    bridge = Link("br0", linkinfo=LinkInfo("bridge", LinkData(vlan_filtering=1, vlan_default_pvid=pvid)))
    plan = bridge_vlan.port("veth0", bridge, vlan, bridge_vlan.ids(trunk), preserve=preserve)
    return [" ".join(step.argv).removeprefix("bridge vlan ") for step in plan]


def test_no_vlan() -> None:
    assert vlan_commands(0) == vlan_commands(0, Trunk()) == []


def test_an_access_port() -> None:
    """The bridge's default VLAN goes, whatever its number is."""
    own = "add dev veth0 vid 100 pvid untagged master"
    assert vlan_commands(100) == ["del dev veth0 vid 1 master", own]
    assert vlan_commands(100, pvid=7) == ["del dev veth0 vid 7 master", own]
    assert vlan_commands(100, pvid=0) == [own]
    assert vlan_commands(100, preserve=True) == [own]


def test_a_trunk() -> None:
    """Tagged ids ascending, ranges joined; VLAN 1 untagged comes last, unless `vlan` is the native one."""
    trunk = (Trunk(min_id=200, max_id=203), Trunk(id=101))
    tagged = ["add dev veth0 vid 101 master", "add dev veth0 vid 200-203 master"]
    assert vlan_commands(0, *trunk) == ["del dev veth0 vid 1 master", *tagged, "add dev veth0 vid 1 pvid untagged master"]
    assert vlan_commands(100, *trunk) == [
        "del dev veth0 vid 1 master",
        "add dev veth0 vid 100 pvid untagged master",
        *tagged,
    ]


@pytest.mark.parametrize(
    ("trunk", "expected"),
    [
        ([], []),
        ([Trunk()], []),
        ([Trunk(min_id=100, max_id=105)], list(range(100, 106))),
        ([Trunk(id=10), Trunk(min_id=100, max_id=105)], [10, *range(100, 106)]),
        ([Trunk(id=102, min_id=100, max_id=101)], [100, 101, 102]),
        ([Trunk(id=5), Trunk(id=5), Trunk(min_id=4, max_id=6)], [4, 5, 6]),
        ([Trunk(min_id=1, max_id=4094)], list(range(1, 4095))),
        ([Trunk(min_id=7, max_id=7)], [7]),
    ],
)
def test_the_ids_of_a_trunk(trunk: list[Trunk], expected: list[int]) -> None:
    assert list(bridge_vlan.ids(tuple(trunk))) == expected


@pytest.mark.parametrize(
    ("element", "told"),
    [
        (Trunk(min_id=100), "minID and maxID should be configured simultaneously, maxID is missing"),
        (Trunk(max_id=100), "minID and maxID should be configured simultaneously, minID is missing"),
        (Trunk(min_id=0, max_id=5), "incorrect trunk minID parameter"),
        (Trunk(min_id=-1, max_id=5), "incorrect trunk minID parameter"),
        (Trunk(min_id=5000, max_id=5001), "incorrect trunk minID parameter"),
        (Trunk(min_id=5, max_id=4095), "incorrect trunk maxID parameter"),
        (Trunk(min_id=1000, max_id=100), "minID is greater than maxID in trunk parameter"),
        (Trunk(id=0), "incorrect trunk id parameter"),
        (Trunk(id=4095), "incorrect trunk id parameter"),
        (Trunk(id=-1), "incorrect trunk id parameter"),
    ],
)
def test_trunks_that_are_none(element: Trunk, told: str) -> None:
    with pytest.raises(CniError) as caught:
        bridge_vlan.ids((element,))
    assert caught.value.msg == told


@pytest.mark.parametrize(
    ("numbers", "expected"), [((), []), ((1,), ["1"]), ((1, 2, 3), ["1-3"]), ((1, 3, 4, 9), ["1", "3-4", "9"])]
)
def test_spans(numbers: tuple[int, ...], expected: list[str]) -> None:
    assert bridge_vlan.spans(numbers) == expected


# -- whole plans


def planned(**keys: Any) -> list[Step]:
    """What ADD would do on a node that has nothing."""
    ipam = {"type": "host-local", "subnet": "10.7.0.0/24", "dataDir": "/nowhere"}
    conf = {"cniVersion": "1.1.0", "name": "podnet", "type": "bridge", "ipam": ipam, **keys}
    env = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "cid1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "/run/netns/pod",
        "CNI_PATH": str(BIN),
    }
    host = Nowhere()
    skel.dispatch(skel.request("bridge", "ADD", env, json.dumps(conf).encode()), host)
    return host.planned


def position(steps: list[Step], text: str) -> int:
    """Where the one step with this text is."""
    (at,) = [number for number, step in enumerate(steps) if text in step.command]
    return at


def test_the_gateway_of_a_vlan() -> None:
    """On one end of a pair whose other end is an access port; up comes last, so that half a gateway is known as such."""
    steps = planned(vlan=100, isDefaultGateway=True)
    made = [step.command for step in steps if "cni0.100" in step.command]
    assert made[0].startswith("ip link add name cni0.100 address ")
    assert " type veth peer name veth" in made[0]
    assert made[1:] == [
        "ip link set dev cni0.100 up",
        "ip addr add 10.7.0.1/24 brd + dev cni0.100",
        made[3],
    ]
    assert made[3].startswith("ip link set dev cni0.100 address ")
    assert steps[position(steps, "type bridge vlan_filtering 1")]
    assert not any("10.7.0.1" in step.command and step.argv[-1] == "cni0" for step in steps)


def test_the_gateway_of_a_vlan_has_the_bridges_mtu() -> None:
    """Of a bridge that is not there yet, too."""
    (made,) = [step for step in planned(vlan=100, isGateway=True, mtu=1400) if "cni0.100" in step.argv[:5] and "add" in step.argv]
    assert made.command.count(" mtu 1400 ") + made.command.endswith(" mtu 1400") == 2


@pytest.mark.parametrize("address", ["255.255.255.255/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"])
def test_the_last_address_of_all_has_no_gateway_behind_it(address: str) -> None:
    with pytest.raises(CniError) as caught:
        planned(isGateway=True, ipam={"type": "static", "addresses": [{"address": address}]})
    assert caught.value.msg == f"address {address} has no gateway"


def test_the_name_of_a_vlan_gateway_may_be_too_long() -> None:
    with pytest.raises(CniError) as caught:
        planned(bridge="a-long-name0", vlan=4000, isGateway=True)
    assert caught.value.msg == (
        'failed to create vlan interface: faild to create vlan gateway "a-long-name0.4000": numerical result out of range'
    )


def test_a_link_that_was_never_finished_is_finished() -> None:
    """Ours and down: its making was cut short. Somebody else's is taken as it is."""
    made = Link("br0.5", mac="02:00:00:00:00:01")
    assert bridge_vlan._ready(Link("br0.5", mac="02:00:00:00:00:01", flags=("UP",)), made)
    assert bridge_vlan._ready(Link("br0.5", mac="02:00:00:00:00:99"), made)
    assert not bridge_vlan._ready(Link("br0.5", mac="02:00:00:00:00:01"), made)
    assert not bridge_vlan._ready(None, made)


def test_the_order_of_an_add() -> None:
    """Lease, bridge, gateway, pair, spoof check, pod, masquerading."""
    steps = planned(isDefaultGateway=True, macspoofchk=True, ipMasq=True)
    places = [
        position(steps, "/10.7.0.2)"),
        position(steps, "ip link add name cni0"),
        position(steps, "ip addr add 10.7.0.1/24"),
        position(steps, "type veth"),
        position(steps, "nft add rule bridge nat PREROUTING"),
        position(steps, "addr add 10.7.0.2/24"),
        position(steps, "route prepend"),
        position(steps, "-A POSTROUTING"),
    ]
    assert places == sorted(places)


def test_what_a_failed_add_takes_back() -> None:
    """The pair and the lease; never the bridge, which is everybody's."""
    undone = [step.command for step in planned(isGateway=True, ipMasq=True) if step.undo]
    assert any(command.startswith("ip link add name veth") for command in undone)
    assert sum("iptables" in command for command in undone) == 4
    assert sum("/nowhere/podnet/10.7.0.2" in command for command in undone) == 1
    assert not any("type bridge " in command + " " or "cni0" in command for command in undone)


def test_explaining_twice_says_the_same() -> None:
    keys = {"isDefaultGateway": True, "macspoofchk": True, "ipMasq": True, "vlan": 7}
    assert planned(**keys) == planned(**keys)


# -- whose rules


def test_gc_knows_its_rules_by_their_comment() -> None:
    comment = 'name: "podnet" id: "{}"'
    there = Rules(
        chains=frozenset({"CNI-a", "CNI-b"}),
        rules=tuple(
            ("-A", "POSTROUTING", "-s", "10.0.0.2/32", "-m", "comment", "--comment", text, "-j", target)
            for text, target in (
                (comment.format("dead"), "CNI-a"),
                (comment.format("alive"), "CNI-b"),
                ('name: "podnet2" id: "dead"', "CNI-c"),
                ("something else", "ELSEWHERE"),
            )
        ),
    )
    assert list(masquerade._stale(there, "podnet", {"alive"})) == ["CNI-a"]
