"""What a request asks for: query parameters and bodies, read strictly into records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import Request

from worchflow_core import Filter, InvalidInput, Status, from_millis, parse_json, to_millis
from worchflow_plugins.dashboard.security import body_limit, route_path

LIMIT_MAX = 200
SKIP_MAX = 1_000_000
_TEXT_MAX = 256
_MILLIS_MAX = 253_402_300_799_999  # the end of the year 9999

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which executions somebody wants to see or change, as they said it.

    Attributes:
        status, function: any of these; empty means all.
        search: text the id or function starts with, or the error's type.
        since, until: created at or after; created before.
        finished_since, finished_until: the same for its end.
    """

    status: tuple[Status, ...] = ()
    function: tuple[str, ...] = ()
    search: str = ""
    since: datetime | None = None
    until: datetime | None = None
    finished_since: datetime | None = None
    finished_until: datetime | None = None

    @property
    def is_status_only(self) -> bool:
        """Whether counting by status says how many match."""
        rest = (self.function, self.search, self.since, self.until)
        return not any((*rest, self.finished_since, self.finished_until))

    def filter(self, **more: Any) -> Filter:
        """Return the filter, with order, limit and cursor added by name."""
        return Filter(
            status=self.status or None,
            function=self.function or None,
            search=self.search or None,
            since=self.since,
            until=self.until,
            finished_since=self.finished_since,
            finished_until=self.finished_until,
            **more,
        )


CHOICE_NAMES = frozenset(
    {"status", "function", "search", "since", "until", "finished_since", "finished_until"}
)
_LISTS = frozenset({"status", "function"})


def parse_choice(query: QueryParams, *, others: Iterable[str] = ()) -> Choice:
    """Return the choice a query string makes.

    Raises:
        InvalidInput: a parameter is unknown, repeated, or has a value that cannot be taken.
    """
    check_names(query, CHOICE_NAMES | set(others))
    return make_choice({name: query.getlist(name) for name in CHOICE_NAMES if name in query})


def make_choice(given: Mapping[str, Any]) -> Choice:
    """Return the choice made by name; lists may be lists or text with commas."""
    return Choice(
        status=tuple(_status(item) for item in _items(given.get("status"))),
        function=tuple(_text("function", item) for item in _items(given.get("function"))),
        search=_text("search", _one(given.get("search")) or "").strip(),
        **{
            name: parse_moment(name, _one(given.get(name)))
            for name in ("since", "until", "finished_since", "finished_until")
        },
    )


def check_names(query: QueryParams, known: Iterable[str]) -> None:
    """Raise `InvalidInput` for a parameter that is not known, or a scalar given twice."""
    names = set(known)
    for name in query:
        if name not in names:
            raise InvalidInput(
                f"no parameter {name[:80]!r}; there are: {', '.join(sorted(names)) or 'none'}"
            )
        if name not in _LISTS and len(query.getlist(name)) > 1:
            raise InvalidInput(f"{name} is given more than once")


def parse_whole(query: QueryParams, name: str, default: int, low: int, high: int) -> int:
    """Return a whole number of the query within its bounds, both included."""
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", text) or not low <= int(text) <= high:
        raise InvalidInput(f"{name} is {text[:80]!r}; give a whole number, {low} to {high:,}")
    return int(text)


def parse_moment(name: str, value: str | float | None) -> datetime | None:
    """Return a moment given in epoch milliseconds or in ISO form with a time zone."""
    if value is None or value == "":
        return None
    is_whole = isinstance(value, float) and value.is_integer()
    text = str(int(value) if is_whole else value)
    remedy = f"{name} is {text[:80]!r}; give epoch milliseconds, or ISO 8601 with a time zone"
    if re.fullmatch(r"[0-9]{1,15}", text):
        if int(text) > _MILLIS_MAX:
            raise InvalidInput(remedy)
        return from_millis(int(text))
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise InvalidInput(remedy) from None
    if moment.tzinfo is None:
        raise InvalidInput(remedy)
    return moment


def parse_cursor(name: str, text: str | None) -> tuple[datetime, str] | None:
    """Return the place a cursor such as "1700000000000:id" names."""
    if not text:
        return None
    millis, colon, item = text.partition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,15}", millis) or int(millis) > _MILLIS_MAX:
        raise InvalidInput(f"{name} is {text[:80]!r}; give a cursor this server has handed out")
    return from_millis(int(millis)), item


