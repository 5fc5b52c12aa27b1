"""The protocol sheet's runtime cases (10.8, R1 to R40): lists of stub plugins, called as libcni calls them."""

import base64
import json
import os
import pathlib
import stat
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ipcni.errors import CniError
from ipcni.runtime import conf
from ipcni.runtime.cache import Cache, Entry
from ipcni.runtime.chain import Attachment, Runtime, Valid, request_for
from ipcni.settings import Settings
from ipcni.shell.run import Runner
from tests.lab import ENTRY_PATH
from tests.stubs import Stubs

NET = "net1"
AT = Attachment("c1", "/run/netns/pod1", "eth0", (("IgnoreUnknown", "1"), ("A", "b")), {"mac": "0a:58:0a:2c:00:05"})
FIVE = {"ips": [{"address": "10.44.0.5/24"}]}
SIX = {"ips": [{"address": "10.44.0.6/24"}]}
FIVE_100 = {"cniVersion": "1.0.0", **FIVE}
BOOM = '{"code":107,"msg":"boom","details":"dd"}'
VALID, VALID_TOO = "cni.dev/valid-attachments", "cni.dev/attachments"


class Bench(Stubs):
    """A folder of stub plugins, and a runtime that calls them."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.cache_dir = folder / "var" / "cni"
        env = {"PATH": ENTRY_PATH, "CNI_ARGS": "inherited", "FOREIGN": "x"}
        self.runtime = Runtime(Runner(Settings(), env), env, str(self.bin), Cache(str(self.cache_dir)))

    def network(self, *plugins: dict[str, Any] | str, version: str | None = "1.1.0", **more: Any) -> conf.NetworkList:
        """A list as loaded from a file; a plugin given by name is nothing but its type."""
        body = {"name": NET, **more, "plugins": [{"type": each} if isinstance(each, str) else each for each in plugins]}
        if version is not None:
            body["cniVersion"] = version
        path = self.folder / "net.conflist"
        path.write_text(json.dumps(body))
        return conf.from_file(str(path))

    def file(self, container_id: str = "c1", network: str = NET) -> pathlib.Path:
        return self.cache_dir / "results" / f"{network}-{container_id}-eth0"

    def remember(
        self, content: object = FIVE_100, *, container_id: str = "c1", network: str = NET, at: Attachment = AT
    ) -> pathlib.Path:
        """A cached attachment; a text is the file's very content."""
        entry = Entry(
            content if isinstance(content, dict) else {}, container_id, "eth0", network, at.netns, at.args, at.capability_args
        )
        self.runtime.cache.save(entry, b"{}")
        path = self.file(container_id, network)
        if isinstance(content, str):
            path.write_text(content)
        return path


@pytest.fixture
def bench(tmp_path: pathlib.Path) -> Bench:
    """A runtime with the plugins a and b, which answer with different addresses."""
    made = Bench(tmp_path)
    made.stub("a", FIVE)
    made.stub("b", SIX)
    return made


def failure(act: Callable[..., object], *args: Any) -> CniError:
    with pytest.raises(CniError) as caught:
        act(*args)
    return caught.value


# -- the request


def test_r1_each_plugin_gets_the_one_befores_result(bench: Bench) -> None:
    bench.runtime.add(bench.network({"type": "a", "name": "other", "cniVersion": "0.1.0"}, "b"), AT)
    first, second = (call.conf for call in bench.calls)
    assert first == {"type": "a", "name": NET, "cniVersion": "1.1.0"}
    assert second == {"type": "b", "name": NET, "cniVersion": "1.1.0", "prevResult": {"cniVersion": "1.1.0", **FIVE}}


SOME = {"type": "a", "capabilities": {"portMappings": True, "mac": False, "dns": True}}


