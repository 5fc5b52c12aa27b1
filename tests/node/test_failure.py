"""An ADD that fails half way takes back what it did, and says what failed, where, and what to do; a DEL gets on without."""

import contextlib
import fcntl
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from ipcni import names
from ipcni.model import Attachment
from tests.lab import BIN, Answer, Node
from tests.remains import network, published, remains, tools

BUSY = 'echo "iptables v1.8.9: Resource temporarily unavailable." >&2; exit 4'
AT = Attachment("net1", "cid1", "eth0")
DUAL = {"ranges": [[{"subnet": "10.44.0.0/24"}], [{"subnet": "fd00:44::/64"}]]}


def told(answer: Answer, code: int, *texts: str) -> dict[str, Any]:
    """The error, with this code and all of these texts in it, and nothing on stderr."""
    error = answer.error()
    said = f"{error['msg']}\n{error.get('details', '')}"
    assert error["code"] == code, said
    for text in texts:
        assert text in said
    assert "Traceback" not in answer.stderr + said
    return error


def undone(node: Node) -> None:
    assert remains(node) == {}


# -- what is there already


def test_the_pod_has_an_eth0(node: Node) -> None:
    pod = node.pod()
    pod.run("ip", "link", "add", "eth0", "type", "bridge")
    told(node.call("ADD", network(node), pod), 999, 'container veth name ("eth0")', "already exists", pod.path)
    undone(node)
    assert [link["linkinfo"]["info_kind"] for link in pod.ip("-d", "link", "show", "dev", "eth0")] == ["bridge"]


def test_the_range_is_full(node: Node) -> None:
    conf = network(node)
    conf["ipam"]["ranges"] = [[{"subnet": "10.44.0.0/30"}]]
    first, second = node.pod(), node.pod()
    node.call("ADD", conf, first).ok()
    before = remains(node)
    error = node.call("ADD", conf, second, container="cid2")
    told(error, 999, "no IP addresses available in range set: 10.44.0.1-10.44.0.2", f"{node.data_dir}/net1")
    assert remains(node) == before
    assert [link["ifname"] for link in second.ip("link")] == ["lo"]
    node.call("DEL", conf, first).ok()
    undone(node)
    node.call("ADD", conf, second, container="cid2").ok()


def test_the_second_range_is_full(node: Node) -> None:
    """What was free in the first one is released."""
    conf = network(node)
    conf["ipam"]["ranges"] = [[{"subnet": "10.44.0.0/24"}], [{"subnet": "fd00:44::/127", "rangeStart": "fd00:44::1"}]]
    told(node.call("ADD", conf, node.pod()), 999)
    undone(node)


def test_the_bridge_has_another_address(node: Node) -> None:
    node.run("ip", "link", "add", "br1", "type", "bridge")
    node.run("ip", "addr", "add", "10.99.0.1/24", "dev", "br1")
    error = node.call("ADD", network(node), node.pod())
    told(error, 999, 'failed to set bridge addr: "br1"', "10.99.0.1/24", "ip addr del 10.99.0.1/24 dev br1", "forceAddress")
    undone(node)


# -- iptables


@pytest.mark.parametrize("plugin", ["bridge", "portmap"])
@pytest.mark.parametrize("refused", ["iptables", "iptables-restore"])
def test_iptables_refuses(node: Node, tmp_path: pathlib.Path, plugin: str, refused: str) -> None:
    """Asking works, doing doesn't; when only the transaction is refused, its steps are tried one by one."""
    no = 'echo "iptables: Permission denied (you must be root)" >&2; exit 1'
    only = f'case " $* " in *\' -S \'*) exec $real "$@";; esac; {no}'
    env = tools(tmp_path / "tools", iptables_restore=no, **({"iptables": only} if refused == "iptables" else {}))
    conf = network(node) if plugin == "bridge" else published()
    pod = node.pod()
    answer = node.call("ADD", conf, pod, env=env)
    if refused == "iptables":
        told(answer, 999, "iptables", "Permission denied", "`iptables -w 10 -t nat -")
    else:
        answer.ok()
        node.call("DEL", conf, pod, env=env).ok()
    undone(node)


@pytest.mark.parametrize("plugin", ["bridge", "portmap"])
@pytest.mark.parametrize("asking", [False, True], ids=["changing", "asking too"])
def test_iptables_is_busy_for_ever(node: Node, tmp_path: pathlib.Path, plugin: str, asking: bool) -> None:
    look = "" if asking else 'case " $* " in *\' -S \'*) exec $real "$@";; esac;'
    env = tools(tmp_path / "tools", iptables=look + BUSY, iptables_restore=BUSY)
    conf = network(node) if plugin == "bridge" else published()
    told(node.call("ADD", conf, node.pod(), env=env), 11, "Resource temporarily unavailable", "iptables")
    undone(node)


