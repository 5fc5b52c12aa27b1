"""macspoofchk of the bridge plugin: nftables rules that drop frames with a MAC the pod was not given (main sheet 2.5)."""

import re

from ipcni.errors import CniError
from ipcni.model import Attachment, Plan
from ipcni.protocol.host import Host
from ipcni.protocol.quoting import quote
from ipcni.shell.render import render

_TABLE = ("bridge", "nat", "PREROUTING")
_WORD = re.compile(r"[A-Za-z0-9_./-]+")  # what nft takes as the rest of a chain's name
_COMMENT = 127  # bytes: nftables takes no more


def check_name(at: Attachment) -> None:
    """Refuses what nft cannot take as a chain's name or a rule's comment. Raises CniError."""
    if not _WORD.fullmatch(at.ifname):
        raise CniError(
            f"failed to setup spoof-check: {quote(at.ifname)} cannot be part of a chain's name",
            details="with `macspoofchk` the pod's interface is named with letters, digits, `_`, `.` and `-`",
        )
    if len(f"macspoofchk-{_reference(at)}") > _COMMENT:
        raise CniError(
            "failed to setup spoof-check: the container id is too long for a rule's comment",
            details=f"with `macspoofchk`, container id and interface name have {_COMMENT - 13} bytes at most",
        )


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
    there = host.facts.nft_rules(*_TABLE) if _WORD.fullmatch(at.ifname) else None
    if there is None:
        return ()
    ref = _reference(at)
    handles = [handle for handle, comment in there.items() if comment == f"macspoofchk-{ref}"]
    return render("bridge/unmacspoof.sh.j2", handles=handles, chain=f"cni-br-iface-{ref}", mac_chain=f"cni-br-iface-{ref}-mac")
