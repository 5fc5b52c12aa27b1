"""What this kernel can do. A test that needs more is marked `kernel(feature)` and runs in a virtual machine where the host lacks it."""

import functools
import os
import pathlib
import shlex
import uuid

from tests.lab import ROOT, run

# A feature and a command that shows it, run in a namespace of its own.
PROBES = {
    "vlan_filtering": "ip link add probe type bridge vlan_filtering 1",
    "vlan": "sh -c 'ip link add parent type veth peer name other && ip link add link parent name probe type vlan id 5'",
    "ipvlan": "sh -c 'ip link add parent type veth peer name other && ip link add link parent name probe type ipvlan'",
    "dummy": "ip link add probe type dummy",
    "vrf": "ip link add probe type vrf table 10",
}


@functools.cache
def has(feature: str) -> bool:
    """Whether this kernel has a feature of PROBES."""
    name = f"probe-{uuid.uuid4().hex[:8]}"
    if run("ip", "netns", "add", name, check=False).returncode:
        return False
    try:
        return run("ip", "netns", "exec", name, *shlex.split(PROBES[feature]), check=False).returncode == 0
    finally:
        run("ip", "netns", "del", name)


@functools.cache
def makes(link: str) -> bool:
    """Whether this kernel has links of a kind."""
    done = run("unshare", "--net", "ip", "link", "add", "name", "probe", "type", *link.split(), check=False)
    return "Unknown device type" not in done.stderr


def vm_runner() -> pathlib.Path | None:
    """The script that runs a command under another kernel, where there is one: $IPCNI_SHARED or ../shared."""
    shared = pathlib.Path(os.environ.get("IPCNI_SHARED") or ROOT.parent / "shared")
    script = shared / "vm" / "run-in-vm.sh"
    return script if script.exists() else None
