# SPDX-License-Identifier: Apache-2.0
"""Where a setting comes from: flag, then environment, then atoll.toml, then default. Decides which one counts.

Each key has one name in three spellings: ``relay-budget`` (flag and file) and ``ATOLL_RELAY_BUDGET``. A key that is
not known is refused with the nearest one that is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from atoll.base.errors import UserError
from atoll.host.places import default_state

if TYPE_CHECKING:
    from atoll.node.rules import Rules

__all__ = ["CONFIG_NAME", "DEFAULTS", "Setting", "default_config", "environment_name", "load", "load_rules"]

CONFIG_NAME: Final = "atoll.toml"
FILE_BYTES_MAX: Final = 64 * 1024  # Limit. A settings file is below 1 KiB.

DEFAULTS: Final[dict[str, str | None]] = {
    "state": None,  # platformdirs decides; only asked for when needed, because it costs an import.
    "name": None,
    "listen": None,
    "tcp": None,
    "advertise": None,  # Several are joined by commas.
    "relay": None,
    "relay-budget": None,
    "group-name": None,
    "tun": None,
    "metrics": None,
}
"""Every key with its default; None: the node decides (what it kept, or its own default)."""

RULE_KEYS: Final = frozenset({"access", "access-default", "traffic", "tags"})
"""Keys of the file that are no settings but rules; ``node/rules.py`` reads them."""

PATHS: Final = frozenset({"state", "config"})  # Here ``~`` is written out.

UNUSABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and what Python makes of bytes that are no UTF-8: they cannot travel to the node or be shown."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it comes from; ``value`` None: left to the node."""

    key: str
    value: str | None
    origin: str


def environment_name(key: str) -> str:
    """Return the environment variable that mirrors a key."""
    return "ATOLL_" + key.upper().replace("-", "_")


def default_config() -> Path:
    """Return where atoll.toml is looked for."""
    from platformdirs import user_config_path  # noqa: PLC0415 -- 20 ms that --state with no file need not pay.

    return user_config_path("atoll") / CONFIG_NAME


def load(flags: Mapping[str, str | None], environment: Mapping[str, str], config: Path | None) -> dict[str, Setting]:
    """Return every setting with its origin.

    Args:
        flags: Values given on the command line, by key; None or missing: not given.
        environment: The process's environment.
        config: The file named on the command line; None: ATOLL_CONFIG, or the default place if there is one.

    Raises:
        UserError: A501, the file cannot be read, has an unknown key or a value of a wrong type; or a value holds what
            no name or path can.
    """
    path, must_exist = _place(environment, config)
    written = _file(path, must_exist=must_exist)
    settings: dict[str, Setting] = {}
    for key, default in DEFAULTS.items():
        variable = environment_name(key)
        if (flag := flags.get(key)) is not None:
            settings[key] = Setting(key, flag, f"flag --{key}")
        elif environment.get(variable):
            settings[key] = Setting(key, environment[variable], f"environment {variable}")
        elif key in written:
            settings[key] = Setting(key, written[key], f"file {path}")
        else:
            settings[key] = Setting(key, default, "default")
        settings[key] = _usable(settings[key])
    if settings["state"].value == "":  # An unset variable of a script; the current directory is not what it meant.
        raise UserError("A501", "the state directory has no name", where=settings["state"].origin, fix="--state DIR")
    if settings["state"].value is None:
        settings["state"] = Setting("state", str(default_state()), "default")
    return settings


def load_rules(environment: Mapping[str, str], config: Path | None) -> "Rules | None":
    """Return the rules of the file that ``load`` reads; None: there is no file.

    Raises:
        UserError: A501, as ``load``, or a rule that cannot be understood.
    """
    from atoll.node.rules import parse_rules  # noqa: PLC0415 -- only what starts or changes a node needs them.

    path, must_exist = _place(environment, config)
    if not must_exist and not path.is_file():
        return None
    table, text = _parsed(path)
    return parse_rules(table, text, str(path))


def _place(environment: Mapping[str, str], config: Path | None) -> tuple[Path, bool]:
    """Return which file is meant, and whether there must be one."""
    path, must_exist = config, config is not None
    if path is None:
        named = environment.get("ATOLL_CONFIG")
        path, must_exist = (Path(named), True) if named else (default_config(), False)
    named_by = "flag --config" if config is not None else "environment ATOLL_CONFIG"
    return Path(_usable(Setting("config", str(path), named_by)).value or ""), must_exist


def _usable(setting: Setting) -> Setting:
    """Return a setting as it can be used: ``~`` in a path is written out, as no shell does in a file or a unit.

    Raises:
        UserError: A501, it holds a character that no path, name or address can, or a home that there is not.
    """
    value = setting.value or ""
    if UNUSABLE.search(value):
        raise UserError(
            "A501",
            f"the value of {setting.key} holds a character that is not text",
            where=f"{setting.origin}: {value!a}",
            fix="write it anew, without control characters and in UTF-8",
        )
    if setting.key not in PATHS or not value.startswith("~"):
        return setting
    try:
        return replace(setting, value=str(Path(value).expanduser()))
    except RuntimeError as error:
        raise UserError(
            "A501",
            f"the value of {setting.key} begins with the home of somebody who has none here",
            where=f"{setting.origin}: {value}",
            fix="write the directory out",
        ) from error


def _file(path: Path, *, must_exist: bool) -> dict[str, str]:
    if not must_exist and not path.is_file():
        return {}
    table, _ = _parsed(path)
    written: dict[str, str] = {}
    for key, value in table.items():
        if key in RULE_KEYS:
            continue
        if key not in DEFAULTS:
            raise _unknown(key, path)
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise UserError(
                "A501",
                f"the value of {key!r} must be a string or a number",
                where=f"{path}: {key} is a {type(value).__name__}",
                fix="atoll config show --origin",
            )
        written[key] = str(value)
    return written


def _parsed(path: Path) -> tuple[dict[str, Any], str]:
    """Return the file, parsed and as it is."""
    import tomllib  # noqa: PLC0415 -- only who has a file pays for the parser.

    try:
        with path.open("rb") as opened:
            text = opened.read(FILE_BYTES_MAX).decode()
        table = tomllib.loads(text)
        repr(table)  # A number with thousands of digits is refused here.
    except OSError as error:
        raise UserError(
            "A501", "the configuration file cannot be read", where=f"{path}: {error.strerror}", fix="check --config"
        ) from error
    except (ValueError, RecursionError) as error:  # Also of a number with thousands of digits, or nested too deep.
        raise UserError(
            "A501", "the configuration file is not TOML", where=f"{path}: {error}", fix="mend that line"
        ) from error
    return table, text


def _unknown(key: str, path: Path) -> UserError:
    from difflib import get_close_matches  # noqa: PLC0415 -- only needed to be helpful.

    near = get_close_matches(key.replace("_", "-").lower(), DEFAULTS, n=1)
    fix = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(DEFAULTS)}"
    return UserError("A501", f"unknown key {key!r} in the configuration file", where=str(path), fix=fix)
