"""The protocol sheet's configuration loading cases (10.9, L1 to L20), and the loader's own errors (4.2)."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipcni.errors import CniError
from ipcni.protocol import config
from ipcni.runtime import chain, conf
from ipcni.runtime.conf import NetworkList

LIST = "error parsing configuration list: "
SINGLE = "error parsing configuration: "

Folder = dict[str, object]


def listed(*plugins: object, name: object = "n", **more: object) -> dict[str, object]:
    """A list; plugins are given by type, or whole."""
    return {"name": name, "plugins": [{"type": each} if isinstance(each, str) else each for each in plugins], **more}


def single(kind: str = "t", name: str = "n", **more: object) -> dict[str, object]:
    return {"name": name, "type": kind, **more}


def fill(folder: pathlib.Path, files: Folder) -> str:
    """Writes the files: texts as they are, anything else as JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


def failure(act: Callable[..., object], *args: Any) -> CniError:
    with pytest.raises(CniError) as caught:
        act(*args)
    return caught.value


def types(net: NetworkList) -> list[str]:
    return [plugin["type"] for plugin in net.plugins]


FOLDER_PLUGINS: Folder = {"n/20.conf": {"type": "p20"}, "n/10.conf": {"type": "p10"}, "n/05.json": {"type": "p05"}}

FOUND: list[tuple[str, Folder, list[str]]] = [
    ("L2", {"10.conf": single()}, ["t"]),
    ("L3", {"10.conf": single(), "99.conflist": listed("a", "b")}, ["a", "b"]),
    ("L6", {"10.json": single("json"), "20.conf": single("conf")}, ["json"]),
    ("L10", {".conf": single()}, ["t"]),
    ("L11", {"10.conflist": {"name": "n"}, **FOLDER_PLUGINS}, ["p10", "p20"]),
    ("L12", {"10.conflist": listed("a"), **FOLDER_PLUGINS}, ["a", "p10", "p20"]),
    ("L13", {"10.conflist": listed("a", loadOnlyInlinedPlugins="TRUE"), **FOLDER_PLUGINS}, ["a"]),
    ("a list that comes later is never opened", {"10.conflist": listed("a"), "20.conflist": "{"}, ["a"]),
    ("a single one neither", {"10.conflist": listed("a"), "00.conf": "{"}, ["a"]),
    ("another network's folder does not count", {"10.conflist": listed("a"), "m/10.conf": {"type": "m"}}, ["a"]),
    ("folders are no files", {"00.conflist/x": "", "10.conflist": listed("a")}, ["a"]),
    ("type in capitals", {"10.conflist": listed({"TYPE": "a"})}, ["a"]),
]


@pytest.mark.parametrize(("files", "expected"), [pytest.param(*case[1:], id=case[0]) for case in FOUND])
def test_found(tmp_path: pathlib.Path, files: Folder, expected: list[str]) -> None:
    assert types(conf.by_name(fill(tmp_path, files), "n")) == expected


# {0} is the folder; a message that ends in … goes on with free text.
REFUSED: list[tuple[str, Folder, str, str]] = [
    ("L1", {}, "n", "no net configurations found in {0}"),
    ("L2", {"10.conf": single()}, "other", 'no net configuration with name "other" in {0}'),
    ("L4", {"10.conflist": listed("a")}, "other", 'no net configuration with name "other" in {0}'),
    ("L5", {"00.conflist": "{", "99.conflist": listed("a")}, "n", f"{LIST}…"),
    ("L7", {"10.conf": listed("a")}, "n", f"{SINGLE}missing 'type'"),
    ("L8", {"10.conflist": single()}, "n", "no plugin configs found"),
    ("L9", {"a.conf.bak": single(), "b": single()}, "n", "no net configurations found in {0}"),
    ("L14", {"10.conflist": listed(), **FOLDER_PLUGINS}, "n", f"{LIST}no plugins in list"),
    (
        "L15",
        {"10.conflist": {"name": "n", "loadOnlyInlinedPlugins": True}},
        "n",
        f"{LIST}`loadOnlyInlinedPlugins` is true, and no 'plugins' key",
    ),
    ("L16", {"10.conflist": listed("a"), "n/10.conf": {"name": "n"}}, "n", f"{SINGLE}missing 'type'"),
    ("L17: yes", {"1.conflist": listed("a", disableCheck="Yes")}, "n", f'{LIST}invalid value "yes" for disableCheck'),
    ("L17: 1", {"1.conflist": listed("a", disableCheck=1)}, "n", f"{LIST}invalid type float64 for disableCheck"),
    (
        "L18",
        {"10.conflist": listed({"type": "a", "capabilities": {"x": "true"}})},
        "n",
        f"failed to parse plugin config 0: {SINGLE}…",
    ),
    ("L19", {"10.conflist": {"NAME": "n", "plugins": [{"type": "a"}]}}, "n", f"{LIST}no name"),
]


