"""Where ipcni keeps its own files, and its limits: built in, from a file, from the environment, in rising order.

The file is /etc/ipcni/ipcni.toml (or $IPCNI_CONFIG) with the keys of `Settings`, spelled with underscores; the environment
variables are IPCNI_ and the key in capitals (IPCNI_LOG_DIR=/tmp/log).
"""

from collections.abc import Mapping

import msgspec

from ipcni.errors import BAD_CONFIG, CniError

CONFIG = "/etc/ipcni/ipcni.toml"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`*_dir` are absolute folders, `*_timeout` seconds, `log_size` bytes of one journal file, `log_files` how many are kept."""

    log_dir: str = "/var/log/ipcni"
    run_dir: str = "/run/ipcni"
    state_dir: str = "/var/lib/ipcni"
    log_size: int = 8 << 20
    log_files: int = 4
    command_timeout: float = 60
    lock_timeout: float = 60


def load(env: Mapping[str, str]) -> Settings:
    """The settings of one request.

    Raises CniError 7 naming the file or variable and the key that is wrong.
    """
    path = env.get("IPCNI_CONFIG") or CONFIG
    values: dict[str, object] = {}
    source = path
    try:
        with open(path, "rb") as file:
            import tomllib  # only where there is such a file: a plugin run should not pay for it

            values.update(tomllib.load(file))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise CniError(f"cannot read the settings {path}: {error}", BAD_CONFIG) from error
    for key in Settings.__struct_fields__:
        if text := env.get(f"IPCNI_{key.upper()}"):
            values[key] = text
            source = f"{path} or the environment variables IPCNI_…"
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise CniError(f"wrong settings in {source}: {error}", BAD_CONFIG) from error