@pytest.mark.parametrize("plugin", ["bridge", "portmap"])
def test_iptables_is_busy_twice(node: Node, tmp_path: pathlib.Path, plugin: str) -> None:
    script = f'echo >>$here/${{0##*/}}.calls; [ $(wc -l <$here/${{0##*/}}.calls) -gt 2 ] && exec $real "$@"; {BUSY}'
    env = tools(tmp_path / "tools", iptables=script, iptables_restore=script)
    conf = network(node) if plugin == "bridge" else published()
    pod = node.pod()
    node.call("ADD", conf, pod, env=env).ok()
    assert remains(node)["rules"]
    node.call("DEL", conf, pod).ok()
    undone(node)


@pytest.mark.parametrize("plugin", ["bridge", "portmap"])
def test_ip6tables_refuses(node: Node, tmp_path: pathlib.Path, plugin: str) -> None:
    """The rules of IPv4 were made before: they go again."""
    no = 'echo "ip6tables: Permission denied" >&2; exit 1'
    ask = f'case " $* " in *\' -S \'*) exec $real "$@";; esac; {no}'
    env = tools(tmp_path / "tools", ip6tables=ask, ip6tables_restore=no)
    conf = published() if plugin == "portmap" else network(node)
    if plugin == "bridge":
        conf["ipam"] = {**conf["ipam"], **DUAL}
    told(node.call("ADD", conf, node.pod(), env=env), 999, "ip6tables", "Permission denied")
    undone(node)
    assert any("iptables-restore" in " ".join(map(str, each.get("argv", ()))) for each in node.journal()[-1]["commands"])


def test_ip6tables_is_missing(node: Node, tmp_path: pathlib.Path) -> None:
    """A program that says what a shell would comes as near to it as a folder in front of PATH can."""
    absent = "echo not found >&2; exit 127"
    env = tools(tmp_path / "tools", ip6tables=absent, ip6tables_restore=absent)
    told(node.call("ADD", published(), node.pod(), env=env), 999, "ip6tables")
    undone(node)


def test_del_gets_on_without_iptables(node: Node, tmp_path: pathlib.Path) -> None:
    """Link and lease go, the rest is on the record, and the next DEL or GC does it."""
    conf, pod = network(node), node.pod()
    result = node.call("ADD", conf, pod).ok()
    ports = {**published(), "prevResult": result}
    node.call("ADD", ports, pod).ok()
    look = 'case " $* " in *\' -S \'*) exec $real "$@";; esac;'
    env = tools(tmp_path / "tools", iptables=look + BUSY, iptables_restore=BUSY)
    node.call("DEL", ports, pod, env=env).ok()
    node.call("DEL", {**conf, "prevResult": result}, pod, env=env).ok()
    assert {"rules", "noted"} <= set(remains(node)) <= {"rules", "nft", "noted", "claims"}
    for record in node.journal()[-2:]:
        left = [each["note"] for each in record["commands"] if "note" in each]
        assert left, record
        assert all(note.startswith("left behind: ") for note in left)
        assert any("iptables" in note for note in left)
    node.call("DEL", ports, pod).ok()
    node.call("DEL", {**conf, "prevResult": result}, pod).ok()
    undone(node)


def test_del_cannot_even_ask_iptables(node: Node, tmp_path: pathlib.Path) -> None:
    conf, pod = network(node), node.pod()
    node.call("ADD", conf, pod).ok()
    env = tools(tmp_path / "tools", iptables=BUSY, iptables_restore=BUSY)
    node.call("DEL", conf, pod, env=env).ok()
    assert {"rules", "noted"} <= set(remains(node)) <= {"rules", "nft", "noted", "claims"}
    assert any("left behind" in each.get("note", "") for each in node.journal()[-1]["commands"])


# -- ip and sysctl


def test_the_batches_fail_at_each_of_their_lines(node: Node, tmp_path: pathlib.Path) -> None:
    """Every line of every `ip -batch` once: whichever it is, nothing stays."""
    script = (
        'case " $* " in *" -batch "*) ;; *) exec $real "$@";; esac\n'
        "lines=$here/lines.$$; cat >$lines; at=$(cat $here/at); count=$(wc -l <$lines); done=$(cat $here/done); echo $((done + count)) >$here/done\n"
        "n=$((at - done))\n"
        '[ $n -ge 1 ] && [ $n -le $count ] || exec $real "$@" <$lines\n'
        'head -n $((n - 1)) $lines | $real "$@" || exit\n'
        'echo "RTNETLINK answers: No buffer space available\nCommand failed -:$n" >&2; exit 1'
    )
    env = tools(tmp_path / "tools", ip=script)
    conf = network(node, isDefaultGateway=True)
    conf["ipam"] = {**conf["ipam"], **DUAL}
    failed = 0
    for at in range(1, 40):
        (tmp_path / "tools" / "at").write_text(str(at))
        (tmp_path / "tools" / "done").write_text("0")
        pod = node.pod()
        answer = node.call("ADD", conf, pod, env=env)
        if answer.status == 0:
            break
        failed += 1
        told(answer, 999, "no buffer space available", "`ip ")
        assert remains(node) == {}, at
        assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert failed >= 8