@pytest.mark.parametrize(
    ("plugin", "given", "expected"),
    [
        pytest.param(SOME, {"portMappings": [1], "mac": "m", "bandwidth": {}}, {"portMappings": [1]}, id="R2"),
        pytest.param(SOME, {"mac": "m"}, None, id="R3"),
        pytest.param({"type": "a"}, {"mac": "m"}, None, id="R3: it asks for nothing"),
        pytest.param({**SOME, "runtimeConfig": {"old": 1}}, {"dns": {}}, {"dns": {}}, id="R4"),
        pytest.param({**SOME, "runtimeConfig": {"old": 1}}, {"mac": "m"}, {"old": 1}, id="R4: nothing in common"),
        pytest.param({**SOME, "RuntimeConfig": {"old": 1}}, {"dns": {}}, {"dns": {}}, id="R4: another spelling"),
    ],
)
def test_r2_r3_r4_capability_arguments(bench: Bench, plugin: dict[str, Any], given: Any, expected: object) -> None:
    net = bench.network(plugin)
    assert request_for(net, 0, None, given).get("runtimeConfig") == expected
    for act in (bench.runtime.add, bench.runtime.check, bench.runtime.delete):
        act(net, msgspec.structs.replace(AT, capability_args=given))
    assert [call.conf.get("runtimeConfig") for call in bench.calls] == [expected] * 3


def test_r5_unknown_keys_are_passed_on(bench: Bench) -> None:
    extra = {"x": {"deep": [1.5, True, None, "ü<&>\u2028"]}, "large": 12345678901234567890, "one": 1.0}
    bench.runtime.add(bench.network({"type": "a", **extra}), AT)
    assert bench.calls[0].conf == {"type": "a", "name": NET, "cniVersion": "1.1.0", **extra}


def test_the_request_is_written_as_libcni_writes_it(bench: Bench) -> None:
    """Compact, keys in alphabetical order, `< > &` escaped."""
    bench.runtime.add(bench.network({"type": "a", "z": "<&>", "b": {"y": 1.0, "x": 2}}), AT)
    assert bench.calls[0].stdin == (
        b'{"b":{"x":2,"y":1},"cniVersion":"1.1.0","name":"net1","type":"a","z":"\\u003c\\u0026\\u003e"}'
    )


def test_keys_are_replaced_in_whatever_spelling(bench: Bench) -> None:
    net = bench.network({"Type": "a", "NAME": "other", "cniversion": "0.1.0"})
    assert request_for(net, 0, FIVE, {}) == {"Type": "a", "type": "a", "name": NET, "cniVersion": "1.1.0", "prevResult": FIVE}


def test_a_configured_prev_result_stays_on_the_first_add(bench: Bench) -> None:
    assert request_for(bench.network({"type": "a", "prevResult": SIX}), 0, None, {})["prevResult"] == SIX


def test_the_environment_is_the_runtimes_with_all_six_variables_replaced(bench: Bench) -> None:
    bench.runtime.add(bench.network("a"), AT)
    env = bench.calls[0].env
    assert {key: value for key, value in env.items() if key.startswith("CNI_")} == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/pod1",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;A=b",
        "CNI_PATH": str(bench.bin),
    }
    assert env["FOREIGN"] == "x"


# -- ADD


def test_r6_a_failed_add_ends_the_list(bench: Bench) -> None:
    bench.stub("b", BOOM, status=1)
    error = failure(bench.runtime.add, bench.network("a", "b", "a"), AT)
    assert (str(error), error.code) == ('plugin type="b" failed (add): boom; dd', 107)
    assert bench.told == ["a ADD", "b ADD"]
    assert not bench.file().exists()


def test_r6_a_plugin_that_has_a_name_is_told_by_it(bench: Bench) -> None:
    bench.stub("b", BOOM, status=1)
    error = failure(bench.runtime.add, bench.network({"type": "b", "name": "other"}), AT)
    assert str(error) == 'plugin type="b" name="other" failed (add): boom; dd'


