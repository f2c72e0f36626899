from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from worchflow_core import Event, Execution, Failure, StepRecord, StepTry, Worchflow, function
from worchflow_plugins import logs
from worchflow_plugins.logs import JsonLines, TextLines

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
EVIL = "Pay\x1b[2J\r\n12:00:00 ✓ forged"
SECRET = "4111-1111"

EXECUTION = Execution(
    id="91340094-c148",
    function="process-payment",
    data=json.dumps({"card": SECRET}),
    result=json.dumps(SECRET),
    created_at=NOW,
    updated_at=NOW,
    claimed_at=NOW,
    finished_at=NOW + timedelta(seconds=3.3),
    failed_attempts=1,
    retries=3,
    steps_recorded=2,
)
FAILURE = Failure(type="acme.GatewayTimeout", message=EVIL, traceback="secret frames")
STEP = StepRecord(
    execution_id=EXECUTION.id,
    step_id="x",
    title=EVIL,
    result=json.dumps(SECRET),
    started_at=NOW,
    ended_at=NOW + timedelta(milliseconds=218),
    execution_created_at=NOW,
)
TRY = StepTry(step_id="x", title=EVIL, started_at=NOW, ended_at=NOW, error=FAILURE)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def tell_everything(lines: Any) -> None:
    lines.worchflow_execution_started(EXECUTION)
    lines.worchflow_step_completed(EXECUTION, STEP)
    lines.worchflow_step_replayed(EXECUTION, STEP)
    lines.worchflow_step_failed(EXECUTION, TRY)
    lines.worchflow_execution_suspended(replace(EXECUTION, due_at=NOW))
    lines.worchflow_execution_retrying(
        replace(EXECUTION, due_at=NOW + timedelta(seconds=1)), FAILURE
    )
    lines.worchflow_execution_completed(EXECUTION)
    lines.worchflow_execution_failed(EXECUTION, FAILURE)
    lines.worchflow_execution_cancelled(EXECUTION)
    lines.worchflow_execution_superseded(EXECUTION)
    lines.worchflow_schedule_fired(EXECUTION, NOW)


def test_text_lines_tell_what_happened() -> None:
    stream = Terminal()
    stream.isatty = lambda: False  # type: ignore[method-assign]
    tell_everything(TextLines(stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert "▶ process-payment 91340094   attempt 2 of 4" in lines[0]
    assert "218 ms" in lines[1]
    assert "replayed" in lines[2]
    assert "attempt 1 failed: GatewayTimeout: " in lines[5]
    assert lines[5].endswith("again in 1.0 s")
    assert lines[6].endswith("✓ process-payment 91340094   3.3 s, 2 steps, 1 retry")
    assert all(line[2] == line[5] == ":" for line in lines)


@pytest.mark.parametrize("kind", [TextLines, JsonLines])
def test_nothing_can_forge_a_line_or_steer_a_terminal(kind: Any) -> None:
    stream = io.StringIO()
    tell_everything(kind(stream))
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 11


@pytest.mark.parametrize("kind", [TextLines, JsonLines])
def test_payloads_and_tracebacks_are_never_printed(kind: Any) -> None:
    stream = io.StringIO()
    tell_everything(kind(stream))
    assert SECRET not in stream.getvalue()
    assert "secret frames" not in stream.getvalue()


def test_json_lines_are_objects_with_the_names_of_the_wire() -> None:
    stream = io.StringIO()
    tell_everything(JsonLines(stream))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all(event["executionId"] == EXECUTION.id for event in events)
    assert events[1] == {
        "time": events[1]["time"],
        "event": "step_completed",
        "executionId": EXECUTION.id,
        "function": "process-payment",
        "step": EVIL,
        "ms": 218,
    }
    assert events[5]["errorType"] == "acme.GatewayTimeout"


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured, plain, dumb = Terminal(), Terminal(), Terminal()
    TextLines(coloured).worchflow_execution_started(EXECUTION)
    assert "\x1b[" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    TextLines(plain).worchflow_execution_started(EXECUTION)
    assert "\x1b" not in plain.getvalue()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    TextLines(dumb).worchflow_execution_started(EXECUTION)
    assert "\x1b" not in dumb.getvalue()


def test_a_stream_without_unicode_gets_other_marks() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    TextLines(stream).worchflow_execution_completed(replace(EXECUTION, function="größe"))
    assert b"+ gr??e" in raw.getvalue()


def test_a_reader_that_went_away_harms_nobody() -> None:
    stream = io.StringIO()
    stream.close()
    TextLines(stream).worchflow_execution_started(EXECUTION)
    JsonLines(stream).worchflow_execution_started(EXECUTION)


@function
async def greet(event: Event[str], step: Any) -> str:
    return str(await step.run("Greet", lambda: f"hello {event.data}"))


def opened(log: str, store: Path) -> Worchflow:
    return Worchflow(
        functions=[greet],
        plugins=[],
        overrides={"log": log, "store_url": f"sqlite:///{store}"},
        env_file=None,
    )


def test_off_registers_nothing(tmp_path: Path) -> None:
    app = opened("off", tmp_path / "one.db")
    assert not app.plugins.hears("worchflow_execution_completed")
    assert "logs" in [info.name for info in app.plugins.infos]


def test_two_applications_of_one_process_print_as_each_is_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work(app: Worchflow) -> None:
        async with app:
            handle = await app.client.send(greet, "Ana")
            await app.worker.run(only={handle.id})

    async def main() -> None:
        await asyncio.gather(
            work(opened("text", tmp_path / "text.db")),
            work(opened("json", tmp_path / "json.db")),
            work(opened("off", tmp_path / "off.db")),
        )

    asyncio.run(main())
    lines = capsys.readouterr().err.splitlines()
    objects = [json.loads(line) for line in lines if line.startswith("{")]
    texts = [line for line in lines if not line.startswith("{")]
    assert sum(item["event"] == "execution_completed" for item in objects) == 1
    assert sum("✓ greet" in line or "+ greet" in line for line in texts) == 1
    assert "Ana" not in "".join(lines)


def test_the_plugin_is_what_the_entry_point_names() -> None:
    assert logs.worchflow_add_plugins.worchflow_impl  # type: ignore[attr-defined]
