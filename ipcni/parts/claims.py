"""Who publishes which port of the node: a note per port, for whoever wants the same one.

The kernel would tell, too, but only in a list of all rules; and it takes two containers with one port without a word: the first rule wins.
"""

import os

from ipcni.model import Attachment, Plan
from ipcni.parts.portmap_conf import Mapping, Ports
from ipcni.protocol.host import Host
from ipcni.shell.facts import read
from ipcni.shell.render import render


def _folder(host: Host) -> str:
    return os.path.join(host.settings.run_dir, "hostports")


def _path(host: Host, ports: Ports, mapping: Mapping, destination: str) -> str:
    return os.path.join(_folder(host), f"{ports.family}-{mapping.transport}-{mapping.host_port}-{destination or 'any'}")


def _owner(network: str, container_id: str) -> str:
    return f"{container_id} in network {network}"


def stake(host: Host, ports: Ports) -> Plan:
    """Notes the ports as this container's. Remarks on those that are another one's."""
    mine = _owner(ports.at.network, ports.at.container_id)
    paths = []
    for mapping in ports.mappings:
        for destination in dict.fromkeys((mapping.destination, "")):
            other = read(_path(host, ports, mapping, destination))
            if other and other != mine:
                host.note(f"host port {mapping.host_port}/{mapping.transport} belongs to {other} until that container's DEL")
        path = _path(host, ports, mapping, mapping.destination)
        if not read(path):  # a crash may have left an empty one
            paths.append(path)
    return render("portmap/claim.sh.j2", folder=_folder(host), paths=paths, owner=mine) if paths else ()


def drop(host: Host, at: Attachment, ports: list[Ports]) -> Plan:
    """Forgets what is noted of a container; where it isn't known which ports it had, all notes are looked at."""
    paths = [_path(host, each, mapping, mapping.destination) for each in ports for mapping in each.mappings]
    return _forget([path for path in paths or _all(host) if read(path) in ("", _owner(at.network, at.container_id))])


def stale(host: Host, network: str, valid: frozenset[tuple[str, str]]) -> Plan:
    """Forgets what is noted of the network's containers that are no more."""
    alive = {_owner(network, container_id) for container_id, _ in valid}
    owners = {path: read(path) or "" for path in _all(host)}
    return _forget([path for path, owner in owners.items() if owner.endswith(_owner(network, "")) and owner not in alive])


def _all(host: Host) -> list[str]:
    folder = _folder(host)
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))] if os.path.isdir(folder) else []


def _forget(paths: list[str]) -> Plan:
    return render("portmap/unclaim.sh.j2", paths=list(dict.fromkeys(paths))) if paths else ()
