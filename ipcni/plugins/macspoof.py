"""macspoofchk of the bridge plugin: nftables rules that drop frames with a MAC the pod was not given (main sheet 2.5)."""

from ipcni.model import Attachment, Plan
from ipcni.protocol.host import Host
from ipcni.shell.render import render

_TABLE = ("bridge", "nat", "PREROUTING")


def _reference(at: Attachment) -> str:
    return f"{at.container_id}-{at.ifname}"


def add(at: Attachment, veth: str, mac: str) -> Plan:
    """The rules for one pod port."""
    ref = _reference(at)
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
    return _delete(host, [_reference(at)])


def gc(host: Host, network: str, valid: frozenset[tuple[str, str]]) -> Plan:
    """Nothing: neither chains nor comments carry the network's name, so no rule can be told to be this network's."""
    return ()


def _delete(host: Host, references: list[str]) -> Plan:
    there = host.facts.nft_rules(*_TABLE)
    if there is None:
        return ()
    plan: Plan = ()
    for ref in references:
        handles = [handle for handle, comment in there.items() if comment == f"macspoofchk-{ref}"]
        plan += render("bridge/unmacspoof.sh.j2", handles=handles, chain=f"cni-br-iface-{ref}")
    return plan