@pytest.mark.parametrize("hangs", ["iptables-restore", "ip"])
def test_a_command_hangs(node: Node, tmp_path: pathlib.Path, hangs: str) -> None:
    """It is killed when its time is up, and whatever it may have done by then is taken back."""
    script = {
        "iptables-restore": '[ -e $here/again ] && exec $real "$@"; touch $here/again; $real "$@"; sleep 60',
        "ip": 'case " $* " in *" -batch "*) [ -e $here/again ] || { touch $here/again; $real "$@"; sleep 60; };; esac; exec $real "$@"',
    }[hangs]
    env = tools(tmp_path / "tools", **{hangs.replace("-", "_"): script}) | {"IPCNI_COMMAND_TIMEOUT": "1"}
    told(node.call("ADD", network(node), node.pod(), env=env), 11, hangs, "killed after 1 s (command_timeout)")
    undone(node)


@pytest.mark.parametrize("plugin", ["bridge", "portmap", "flannel"])
def test_without_permission(node: Node, plugin: str) -> None:
    confs = {"bridge": network(node), "portmap": published(), "flannel": flannel(node)}
    drop = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    pod = node.pod()
    variables = {
        **node.env,
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "cid1",
        "CNI_NETNS": pod.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(BIN),
    }
    done = subprocess.run(
        ["ip", "netns", "exec", node.name, *drop, str(BIN / plugin)],
        input=json.dumps(confs[plugin]).encode(),
        env=variables,
        capture_output=True,
        check=False,
    )
    error = told(Answer(done.returncode, done.stdout, done.stderr.decode()), 999)
    assert "not permitted" in str(error) or "Permission denied" in str(error)
    undone(node)


# -- files


