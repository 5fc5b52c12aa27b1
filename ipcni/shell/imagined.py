"""What the node will be like once a script has run so far: for plans that ask before anything was done."""

from collections.abc import Iterator

import msgspec

from ipcni.model import NAMED_NETNS, Family, Netns, Step
from ipcni.protocol import address as addresses
from ipcni.shell.facts import Ask, Facts
from ipcni.shell.iproute import Address, Link, Route

_EVERYWHERE = ("0.0.0.0/0", "::/0")
_MAKES = (("ip", "link", "add"), ("ip", "tuntap", "add"))


class Imagined(Facts):
    """Questions to the node, answered as they will have to be once the script has run so far."""

    def __init__(self, ask: Ask, made: list[Step]) -> None:
        super().__init__(ask)
        self._made = made

    def link(self, name: str, netns: Netns | None = None) -> Link | None:
        """A pod's link as the script makes it, if it does."""
        first = name
        for step in reversed(self._made if netns else []):
            if step.argv[:4] == ("ip", "link", "set", "dev") and _given(step.argv, "name") == first:
                if netns == Netns(_given(step.argv, "netns")) and (moved := super().link(step.argv[4], step.netns)):
                    return msgspec.structs.replace(moved, name=name, master="", addr_info=tuple(self._addresses(name)))
                if netns == step.netns:
                    first = step.argv[4]  # what it was called before
            if step.argv[:3] in _MAKES and netns in (step.netns, Netns(_given(step.argv, "netns"))):
                words = step.argv[step.argv.index("peer") :] if "peer" in step.argv else step.argv
                if _given(words, "name") == first:
                    return self._link(name, words, step.netns)
        return super().link(name, netns)

    def device(self, name: str, netns: Netns | None = None) -> Link | None:
        """A pod's link as the script makes it, if it does."""
        return self.link(name, netns)

    def _link(self, name: str, words: tuple[str, ...], netns: Netns | None) -> Link:
        """The link that a command makes: what the command does not say is the master's."""
        above = super().link(_given(words[3:], "link"), netns) if "link" in words[3:] else None
        mtu = _given(words, "mtu") or (above.mtu if above else 1500)
        mac = _given(words, "address") or (above.mac if above else "")
        return Link(
            name=name,
            mac=mac,
            mtu=int(mtu),
            txqlen=int(_given(words, "txqueuelen") or 1000),
            addr_info=tuple(self._addresses(name)),
        )

    def _addresses(self, name: str) -> Iterator[Address]:
        for step in self._made:
            if step.netns and step.argv[:3] == ("ip", "addr", "add") and _given(step.argv, "dev") == name:
                address, _, length = step.argv[3].partition("/")
                yield Address(local=address, length=int(length), family="inet6" if ":" in address else "inet")

    def routes(self, family: Family, netns: Netns | None = None, table: str = "main") -> tuple[Route, ...]:
        """Those of the namespace, and those of the script."""
        return (*super().routes(family, netns, table), *self._routes(family, netns, table))

    def _routes(self, family: Family, netns: Netns | None, table: str) -> Iterator[Route]:
        for step in self._made if table == "main" else ():
            if step.netns == netns and step.argv[:3] == ("ip", "addr", "add") and addresses.family(step.argv[3]) == family:
                yield from _connected(step.argv[3], _given(step.argv, "dev"))
        for step in self._made:
            words = step.argv
            if (step.netns, words[:3]) != (netns, ("ip", "route", "prepend")):
                continue
            if addresses.family(words[3]) == family and (_given(words, "table") or "main") == table:
                yield Route(
                    dst="default" if words[3] in _EVERYWHERE else words[3],
                    gateway=_given(words, "via"),
                    dev=_given(words, "dev"),
                    protocol="boot",
                    scope=_given(words, "scope"),
                    metric=int(_given(words, "metric") or 0),
                )

    def sysctls(self, paths: list[str], netns: Netns) -> dict[str, str]:
        """Those of a link that the script makes will be the namespace's defaults."""
        asked = {path: self._default(path, netns) for path in paths}
        found = super().sysctls(list(dict.fromkeys(asked.values())), netns)
        return {path: found[default] for path, default in asked.items() if default in found}

    def _default(self, path: str, netns: Netns) -> str:
        match path.split("/"):
            case ["net", family, kind, link, *name] if super().link(link, netns) is None and self.link(link, netns):
                return "/".join(("net", family, kind, "default", *name))
        return path

    def route_dev(self, address: str, family: Family) -> str | None:
        """By the link that the script gives an address of that network, if it does."""
        for step in self._made:
            match step.argv:
                case ("ip", "addr", "add", prefix, *_, "dev", dev) if step.netns is None:
                    if addresses.ip(address) in addresses.cidr(prefix).network:
                        return dev
        return super().route_dev(address, family)


def _connected(prefix: str, dev: str) -> Iterator[Route]:
    """The routes that the kernel makes for an address of a link that is up."""
    address = addresses.cidr(prefix)
    if address.network.prefixlen < address.max_prefixlen:
        network = address.network.with_prefixlen
        if address.version == 4:
            yield Route(dst=network, dev=dev, protocol="kernel", scope="link", prefsrc=str(address.ip))
        else:
            yield Route(dst=network, dev=dev, protocol="kernel", metric=256)
            yield Route(dst="fe80::/64", dev=dev, protocol="kernel", metric=256)


def _given(words: tuple[str, ...], key: str) -> str:
    """The word behind `key`; a namespace's name as its path."""
    value = words[words.index(key) + 1] if key in words else ""
    return f"{NAMED_NETNS}/{value}" if key == "netns" and value and "/" not in value else value
