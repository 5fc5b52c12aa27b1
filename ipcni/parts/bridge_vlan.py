"""VLANs of the bridge plugin: which ids a port carries, and the link that holds a VLAN's gateway (main sheet 2.2 to 2.4)."""

import msgspec

from ipcni import names
from ipcni.errors import CniError
from ipcni.model import Plan
from ipcni.protocol.host import Host
from ipcni.shell.iproute import Link, LinkData, LinkInfo
from ipcni.shell.render import render

_MAX = 4094


class Trunk(msgspec.Struct, frozen=True, rename={"min_id": "minID", "max_id": "maxID"}):
    """One element of `vlanTrunk`: an id, a range, or both."""

    id: int | None = None
    min_id: int | None = None
    max_id: int | None = None


def ids(trunk: tuple[Trunk, ...]) -> tuple[int, ...]:
    """All ids of a trunk, ascending. Raises CniError in the reference's words for an element that is none."""
    found: set[int] = set()
    for each in trunk:
        if (each.min_id is None) != (each.max_id is None):
            missing = "minID" if each.min_id is None else "maxID"
            raise CniError(f"minID and maxID should be configured simultaneously, {missing} is missing")
        if each.min_id is not None and each.max_id is not None:
            if not 1 <= each.min_id <= _MAX:
                raise CniError("incorrect trunk minID parameter")
            if not 1 <= each.max_id <= _MAX:
                raise CniError("incorrect trunk maxID parameter")
            if each.min_id > each.max_id:
                raise CniError("minID is greater than maxID in trunk parameter")
            found.update(range(each.min_id, each.max_id + 1))
        if each.id is not None:
            if not 1 <= each.id <= _MAX:
                raise CniError("incorrect trunk id parameter")
            found.add(each.id)
    return tuple(sorted(found))


def spans(numbers: tuple[int, ...]) -> list[str]:
    """Ascending ids as the `bridge` tool takes them: `101`, `200-203`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def new_bridge(*, filtering: bool) -> LinkInfo:
    """What a bridge that we make is like."""
    return LinkInfo("bridge", LinkData(vlan_filtering=int(filtering), vlan_default_pvid=1))


def port(veth: str, bridge: Link, vlan: int, trunk: tuple[int, ...], *, preserve: bool) -> Plan:
    """Puts a port into its VLANs; nothing where none are configured."""
    if not vlan and not trunk:
        return ()
    return render(
        "bridge/vlan.sh.j2",
        veth=veth,
        default=0 if preserve else bridge.linkinfo.info_data.vlan_default_pvid,
        vlan=vlan,
        trunk=spans(trunk),
    )


def gateway(host: Host, bridge: Link, vlan: int, *, preserve: bool) -> Link:
    """The link `<bridge>.<vlan>` that has a VLAN's gateway address, made if need be."""
    name = f"{bridge.name}.{vlan}"
    if len(name.encode()) > 15:
        raise CniError(
            f'failed to create vlan interface: faild to create vlan gateway "{name}": numerical result out of range',
            details="`bridge` and `vlan` together make a link name of more than 15 bytes",
        )
    made = Link(name=name, mac=names.mac(host.facts.machine_id(), "bridge", name))
    link = host.facts.link(name)
    if not _ready(link, made):
        with host.locked(f"link-{name}"):
            link = host.facts.link(name)
            if not _ready(link, made):
                host.do(_gateway_plan(host, bridge, made, vlan, preserve=preserve))
                link = made
    return link or made


def _ready(link: Link | None, made: Link) -> bool:
    """Whether there is such a link. One of ours is set up last of all: when it is down, something cut short its making."""
    return link is not None and (link.up or link.mac != made.mac)


def _gateway_plan(host: Host, bridge: Link, link: Link, vlan: int, *, preserve: bool) -> Plan:
    peer = names.vlan_peer(link.name)
    plan = render(
        "bridge/vlan-gateway.sh.j2",
        link=link.name,
        mac=link.mac,
        peer=peer,
        peer_mac=names.mac(host.facts.machine_id(), "bridge", peer),
        bridge=bridge.name,
        mtu=bridge.mtu,
    )
    plan += port(peer, bridge, vlan, (), preserve=preserve)
    return plan + render("bridge/vlan-gateway-up.sh.j2", link=link.name)
