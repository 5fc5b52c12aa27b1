"""macspoofchk of the bridge plugin: nftables rules that drop frames with a MAC the pod was not given (main sheet 2.5)."""

from ipcni.model import Attachment, Plan
from ipcni.protocol.host import Host
from ipcni.shell.render import render

_TABLE = ("bridge", "nat", "PREROUTING")


def _reference(at: Attachment) -> str:
    return f"{at.container_id}-{at.ifname}"


def add(host: Host, at: Attachment, veth: str, mac: str) -> Plan:
    """The rules for one pod port."""
    ref = _reference(at)
    # A rule has no name to undo it by, only the handle that the kernel gives it.
    host.on_undo(lambda: host.do(delete(host, at), keep_going=True))
    return render(
        "bridge/macspoof.sh.j2",
        veth=f'"{veth}"',
        mac=mac,
        chain=f"cni-br-iface-{ref}",
        mac_chain=f"cni-br-iface-{ref}-mac",
        comment=f'"macspoofchk-{ref}"',
    )


def delete(host: Host, at: Attachment) -> Plan:
    """What takes them away, found by their comment."""
    there = host.facts.nft_rules(*_TABLE)
    if there is None:
        return ()
    ref = _reference(at)
    handles = [handle for handle, comment in there.items() if comment == f"macspoofchk-{ref}"]
    return render("bridge/unmacspoof.sh.j2", handles=handles, chain=f"cni-br-iface-{ref}", mac_chain=f"cni-br-iface-{ref}-mac")
