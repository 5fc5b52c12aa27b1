"""Questions about the node. Each is a command that changes nothing, or the reading of a file below /proc or /sys."""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import msgspec

from ipcni.errors import CniError
from ipcni.model import Done, Family, Netns
from ipcni.shell import devices, files, nft
from ipcni.shell.inside import inside
from ipcni.shell.iproute import Filter, Link, Policy, Qdisc, Route

T = TypeVar("T")

_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_CLONE_NEWNET = 0x40000000
_NO_NETNS = "CNI_NETNS must be the path of a network namespace, such as /run/netns/pod"
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')  # as libxtables writes them: in double quotes, with backslashes
_ESCAPED = re.compile(r"\\(.)")
_RESOURCE_PROBLEM = 4
_NO_BETTER_LATER = ("busy", "ermission denied", "not permitted")
_NO_SUCH_LINKS = ("Unknown device type", "Operation not supported")
_NO_SUCH_QUEUE = "qdisc kind is unknown"
_NO_CHAIN = ("No chain/target/match", "incompatible, use 'nft' tool")
_ABSENT = ("does not exist", "Cannot find device", "No such device")


class Ask(Protocol):
    """Runs a command that changes nothing, in a namespace if one is given."""

    def __call__(self, argv: tuple[str, ...], netns: Netns | None, stdin: str = "") -> Done: ...


class Rules(msgspec.Struct, frozen=True):
    """One iptables table: its chains, and its rules as words without the quoting (`-A CHAIN …`).

    `fault` is how the question ended when there was no answer.
    """

    chains: frozenset[str] = frozenset()
    rules: tuple[tuple[str, ...], ...] = ()
    fault: Done | None = None

    def jumps(self, chain: str, target: str) -> tuple[tuple[str, ...], ...]:
        """The rules of `chain` that end in `-j target`, without their `-A CHAIN`."""
        return tuple(rule[2:] for rule in self.rules if rule[1] == chain and rule[-2:] == ("-j", target))

    def has(self, *rule: str) -> bool:
        """Whether there is this very rule, `-A` and chain included."""
        return rule in self.rules


def iptables(family: Family) -> str:
    """The tool for an address family."""
    return "ip6tables" if family == 6 else "iptables"


def busctl(address: str, *words: str) -> tuple[str, ...]:
    """A method call on a D-Bus; an empty address is the system's."""
    return ("busctl", f"--address={address}" if address else "--system", "call", *words)


def busy(done: Done) -> bool:
    """Whether an iptables said "try again" (iptables(8), status 4): neither that an object is in use, nor that it may not."""
    return done.status == _RESOURCE_PROBLEM and not any(text in done.err for text in _NO_BETTER_LATER)


