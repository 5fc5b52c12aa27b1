"""loopback: brings up `lo` in the pod's namespace (main sheet 8)."""

from ipcni.errors import CniError
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Interface, IpConfig, Result
from ipcni.shell.render import render

TOOLS = ("ip",)
LO = "lo"
_LOOPBACK = {"inet": "127.", "inet6": "::1"}


def add(req: Request, host: Host) -> Result:
    """Sets `lo` up; the answer is prevResult, or `lo` with its first address of each family."""
    prev = req.prev_result("failed to parse prevResult")
    if host.live:
        host.facts.require_netns(req.netns)
    host.do(render("loopback/add.sh.j2", pod=req.netns))
    link = host.facts.device(LO, req.netns)
    found = [address for address in link.addresses if address.scope == "host"] if link else []
    for address in link.addresses if link else ():
        if not address.local.startswith(_LOOPBACK[address.family]):
            raise CniError(f'loopback interface found with non-loopback address "{address.local}"')
    if prev:
        return prev
    first = [next((a.text for a in found if a.family == family), None) for family in _LOOPBACK]
    return Result(
        interfaces=(Interface(name=LO, mac="00:00:00:00:00:00", sandbox=req.netns_path),),
        ips=tuple(IpConfig(address=text, interface=0) for text in first if text),
    )


def check(req: Request, host: Host) -> None:
    """`lo` is up."""
    host.facts.require_netns(req.netns)
    link = host.facts.device(LO, req.netns)
    if link is None or not link.up:
        raise CniError("loopback interface is down")


def delete(req: Request, host: Host) -> None:
    """Sets `lo` down; a namespace that is gone took it along."""
    if req.netns_path and host.facts.netns_there(req.netns):
        host.do(render("loopback/del.sh.j2", pod=req.netns))
