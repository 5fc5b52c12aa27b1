"""JSON by Go's rules (protocol sheet 1.6), in and out."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcni.errors import CniError
from ipcni.protocol import config


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (' \t\r\n{"a": null}\n ', {"a": None}),
        ("null", None),
        ('{"a": 1, "b": 2, "a": 3}', {"b": 2, "a": 3}),
        ('{"a": "\\u0000\\ud83d\\ude00"}', {"a": "\0😀"}),
        ('{"a": "\\ud800", "\\udc00": "x\\ud800y"}', {"a": "\ufffd", "\ufffd": "x\ufffdy"}),
        ('{"a": 12345678901234567890}', {"a": 12345678901234567890}),
    ],
)
def test_parse(text: str, value: object) -> None:
    assert config.parse(text.encode()) == value


def test_bad_utf8_becomes_replacement_characters() -> None:
    assert config.parse(b'{"a": "x\xff\xc3("}') == {"a": "x\ufffd\ufffd("}


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", '{"a": 1,}', "[1,]", '{"a": 1} {}', '{"a": 1} x', "// c\n{}", '{"a" /* c */: 1}', "{'a': 1}", "{a: 1}"),
        *(
            '{"a": NaN}',
            '{"a": Infinity}',
            '{"a": -Infinity}',
            '{"a": 1e999}',
            '{"a": 01}',
            '{"a": 1.}',
            '{"a": .5}',
            '{"a": +1}',
        ),
        *('{"a": "\n"}', '{"a": "\t"}', '{"a": "\\x41"}', '\ufeff{"a": 1}', "{\u00a0}", '{"a": ١}', "[" * 100000, "\0"),
        '{"a": ' + "[" * 990 + '"\\ud800"' + "]" * 990 + "}",
    ],
)
def test_no_json(text: str) -> None:
    with pytest.raises(ValueError):
        config.parse(text.encode())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_no_other_encoding(encoding: str) -> None:
    with pytest.raises(ValueError):
        config.parse('{"a": 1}'.encode(encoding))


class Inner(msgspec.Struct, frozen=True, rename={"host_ip": "hostIP"}):
    number: int = 0
    host_ip: str = ""


class Outer(msgspec.Struct, frozen=True, rename="camel"):
    text: str = ""
    flag: bool = False
    number: int = 0
    maybe_number: int | None = None
    inner: Inner = Inner()
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()
    deep: tuple[tuple[Inner, ...], ...] = ()
    texts: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", Outer()),
        ('{"TEXT": "a", "Text": "b"}', Outer(text="b")),
        ('{"text": "a", "TEXT": "b"}', Outer(text="b")),
        ('{"TEXT": "b", "text": "a"}', Outer(text="a")),
        ('{"text": "a", "TEXT": "b", "text": "c"}', Outer(text="c")),
        ('{"text": "a", "TEXT": null}', Outer(text="a")),
        ('{"maybenumber": 0}', Outer(maybe_number=0)),
        ('{"maybeNumber": null}', Outer()),
        ('{"INNER": {"Number": 3, "HOSTIP": "x"}}', Outer(inner=Inner(3, "x"))),
        ('{"maybe": {"Number": 3}}', Outer(maybe=Inner(3))),
        ('{"many": [{"HostIP": "x"}, {}]}', Outer(many=(Inner(0, "x"), Inner()))),
        ('{"deep": [[{"HostIP": "x"}], []]}', Outer(deep=((Inner(0, "x"),), ()))),
        ('{"texts": null, "unknown": [1, {"text": 5}], "flag": true}', Outer(flag=True)),
        ('{"number": -9223372036854775808}', Outer(number=-(2**63))),
    ],
)
def test_decode(text: str, value: Outer) -> None:
    assert config.decode(config.parse(text.encode()), Outer) == value


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"number": 1.0}', "$.number"),
        ('{"number": 1e2}', "$.number"),
        ('{"number": "1"}', "$.number"),
        ('{"number": true}', "$.number"),
        ('{"number": 9223372036854775808}', "$.number"),
        ('{"flag": 1}', "$.flag"),
        ('{"flag": "true"}', "$.flag"),
        ('{"text": 1}', "$.text"),
        ('{"text": "a\\u0000b"}', "$.text"),
        ('{"inner": []}', "$.inner"),
        ('{"inner": {"NUMBER": "x"}}', "$.inner.number"),
        ('{"maybe": "x"}', "$.maybe"),
        ('{"many": {}}', "$.many"),
        ('{"many": [{}, {"number": 1.5}]}', "$.many[1].number"),
        ('{"deep": [[], [{"HostIp": "\\u0000"}]]}', "$.deep[1][0].hostIP"),
        ('{"texts": ["a", 1]}', "$.texts[1]"),
        ('{"texts": "abc"}', "$.texts"),
    ],
)
def test_a_wrong_key_is_named(text: str, place: str) -> None:
    with pytest.raises(CniError) as caught:
        config.decode(config.parse(text.encode()), Outer)
    assert caught.value.code == 999
    assert caught.value.msg.startswith("failed to load netconf: ")
    assert caught.value.msg.endswith(f" - at `{place}`")


@pytest.mark.parametrize("value", [[], "x", 1, True, 1.5])
def test_what_is_no_object(value: object) -> None:
    with pytest.raises(CniError) as caught:
        config.decode(value, Outer, prefix="")
    assert caught.value.msg.startswith("Expected `object`")


@pytest.mark.parametrize(
    ("conf", "found"),
    [
        ({}, None),
        ({"prevResult": 1}, 1),
        ({"PREVRESULT": 1, "prevresult": 2}, 2),
        ({"prevResult": 1, "PrevResult": None}, 1),
        ({"prevResult": False}, False),
    ],
)
def test_find(conf: dict[str, Any], found: object) -> None:
    assert config.find(conf, "prevResult") == found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [1.0, 1.5, True, None]}, '{"b":1,"a":[1,1.5,true,null]}'),
        ({"a": '<é&\u2028\u2029>"\\\n'}, '{"a":"\\u003cé\\u0026\\u2028\\u2029\\u003e\\"\\\\\\n"}'),
        ([1e20, 1e21, 1e300], "[100000000000000000000,1e+21,1e+300]"),
    ],
)
def test_dump(value: object, text: str) -> None:
    assert config.dump(value).decode() == text


def test_in_order() -> None:
    ordered = config.in_order({"b": [{"z": 1, "y": 2}], "a": {"d": 1, "c": (1, {"f": 0, "e": 0})}})
    assert json.dumps(ordered) == '{"a": {"c": [1, {"e": 0, "f": 0}], "d": 1}, "b": [{"y": 2, "z": 1}]}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_what_is_dumped_is_parsed_again(value: object) -> None:
    """Lone surrogates are in no valid text; st.text makes none."""
    assert config.parse(config.dump(value)) == value
    assert config.parse(json.dumps(value).encode()) == value
    assert config.parse(config.dump(config.in_order(value))) == value


@given(st.dictionaries(st.sampled_from(["text", "flag", "number", "inner", "x"]), JSON), st.randoms())
def test_the_case_of_keys_never_matters(value: dict[str, Any], random: Any) -> None:
    def outcome(given: dict[str, Any]) -> object:
        try:
            return config.decode(given, Outer)
        except CniError as error:
            return error.msg

    swapped = {"".join(random.choice((char.upper(), char)) for char in key): item for key, item in value.items()}
    assert outcome(swapped) == outcome(value)


@given(st.binary())
def test_bytes_are_json_or_refused(data: bytes) -> None:
    """What Python's own decoder makes of the repaired text is what comes out, or else a ValueError."""
    try:
        value = config.parse(data)
    except ValueError:
        return
    assert value == json.loads(data.decode("utf-8", "replace"))