@pytest.mark.parametrize(("files", "name", "message"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_refused(tmp_path: pathlib.Path, files: Folder, name: str, message: str) -> None:
    folder = fill(tmp_path, files)
    error = failure(conf.by_name, folder, name)
    expected = message.format(folder)
    assert error.msg.startswith(expected[:-1]) if expected.endswith("…") else error.msg == expected


def test_l1_a_missing_folder(tmp_path: pathlib.Path) -> None:
    assert failure(conf.by_name, f"{tmp_path}/none", "n").msg == f"no net configurations found in {tmp_path}/none"


LISTS: list[tuple[object, str]] = [
    ("[]", f"{LIST}it must be an object, not []interface {{}}"),
    ('{"name":"n","plugins":[NaN]}', f"{LIST}invalid literal NaN"),
    (listed("a", name=1), f"{LIST}invalid name type float64"),
    (listed("a", name=None), f"{LIST}invalid name type <nil>"),
    (listed("a", cniVersion={}), f"{LIST}invalid cniVersion type map[string]interface {{}}"),
    (listed("a", cniVersions="1.0.0"), f"{LIST}invalid type for cniVersions: []interface {{}}"),
    (listed("a", cniVersions=["1.0.0", True]), f"{LIST}invalid type for cniVersions index 1: bool"),
    (
        listed("a", cniVersions=["1.0.0", "1.0.f"]),
        f'{LIST}invalid cniVersions entry 1.0.f at index 1: failed to convert micro version part "f": …',
    ),
    (
        listed("a", cniVersion="1.2.3.4", cniVersions=[]),
        f'{LIST}invalid cniVersion 1.2.3.4: invalid version "1.2.3.4": too many parts',
    ),
    (listed("a", name="a\0b"), 'error reading "{0}/a\\x00b": embedded null byte'),
    (listed("a", disableGC=[]), f"{LIST}invalid type []interface {{}} for disableGC"),
    (listed("a", disableGC=None), f"{LIST}invalid type <nil> for disableGC"),
    ({"name": "n", "plugins": None}, f"{LIST}invalid 'plugins' type <nil>"),
    ({"name": "n", "plugins": "a"}, f"{LIST}invalid 'plugins' type string"),
    (listed("a", {"x": 1}), f"failed to parse plugin config 1: {SINGLE}missing 'type'"),
    (listed({"type": ""}), f"failed to parse plugin config 0: {SINGLE}missing 'type'"),
    (listed("a", 7), f"failed to parse plugin config 1: {SINGLE}…"),
    *(
        (listed({"type": "a"} | {key: value}), f"failed to parse plugin config 0: {SINGLE}…")
        for key, value in {
            "name": 1,
            "type": 1,
            "cniVersion": 1,
            "capabilities": [],
            "ipam": "x",
            "dns": {"search": "x"},
            "prevResult": [],
            "cni.dev/valid-attachments": {},
        }.items()
    ),
]


@pytest.mark.parametrize(("content", "message"), LISTS)
def test_what_no_list_can_be(tmp_path: pathlib.Path, content: object, message: str) -> None:
    folder = fill(tmp_path, {"10.conflist": content})
    error = failure(conf.by_name, folder, "n")
    expected = message.replace("{0}", folder)
    assert error.msg.startswith(expected[:-1]) if expected.endswith("…") else error.msg == expected
    assert error.details == f"in {folder}/10.conflist"


@pytest.mark.parametrize(
    ("version", "versions", "selected"),
    [
        ("0.3.1", ["0.4.0", "1.1.0", "1.2.0"], "1.1.0"),
        (None, ["99.0.0", "1.1.0", "0.4.0", "1.0.0"], "1.1.0"),
        ("1.0.0", ["0.1.0", "0.4.0"], "1.0.0"),
        ("1.2.0", ["1.0.0"], "1.0.0"),
        ("1.2.0", ["1.9.0"], "1.2.0"),
        ("1.2.0", [], "1.2.0"),
        ("1.2.3", None, "1.2.3"),
        ("x", None, "x"),
        (None, [], ""),
        (None, None, ""),
    ],
)
def test_l20_version_selection(tmp_path: pathlib.Path, version: str | None, versions: list[str] | None, selected: str) -> None:
    keys = {"cniVersion": version, "cniVersions": versions}
    more: dict[str, object] = {key: value for key, value in keys.items() if value is not None}
    folder = fill(tmp_path, {"10.conflist": listed("a", **more)})
    assert conf.by_name(folder, "n").version == selected


def test_flags(tmp_path: pathlib.Path) -> None:
    folder = fill(tmp_path, {"1.conflist": listed("a", disableCheck="True"), "2.conflist": listed("a", name="m", disableGC=True)})
    nets = [conf.by_name(folder, name) for name in "nm"]
    assert [(net.disable_check, net.disable_gc) for net in nets] == [(True, False), (False, True)]


def test_a_single_configuration_becomes_a_list(tmp_path: pathlib.Path) -> None:
    plugin = {"name": "n", "cniVersion": "0.4.0", "type": "t", "x": [1]}
    net = conf.by_name(fill(tmp_path, {"10.conf": plugin}), "n")
    assert (net.name, net.version, net.plugins) == ("n", "0.4.0", (plugin,))
    assert json.loads(net.raw) == {"name": "n", "cniVersion": "0.4.0", "plugins": [plugin]}


def test_the_bytes_of_a_list_are_kept(tmp_path: pathlib.Path) -> None:
    text = ' {"name":"n",\n "plugins":[{"type":"a"}]}\n'
    assert conf.from_file(f"{fill(tmp_path, {'x.conflist': text})}/x.conflist").raw == text.encode()


# -- what libcni doesn't say


@pytest.mark.parametrize(
    ("text", "place"),
    [("{", ":1:2"), ('{\n  "name": "n",\n  "plugins": [\n    {"type": "a"},\n  ]\n}\n', ":5:3"), ("", ":1:1")],
)
@pytest.mark.parametrize("name", ["10.conflist", "10.conf"])
def test_broken_json_is_told_with_file_line_and_column(tmp_path: pathlib.Path, name: str, text: str, place: str) -> None:
    folder = fill(tmp_path, {name: text})
    for act in (lambda: conf.by_name(folder, "n"), lambda: conf.from_file(f"{folder}/{name}")):
        assert failure(act).details == f"in {folder}/{name}{place}"


def test_a_broken_file_in_the_plugin_folder_is_the_one_that_is_named(tmp_path: pathlib.Path) -> None:
    folder = fill(tmp_path, {"10.conflist": listed("a"), "n/10.conf": "{\n"})
    assert failure(conf.by_name, folder, "n").details == f"in {folder}/n/10.conf:2:1"


def test_an_unreadable_file(tmp_path: pathlib.Path) -> None:
    assert (
        failure(conf.from_file, f"{tmp_path}/none.conflist").msg
        == f"error reading {tmp_path}/none.conflist: No such file or directory"
    )
    (tmp_path / "x").write_text("")
    assert failure(conf.by_name, f"{tmp_path}/x", "n").msg == f'error reading "{tmp_path}/x": Not a directory'


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.conflist", listed("a", "b"), ["a", "b"]),
        ("x.json", listed("a", "b"), ["a", "b"]),
        ("x", single(plugins=[]), ["t"]),
        ("x.conf", single(), ["t"]),
    ],
)
def test_a_file_that_is_named_is_taken_for_what_it_holds(
    tmp_path: pathlib.Path, name: str, content: object, expected: list[str]
) -> None:
    assert types(conf.from_file(f"{fill(tmp_path, {name: content})}/{name}")) == expected