class Facts:
    """What a plan may know of the node it is for.

    `unknown` collects the questions that could not be answered (for want of root, say); their subjects count as absent.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.unknown: list[str] = []

    def _json(self, argv: tuple[str, ...], netns: Netns | None, kind: Any) -> Any:
        done = self._ask(argv, netns)
        if done.status == 0:
            return msgspec.convert(json.loads(done.out or "[]"), kind)
        if not any(text in done.err for text in _ABSENT):
            self.unknown.append(f"{shlex.join(argv)}: {done.err.strip() or done.status}")
        return msgspec.convert([], kind)

    def link(self, name: str, netns: Netns | None = None) -> Link | None:
        """The link of that name with its addresses, or None."""
        links: list[Link] = self._json(("ip", "-j", "-d", "addr", "show", "dev", name), netns, list[Link])
        return next((link for link in links if link.name), None)

    def bridge(self, name: str) -> Link | None:
        """The bridge of that name on the node, without starting a process, or None: there may be a link of another kind."""
        return devices.bridge(name)

    def device(self, name: str, netns: Netns | None = None) -> Link | None:
        """A link, without starting a process, and without what only `link` finds out (see devices.device)."""
        return self._inside(netns, lambda: devices.device(name), None) if netns else devices.device(name)

    def peer(self, name: str, netns: Netns) -> int:
        """The index of the other end of a pod's veth, without starting a process; 0 where it is no veth."""
        return self._inside(netns, lambda: devices.peer(name), 0)

    def _inside(self, netns: Netns, ask: Callable[[], T], otherwise: T) -> T:
        try:
            return inside(netns, ask)
        except OSError as problem:
            self.unknown.append(f"{problem.filename}: {problem.strerror}")
            return otherwise

    def links(self, netns: Netns | None = None) -> dict[str, Link]:
        """All links by name (a name is given without the `@peer` behind it)."""
        found: list[Link] = self._json(("ip", "-j", "-d", "addr", "show"), netns, list[Link])
        return {link.name: link for link in found if link.name}

    def routes(self, family: Family, netns: Netns | None = None, table: str = "main") -> tuple[Route, ...]:
        """The routes of one table."""
        argv = ("ip", f"-{family}", "-j", "route", "show", "table", table)
        found: tuple[Route, ...] = self._json(argv, netns, tuple[Route, ...])
        return found

    def route_dev(self, address: str, family: Family) -> str | None:
        """The link packets to `address` leave by, or None when there is no route."""
        done = self._ask(("ip", f"-{family}", "-j", "route", "get", address), None)
        if done.status:
            return None
        routes = msgspec.convert(json.loads(done.out or "[]"), list[Route])
        return routes[0].dev if routes else None

    def policies(self, family: Family, netns: Netns | None = None) -> tuple[Policy, ...]:
        """The rules by which packets find their routing table. -N: tables have names where the node gives them some."""
        found: tuple[Policy, ...] = self._json(("ip", f"-{family}", "-N", "-j", "rule", "show"), netns, tuple[Policy, ...])
        return found

    def qdiscs(self, link: str) -> tuple[Qdisc, ...]:
        """The queues of a link of the node."""
        found: tuple[Qdisc, ...] = self._json(("tc", "-j", "-r", "qdisc", "show", "dev", link), None, tuple[Qdisc, ...])
        return found

    def redirects(self, link: str) -> frozenset[str]:
        """Where filters send what arrives at a link of the node."""
        argv = ("tc", "-j", "filter", "show", "dev", link, "parent", "ffff:")
        found: tuple[Filter, ...] = self._json(argv, None, tuple[Filter, ...])
        return frozenset(action.to_dev for each in found for action in each.options.actions if action.to_dev)

    def rules(self, family: Family, table: str, *chain: str) -> Rules:
        """One iptables table, or one chain of it, as `iptables-save` form lines; empty where there is no such tool, table or chain."""
        done = self._ask((iptables(family), "-w", "10", "-t", table, "-S", *chain), None)
        if done.status and chain and any(text in done.err for text in _NO_CHAIN):
            return Rules()
        if done.status:
            self.unknown.append(f"{iptables(family)} -t {table} -S: {done.err.strip() or done.status}")
            return Rules(fault=done)
        return _listed(done.out)

    def chains(self, family: Family, table: str, names: Iterable[str]) -> Rules:
        """Some chains of an iptables table, by one process that loads no others; nothing at all where one of them isn't there."""
        questions = "".join(f"-S {name}\n" for name in names)
        done = self._ask((f"{iptables(family)}-restore", "--noflush", "-w", "10"), None, f"*{table}\n{questions}COMMIT\n")
        return Rules(fault=done) if done.status else _listed(done.out)

    def rule_there(self, family: Family, table: str, *rule: str) -> bool:
        """Whether iptables itself knows this rule (the chain and its words), however it would spell it."""
        return self._ask((iptables(family), "-w", "10", "-t", table, "-C", *rule), None).status == 0

    def nft_table(self, family: str, table: str, comment: str) -> dict[str, tuple[nft.NftRule, ...]] | None:
        """The rules with a comment in each chain of an nftables table, or None when there is no such table."""
        done = self._ask(("nft", "--json", "list", "table", family, table), None)
        if done.status:
            if "No such file or directory" not in done.err:
                self.unknown.append(f"nft list table {family} {table}: {done.err.strip() or done.status}")
            return None
        chains = nft.ruleset(done.out, comment).get((family, table), {})
        return {name: chain.rules for name, chain in chains.items()}

    def nft_ruleset(self) -> nft.Ruleset | None:
        """All tables of nftables, or None where they cannot be listed."""
        done = self._ask(("nft", "--json", "--terse", "list", "ruleset"), None)
        if done.status:
            self.unknown.append(f"nft list ruleset: {done.err.strip() or done.status}")
            return None
        return nft.ruleset(done.out)

    def bus(self, address: str, *words: str) -> Done:
        """A method call on a D-Bus (an empty address: the system's) that changes nothing, as `busctl call` takes it."""
        return self._ask(busctl(address, *words), None)

    def nft_rules(self, family: str, table: str, chain: str) -> dict[int, str] | None:
        """Handle and comment of each rule of an nftables chain, or None when there is no such chain."""
        done = self._ask(("nft", "--json", "list", "chain", family, table, chain), None)
        if done.status:
            if "No such file or directory" not in done.err:
                self.unknown.append(f"nft list chain {family} {table} {chain}: {done.err.strip() or done.status}")
            return None
        return nft.comments(done.out)

    def sysctl(self, path: str) -> str | None:
        """The value of a kernel setting of the node, by its path below /proc/sys, or None."""
        return read(f"/proc/sys/{path}")

    def sysctls(self, paths: list[str], netns: Netns) -> dict[str, str]:
        """Those of a pod's kernel settings that can be read, by their paths below /proc/sys."""
        values: list[str | None] = self._inside(netns, lambda: [self.sysctl(path) for path in paths], [])
        return {path: value for path, value in zip(paths, values, strict=False) if value is not None}

    def makes(self, link: str) -> bool:
        """Whether the kernel has links of that kind (and options); tried in a namespace that is gone with the question."""
        done = self._ask(("unshare", "--net", "ip", "link", "add", "name", "probe", "type", *link.split()), None)
        return not any(text in done.err for text in _NO_SUCH_LINKS)

    def queues(self, queue: str) -> bool:
        """Whether the kernel has queues of that kind (`root tbf …`); tried in a namespace that is gone with the question."""
        done = self._ask(("unshare", "--net", "tc", "qdisc", "add", "dev", "lo", *queue.split()), None)
        return _NO_SUCH_QUEUE not in done.err

    def fault(self, device: str) -> str:
        """Why a device file cannot be opened (opening may load its driver), or the empty text."""
        try:
            os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            return (error.strerror or "").lower()
        return ""

    def mac(self, link: str) -> str | None:
        """The hardware address of a link of the node, without starting a process, or None where there is no such link."""
        return read(f"/sys/class/net/{link}/address")

    def machine_id(self) -> str:
        """What tells this node from others: the machine's id, and its name, for images are copied with the id in them."""
        return f"{read('/etc/machine-id') or read('/proc/sys/kernel/random/boot_id') or ''} {os.uname().nodename}"

    def netns_there(self, netns: Netns) -> bool:
        """Whether the namespace is still there.

        Raises CniError where the path is something else than a namespace.
        """
        if not os.path.exists(netns.path):
            return False
        self.require_netns(netns)
        return True

    def require_netns(self, netns: Netns) -> None:
        """Raises CniError with the reference's words unless the path is a network namespace (ioctl_ns(2))."""
        import fcntl

        try:
            fd = os.open(netns.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise CniError(f'failed to Statfs "{netns.path}": {reason}', details=_NO_NETNS) from error
        try:
            if fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET:
                return
        except OSError:
            pass
        finally:
            os.close(fd)
        magic = self._ask(("stat", "-L", "-f", "-c", "%t", netns.path), None).out.strip()
        raise CniError(f'unknown FS magic on "{netns.path}": {magic}', details=_NO_NETNS)


def _listed(text: str) -> Rules:
    lines = [_words(line) for line in text.splitlines() if line.startswith("-")]
    return Rules(
        chains=frozenset(line[1] for line in lines if line[0] in ("-N", "-P")),
        rules=tuple(line for line in lines if line[0] == "-A"),
    )


def _words(line: str) -> tuple[str, ...]:
    """The words of a line of `iptables -S`. A node may have thousands: shlex would take a second for them."""
    if '"' not in line:
        return tuple(line.split(" "))
    return tuple(_ESCAPED.sub(r"\1", match[1]) if match[1] is not None else match[2] for match in _WORD.finditer(line))


def read(path: str) -> str | None:
    """A small file's text without the white space around it, or None when it cannot be read."""
    try:
        return files.content(path).decode("utf-8", "replace").strip()
    except OSError:
        return None
