"""CNI_ARGS: `K=V;K2=V2` (protocol sheet 8.1; CNI spec 1.1.0, "Parameters")."""

from ipcni.errors import CniError
from ipcni.protocol.quoting import quote


def parse(text: str, *known: str) -> dict[str, str]:
    """The pairs a plugin knows.

    Raises CniError for a pair that is none, a key not among `known` without a true IgnoreUnknown, or a bad IgnoreUnknown.
    """
    found: dict[str, str] = {}
    unknown: list[str] = []
    ignore = False
    for pair in text.split(";") if text else ():
        key, *values = pair.split("=")
        if len(values) != 1:
            raise CniError(f"ARGS: invalid pair {quote(pair)}")
        value = values[0]
        if key == "IgnoreUnknown":
            ignore = _boolean(value)
        elif key in known:
            found[key] = value
        else:
            unknown.append(quote(pair))
    if unknown and not ignore:
        raise CniError(f"ARGS: unknown args [{' '.join(unknown)}]")
    return found


def _boolean(value: str) -> bool:
    match value.lower():
        case "1" | "true":
            return True
        case "0" | "false":
            return False
    pair = quote(f"IgnoreUnknown={value}")
    raise CniError(f"ARGS: error parsing value of pair {pair}: boolean unmarshal error: invalid input {value.lower()}")
