"""TOML files into frozen, typed sections; every mistake is one line naming the file, the key and what is allowed."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from lstm_strategy.errors import LSTMStrategyError

__all__ = ["read_toml"]

_LARGEST, _NEAR = 2**20, 16


def read_toml[Section: msgspec.Struct](path: Path, section: type[Section]) -> Section:
    """Read a file of at most 1 MiB as ``section``; unknown keys are errors, TOML dates become ISO 8601 text."""
    try:
        if path.stat().st_size > _LARGEST:
            raise LSTMStrategyError(f"{path}: larger than {_LARGEST} bytes; nothing here needs that")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted({str(other) for folder in (path.parent, Path("backtests")) for other in folder.glob("*.toml")})
        near = [other for other in near if Path(other).name != "pyproject.toml"]
        hint = f"; there are {', '.join(near[:_NEAR])}{', ...' if len(near) > _NEAR else ''}" if near else ""
        raise LSTMStrategyError(f"{path}: no such file{hint}") from None
    except OSError as error:
        raise LSTMStrategyError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise LSTMStrategyError(f"{path}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # TOML, UTF-8, numbers without end
        raise LSTMStrategyError(f"{path}: not valid TOML: {error}") from None
    _require_known(path, document, section, "")
    try:
        return msgspec.convert(_plain(document), section)
    except msgspec.ValidationError as error:
        raise LSTMStrategyError(f"{path}: {_told(error, section, document)}") from None
    except RecursionError:
        raise LSTMStrategyError(f"{path}: nested too deeply; nothing here needs that") from None
    except LSTMStrategyError as error:
        raise LSTMStrategyError(f"{path}: {error}") from None


def _plain(value: Any) -> Any:
    """TOML dates become the text that the sections take."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def _require_known(path: Path, table: dict[str, Any], section: type[msgspec.Struct], prefix: str) -> None:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(section)}
    for key, value in table.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"allowed here: {', '.join(sorted(fields))}"
            shown = key[:80] if key.isprintable() else repr(key[:80])
            raise LSTMStrategyError(f"{path}: unknown key {prefix}{shown}; {hint}")
        kind = fields[key]
        if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            _require_known(path, value, kind, f"{prefix}{key}.")


def _told(error: msgspec.ValidationError, section: type[msgspec.Struct], document: dict[str, Any]) -> str:
    message, _, where = str(error).partition(" - at ")
    key = where.strip("`").removeprefix("$.").removeprefix("$")
    if key.endswith("[...]"):
        name, value = _wrong_value(key.removesuffix("[...]"), section, document)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        quoted = f'; write {name.rpartition(".")[2]} = "{value}"' if number and "`str`" in message else ""
        return f"{name}: {message[:1].lower()}{message[1:]}{quoted}"
    choices = get_args(getattr(kind := _type_at(section, key), "__value__", kind)) if "enum value" in message else ()
    allowed = f"; it must be one of {', '.join(map(str, choices))}" if choices else ""
    return f"{key or 'the file'}: {message[:1].lower()}{message[1:]}{allowed}"


def _wrong_value(key: str, section: type[msgspec.Struct], document: dict[str, Any]) -> tuple[str, Any]:
    """Return the name and the value of the first entry of a table that is not of its kind; msgspec names neither."""
    table: Any = document
    for name in key.split("."):
        table = table.get(name) if isinstance(table, dict) else None
    kind = _type_at(section, key)
    for name, value in table.items() if isinstance(table, dict) and get_origin(kind) is dict else ():
        try:
            msgspec.convert(_plain(value), get_args(kind)[1])
        except msgspec.ValidationError:
            return f"{key}.{name}", value
    return f"{key}[...]", table


def _type_at(section: Any, key: str) -> Any:
    """The declared type at a dotted key; list positions such as ``[...]`` or ``[0]`` lead to the items' type."""
    for name in key.split("."):
        name, _, position = name.partition("[")
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(section)}
        section = fields.get(name)
        if position:
            section = get_args(section)[0]
        if not (isinstance(section, type) and issubclass(section, msgspec.Struct)):
            return section
    return section