def test_r7_the_cached_result(bench: Bench) -> None:
    net = bench.network("a", "b", version="1.0.0")
    assert bench.runtime.add(net, AT) == {"cniVersion": "1.0.0", **SIX}
    assert stat.S_IMODE(bench.file().stat().st_mode) == 0o600
    for folder in (bench.cache_dir / "results", bench.cache_dir, bench.cache_dir.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    encoded = base64.b64encode((bench.folder / "net.conflist").read_bytes()).decode()
    assert bench.file().read_text() == (
        f'{{"kind":"cniCacheV1","containerId":"c1","config":"{encoded}","ifName":"eth0","networkName":"net1",'
        '"netns":"/run/netns/pod1","cniArgs":[["IgnoreUnknown","1"],["A","b"]],'
        '"capabilityArgs":{"mac":"0a:58:0a:2c:00:05"},"result":{"cniVersion":"1.0.0","ips":[{"address":"10.44.0.6/24"}]}}'
    )
    assert os.listdir(bench.file().parent) == [bench.file().name]


def test_r7_what_is_empty_is_left_out(bench: Bench) -> None:
    bench.runtime.add(bench.network("a"), Attachment("c1", "", "eth0"))
    assert list(json.loads(bench.file().read_text())) == ["kind", "containerId", "config", "ifName", "networkName", "result"]


@pytest.mark.parametrize(
    ("version", "out", "expected"),
    [
        pytest.param("1.0.0", "null", {"cniVersion": "1.0.0"}, id="R30: null"),
        pytest.param("1.0.0", "{}", {"cniVersion": "1.0.0"}, id="R30: {}"),
        pytest.param("0.2.0", "null", {"cniVersion": "0.2.0", "dns": {}}, id="R30: null, 0.2.0"),
        pytest.param(None, "{}", {"cniVersion": "0.1.0", "dns": {}}, id="R30: no version"),
        pytest.param("1.1.0", '{"code":7,"msg":"m"}', {"cniVersion": "1.1.0"}, id="R32"),
    ],
)
def test_r30_r32_empty_results(bench: Bench, version: str | None, out: str, expected: object) -> None:
    bench.stub("a", out)
    assert bench.runtime.add(bench.network("a", version=version), AT) == expected


@pytest.mark.parametrize(
    ("out", "ends"),
    [
        pytest.param("", "failed to unmarshal raw result: unexpected end of JSON input", id="R31"),
        pytest.param('{"cniVersion":"2.0.0"}', 'unsupported CNI result version "2.0.0"', id="R33"),
    ],
)
def test_r31_r33_no_results(bench: Bench, out: str, ends: str) -> None:
    bench.stub("a", out)
    assert str(failure(bench.runtime.add, bench.network("a"), AT)) == f'plugin type="a" failed (add): {ends}'


def test_r34_results_keep_their_version(bench: Bench) -> None:
    old = {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.44.0.5/24"}]}
    for name in ("a", "b"):
        bench.stub(name, old)
    assert bench.runtime.add(bench.network("a", "b", version="1.0.0"), AT) == {**old, "dns": {}}
    assert bench.calls[1].conf["prevResult"] == {**old, "dns": {}}


@pytest.mark.parametrize(
    ("plugin", "path", "problem"),
    [
        ("none", "{bin}:/nonexistent", 'failed to find plugin "none" in path [{bin} /nonexistent]'),
        ("a", "", "no paths provided"),
        ("../x", "{bin}", "invalid plugin name: ../x"),
    ],
)
def test_r35_plugins_that_are_not_there(bench: Bench, plugin: str, path: str, problem: str) -> None:
    runtime = msgspec.structs.replace(bench.runtime, path=path.format(bin=bench.bin))
    error = failure(runtime.add, bench.network(plugin), AT)
    assert error.msg == f'plugin type="{plugin}" failed (add): {problem.format(bin=bench.bin)}'
    error = failure(runtime.check, bench.network(plugin), AT)
    assert error.msg == problem.format(bin=bench.bin)


def test_r36_a_plugin_that_cannot_be_executed(bench: Bench) -> None:
    (bench.bin / "a").chmod(0o644)
    assert str(failure(bench.runtime.add, bench.network("a"), AT)) == (
        f'plugin type="a" failed (add): netplugin failed with no error message: fork/exec {bench.bin}/a: permission denied'
    )


@pytest.mark.parametrize(
    ("network", "changed", "problem"),
    [
        pytest.param(NET, {"container_id": "a/b"}, "invalid characters in containerID; a/b", id="R37"),
        pytest.param(NET, {"container_id": ""}, "missing containerID", id="no container id"),
        pytest.param(NET, {"ifname": ""}, "interface name is empty", id="no ifname"),
        pytest.param(NET, {"ifname": "a b"}, "interface name contains / or : or whitespace characters", id="bad ifname"),
        pytest.param("a b", {}, "invalid characters found in network name; a b", id="bad network name"),
        pytest.param("", {}, "missing network name", id="no network name"),
    ],
)
def test_r37_names_are_checked_before_a_plugin_is_run(bench: Bench, network: str, changed: dict[str, str], problem: str) -> None:
    at = msgspec.structs.replace(AT, **changed)
    net = bench.network("a", name=network)
    assert str(failure(bench.runtime.add, net, at)) == f'plugin type="a" failed (add): {problem}'
    assert bench.told == []


def test_r38_the_cache_cannot_be_written(bench: Bench) -> None:
    bench.cache_dir.parent.write_text("a file")
    error = failure(bench.runtime.add, bench.network("a"), AT)
    assert error.msg.startswith('failed to set network "net1" cached result: ')
    assert bench.told == ["a ADD"]


# -- CHECK


def test_r8_check_goes_through_the_list_with_the_final_result(bench: Bench) -> None:
    net = bench.network("a", "b")
    bench.runtime.add(net, AT)
    bench.runtime.check(net, AT)
    assert bench.told[2:] == ["a CHECK", "b CHECK"]
    assert [call.conf["prevResult"] for call in bench.calls[2:]] == [{"cniVersion": "1.1.0", **SIX}] * 2


def test_r9_check_without_a_cached_result(bench: Bench) -> None:
    bench.runtime.check(bench.network("a"), AT)
    assert "prevResult" not in bench.calls[0].conf


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("xx", id="R10"),
        pytest.param("[]", id="no object"),
        pytest.param('{"cniVersion":"2.0.0"}', id="a version nobody knows"),
        pytest.param('{"kind":"cniCacheV1","result":7}', id="a result of a wrong type"),
        pytest.param('{"kind":"cniCacheV1","result":{"cniVersion":"1.0.0","ips":[{"address":"x"}]}}', id="no address"),
    ],
)
def test_r10_r19_a_cached_result_nobody_can_read(bench: Bench, content: str) -> None:
    """CHECK says so; DEL goes on without and removes it."""
    file = bench.remember(content)
    error = failure(bench.runtime.check, bench.network("a"), AT)
    assert error.msg.startswith('failed to get network "net1" cached result: ')
    assert bench.told == []
    bench.runtime.delete(bench.network("a"), AT)
    assert "prevResult" not in bench.calls[0].conf
    assert not file.exists()


