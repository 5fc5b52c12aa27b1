"""Everything that plugins can change on a node and its pods, as text that two nodes can be compared by."""

import json
import pathlib
import re
from typing import Any

from tests.lab import Node, Pod, run

_FLEETING = {
    "ifindex",
    "link_index",
    "link_netnsid",
    "stats",
    "stats64",
    "gc_timer",
    "hello_timer",
    "tcn_timer",
    "topology_change_timer",
    "forward_delay_timer",
    "message_age_timer",
    "hold_timer",
    "used",
    "confirmed",
    "updated",
    "probes",
    "refcnt",
    "parentdev",
    "group_address",
}
# Kernel settings that the kernel itself keeps changing, or that are not a namespace's own.
_MOVING = re.compile(
    r"random|mtu_expires|\.stable_secret|nf_conntrack_count|\.nf_log|tcp_available|tcp_allowed|\.base_reachable_time"
)


def snapshot(
    node: Node, pods: list[Pod], folders: dict[str, pathlib.Path] | None = None, *, anonymous: bool = False
) -> dict[str, Any]:
    """Links, addresses, routes, rules, kernel settings, firewall, shaping of the node and its pods, and the files of `folders`.

    With `anonymous` the names of host veths and all MACs are replaced by what they are (`veth-0`, `mac-of-eth0`), so that suites
    that name things differently can be compared.
    """
    spaces = {"node": node, **{f"pod{number}": pod for number, pod in enumerate(pods)}}
    found: dict[str, Any] = {name: _space(space) for name, space in spaces.items()}
    found["files"] = {title: _files(folder) for title, folder in (folders or {}).items()}
    text = json.dumps(found)
    for name, space in spaces.items():
        text = text.replace(space.name, name)
    if anonymous:
        text = _anonymous(text)
    result: dict[str, Any] = json.loads(text)
    return result


_ASKED = (
    "ip -j -d addr",
    "ip route show table all",
    "ip -6 route show table all",
    "ip rule",
    "ip -6 rule",
    "ip -j neigh",
    "tc qdisc show",
    "bridge -j vlan show",
    "grep -rs '' /proc/sys/net",
    "iptables-save",
    "ip6tables-save",
    "nft -n list ruleset",
)


def _space(space: Pod) -> dict[str, Any]:
    """One process that asks everything: a test does this a dozen times, and in an emulated machine every process takes long."""
    said = space.run("sh", "-c", "; echo =====; ".join(_ASKED)).stdout.split("=====\n")
    addresses, routes, routes6, rules, rules6, neighbours, qdiscs, vlans, settings, *firewall = said
    return {
        "links": {link["ifname"]: _stripped(link) for link in json.loads(addresses)},
        "routes": _lines(routes) + _lines(routes6),
        "rules": _lines(rules) + _lines(rules6),
        "neighbours": sorted(
            json.dumps(_stripped(each)) for each in json.loads(neighbours or "[]") if each.get("state") == ["PERMANENT"]
        ),
        "vlans": {port["ifname"]: port["vlans"] for port in json.loads(vlans.strip() or "[]")},
        "sysctl": _sysctls(settings),
        "firewall": _firewall(*firewall),
        "shaping": _lines(re.sub(r" (parent|qdisc) [0-9a-f]+:", "", qdiscs)),
    }


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(item) for key, item in sorted(value.items()) if key not in _FLEETING}
    if isinstance(value, list):
        return [_stripped(item) for item in value]
    return value


def _lines(text: str) -> list[str]:
    return sorted(" ".join(line.split()) for line in text.splitlines())


def _sysctls(text: str) -> dict[str, str]:
    pairs = (line.removeprefix("/proc/sys/").partition(":") for line in text.splitlines())
    return {key: value for path, _, value in pairs if not _MOVING.search(key := path.replace("/", "."))}


def _firewall(saved: str, saved6: str, ruleset: str) -> list[str]:
    lines: list[str] = []
    for tool, text in (("iptables-save", saved), ("ip6tables-save", saved6)):
        lines += [tool] + [re.sub(r"\[\d+:\d+\]", "", line) for line in text.splitlines() if not line.startswith("#")]
    tables = sorted(re.split(r"^(?=table )", ruleset, flags=re.MULTILINE))  # told in the order in which they were made
    return lines + [re.sub(r"counter packets \d+ bytes \d+ ", "", line) for line in "".join(tables).splitlines()]


def _files(folder: pathlib.Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): f"{path.stat().st_mode & 0o777:o} {path.read_bytes().decode()!r}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    } | {str(path.relative_to(folder)): "there" for path in folder.rglob("lock")}


def _anonymous(text: str) -> str:
    text = re.sub(r"(?<=8000\.)[0-9a-f:]+", lambda match: ":".join(byte.zfill(2) for byte in match[0].split(":")), text)
    macs: dict[str, str] = {}
    data = json.loads(text)
    for space, state in data.items():
        if space == "files":
            continue
        veths = 0
        for name, link in state["links"].items():  # in the order they were made
            role = name
            if re.fullmatch(r"veth[0-9a-f]{8}", name) and (peer := link.get("link", "")) in state["links"]:
                role = f"veth-of-{peer}"
                text = text.replace(name, role)
            elif re.fullmatch(r"veth[0-9a-f]{8}", name):
                role = f"veth-{veths}"
                veths += 1
                text = text.replace(name, role)
            if link.get("address", "").strip("0:"):
                macs.setdefault(link["address"], f"mac-of-{space}-{role}")
    for mac, role in macs.items():
        text = text.replace(mac, role)
        text = text.replace(_link_local(mac), f"fe80::{role}")
    data = json.loads(text)
    for space, state in data.items():
        if space != "files":
            state["routes"].sort()
            state["shaping"].sort()
    return json.dumps(data)


def _link_local(mac: str) -> str:
    """The IPv6 address the kernel makes of a MAC (RFC 4291, appendix A)."""
    import ipaddress

    raw = bytes.fromhex(mac.replace(":", ""))
    number = (0xFE80 << 112) | int.from_bytes(bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:], "big")
    return str(ipaddress.ip_address(number))


def settle(*spaces: Pod) -> None:
    """Waits until no IPv6 address is tentative any more: it would be so on one node and not on the other."""
    import time

    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not any("tentative" in run("ip", "-n", space.name, "-6", "addr").stdout for space in spaces):
            return
        time.sleep(0.05)


def differences(left: Any, right: Any, path: str = "") -> list[str]:
    """Where two snapshots differ, a line each."""
    if isinstance(left, dict) and isinstance(right, dict):
        lines: list[str] = []
        for key in sorted(set(left) | set(right)):
            lines += differences(left.get(key), right.get(key), f"{path}/{key}")
        return lines
    if isinstance(left, list) and isinstance(right, list) and left != right:
        only = [f"{path}: only left: {item}" for item in left if item not in right]
        only += [f"{path}: only right: {item}" for item in right if item not in left]
        return only or [f"{path}: order: {left} / {right}"]
    return [] if left == right else [f"{path}: {left!r} / {right!r}"]
