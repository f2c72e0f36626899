"""The one place where values become JSON text and come back, checked to be equal both ways.

A value with a declared type (pydantic model, dataclass, TypedDict, datetime, UUID, Decimal, Enum,
containers of these) is written and rebuilt by pydantic. A value without one must be plain JSON.
Either way the caller goes on with the value read back from the text, so that a first run and a
replay see the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NoReturn

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError

from worchflow_core.errors import FunctionError, InvalidInput, NotSerializable
from worchflow_core.models import Payload
from worchflow_core.roundtrip import difference, not_finite, surrogate, unwritable
from worchflow_core.typeddicts import modern

MAX_DEPTH: Final = 64
"""How deep containers may nest."""

UNTYPED: Final = Any
"""The type of a value that declares none."""


class Codec:
    """Write and read values of one declared type.

    Args:
        declared: the type, or `UNTYPED` for plain JSON.
        what: what the value is called in messages ("result of step 'Charge'").

    Raises:
        FunctionError: pydantic knows no way to write this type, or it holds bytes.
    """

    __slots__ = ("_adapter", "declared", "what")

    def __init__(self, declared: Any, what: str) -> None:
        self.declared = declared
        self.what = what
        self._adapter = None if declared is UNTYPED else _adapter(declared, what)

    def encode(self, value: Any, *, limit: int) -> tuple[Payload, Any]:
        """Return the JSON text of `value`, and the value read back from it.

        Args:
            value: what to write.
            limit: the most bytes the text may have.

        Raises:
            NotSerializable: the value does not survive; the message names the path.
            InvalidInput: the text is too long.
        """
        try:
            text, loaded = self._plain(value) if self._adapter is None else self._typed(value)
            size = len(text.encode())
            if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
                raise NotSerializable(
                    f"{self.what} nests deeper than {MAX_DEPTH} levels; flatten it"
                )
        except RecursionError:
            raise NotSerializable(f"{self.what} refers to itself or nests too deeply") from None
        except UnicodeEncodeError:
            raise self._has_surrogate(value) from None
        if size > limit:
            raise InvalidInput(
                f"{self.what} takes {size:,} bytes; at most {limit:,} are kept "
                "(WORCHFLOW_MAX_PAYLOAD); store it elsewhere and pass a reference"
            )
        return text, loaded

    def decode(self, payload: Payload | None) -> Any:
        """Return the value that `payload` holds.

        Raises:
            InvalidInput: the text does not fit the declared type; the message names the path.
        """
        if self._adapter is None:
            try:
                return None if payload is None else json.loads(payload)
            except (ValueError, RecursionError) as error:
                raise InvalidInput(f"{self.what} is not JSON: {error}") from None
        try:
            return self._adapter.validate_json("null" if payload is None else payload)
        except ValidationError as error:
            raise InvalidInput(f"{self.what} does not fit its type: {_reasons(error)}") from None

    def coerce(self, value: Any) -> Any:
        """Return `value`, given as plain data or as an instance, as the declared type.

        Raises:
            InvalidInput: it does not fit; the message lists each path and reason.
        """
        if self._adapter is None:
            return value
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise InvalidInput(f"{self.what} does not fit: {_reasons(error)}") from None

    def json_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema of the declared type; None where there is none."""
        if self._adapter is None:
            return None
        try:
            return self._adapter.json_schema()
        except PydanticUserError:
            return None

    def _plain(self, value: Any) -> tuple[Payload, Any]:
        try:
            text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            self._refuse(*unwritable(value, typed=False), str(error))
        loaded = json.loads(text)
        if loaded != value:
            self._compare(value, loaded)
        return text, loaded

    def _typed(self, value: Any) -> tuple[Payload, Any]:
        assert self._adapter is not None
        try:
            text = self._adapter.dump_json(value, warnings="none").decode()
            loaded = self._adapter.validate_json(text)
        except ValidationError as error:
            raise NotSerializable(
                f"{self.what} does not fit its declared type {_name(self.declared)}: "
                f"{_reasons(error)}"
            ) from None
        except (PydanticSerializationError, ValueError) as error:
            if surrogate(value) is not None:
                raise self._has_surrogate(value) from None
            self._refuse(*unwritable(value, typed=True), str(error))
        if "NaN" in text or "Infinity" in text:
            self._refuse_constants(value, text)
        if type(loaded) is not type(value) or loaded != value:
            self._compare(value, loaded)
        return text, loaded

    def _compare(self, value: Any, loaded: Any) -> None:
        found = difference(value, loaded)
        if found is not None:
            self._refuse(*found, "")

    def _refuse(self, path: str, culprit: Any, why: str) -> NoReturn:
        where = f" at {path.lstrip('.')}" if path else ""
        hint = _hint(culprit, typed=self._adapter is not None)
        kind = type(culprit).__name__
        reason = f" ({why})" if why and not path else ""
        raise NotSerializable(
            f"{self.what} does not survive JSON{where}: it is of type {kind}{reason}; {hint}"
        ) from None

    def _refuse_constants(self, value: Any, text: str) -> None:
        try:
            json.loads(text, parse_constant=_refuse_constant)
        except ValueError as error:
            self._refuse(*(not_finite(value) or ("", value)), str(error))

    def _has_surrogate(self, value: Any) -> NotSerializable:
        path = (surrogate(value) or "").lstrip(".")
        return NotSerializable(
            f"{self.what} holds a lone surrogate{f' at {path}' if path else ''}, which no UTF-8 "
            "text can; take it out"
        )


