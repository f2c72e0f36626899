from __future__ import annotations

from worchflow_sample.functions.video import encode_video

from worchflow_core.testing import Harness

SHORT = {"minutes": 1, "pieces_per_minute": 4, "seconds_per_piece": 0}


def test_every_piece_is_encoded(worchflow_harness: Harness) -> None:
    run = worchflow_harness.run(encode_video, SHORT)
    assert run.result.pieces == 4
    assert run.ran == ("Encode piece",) * 4 + ("Join pieces",)


def test_finished_pieces_are_not_encoded_again(worchflow_harness: Harness) -> None:
    run = worchflow_harness.run(encode_video, SHORT, crash_after=3)
    assert run.ran == ("Encode piece",) * 4 + ("Join pieces",)
    assert run.replayed == ("Encode piece",) * 3
    assert [step.title for step in run.steps] == ["Encode piece"] * 4 + ["Join pieces"]
