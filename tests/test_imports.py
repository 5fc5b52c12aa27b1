"""A process of one call imports what that call needs: `sh` alone takes 16 ms, and every pod would pay for it."""

import json
import pathlib
import sys
from typing import Any

import pytest

from tests.lab import ENTRY_PATH, ROOT, Node, run

PLUGIN = """
import os, sys
def leave(status):
    with open(sys.argv[2], "w") as file:
        file.write(" ".join(sys.modules))
    end(status)
end, os._exit = os._exit, leave
sys.path.insert(0, sys.argv[1])
from ipcni.entry import main
main(sys.argv[3])
"""
COMMAND = """
import sys
sys.path.insert(0, sys.argv[1])
from ipcni.commands import main
try:
    main(sys.argv[3:])
finally:
    with open(sys.argv[2], "w") as file:
        file.write(" ".join(sys.modules))
"""


def imported(folder: pathlib.Path, code: str, *args: str, **options: Any) -> set[str]:
    run(sys.executable, "-I", "-c", code, str(ROOT), str(folder / "modules"), *args, **options)
    return set((folder / "modules").read_text().split())


@pytest.mark.parametrize(
    ("plugin", "verb", "without"),
    [
        ("bridge", "VERSION", {"sh", "jinja2", "filelock", "asyncio", "ipcni.shell.run", "ipcni.shell.journal"}),
        ("host-local", "ADD", {"sh", "ctypes"}),
        ("host-local", "DEL", {"sh", "ctypes"}),
    ],
)
def test_a_plugin(tmp_path: pathlib.Path, plugin: str, verb: str, without: set[str]) -> None:
    ipam = {"type": "host-local", "dataDir": str(tmp_path / "networks"), "subnet": "10.7.0.0/24"}
    env = {
        "PATH": ENTRY_PATH,
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "cid1",
        "CNI_NETNS": "/run/netns/none",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
        **{f"IPCNI_{name}_DIR": str(tmp_path / name.lower()) for name in ("LOG", "RUN", "STATE")},
    }
    conf = {"cniVersion": "1.1.0", "name": "n", "type": plugin, "ipam": ipam}
    found = imported(tmp_path, PLUGIN, plugin, env=env, input=json.dumps(conf))
    assert f"ipcni.plugins.{plugin.replace('-', '_')}" in found
    others = {f"ipcni.plugins.{path.stem}" for path in (ROOT / "ipcni" / "plugins").glob("[a-z]*.py")}
    assert (others & found) == {f"ipcni.plugins.{plugin.replace('-', '_')}"}
    assert found & (without | {"click", "ipcni.commands", "ipcni.explain", "ipcni.serve"}) == set()


def test_loopback_runs_no_program(tmp_path: pathlib.Path, node: Node) -> None:
    """Its link is set up by a system call."""
    pod = node.pod()
    env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "cid1", "CNI_NETNS": pod.path, "CNI_IFNAME": "lo", "CNI_PATH": "/opt/cni/bin"}
    found = imported(
        tmp_path, PLUGIN, "loopback", env=node.env | env, input='{"cniVersion": "1.0.0", "name": "n", "type": "loopback"}'
    )
    assert "UP" in pod.ip("link", "show", "dev", "lo")[0]["flags"]
    assert found & {"sh", "asyncio", "filelock"} == set()


def test_what_sh_takes_along(tmp_path: pathlib.Path) -> None:
    """No TLS, unless somebody has it already; and whoever wants it afterwards gets it."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); {}from ipcni.shell import process; process.load(); {}open(sys.argv[2], 'w').write(' '.join(sys.modules))"
    assert "ssl" not in imported(tmp_path, code.format("", ""))
    assert "ssl" in imported(tmp_path, code.format("", "import ssl; "))
    assert "ssl" in imported(tmp_path, code.format("import ssl; ", ""))


@pytest.mark.parametrize("args", [["explain", "--help"], ["journal", "--help"]])
def test_a_command(tmp_path: pathlib.Path, args: list[str]) -> None:
    found = imported(tmp_path, COMMAND, *args)
    assert found & {"sh", "jinja2", "ipcni.serve"} == set()
    commands = {path.stem for path in (ROOT / "ipcni" / "commands").glob("[a-z]*.py")}
    assert {each for each in commands if f"ipcni.commands.{each}" in found} == set(args) - {"--help"}