def flannel(node: Node, env: str | None = "", **keys: Any) -> dict[str, Any]:
    path = node.folder / "subnet.env"
    if env is not None:
        path.write_text(
            env or "FLANNEL_NETWORK=10.44.0.0/16\nFLANNEL_SUBNET=10.44.0.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        )
    return {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "flannel",
        "subnetFile": str(path),
        "dataDir": str(node.folder / "flannel"),
        "delegate": {"bridge": "br1", "ipMasq": True},
        "ipam": {"dataDir": node.data_dir},
        **keys,
    }


@pytest.mark.parametrize(
    ("env", "texts"),
    [
        (None, ("no such file or directory",)),
        ("\0\0\0", ("is missing", "FLANNEL_NETWORK", "FLANNEL_SUBNET", "FLANNEL_MTU", "FLANNEL_IPMASQ")),
        ("FLANNEL_NETWORK=10.44.0.0/16\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n", ("is missing FLANNEL_SUBNET",)),
        ("FLANNEL_NETWORK=10.44.0.0/16\nFLANNEL_SUBNET\n", ("line 2: FLANNEL_SUBNET",)),
        ("FLANNEL_NETWORK=10.44.0.0/16\nFLANNEL_SUBNET=300.1.1.1/24\nFLANNEL_MTU=1\nFLANNEL_IPMASQ=true\n", ("300.1.1.1/24",)),
        ("FLANNEL_NETWORK=10.44.0.0/16\nFLANNEL_SUBNET=10.44.0.1/24\nFLANNEL_MTU=big\nFLANNEL_IPMASQ=true\n", ('"big"',)),
    ],
)
def test_subnet_env_is_no_good(node: Node, env: str | None, texts: tuple[str, ...]) -> None:
    told(node.call("ADD", flannel(node, env), node.pod()), 999, str(node.folder / "subnet.env"), "flannel pod log", *texts)
    undone(node)
    assert node.links() == ["lo"]


def test_the_lease_folder_cannot_be_written_to(node: Node, tmp_path: pathlib.Path) -> None:
    """Root may write everywhere, but not to a file system that is mounted read-only."""
    folder = pathlib.Path(node.data_dir)
    (folder / "net1").mkdir(parents=True)
    with mounted(folder, read_only=True):
        told(node.call("ADD", network(node), node.pod()), 5, f"{folder}/net1/lock", "Read-only file system")
    (folder / "net1" / "lock").touch()
    with mounted(folder, read_only=True):
        told(node.call("ADD", network(node), node.pod()), 999, f"{folder}/net1/10.44.0.2", "Read-only file system")
    undone(node)
    assert node.links() == ["lo"]


def test_the_disk_is_full(node: Node) -> None:
    folder = pathlib.Path(node.data_dir)
    (folder / "net1").mkdir(parents=True)
    (folder / "net1" / "lock").touch()
    with mounted(folder, size="4k"):
        (folder / "net1").mkdir()
        (folder / "net1" / "lock").touch()
        (folder / "full").write_bytes(b"x" * 4096)
        told(node.call("ADD", network(node), node.pod()), 999, f"{folder}/net1/10.44.0.2", "No space left on device")
        assert remains(node) == {"leases": [str(folder / "full")]}
        assert not (folder / "net1" / "10.44.0.2").exists()


@contextlib.contextmanager
def mounted(folder: pathlib.Path, *, read_only: bool = False, size: str = "") -> Iterator[None]:
    """The folder over itself, or something small instead of it."""
    command = (
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
        if size
        else ["mount", "--bind", str(folder), str(folder)]
    )
    subprocess.run(command, check=True)
    try:
        if read_only:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("plugin", ["bridge", "portmap", "flannel"])
def test_the_run_folder_is_none(node: Node, plugin: str) -> None:
    (node.folder / "run").write_text("")
    conf = {"bridge": network(node), "portmap": published(), "flannel": flannel(node)}[plugin]
    told(node.call("ADD", conf, node.pod()), 5, f"{node.folder}/run/locks/{plugin}-", "IPCNI_RUN_DIR", "run_dir")
    assert node.links() == ["lo"]
    (node.folder / "run").unlink()
    undone(node)


@pytest.mark.parametrize(
    "lock", [names.lock("bridge", AT), "link-br1", names.masquerade_chain(AT), "lease"], ids=["bridge", "link", "chain", "lease"]
)
def test_a_lock_stays_taken(node: Node, lock: str) -> None:
    path = pathlib.Path(f"{node.folder}/run/locks/{lock}" if lock != "lease" else f"{node.data_dir}/net1/lock")
    path.parent.mkdir(parents=True)
    env = {"IPCNI_LOCK_TIMEOUT": "1"}
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        error = node.call("ADD", network(node), node.pod(), env=env)
        told(error, 11, f"{path} stayed locked for 1 s", f"fuser -v {path}")
    path.unlink()
    undone(node)


@pytest.mark.parametrize("lock", [names.lock("portmap", Attachment("net1", "cid1", "")), "chains-nat-4", "chains-nat-6"])
def test_a_lock_of_published_ports_stays_taken(node: Node, lock: str) -> None:
    path = node.folder / "run" / "locks" / lock
    path.parent.mkdir(parents=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        told(node.call("ADD", published(), node.pod(), env={"IPCNI_LOCK_TIMEOUT": "1"}), 11, f"{path} stayed locked for 1 s")
    path.unlink()
    undone(node)


# -- other plugins


def test_a_foreign_ipam_fails_after_the_link(node: Node, tmp_path: pathlib.Path) -> None:
    """Its own error is what is told; it tidies up itself, and the link is ours to remove."""
    tools(
        tmp_path / "tools",
        ipam='echo $CNI_COMMAND >>$here/told; echo \'{"code": 107, "msg": "no room", "details": "ask"}\'; exit 1',
    )
    conf = network(node, ipam={"type": "ipam"})
    error = node.call("ADD", conf, node.pod(), path=f"{tmp_path}/tools:{BIN}").error()
    assert error == {"code": 107, "msg": "no room", "details": "ask"}
    assert (tmp_path / "tools" / "told").read_text() == "ADD\n"
    undone(node)
    assert node.links() == ["br1", "lo"]


def test_what_comes_after_a_foreign_ipam_fails(node: Node, tmp_path: pathlib.Path) -> None:
    """Then its address is given back."""
    answer = '{"cniVersion": "1.1.0", "ips": [{"address": "10.44.0.9/24"}]}'
    ipam = f"echo $CNI_COMMAND >>$here/told; [ $CNI_COMMAND = DEL ] || echo '{answer}'"
    env = tools(tmp_path / "tools", ipam=ipam, iptables_restore=BUSY)
    told(node.call("ADD", network(node, ipam={"type": "ipam"}), node.pod(), path=f"{tmp_path}/tools:{BIN}", env=env), 11)
    assert (tmp_path / "tools" / "told").read_text() == "ADD\nDEL\n"
    undone(node)


def test_a_foreign_ipam_that_cannot_be_started(node: Node, tmp_path: pathlib.Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "ipam").write_text("")
    os.chmod(tmp_path / "tools" / "ipam", 0o644)
    error = node.call("ADD", network(node, ipam={"type": "ipam"}), node.pod(), path=f"{tmp_path}/tools:{BIN}")
    assert "permission denied" in error.error()["msg"]
    undone(node)
