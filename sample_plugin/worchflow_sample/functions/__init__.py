"""The functions of this package; the entry point `sample` names this module."""

from __future__ import annotations

from worchflow_sample.functions.cleanup import daily_cleanup
from worchflow_sample.functions.payment import process_payment
from worchflow_sample.functions.video import encode_video

__all__ = ["daily_cleanup", "encode_video", "process_payment"]
