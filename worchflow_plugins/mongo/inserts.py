"""Inserting documents that may be there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import bson
from bson.errors import BSONError
from pymongo import errors
from pymongo.asynchronous.collection import AsyncCollection

from worchflow_core import InvalidInput
from worchflow_plugins.mongo.documents import Document
from worchflow_plugins.mongo.faults import DUPLICATE, is_lost_answer

LARGEST = 16 * 1024 * 1024 - 64 * 1024
"""The server's limit for one document, less room for what an execution gathers later."""
_WORTH_MEASURING = 1_000_000


@dataclass(frozen=True, slots=True)
class Inserted:
    """What an insert found: positions that were there already, and whether it was repeated.

    After a repeat a position may be "there already" because the first try put it there.
    """

    present: frozenset[int]
    is_repeat: bool


async def insert(collection: AsyncCollection[Any], documents: Sequence[Document]) -> Inserted:
    """Insert each document whose keys are new; repeat once if the answer was lost."""
    for repeat in (False, True):
        try:
            await collection.insert_many(documents, ordered=False)
        except errors.BulkWriteError as error:
            return Inserted(_duplicates(error), repeat)
        except errors.AutoReconnect as error:
            if repeat or not is_lost_answer(error):
                raise
        except (BSONError, OverflowError, UnicodeEncodeError):
            for document in documents:
                clean(document)
            if repeat:
                raise
        else:
            return Inserted(frozenset(), repeat)
    raise AssertionError("unreachable")


def check_size(document: Document, what: str, *texts: str | None) -> None:
    """Raise `InvalidInput` for a document past the server's limit; quick for the usual small one.

    Args:
        document: what would be written.
        what: what people call it.
        texts: its texts that can be long.
    """
    if sum(len(text) for text in texts if text is not None) < _WORTH_MEASURING:
        return
    size = len(bson.encode(document))
    if size > LARGEST:
        raise InvalidInput(too_large(what, size))


def too_large(what: str, size: int) -> str:
    """Return what is wrong with a document past the server's limit."""
    return (
        f"{what} is {size:,} bytes, more than MongoDB keeps in one document ({LARGEST:,}); "
        "keep large data elsewhere and pass its address"
    )


def clean(value: Any) -> Any:
    """Return `value` with lone surrogates replaced in place: they have no UTF-8 form."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = clean(item)
    elif isinstance(value, list):
        value[:] = [clean(item) for item in value]
    return value


def _duplicates(error: errors.BulkWriteError) -> frozenset[int]:
    details: Any = error.details or {}
    failed = details.get("writeErrors") or ()
    if details.get("writeConcernErrors") or any(item["code"] != DUPLICATE for item in failed):
        raise error
    return frozenset(item["index"] for item in failed)
