"""A long job as a plain function: one title in a loop, slow enough to kill the worker in it."""

from __future__ import annotations

import os
import time

from pydantic import BaseModel, Field

from worchflow_core import BlockingStep, Event, function


class Video(BaseModel):
    """What a client sends to `encode-video`."""

    minutes: int = Field(1, ge=1, le=120, description="How long the video is.")
    pieces_per_minute: int = Field(10, ge=1, le=60, description="Into how many pieces it is cut.")
    seconds_per_piece: float = Field(1.0, ge=0, le=60, description="How long encoding one takes.")


class Piece(BaseModel):
    """One encoded piece, and the process that encoded it."""

    number: int
    process: int


class Encoded(BaseModel):
    """What `encode-video` returns."""

    pieces: int
    processes: list[int]


@function(id="encode-video", retries=2)
def encode_video(event: Event[Video], step: BlockingStep) -> Encoded:
    """Encode a video piece by piece.

    The title is the same in every round; Worchflow numbers the repeats. Kill the worker while this
    runs and start it again: the pieces that are done are not encoded again, which the processes in
    the result tell.
    """
    video = event.data
    pieces = [
        step.run("Encode piece", encode_piece, number, video.seconds_per_piece)
        for number in range(1, video.minutes * video.pieces_per_minute + 1)
    ]
    return step.run("Join pieces", join_pieces, pieces)


def encode_piece(number: int, seconds: float) -> Piece:
    """Stand in for an encoder."""
    time.sleep(seconds)
    return Piece(number=number, process=os.getpid())


def join_pieces(pieces: list[Piece]) -> Encoded:
    """Count the pieces, and name the processes that encoded them in order of appearance."""
    processes = list(dict.fromkeys(piece.process for piece in pieces))
    return Encoded(pieces=len(pieces), processes=processes)
