"""Real runtimes over the plugins: podman, containerd's ctr, its CRI plugin, and a flannel network of three hosts.

The scripts make a node of namespaces with lib.sh, which isn't part of this repository: it is looked for in $IPCNI_SHARED or ../shared.
"""

import os
import pathlib
import subprocess

import pytest

from ipcni import install
from tests.lab import BIN, ROOT

SHARED = pathlib.Path(os.environ.get("IPCNI_SHARED") or ROOT.parent / "shared").resolve()
HERE = pathlib.Path(__file__).parent
pytestmark = pytest.mark.skipif(not (SHARED / "clients" / "lib.sh").exists(), reason=f"there is no {SHARED}/clients")

# What each of the reference scripts needs; links.sh runs in a virtual machine, see tests/vm.
LINKS = {"ipvlan", "macvlan", "vlan", "dummy", "tap", "host-device", "vrf", "host-local", "static"}
USES = {
    "flannel.sh": {"loopback", "flannel", "bridge", "host-local", "portmap"},
    "podman.sh": {"bridge", "host-local", "portmap", "firewall", "tuning", "macvlan", "loopback"},
    "ctr.sh": {"loopback", "bridge", "host-local", "firewall", "tuning", "ptp"},
    "cri.sh": {"loopback", "bridge", "ptp", "host-local", "portmap", "firewall", "bandwidth"},
}


def client(script: pathlib.Path, folder: pathlib.Path) -> None:
    """Runs a script over a folder of plugins; no line of it may be less than PASS (WEAK: what the Go plugins fail, too)."""
    env = {
        **os.environ,
        "IPCNI_SHARED": str(SHARED),
        "CLIENT_TIMEOUT": "300",
        # The scripts' little web servers look up their own name, for ten seconds where no name server answers.
        "RES_OPTIONS": "timeout:1 attempts:1",
    }
    done = subprocess.run([str(script), str(folder)], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "\nWEAK" not in said, said
    assert "\nPASS" in said, said


@pytest.mark.parametrize("script", ["ctr.sh", "cri.sh"])
def test_a_runtime(script: str) -> None:
    """Straight from the checkout. ctr sees its bin/ as /opt/cni/bin."""
    client(HERE / script, BIN)


def test_a_runtime_over_installed_plugins(tmp_path: pathlib.Path) -> None:
    install.install(str(tmp_path / "bin"))
    client(HERE / "podman.sh", tmp_path / "bin")


@pytest.mark.parametrize("script", USES)
def test_the_reference_scripts(script: str) -> None:
    if missing := USES[script] - set(install.plugins()):
        pytest.skip(f"ipcni has no {', '.join(sorted(missing))} yet")
    client(SHARED / "clients" / script, BIN)
