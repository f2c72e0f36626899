"""Ids that derive from others, so that a repetition finds what the first time made."""

from __future__ import annotations

import hashlib


def derived_id(text: str) -> str:
    """Return an id derived from others: the text itself, or a hash where that is too long."""
    return text if len(text) <= 128 else hashlib.sha256(text.encode()).hexdigest()
