"""What `ip -j` and `tc -j` print, as far as plugins ask for it."""

import msgspec


class Address(msgspec.Struct, frozen=True, rename={"length": "prefixlen", "peer": "address"}):
    """An address on a link, as `ip -j addr` tells it. Life times are seconds; they are `dynamic` where they run out."""

    local: str = ""
    length: int = 0
    peer: str = ""
    broadcast: str = ""
    family: str = "inet"
    scope: str = "global"
    label: str = ""
    metric: int = 0
    tentative: bool = False
    dadfailed: bool = False
    nodad: bool = False
    noprefixroute: bool = False
    home: bool = False
    dynamic: bool = False
    mngtmpaddr: bool = False
    temporary: bool = False
    valid_life_time: int = 4294967295
    preferred_life_time: int = 4294967295

    @property
    def automatic(self) -> bool:
        """Whether the kernel has made it of what a router announced."""
        return self.mngtmpaddr or self.temporary

    @property
    def text(self) -> str:
        """The address with its prefix length."""
        return f"{self.local}/{self.length}"


class LinkData(msgspec.Struct, frozen=True):
    """What a kind of link has of its own: bridges the first two, macvlan and ipvlan a mode, VLANs an id, VRFs a table."""

    vlan_filtering: int = 0
    vlan_default_pvid: int = 0
    mode: str | int = ""
    id: str | int = 0
    table: int = 0


class LinkInfo(msgspec.Struct, frozen=True):
    info_kind: str = ""
    info_data: LinkData = LinkData()


class Link(msgspec.Struct, frozen=True, rename={"name": "ifname", "mac": "address", "peer_index": "link_index"}):
    """A link, as `ip -j -d addr` tells it."""

    name: str
    ifindex: int = 0
    mac: str = ""
    mtu: int = 0
    flags: tuple[str, ...] = ()
    operstate: str = ""
    master: str = ""
    promiscuity: int = 0
    txqlen: int = 0
    peer_index: int = 0
    ifalias: str = ""
    permaddr: str = ""
    linkinfo: LinkInfo = LinkInfo()
    addr_info: tuple[Address, ...] = ()

    @property
    def kind(self) -> str:
        return self.linkinfo.info_kind

    @property
    def up(self) -> bool:
        return "UP" in self.flags

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All addresses that have one (a link may list empty entries)."""
        return tuple(address for address in self.addr_info if address.local)


class Via(msgspec.Struct, frozen=True):
    """A gateway of the other family than the route's."""

    family: str = ""
    host: str = ""


class Hop(msgspec.Struct, frozen=True):
    gateway: str = ""
    via: Via = Via()
    dev: str = ""
    weight: int = 1
    flags: tuple[str, ...] = ()


class RouteMetrics(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a route says to TCP and IP."""

    mtu: int = 0
    advmss: int = 0
    hoplimit: int = 0
    window: int = 0
    initcwnd: int = 0
    initrwnd: int = 0
    quickack: int = 0


class Route(msgspec.Struct, frozen=True):
    """A route, as `ip -j route` tells it; `dst` is `default` or a prefix (a bare address is a host route).

    `type` is empty for unicast, `table` for the table that was asked for, or main.
    """

    dst: str
    type: str = ""
    table: str = ""
    tos: str = ""
    gateway: str = ""
    via: Via = Via()
    dev: str = ""
    protocol: str = ""
    scope: str = ""
    prefsrc: str = ""
    metric: int = 0
    pref: str = ""
    flags: tuple[str, ...] = ()
    metrics: tuple[RouteMetrics, ...] = ()
    nexthops: tuple[Hop, ...] = ()


class Policy(msgspec.Struct, frozen=True):
    """A rule, as `ip -N -j rule` tells it; `table` is a number."""

    priority: int
    src: str = ""
    table: str = ""


class Shape(msgspec.Struct, frozen=True):
    """What a tbf does: bytes a second, bytes that may wait, and the burst in the kernel's ticks (hexadecimal)."""

    rate: int = 0
    limit: int = 0
    burst_raw: str = ""


class Qdisc(msgspec.Struct, frozen=True):
    """A queue, as `tc -j -r qdisc` tells it."""

    kind: str
    root: bool = False
    options: Shape = Shape()


class Action(msgspec.Struct, frozen=True):
    to_dev: str = ""


class Actions(msgspec.Struct, frozen=True):
    actions: tuple[Action, ...] = ()


class Filter(msgspec.Struct, frozen=True):
    """A filter, as `tc -j filter` tells it."""

    options: Actions = Actions()
