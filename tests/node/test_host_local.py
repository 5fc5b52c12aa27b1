"""host-local as a process: many at once, and with others on the lock (IPAM sheet 2.5)."""

import fcntl
import json
import os
import pathlib
import time
from typing import Any

from tests.lab import Node


def conf(node: Node, **ipam: Any) -> dict[str, Any]:
    return {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "host-local",
        "ipam": {"dataDir": node.data_dir, "subnet": "10.1.0.0/16", **ipam},
    }


def test_it_needs_no_namespace(node: Node) -> None:
    """Nor the main plugin's keys, nor an ipam.type."""
    assert node.call("ADD", conf(node), "/run/netns/none").ok() == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.1.0.2/16", "gateway": "10.1.0.1"}],
    }
    assert node.call("CHECK", conf(node), "/run/netns/none").stdout == b""
    assert node.call("DEL", conf(node)).stdout == b""
    assert node.call("DEL", conf(node)).stdout == b""
    assert node.leases("net") == {}


def test_many_at_once(node: Node) -> None:
    """No address twice, no lease lost, none corrupt; the index says so, too."""
    calls = [node.start("ADD", conf(node), "/run/netns/none", container=f"c{number}") for number in range(16)]
    given = [node.wait(call).ok()["ips"][0]["address"].partition("/")[0] for call in calls]
    assert sorted(given) == sorted(f"10.1.0.{number}" for number in range(2, 18))
    assert node.leases("net") == {address: f"c{number}\r\neth0" for number, address in enumerate(given)}
    calls = [node.start("DEL", conf(node), container=f"c{number}") for number in range(16)]
    for call in calls:
        node.wait(call).ok()
    assert node.leases("net") == {}


def test_it_waits_for_whoever_has_the_lock(node: Node) -> None:
    folder = pathlib.Path(node.data_dir) / "net"
    folder.mkdir(parents=True)
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDONLY, 0o750)
    fcntl.flock(lock, fcntl.LOCK_EX)
    inode = os.fstat(lock).st_ino
    call = node.start("ADD", conf(node), "/run/netns/none")
    time.sleep(0.5)
    assert call.poll() is None
    assert node.leases("net") == {}
    os.close(lock)
    node.wait(call).ok()
    assert (folder / "lock").stat().st_ino == inode, "the lock file stays where it is: removing it would split the lock"


def test_a_lock_that_is_never_given_back(node: Node) -> None:
    """A bounded wait, "try again", and how to find out who has it."""
    folder = pathlib.Path(node.data_dir) / "net"
    folder.mkdir(parents=True)
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDONLY, 0o750)
    fcntl.flock(lock, fcntl.LOCK_EX)
    error = node.call("ADD", conf(node), "/run/netns/none", env={"IPCNI_LOCK_TIMEOUT": "0.3"}).error()
    os.close(lock)
    assert error["code"] == 11
    assert str(folder / "lock") in error["msg"]
    assert "fuser" in error["details"]
    assert node.leases("net") == {}


def test_a_folder_that_cannot_be_made(node: Node) -> None:
    (node.folder / "file").write_text("")
    error = node.call("ADD", conf(node, dataDir=f"{node.folder}/file"), "/run/netns/none").error()
    assert error["code"] == 5
    assert f"{node.folder}/file" in error["msg"]


def test_the_journal_has_the_commands(node: Node) -> None:
    node.call("ADD", conf(node), "/run/netns/none").ok()
    (record,) = node.journal()
    commands = [command["sh"] for command in record["commands"]]
    assert commands[0] == f"(umask 077; set -C; printf '%s\\r\\n%s' cid1 eth0 > {node.data_dir}/net/10.1.0.2)"
    assert json.dumps(record["result"]["ips"]) == '[{"address": "10.1.0.2/16", "gateway": "10.1.0.1"}]'