@pytest.mark.parametrize(("version", "shown"), [pytest.param("0.3.1", "0.3.1", id="R11"), pytest.param(None, "", id="R12")])
def test_r11_r12_check_of_an_old_list(bench: Bench, version: str | None, shown: str) -> None:
    error = failure(bench.runtime.check, bench.network("a", version=version, disableCheck=True), AT)
    assert str(error) == f'configuration version "{shown}" does not support the CHECK command'
    assert bench.told == []


def test_r13_a_list_that_is_not_to_be_checked(bench: Bench) -> None:
    bench.remember("xx")
    bench.runtime.check(bench.network("none", disableCheck=True), AT)


def test_r14_the_cached_result_is_converted_to_the_lists_version(bench: Bench) -> None:
    bench.remember({"cniVersion": "1.1.0", **FIVE})
    bench.runtime.check(bench.network("a", version="0.4.0"), AT)
    expected = {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.44.0.5/24"}], "dns": {}}
    assert bench.calls[0].conf["prevResult"] == expected


def test_r15_a_cache_file_of_the_first_runtimes(bench: Bench) -> None:
    bench.remember(json.dumps(FIVE_100))
    net = bench.network("a", version="1.0.0")
    bench.runtime.gc(net)
    assert bench.told == []
    bench.runtime.check(net, AT)
    assert bench.calls[0].conf["prevResult"] == FIVE_100


def test_a_failed_check_ends_the_list_with_the_plugins_own_error(bench: Bench) -> None:
    bench.stub("a", BOOM, status=1, verb="CHECK")
    error = failure(bench.runtime.check, bench.network("a", "b"), AT)
    assert (str(error), error.code, bench.told) == ("boom; dd", 107, ["a CHECK"])


# -- DEL


def test_r16_del_goes_backwards(bench: Bench) -> None:
    bench.remember()
    bench.runtime.delete(bench.network("a", "b", version="1.0.0"), AT)
    assert bench.told == ["b DEL", "a DEL"]
    assert [call.conf["prevResult"] for call in bench.calls] == [FIVE_100] * 2
    assert os.listdir(bench.file().parent) == []


def test_r17_a_failed_del_ends_the_list_and_keeps_the_cached_result(bench: Bench) -> None:
    file = bench.remember()
    bench.stub("b", BOOM, status=1, verb="DEL")
    error = failure(bench.runtime.delete, bench.network("a", "b"), AT)
    assert (str(error), bench.told) == ('plugin type="b" failed (delete): boom; dd', ["b DEL"])
    assert file.exists()


def test_r18_del_of_an_old_list(bench: Bench) -> None:
    file = bench.remember()
    bench.runtime.delete(bench.network("a", version="0.3.1"), AT)
    assert "prevResult" not in bench.calls[0].conf
    assert not file.exists()


def test_r20_del_can_be_repeated(bench: Bench) -> None:
    net = bench.network("a")
    bench.runtime.add(net, AT)
    bench.runtime.delete(net, AT)
    bench.runtime.delete(net, AT)
    assert bench.told == ["a ADD", "a DEL", "a DEL"]


def test_del_passes_bad_names_on(bench: Bench) -> None:
    bench.runtime.delete(bench.network("a"), Attachment("../../x", "", ""))
    assert bench.calls[0].env["CNI_CONTAINERID"] == "../../x"


def test_del_of_a_list_with_no_real_version_keeps_the_cached_result(bench: Bench) -> None:
    file = bench.remember()
    failure(bench.runtime.delete, bench.network("a", version="1.x"), AT)
    assert file.exists()
    assert bench.told == []


# -- GC


@pytest.mark.parametrize(
    ("valid", "deleted", "keys"),
    [
        pytest.param((("c1", "eth0"),), ["c2"], {"listed": [{"containerID": "c1", "ifname": "eth0"}]}, id="R21"),
        pytest.param((), ["c1", "c2"], {"listed": []}, id="R22: empty"),
        pytest.param(None, ["c1", "c2"], {"listed": None}, id="R22: unset"),
        pytest.param(msgspec.UNSET, ["c1", "c2"], {}, id="R23"),
    ],
)
def test_r21_r22_r23_gc(bench: Bench, valid: Valid, deleted: list[str], keys: dict[str, Any]) -> None:
    stale = Attachment("", "/run/netns/gone", "eth0", (("K", "V"),), {"mac": "m"})
    for container_id in ("c1", "c2"):
        bench.remember(container_id=container_id, at=stale)
    other = bench.remember(container_id="c2", network="other")
    plugin = {"type": "a", "capabilities": {"mac": True}}
    bench.runtime.gc(bench.network(plugin, "b", version="1.1.0"), valid)
    assert bench.told == ["b DEL", "a DEL"] * len(deleted) + ["a GC", "b GC"]
    dels, gcs = bench.calls[: 2 * len(deleted)], bench.calls[2 * len(deleted) :]
    for call in dels:
        assert (call.env["CNI_NETNS"], call.env["CNI_ARGS"], call.env["CNI_IFNAME"]) == ("/run/netns/gone", "K=V", "eth0")
        assert call.conf.get("runtimeConfig") == ({"mac": "m"} if call.plugin == "a" else None)
    assert [call.env["CNI_CONTAINERID"] for call in dels] == [each for each in deleted for _ in "ab"]
    for call in gcs:
        expected = {key: keys["listed"] for key in (VALID, VALID_TOO) if keys}
        assert {key: value for key, value in call.conf.items() if key in (VALID, VALID_TOO)} == expected
        assert "runtimeConfig" not in call.conf
        assert "prevResult" not in call.conf
    assert other.exists()
    assert [each for each in ("c1", "c2") if not bench.file(each).exists()] == deleted


def test_r24_gc_of_an_older_list(bench: Bench) -> None:
    bench.remember()
    bench.runtime.gc(bench.network("a", version="1.0.0"))
    assert bench.told == ["a DEL"]


def test_r25_a_list_that_is_not_to_be_collected(bench: Bench) -> None:
    file = bench.remember()
    bench.runtime.gc(bench.network("a", disableGC=True))
    assert bench.told == []
    assert file.exists()


def test_r26_gc_goes_on_after_failures(bench: Bench) -> None:
    bench.remember()
    bench.stub("a", BOOM, status=1, verb="DEL")
    bench.stub("a", '{"code":7,"msg":"no"}', status=1, verb="GC")
    error = failure(bench.runtime.gc, bench.network("a", "b"))
    assert str(error).splitlines() == [
        'failed to delete stale attachment c1 eth0: plugin type="a" failed (delete): boom; dd',
        "failed to GC plugin a: no",
    ]
    assert bench.told == ["b DEL", "a DEL", "a GC", "b GC"]


@pytest.mark.parametrize(
    "content",
    [
        "xx",
        "{}",
        '{"kind":"cniCacheV2","containerId":"c1","ifName":"eth0","networkName":"net1"}',
        '{"kind":"cniCacheV1","containerId":"c1","ifName":"","networkName":"net1"}',
        '{"kind":"cniCacheV1","containerId":"c1","ifName":"eth0","networkName":"net1","cniArgs":7}',
    ],
)
def test_gc_passes_over_files_of_others(bench: Bench, content: str) -> None:
    bench.remember(content)
    (bench.file().parent / "folder").mkdir()
    bench.runtime.gc(bench.network("a"))
    assert bench.told == ["a GC"]


def test_a_file_that_was_not_finished_is_no_attachment_and_goes_with_del(bench: Bench) -> None:
    file = bench.remember()
    unfinished = file.rename(file.parent / f".{file.name}")
    bench.runtime.gc(bench.network("a", version="1.0.0"))
    assert bench.told == []
    bench.runtime.delete(bench.network("a"), AT)
    assert not unfinished.exists()


# -- STATUS


def test_r27_status_of_an_older_list(bench: Bench) -> None:
    bench.runtime.status(bench.network("none", version="1.0.0"))


def test_r28_the_first_bad_status_is_the_answer(bench: Bench) -> None:
    bench.stub("a", '{"code":50,"msg":"full"}', status=1, verb="STATUS")
    error = failure(bench.runtime.status, bench.network("a", "b"))
    assert (error.code, error.msg, bench.told) == (50, "full", ["a STATUS"])


def test_r29_status_and_gc_have_empty_variables(bench: Bench) -> None:
    net = bench.network("a")
    bench.runtime.status(net)
    bench.runtime.gc(net)
    for call in bench.calls:
        for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"):
            assert call.env[name] == ""
        assert call.env["CNI_PATH"] == str(bench.bin)
        assert call.conf == {"type": "a", "name": NET, "cniVersion": "1.1.0"}


# -- VERSION


def test_r39_how_a_plugin_is_asked_for_its_versions(bench: Bench) -> None:
    bench.stub("a", {"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"]}, verb="VERSION")
    bench.stub("b", {"cniVersion": "1.1.0", "supportedVersions": ["1.1.0"]}, verb="VERSION")
    net = bench.network({"type": "a", "capabilities": {"x": True, "y": False}}, {"type": "b", "capabilities": {"z": True}})
    assert bench.runtime.validate(net) == {"x", "z"}
    for call in bench.calls:
        assert call.stdin == b'{"cniVersion":"1.1.0"}'
        dummies = [call.env[f"CNI_{name}"] for name in ("NETNS", "IFNAME", "PATH", "CONTAINERID", "ARGS")]
        assert dummies == ["dummy", "dummy", "dummy", "", ""]