def test_the_plugin_folder_is_beside_a_file_that_is_named(tmp_path: pathlib.Path) -> None:
    folder = fill(tmp_path, {"x.conflist": listed("a"), **FOLDER_PLUGINS})
    assert types(conf.from_file(f"{folder}/x.conflist")) == ["a", "p10", "p20"]


def test_the_one_a_kubelet_would_pick(tmp_path: pathlib.Path) -> None:
    """The first that is valid, of all endings together."""
    folder = fill(
        tmp_path,
        {
            "00.conflist": "{",
            "10.conf": listed("no single one"),
            "20.json": single("json", name="m"),
            "30.conflist": listed("a"),
            "05.txt": "{}",
        },
    )
    path, net = conf.first(folder)
    assert (path, net.name, types(net)) == (f"{folder}/20.json", "m", ["json"])


def test_no_valid_one_at_all(tmp_path: pathlib.Path) -> None:
    folder = fill(tmp_path, {"00.conflist": "{", "10.conf": "{}"})
    error = failure(conf.first, folder)
    assert error.msg == f"no net configurations found in {folder}"
    assert f"in {folder}/00.conflist:1:2" in error.details
    assert f"{SINGLE}missing 'type'; in {folder}/10.conf" in error.details
    assert failure(conf.first, f"{folder}/none").msg == f"no net configurations found in {folder}/none"


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
_PLUGINS = st.fixed_dictionaries(
    {"type": st.just("a")}, optional=dict.fromkeys(("name", "capabilities", "ipam", "dns", "prevResult", "Capabilities"), _VALUES)
)
_BODIES = st.fixed_dictionaries(
    {"name": st.just("n") | _VALUES, "plugins": st.lists(_PLUGINS, min_size=1, max_size=2) | _VALUES},
    optional=dict.fromkeys(("cniVersion", "cniVersions", "disableCheck", "loadOnlyInlinedPlugins"), _VALUES),
)


@given(_BODIES, st.dictionaries(st.text(max_size=4), _VALUES, max_size=2))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_written_is_refused_or_can_be_sent(tmp_path: pathlib.Path, body: object, given_args: dict[str, Any]) -> None:
    path = tmp_path / "x.conflist"
    path.write_text(json.dumps(body))
    try:
        net = conf.from_file(str(path))
    except CniError:
        return
    for index in range(len(net.plugins)):
        assert json.loads(config.dump(chain.request_for(net, index, {}, given_args)))["type"] == net.plugins[index]["type"]
