"""Secrets by reference: read when they are needed, from the environment or a file."""

from __future__ import annotations

import os

from driftline.schemas.config import SecretRef


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


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 20).rstrip("\r\n")
    except UnicodeDecodeError:
        raise SecretError(f'cannot read the secret file "{path}": not UTF-8 text') from None
    except OSError as error:
        raise SecretError(f'cannot read the secret file "{path}": {error.strerror}') from None
