"""What `nft --json list …` prints, as far as plugins ask for it."""

import json
from typing import Any

import msgspec


class NftRule(msgspec.Struct, frozen=True):
    """A rule of an nftables chain: what plain values it matches (`tcp dport` -> `8080`), and where it sends packets to."""

    handle: int
    comment: str
    matches: dict[str, str]
    dnat: str = ""
    jump: str = ""


class NftChain(msgspec.Struct, frozen=True):
    """A chain of nftables; the last three are those of a base chain."""

    rules: tuple[NftRule, ...] = ()
    type: str = ""
    hook: str = ""
    policy: str = ""


Ruleset = dict[tuple[str, str], dict[str, NftChain]]  # by family and table, then by chain


def ruleset(text: str) -> Ruleset:
    """The tables listed."""
    entries = json.loads(text)["nftables"]
    rules: dict[tuple[str, str, str], list[NftRule]] = {}
    for rule in (entry["rule"] for entry in entries if "rule" in entry):
        rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(_rule(rule))
    found: Ruleset = {(table["family"], table["name"]): {} for table in (entry["table"] for entry in entries if "table" in entry)}
    for chain in (entry["chain"] for entry in entries if "chain" in entry):
        where = chain["family"], chain["table"]
        base = {key: chain.get(key, "") for key in ("type", "hook", "policy")}
        found.setdefault(where, {})[chain["name"]] = NftChain(tuple(rules.get((*where, chain["name"]), ())), **base)
    return found


def _rule(rule: dict[str, Any]) -> NftRule:
    matches: dict[str, str] = {}
    dnat = jump = ""
    for statement in rule["expr"]:
        match statement:
            case {
                "match": {
                    "op": "==",
                    "left": {"payload": {"protocol": protocol, "field": field}},
                    "right": str() | int() as value,
                }
            }:
                matches[f"{protocol} {field}"] = str(value)
            case {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": str() as value}}:
                matches[key] = value
            case {"dnat": {"addr": str() as address}}:
                dnat = address
            case {"jump": {"target": target}}:
                jump = target
    return NftRule(rule["handle"], rule.get("comment", ""), matches, dnat, jump)
