"""Fill a template and write the page whole or not at all; what every report shares."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lstm_strategy.atomic import atomic_write
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["extra_missing", "has_extra", "script_safe", "write_html"]


def extra_missing(error: ImportError) -> LSTMStrategyError:
    """Say which package of the ``report`` extra is not installed."""
    return LSTMStrategyError(
        f"the report needs {error.name or 'jinja2'}, which is not installed; "
        "install the extra: pip install 'lstm-strategy[report]'"
    )


def has_extra() -> bool:
    """Say whether plotly and jinja2 are installed."""
    return all(find_spec(name) is not None for name in ("plotly", "jinja2"))


def write_html(page: Path, template: str, contents: dict[str, Any]) -> Path:
    """Fill ``template``, a file of this folder, and write ``page``; text is escaped, an old page stays if it fails.

    Raises
    ------
    LSTMStrategyError
        Where jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise extra_missing(error) from error

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(Path(__file__).parent),
    )
    html = environment.get_template(template).render(**contents)
    with atomic_write(page) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return page


def script_safe(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
