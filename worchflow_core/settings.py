"""Settings: everything a user may set by `WORCHFLOW_*`, in the environment or in `.env`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worchflow_core.crashpoints import POINTS
from worchflow_core.durations import format_duration, parse_duration
from worchflow_core.errors import SettingsError

PREFIX = "WORCHFLOW_"
DEFAULT_STORE = "sqlite:///./worchflow.db"

Span = Annotated[timedelta, BeforeValidator(lambda value: parse_duration(value, name="the value"))]
Names = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(
        lambda value: (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )
    ),
]


class LogFormat(StrEnum):
    """How the built-in `logs` plugin prints."""

    TEXT = "text"
    JSON = "json"
    OFF = "off"


class Settings(BaseSettings):
    """All settings; a field `store_url` is set by WORCHFLOW_STORE_URL.

    Build it with `load_settings`, which turns every mistake into one readable line.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    store_url: str | None = Field(
        None, description="Where executions are kept; one SQLite file, ./worchflow.db, if unset."
    )
    queue_url: str | None = Field(
        None, description="Where hints are queued; the store is polled or wakes workers if unset."
    )
    step_cache_url: str | None = Field(
        None, description="Where copies of steps are kept; the queue's server if unset."
    )
    require_store: bool = Field(
        False, description="Refuse to start without WORCHFLOW_STORE_URL; set it in containers."
    )
    prefix: str = Field("worchflow", description="First part of every key in a shared server.")
    concurrency: int = Field(
        10, ge=1, le=10_000, description="How many executions a worker runs at once."
    )
    lease: Span = Field(
        timedelta(seconds=30), description="How long a worker is believed alive without a beat."
    )
    heartbeat: Span = Field(
        timedelta(seconds=5), description="How often a worker beats; at most a third of the lease."
    )
    sweep_interval: Span = Field(
        timedelta(seconds=5), description="How often each worker repairs what others left."
    )
    grace: Span = Field(
        timedelta(seconds=25), description="How long a stopping worker lets executions finish."
    )
    retention: Span = Field(
        timedelta(days=30), description="How long ended executions are kept; 0 keeps them forever."
    )
    send_timeout: Span = Field(
        timedelta(seconds=5), description="How long a send waits for the store before it gives up."
    )
    scheduler: bool = Field(
        True, description="Whether workers also turn the ticks of schedules into executions."
    )
    modules: Names = Field((), description="Modules with functions to add, separated by commas.")
    plugins: Names = Field((), description="Plugin modules to add, separated by commas.")
    disabled_plugins: Names = Field((), description="Plugin names to leave out.")
    log: LogFormat = Field(LogFormat.OFF, description="How lifecycle lines are printed.")
    max_payload: int = Field(
        1_048_576, ge=1024, le=8_388_608, description="Bytes of one event's data or step's result."
    )
    max_crashes: int = Field(
        5, ge=1, le=100, description="Worker deaths an execution survives before it fails."
    )
    max_leaked_threads: int = Field(
        10, ge=1, le=10_000, description="Threads lost to hung code at which a worker leaves."
    )
    crash_at: str | None = Field(
        None, description="For tests of crash safety: die at this protocol write (`name:count`)."
    )
    max_steps: int = Field(
        10_000, ge=1, le=1_000_000, description="Steps one execution may record."
    )

    @field_validator("prefix")
    @classmethod
    def _prefix_is_safe(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.{}-]{1,64}", value):
            raise ValueError("give 1 to 64 letters, digits and the characters _ . - { }")
        return value

    @field_validator("store_url", "queue_url", "step_cache_url")
    @classmethod
    def _url_has_scheme(cls, value: str | None) -> str | None:
        if value is None or value == "":
            return None
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", value):
            raise ValueError(
                "give a URL such as sqlite:///./worchflow.db or redis://127.0.0.1:6379"
            )
        return value

    @field_validator("crash_at")
    @classmethod
    def _crash_point_exists(cls, value: str | None) -> str | None:
        if not value:
            return None
        name, _, count = value.partition(":")
        if name not in POINTS or not (count or "1").isdecimal() or not int(count or 1):
            raise ValueError(f"give one of {', '.join(POINTS)}, and maybe a count: name:2")
        return value

    @model_validator(mode="after")
    def _spans_fit(self) -> Self:
        low = timedelta(milliseconds=10)
        for name in ("lease", "heartbeat", "sweep_interval", "send_timeout"):
            if getattr(self, name) < low:
                raise ValueError(f"{name}:{format_duration(getattr(self, name))}:give 10ms or more")
        if self.heartbeat > self.lease / 3:
            raise ValueError(
                f"heartbeat:{format_duration(self.heartbeat)}:"
                f"give at most a third of the lease of {format_duration(self.lease)}"
            )
        return self


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    env_file: str | Path | None = ".env",
) -> Settings:
    """Read the settings: `overrides` first, then the environment, then `.env`, then the defaults.

    Args:
        overrides: values by field name, such as those of command-line flags; None is left out.
        env_file: a file of `NAME=value` lines; a missing one is no error.

    Raises:
        SettingsError: one line per wrong value, naming variable, value and what is allowed.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        return Settings(_env_file=env_file, **given)  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error))) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{env_file} cannot be read: {error}") from None


def setting_source(
    name: str, overrides: Mapping[str, Any] | None = None, *, env_file: str | Path | None = ".env"
) -> str:
    """Return where the setting `name` comes from: `flag`, `environment`, `.env` or `default`."""
    if overrides and overrides.get(name) is not None:
        return "flag"
    variable = PREFIX + name.upper()
    if variable in {key.upper() for key in os.environ}:
        return "environment"
    if env_file is not None and variable in _env_file_names(env_file):
        return ".env"
    return "default"


def unknown_variables(*, env_file: str | Path | None = ".env") -> list[str]:
    """Return the WORCHFLOW_* variables that are no setting of the core; plugins may read them."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    names = {key.upper() for key in os.environ}
    if env_file is not None:
        names |= _env_file_names(env_file)
    return sorted(name for name in names if name.startswith(PREFIX) and name not in known)