def format_cursor(moment: datetime, execution_id: str) -> str:
    """Return the cursor text of a place."""
    return f"{to_millis(moment)}:{execution_id}"


def floor(moment: datetime, size: timedelta) -> datetime:
    """Return a moment rounded down to a multiple of `size` since the epoch."""
    span = size // timedelta(milliseconds=1)
    millis = to_millis(moment)
    return from_millis(millis - millis % span)


class Body(BaseModel):
    """What bodies share: nothing unknown is taken, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SendBody(Body):
    """An event to send."""

    name: str = Field(
        min_length=1, max_length=128, description="id of the function, or name of the event"
    )
    data: Any = Field(description="the event's data, anything but null")
    id: str | None = Field(None, max_length=128, description="id of the execution, or event")
    delay: str | float | None = Field(None, description='seconds, or text such as "10m"')
    priority: int | None = Field(None, ge=-100, le=100)
    tags: list[str] = Field(default_factory=list, max_length=32)
    event: bool = Field(False, description="send to those who subscribe or wait")
    force: bool = Field(False, description="send although function or schema speak against it")


class ForkBody(Body):
    """What is wanted of a fork; see `Client.fork`."""

    from_step: str = Field("", alias="fromStep", min_length=1, max_length=256)
    data: Any = None
    results: dict[str, Any] = Field(default_factory=dict, max_length=1000)
    id: str | None = Field(None, max_length=128)

    @property
    def has_data(self) -> bool:
        """Whether data was given: null is data as well."""
        return "data" in self.model_fields_set


class ChoiceBody(Body):
    """Which executions, by what they are.

    What does not restrict is left out: null is refused, because a filter that says nothing by
    mistake would mean all executions there are.
    """

    status: str | list[str] = ""
    function: str | list[str] = ""
    search: str = Field("", max_length=_TEXT_MAX)
    since: str | float = ""
    until: str | float = ""
    finished_since: str | float = ""
    finished_until: str | float = ""


class BulkBody(Body):
    """Executions to retry or cancel: by id, or all that match, a part at a time."""

    ids: list[str] | None = Field(None, max_length=1000)
    filter: ChoiceBody | None = None
    dry_run: bool = Field(False, alias="dryRun", description="count only")
    after: str | None = Field(None, max_length=400, description="`next` of the answer before")


class PauseBody(Body):
    """Why a function is paused."""

    reason: str = Field("", max_length=500)


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object that is the body of a request; no body counts as `{}`.

    Raises:
        InvalidInput: it is not strict JSON, or no object.
    """
    raw = await request.body()
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidInput("the body is not UTF-8") from None
    value = parse_json(text or "{}", "the body", limit=body_limit(route_path(request.scope)))
    if not isinstance(value, dict):
        raise InvalidInput("the body is not a JSON object")
    return value


def fit(value: dict[str, Any], model: type[ModelT]) -> ModelT:
    """Return a JSON object as a `model`; raise `InvalidInput` naming each path that does not."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        parts = []
        for item in error.errors()[:5]:
            where = ".".join(str(part) for part in item["loc"]) or "body"
            parts.append(f"{where[:80]}: {item['msg'][:1].lower()}{item['msg'][1:]}")
        raise InvalidInput("; ".join(parts)) from None


async def read_body(request: Request, model: type[ModelT]) -> ModelT:
    """Return the body of a request as a `model`; see `read_object` and `fit`."""
    return fit(await read_object(request), model)


def _items(value: Any) -> list[str]:
    if value is None:
        return []
    parts = [value] if isinstance(value, str) else value
    if len(parts) > 100:
        raise InvalidInput(f"{len(parts)} values are too many; give at most 100")
    return list(dict.fromkeys(item for part in parts for item in part.split(",") if item))


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _status(text: str) -> Status:
    try:
        return Status(text.strip().lower())
    except ValueError:
        known = ", ".join(status.value for status in Status)
        raise InvalidInput(f"no status {text[:80]!r}; there are: {known}") from None


def _text(name: str, value: str) -> str:
    if len(value) > _TEXT_MAX or any(
        ord(char) < 32 or 0xD800 <= ord(char) <= 0xDFFF for char in value
    ):
        raise InvalidInput(
            f"{name} is longer than {_TEXT_MAX} characters or holds control characters"
        )
    return value
