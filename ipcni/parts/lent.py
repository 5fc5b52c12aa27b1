"""What a link of the node was like before a pod got it, and how it becomes so again (main sheet 7)."""

import ipaddress
import itertools
import os

import msgspec

from ipcni.model import Plan
from ipcni.parts import interface, notes
from ipcni.protocol import address as addresses
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.shell.iproute import Address, Link
from ipcni.shell.render import render

Words = tuple[str, ...]
_NOT_TO_SET = ("mc_forwarding", "mtu", "stable_secret")


class Before(msgspec.Struct, frozen=True, omit_defaults=True):
    """A link of the node, and in which namespace it is now. `addresses` are what stands behind `ip addr replace`, `routes`
    behind `ip route append`; `leased` are addresses that end by themselves, `settings` the kernel's for this link (`net/…=1`) where they are not the default."""

    device: str = ""
    netns: str = ""
    mac: str = ""
    mtu: int = 0
    txqlen: int = 0
    promisc: bool = False
    allmulti: bool = False
    up: bool = False
    alias: str = ""
    master: str = ""
    addresses: tuple[Words, ...] = ()
    leased: tuple[Words, ...] = ()
    settings: tuple[str, ...] = ()
    routes: tuple[Words, ...] = ()

    @property
    def note(self) -> str:
        """One line."""
        return msgspec.json.encode(self).decode()


def look(req: Request, host: Host, link: Link) -> Before:
    """The link as it is. What the kernel and routers give again by themselves is left out."""
    made = _link_local(link.mac) if host.facts.sysctl(f"net/ipv6/conf/{link.name}/addr_gen_mode") == "0" else ""
    stay = [each for each in link.addresses if not each.automatic and each.local != made]
    # The kernel puts the latest IPv6 address of a scope first, and the latest IPv4 address of a network last.
    stay = [each for each in stay if each.family == "inet"] + [each for each in reversed(stay) if each.family != "inet"]
    return Before(
        device=link.name,
        netns=req.netns_path,
        mac=link.mac,
        mtu=link.mtu,
        txqlen=link.txqlen,
        promisc="PROMISC" in link.flags,
        allmulti="ALLMULTI" in link.flags,
        up=link.up,
        alias="" if set(link.ifalias) & set("\n\r\0") else link.ifalias,
        master=link.master,
        addresses=tuple(address(each, link.name) for each in stay if not each.dynamic),
        leased=tuple(address(each, link.name) for each in stay if each.dynamic),
        settings=_settings(host, link.name),
        routes=_routes(host, link.name) if link.addresses else (),
    )


def _link_local(mac: str) -> str:
    """The IPv6 address that the kernel makes of a MAC (RFC 4291, appendix A)."""
    octets = [int(each, 16) for each in mac.split(":")] if mac.count(":") == 5 else []
    if not octets:
        return ""
    octets[0] ^= 2
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes((*octets[:3], 0xFF, 0xFE, *octets[3:]))))


def address(each: Address, link: str) -> Words:
    """An address as `ip addr` takes it."""
    four = each.family == "inet"
    words = [each.local, "peer", f"{each.peer}/{each.length}"] if each.peer else [each.text]
    words += ["brd", each.broadcast] if four and each.broadcast else []
    words += ["scope", each.scope] if four and each.scope != "global" else []
    words += ["label", each.label] if each.label not in ("", link) else []
    words += ["metric", str(each.metric)] if each.metric else []
    words += [flag for flag in ("nodad", "noprefixroute", "home") if getattr(each, flag)]
    if each.dynamic:
        words += ["valid_lft", str(each.valid_life_time), "preferred_lft", str(each.preferred_life_time)]
    elif each.preferred_life_time == 0:
        words += ["preferred_lft", "0"]
    return tuple(words)


def _settings(host: Host, link: str) -> tuple[str, ...]:
    """The kernel forgets them when a link leaves its namespace."""
    found = []
    for conf in ("net/ipv4/conf", "net/ipv6/conf"):
        folder = f"/proc/sys/{conf}/{link}"
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            value = host.facts.sysctl(f"{conf}/{link}/{name}")
            if name not in _NOT_TO_SET and value is not None and value != host.facts.sysctl(f"{conf}/default/{name}"):
                found.append(f"{conf}/{link}/{name}={value}")
    return tuple(found)


def _routes(host: Host, link: str) -> tuple[Words, ...]:
    """Those of all tables."""
    found: list[Words] = []
    for family in (4, 6):
        for route in interface.dropped(host.facts.routes(4 if family == 4 else 6, table="all"), link, family):
            table = ("table", route.table) if route.table else ()
            found.append((*table, *interface.again(route, family)))
    return tuple(found)


def noted(req: Request, host: Host) -> Before:
    """What was noted when the pod got the link, or nothing of it."""
    try:
        return msgspec.json.decode("\n".join(notes.words(req, host)), type=Before)
    except msgspec.MsgspecError:
        return Before()


def restored(before: Before, now: Link | None = None) -> Plan:
    """What makes the link, back on the node, as it was.

    Of the link's own what differs from `now`. Without `now` nothing has happened to the link meanwhile: then leases run on,
    which would else be for their client to get again, and the routes by them, too.
    """
    return render(
        "host-device/restore.sh.j2",
        device=before.device,
        changed=_changed(before, now) if now and before.mac else (),
        settings=before.settings,
        master=before.master,
        up=before.up,
        addresses=before.addresses + (() if now else before.leased),
        routes=[route for route in before.routes if not (now and _by_lease(route, before))],
    )


def _changed(before: Before, now: Link) -> list[Words]:
    """What the pod has changed of the link, as `ip link set` takes it back."""
    pairs = {
        "address": (before.mac, now.mac),
        "mtu": (str(before.mtu), str(now.mtu)),
        "txqueuelen": (str(before.txqlen), str(now.txqlen)),
        "promisc": (_switch(before.promisc), _switch("PROMISC" in now.flags)),
        "allmulticast": (_switch(before.allmulti), _switch("ALLMULTI" in now.flags)),
    }
    return [(key, was) for key, (was, is_now) in pairs.items() if was != is_now]


def _switch(value: bool) -> str:
    return "on" if value else "off"


def _by_lease(route: Words, before: Before) -> bool:
    """Whether a route needs an address that was leased."""
    said = list(itertools.pairwise(route))
    if any(("src", words[0].partition("/")[0]) in said for words in before.leased):
        return True
    gateways = [value for key, value in said if key == "via" and addresses.is_ip(value)]  # and not `inet6`
    only = [_in_network(each, before.leased) and not _in_network(each, before.addresses) for each in gateways]
    return "onlink" not in route and any(only)


def _in_network(gateway: str, there: tuple[Words, ...]) -> bool:
    """Whether one of these addresses has the gateway on its link."""
    prefixes = [words[2] if words[1:2] == ("peer",) else words[0] for words in there]
    return any(addresses.ip(gateway) in addresses.cidr(prefix).network for prefix in prefixes)
