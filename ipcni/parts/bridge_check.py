"""CHECK of a bridge attachment, in the reference's order and words (main sheet 2.7)."""

from ipcni.errors import CniError
from ipcni.parts import interface
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Interface, Result
from ipcni.shell.iproute import Link


def check(req: Request, host: Host, bridge: str, *, promisc: bool) -> None:
    """Raises CniError for the first thing that is not as prevResult says."""
    prev = req.required_result()
    _bridge(host, prev, bridge, promisc=promisc)
    mine = interface.in_result(prev, req)
    pod = host.facts.link(req.ifname, req.netns)
    if pod is None:
        raise CniError(f"Interface name {req.ifname} not found", details=f"it is missing from {req.netns_path}")
    if pod.kind != "veth":
        raise CniError(f"Error: Container interface {req.ifname} not of type veth")
    if mine.mac and mine.mac.lower() != pod.mac:
        raise CniError(f"Interface {req.ifname} Mac {mine.mac} doesn't match container Mac: {pod.mac}")
    _host_end(host, prev, bridge, req, pod)
    interface.check(req, host, prev, pod)


def _bridge(host: Host, prev: Result, bridge: str, *, promisc: bool) -> None:
    listed = next((each for each in reversed(prev.interfaces) if each.name == bridge), None)
    if listed is None:
        raise CniError("Interface name missing ", details=f"prevResult lists no {bridge}")
    link = host.facts.link(bridge)
    if link is None:
        raise CniError(f"Interface name {bridge} not found")
    if listed.sandbox:
        raise CniError(f"Interface {bridge} should not be in sandbox")
    if link.kind != "bridge":
        raise CniError(f"Interface {bridge} does not have link type of bridge")
    if listed.mac and listed.mac != link.mac:
        raise CniError(f"Bridge interface {bridge} Mac doesn't match: {listed.mac}", details=f"it is {link.mac}")
    if (link.promiscuity > 0) != promisc:
        now = str(link.promiscuity > 0).lower()
        wanted = str(promisc).lower()
        raise CniError(f"Bridge interface {bridge} configured Promisc Mode {wanted} doesn't match current state: {now} ")


def _host_end(host: Host, prev: Result, bridge: str, req: Request, pod: Link) -> None:
    """One of the links that prevResult lists for the node is the pod's other end, plugged into the bridge."""
    for listed in prev.interfaces:
        if listed.name in (bridge, req.ifname):
            continue
        if _is_peer(host, listed, bridge, pod):
            return
    raise CniError(f"CNI veth created for bridge {bridge} was not found")


def _is_peer(host: Host, listed: Interface, bridge: str, pod: Link) -> bool:
    link = host.facts.link(listed.name)
    if link is None:
        raise CniError(f"Interface name {listed.name} not found")
    if listed.sandbox:
        raise CniError(f"Interface {listed.name} should not be in sandbox")
    if link.kind != "veth" or link.master != bridge:
        return False
    if link.peer_index != pod.ifindex or pod.peer_index != link.ifindex:
        return False
    if listed.mac and listed.mac != link.mac:
        raise CniError(f"Interface {listed.name} Mac doesn't match: {listed.mac} not found")
    return True