def mask_url(url: str) -> str:
    """Return a URL without its password and without values of its query that look secret.

    Text that is no proper URL is masked too: it may be one with a typing error.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        masked = re.sub(r"([^/?#@:]*):(.*)@", r"\1:***@", url)
    elif rest.startswith("/"):  # a path, and no server
        masked = url
    else:
        body, question, query = rest.partition("?")
        if "@" not in body:  # a question mark in the password, perhaps
            body = re.sub(r"^([^/?#@:]*):([^/=]*)@", r"\1:***@", rest)
            question = query = ""
        masked = f"{scheme}://" + re.sub(r"^([^/?#@:]*):(.*)@", r"\1:***@", body) + question + query
    return re.sub(r"(?i)((?:password|secret|token|key)[^=&]*=)[^&#]+", r"\1***", masked)


def _env_file_names(env_file: str | Path) -> set[str]:
    from dotenv import dotenv_values

    path = Path(env_file)
    return {name.upper() for name in dotenv_values(path)} if path.is_file() else set()


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        if item["loc"]:
            name, value = str(item["loc"][0]), repr(item["input"])
            remedy = _remedy(name, item["msg"].removeprefix("Value error, "))
        else:
            name, value, remedy = str(item["ctx"]["error"]).split(":", 2)
        if name.endswith("url"):
            value = repr(mask_url(str(item["input"])))
        if len(value) > _SHOWN:
            value = value[:_SHOWN] + "..."
        lines.append(f"{PREFIX}{name.upper()} is {value}: {remedy[:1].lower()}{remedy[1:]}")
    return lines


def _remedy(name: str, reason: str) -> str:
    """Return what to give instead, from the field itself where pydantic's words name no range."""
    field = Settings.model_fields.get(name)
    kind = field.annotation if field is not None else None
    if field is not None and kind is int:
        limits = {type(item).__name__: item for item in field.metadata}
        return f"give a whole number, {limits['Ge'].ge:,} to {limits['Le'].le:,}"
    if kind is bool:
        return "give 1 or 0; true, false, yes, no, on and off are fine too"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return f"give one of {', '.join(kind)}"
    return reason.partition("; ")[2] or reason


_SHOWN = 80
"""How many characters of a wrong value are shown."""
