"""What plugin calls leave on a node, and tools that misbehave: for tests of failures, kills and hostile input."""

import json
import os
import pathlib
from typing import Any

from tests.lab import ENTRY_PATH, Node

# What all attachments share, and which therefore may outlive each of them.
_SHARED_CHAINS = ("CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK")
_SHARED_LINES = (":CNI-FORWARD ", ":CNI-ADMIN ", "CNI firewall plugin ")
_TOOLS = ("iptables-save", "ip6tables-save", "nft list ruleset")
_SHARED_LOCKS = ("link-", "chains-")


def remains(node: Node) -> dict[str, list[str]]:
    """All that is on the node of an attachment's own: empty where nothing was left behind.

    Bridges, the chains that all published ports and all firewalls share, and the locks of these are not counted: the next pod uses them again. An
    empty lease file is none: a crash left it, and its address counts as free.
    """
    links, *saved = node.run("sh", "-c", f"ip -d -j link; {'; '.join(f'echo ----; {tool}' for tool in _TOOLS)}").stdout.split(
        "----\n"
    )
    found = {
        "links": [link["ifname"] for link in json.loads(links) if link.get("linkinfo", {}).get("info_kind") == "veth"],
        "rules": [line for text in saved[:2] for line in text.splitlines() if _own(line)],
        "nft": [line for line in saved[2].splitlines() if "comment" in line and "id:" in line],
        "leases": [str(path) for path in _files(pathlib.Path(node.data_dir)) if _is_lease(path)],
        "notes": [path.name for path in _files(node.folder / "flannel")],
        "noted": [path.name for path in _files(node.folder / "run" / "attachments")],
        "claims": [path.name for path in _files(node.folder / "run" / "hostports")],
        "locks": [path.name for path in _files(node.folder / "run" / "locks") if not path.name.startswith(_SHARED_LOCKS)],
    }
    return {what: each for what, each in found.items() if each}


def _own(line: str) -> bool:
    shared = any(chain in line and "CNI-DN-" not in line for chain in _SHARED_CHAINS) or any(
        text in line for text in _SHARED_LINES
    )
    return "CNI-" in line and not shared


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return [pathlib.Path(path) / name for path, _, names in os.walk(folder) for name in names]


def _is_lease(path: pathlib.Path) -> bool:
    return path.name != "lock" and not path.name.startswith("last_reserved_ip") and path.stat().st_size > 0


def tools(folder: pathlib.Path, **scripts: str) -> dict[str, str]:
    """An environment in which tools are shell scripts (`_` in a keyword is `-`); `$real` is the tool itself, `$here` the folder."""
    folder.mkdir(exist_ok=True)
    for keyword, script in scripts.items():
        name = keyword.replace("_", "-")
        path = folder / name
        path.write_text(f"#!/bin/sh\nreal=/usr/sbin/{name}\nhere={folder}\n{script}\n")
        path.chmod(0o755)
    return {"PATH": f"{folder}:{ENTRY_PATH}"}


def network(node: Node, **keys: Any) -> dict[str, Any]:
    """A bridge that masquerades."""
    return {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "bridge",
        "bridge": "br1",
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.44.0.0/24"}]], "dataDir": node.data_dir},
        **keys,
    }


def published(**keys: Any) -> dict[str, Any]:
    """portmap behind a bridge, for a container of both families."""
    return {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "portmap",
        "runtimeConfig": {
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 8053, "containerPort": 53, "protocol": "udp"},
            ]
        },
        "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.44.0.2/24"}, {"address": "fd00:44::2/64"}]},
        **keys,
    }
