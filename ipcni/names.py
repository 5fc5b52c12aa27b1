"""Names and hardware addresses, decided from what an attachment is known by. Pure.

Those that the Go plugins derive are derived exactly as they do: either suite finds what the other made (main sheet 1.9, meta sheet 1.6).
"""

import hashlib
import os

from ipcni.model import Attachment


def _hash(prefix: str, length: int, text: str) -> str:
    return (prefix + hashlib.sha512(os.fsencode(text)).hexdigest())[:length]


def masquerade_chain(at: Attachment) -> str:
    """The iptables chain of an attachment's masquerading; one for all interfaces of a container in a network."""
    return _hash("CNI-", 28, at.network + at.container_id)


def masquerade_comment(at: Attachment) -> str:
    return f'name: "{at.network}" id: "{at.container_id}"'


def masquerade_tag(at: Attachment) -> str:
    """What the comment of an attachment's nftables masquerade rules begins with."""
    return f"{_hash('', 16, at.network)}-{_hash('', 16, f'{at.ifname}:{at.container_id}')}"


def masquerade_nft_comment(at: Attachment) -> str:
    """The whole comment; nftables takes no more than 128 bytes."""
    text = f"{masquerade_tag(at)}, net: {at.network}, if: {at.ifname}, id: {at.container_id}".replace('"', "")
    return os.fsdecode(os.fsencode(text)[:128])


def network_tag(network: str) -> str:
    """What the comments of a network's nftables masquerade rules begin with."""
    return _hash("", 16, network)


def dnat_chain(at: Attachment) -> str:
    """The iptables chain of a container's published ports."""
    return _hash("CNI-DN-", 28, at.network + at.container_id)


def ifb(at: Attachment) -> str:
    """The device through which passes what comes from a container, where that is limited."""
    return _hash("bwp", 15, at.network + at.container_id)


def old_snat_chain(at: Attachment) -> str:
    """What very old portmap plugins made beside the DNAT chain."""
    return _hash("CNI-SN-", 28, at.network + at.container_id)


def dnat_comment(at: Attachment) -> str:
    """The comment of a container's entry rules; iptables stores 255 characters."""
    text = f'dnat name: "{at.network}" id: "{at.container_id}"'
    return text if len(text) <= 255 else text[:253] + ".."


def _ours(*parts: str) -> bytes:
    return hashlib.sha256(os.fsencode("\0".join(parts))).digest()


def host_veth(at: Attachment, attempt: int = 0) -> str:
    """The host end of a pod's veth pair: `veth` and eight hex digits, another name for each attempt."""
    return "veth" + _ours("veth", *_key(at), str(attempt)).hex()[:8]


def mac(machine: str, *parts: str) -> str:
    """A locally administered unicast address (IEEE 802) for a thing of this machine."""
    digest = _ours("mac", machine, *parts)
    first = digest[0] & 0xFC | 0x02
    return ":".join(f"{byte:02x}" for byte in (first, *digest[1:6]))


def lock(plugin: str, at: Attachment) -> str:
    """The file name of the lock that keeps two calls of a plugin for one attachment apart."""
    return f"{plugin}-{_ours('lock', *_key(at)).hex()[:32]}"


def _key(at: Attachment) -> tuple[str, str, str]:
    return at.network, at.container_id, at.ifname


def vlan_peer(link: str) -> str:
    """The end, in the bridge, of the pair whose other end is a VLAN's gateway link."""
    return "veth" + _ours("vlan", link).hex()[:8]
