"""CNI_ARGS as the protocol sheet 8.1 has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcni.errors import CniError
from ipcni.protocol import args


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("IP=10.0.0.2", {"IP": "10.0.0.2"}),
        ("IP=", {"IP": ""}),
        ("IP=a;IP=b", {"IP": "b"}),
        ("IgnoreUnknown=1;K8S_POD_NAME=p;IP=a", {"IP": "a"}),
        ("K8S_POD_NAME=p;IP=a;IgnoreUnknown=TRUE", {"IP": "a"}),
        ("IgnoreUnknown=0;IgnoreUnknown=1;X=1", {}),
        ("IgnoreUnknown=1", {}),
        ("IgnoreUnknown=False;MAC=m", {"MAC": "m"}),
    ],
)
def test_pairs(text: str, found: dict[str, str]) -> None:
    assert args.parse(text, "IP", "MAC") == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("IP", 'ARGS: invalid pair "IP"'),
        ("IP=a;", 'ARGS: invalid pair ""'),
        ("IP=a;;MAC=m", 'ARGS: invalid pair ""'),
        ("IP=a=b", 'ARGS: invalid pair "IP=a=b"'),
        ("ip=a", 'ARGS: unknown args ["ip=a"]'),
        ("A=1;IP=x;B=2", 'ARGS: unknown args ["A=1" "B=2"]'),
        ("A=1;B", 'ARGS: invalid pair "B"'),
        ("IgnoreUnknown=0;A=1", 'ARGS: unknown args ["A=1"]'),
        ("IgnoreUnknown=1;IgnoreUnknown=0;A=1", 'ARGS: unknown args ["A=1"]'),
        (
            "IgnoreUnknown=Yes",
            'ARGS: error parsing value of pair "IgnoreUnknown=Yes": boolean unmarshal error: invalid input yes',
        ),
        ("IgnoreUnknown=", 'ARGS: error parsing value of pair "IgnoreUnknown=": boolean unmarshal error: invalid input '),
        ('A="\n', 'ARGS: unknown args ["A=\\"\\n"]'),
    ],
)
def test_refused(text: str, problem: str) -> None:
    with pytest.raises(CniError) as caught:
        args.parse(text, "IP", "MAC")
    assert (caught.value.code, caught.value.msg) == (999, problem)


WORD = st.text(st.characters(exclude_characters=";=", exclude_categories=["Cs"]))


@given(st.dictionaries(WORD.filter(lambda key: key != "IgnoreUnknown"), WORD))
def test_what_is_joined_comes_apart_again(pairs: dict[str, str]) -> None:
    assert args.parse(";".join(f"{key}={value}" for key, value in pairs.items()), *pairs) == pairs
