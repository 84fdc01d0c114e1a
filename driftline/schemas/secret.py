"""Secrets by reference: read them when they are needed, never print them."""

from __future__ import annotations

import os
import re
from typing import Any, Final

from driftline.schemas.config import Config, SecretRef

HIDDEN: Final = "***"

_URL_PASSWORD: Final = re.compile(r"(?<=://)([^/@:\s]*):(\S*)(?=@)")
"""Up to the last @: a password may hold one, and hiding too much harms nobody."""
_URL_TOKEN: Final = re.compile(r"((?:password|passwd|token|secret)=)[^&\s]*", re.IGNORECASE)
_SECRET_NAME: Final = re.compile(r"password|secret|token|ssl\.key\.pem|sasl\.username")


class SecretError(ValueError):
    """A secret that cannot be read; the message has its name, never its value."""


def resolve_secret(reference: SecretRef) -> str:
    """The secret itself; of a file, without the newline at its end.

    Raises
    ------
    SecretError : not exactly one of `env` and `file`, the variable is not set, the file cannot be read, or it is empty.
    """
    if (reference.env is None) == (reference.file is None):
        raise SecretError("a secret needs exactly one of env and file")
    if reference.env is not None:
        value = os.environ.get(reference.env)
        if value is None:
            raise SecretError(f'environment variable "{reference.env}" is not set, and the configuration takes a secret from it')
        place = f'environment variable "{reference.env}"'
    else:
        place = f'secret file "{reference.file}"'
        value = _read(str(reference.file))
    if not value:
        raise SecretError(f"{place} is empty, and the configuration takes a secret from it")
    return value


def redact(config: Config) -> dict[str, Any]:
    """The configuration as plain values for printing: no reference to a secret, no password."""
    shown = _hide(config.model_dump(mode="json", by_alias=True), config)
    assert isinstance(shown, dict)
    return shown


def redact_url(url: str) -> str:
    """A URL without its password."""
    return _URL_TOKEN.sub(rf"\1{HIDDEN}", _URL_PASSWORD.sub(rf"\1:{HIDDEN}", url))


def _hide(dumped: Any, source: Any) -> Any:
    """`dumped` beside the values it was made from, which still know what is a secret."""
    if isinstance(source, SecretRef):
        return HIDDEN
    if isinstance(dumped, dict):
        return {key: _hidden_entry(key, value, _child(source, key)) for key, value in dumped.items()}
    if isinstance(dumped, list):
        return [_hide(value, source[index] if isinstance(source, list) else None) for index, value in enumerate(dumped)]
    return redact_url(dumped) if isinstance(dumped, str) else dumped


def _hidden_entry(key: str, value: Any, source: Any) -> Any:
    return HIDDEN if isinstance(value, str) and _SECRET_NAME.search(key) else _hide(value, source)


def _child(source: Any, key: str) -> Any:
    return source.get(key) if isinstance(source, dict) else getattr(source, key, None)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 20).rstrip("\r\n")
    except UnicodeDecodeError:
        raise SecretError(f'cannot read the secret file "{path}": not UTF-8 text') from None
    except OSError as error:
        raise SecretError(f'cannot read the secret file "{path}": {error.strerror}') from None