def test_r40_everything_wrong_with_a_list_at_once(bench: Bench) -> None:
    bench.stub("a", {"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}, verb="VERSION")
    error = failure(bench.runtime.validate, bench.network("a", "u", version="0.3.1"))
    assert error.msg == f'[plugin a does not support config version "0.3.1" failed to find plugin "u" in path [{bench.bin}]]'
    assert "ipcni install" in error.details


@pytest.mark.parametrize(
    ("out", "status", "problem"),
    [
        ({"cniVersion": "0.2.0"}, 0, None),
        ({"code": 4, "msg": "unknown CNI_COMMAND: VERSION"}, 1, None),
        ({"supportedVersions": ["0.1.0"]}, 0, "[decoding version info: missing field cniVersion]"),
        ({"cniVersion": "1.0.0"}, 0, "[decoding version info: missing field supportedVersions]"),
        (BOOM, 1, "[boom]; dd"),
    ],
)
def test_versions_of_ancient_and_broken_plugins(bench: Bench, out: object, status: int, problem: str | None) -> None:
    bench.stub("a", out, status=status, verb="VERSION")
    net = bench.network("a", version=None)
    if problem is None:
        assert bench.runtime.validate(net) == frozenset()
    else:
        assert str(failure(bench.runtime.validate, net)) == problem


def test_the_cache_needs_all_parts_of_a_name() -> None:
    assert failure(Cache("/x").path, "n", "", "eth0").msg == (
        'cache file path requires network name ("n"), container ID (""), and interface name ("eth0")'
    )