def hash_input(function: str, data: Payload | None) -> str:
    """Return a hash that is equal for sends of the same function with the same data."""
    canonical = json.dumps(json.loads(data), sort_keys=True) if data is not None else ""
    return hashlib.sha256(f"{function}\0{canonical}".encode()).hexdigest()[:32]


def parse_json(text: str, what: str, *, limit: int) -> Any:
    """Return what strict JSON `text` holds: no NaN, no deep nesting, no repeated key lost.

    Raises:
        InvalidInput: it is not strict JSON; the message names line and column.
    """
    if len(text.encode(errors="surrogatepass")) > limit:
        raise InvalidInput(f"{what} is longer than {limit:,} bytes")
    if _depth(text) > MAX_DEPTH:
        raise InvalidInput(f"{what} nests deeper than {MAX_DEPTH} levels")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what} is not strict JSON: {error}") from None


def _adapter(declared: Any, what: str) -> TypeAdapter[Any]:
    try:
        return _cached_adapter(declared)
    except TypeError:  # an unhashable type, such as Annotated with a list
        return _build_adapter(declared)
    except FunctionError as error:
        raise FunctionError(f"{what} {error}") from None


def _build_adapter(declared: Any) -> TypeAdapter[Any]:
    try:
        adapter = _plain_adapter(modern(declared))
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        first = str(error).splitlines()[0]
        raise FunctionError(
            f"is declared as {_name(declared)}, which cannot be written as JSON ({first}); "
            "use a pydantic model, a dataclass, a TypedDict or plain types"
        ) from None
    if _holds_bytes(adapter.core_schema):
        raise FunctionError(
            f"is declared as {_name(declared)}, which holds bytes; "
            "store them elsewhere, or pass them as base64 text"
        )
    return adapter


def _plain_adapter(declared: Any) -> TypeAdapter[Any]:
    if _has_config(declared):
        return TypeAdapter[Any](declared)
    return TypeAdapter[Any](declared, config=ConfigDict(ser_json_inf_nan="constants"))


_cached_adapter = lru_cache(maxsize=4096)(_build_adapter)


def _has_config(declared: Any) -> bool:
    return (
        (isinstance(declared, type) and issubclass(declared, BaseModel))
        or dataclasses.is_dataclass(declared)
        or (isinstance(declared, type) and hasattr(declared, "__total__"))
    )


def _holds_bytes(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        if schema.get("type") == "bytes":
            return True
        return any(
            _holds_bytes(value)
            for name, value in schema.items()
            if name not in ("metadata", "serialization", "default", "cls", "config")
        )
    return isinstance(schema, (list, tuple)) and any(_holds_bytes(item) for item in schema)


def _hint(culprit: Any, *, typed: bool) -> str:
    if isinstance(culprit, (bytes, bytearray, memoryview)):
        return "store bytes elsewhere, or pass them as base64 text"
    if isinstance(culprit, float) and not math.isfinite(culprit):
        return "NaN and infinity are not JSON; use None or text"
    if isinstance(culprit, (set, frozenset)) and not typed:
        return "return a list"
    if isinstance(culprit, dict):
        return "keys must be text"
    if isinstance(culprit, int) and culprit.bit_length() > 1024:
        return "it has too many digits to be written; pass it as text"
    if typed:
        return "declare the type that is really returned"
    return "declare its type: annotate what is returned, or pass returns=... to step.run"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON; use None or text")


def _depth(text: str) -> int:
    """Return how deep the brackets of a JSON text nest, those inside strings left out."""
    deepest = level = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            level += 1
            deepest = max(deepest, level)
            if deepest > MAX_DEPTH:
                break
        elif char in "]}":
            level -= 1
    return deepest


def _reasons(error: ValidationError) -> str:
    parts = []
    for item in error.errors()[:5]:
        path = ".".join(str(part) for part in item["loc"]) or "value"
        message = item["msg"]
        parts.append(f"{path}: {message[:1].lower()}{message[1:]}")
    more = error.error_count() - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _name(declared: Any) -> str:
    return getattr(declared, "__name__", None) or str(declared)
