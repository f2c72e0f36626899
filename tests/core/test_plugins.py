"""Plugins: how they are found, what is refused and how, and which hooks are called when."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.core.support import QUICK, application, run, until, worker_of
from worchflow_core import (
    Event,
    FunctionError,
    PluginError,
    Status,
    Step,
    Worchflow,
    function,
    hookimpl,
)
from worchflow_core import hookspecs as specs
from worchflow_core.discovery import discover, load_module
from worchflow_core.plugins import Plugins

OURS = tuple(str(QUICK["disabled_plugins"]).split(","))


class Site:
    """A folder on sys.path that holds installed distributions, made up for a test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._modules: list[str] = []

    def module(self, name: str, code: str) -> None:
        path = self.path / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        self._modules.append(name)

    def distribution(self, name: str, group: str, **entries: str) -> None:
        info = self.path / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{key.replace('__', '-')} = {value}" for key, value in entries.items()]
        (info / "entry_points.txt").write_text(f"[{group}]\n" + "\n".join(lines) + "\n")

    def forget(self) -> None:
        for name in self._modules:
            sys.modules.pop(name, None)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(str(tmp_path))
    place = Site(tmp_path)
    yield place
    place.forget()


PLUGIN = """
from worchflow_core import hookimpl

@hookimpl
def worchflow_execution_started(execution):
    pass
"""


# --- finding --------------------------------------------------------------------------------------


def test_installed_plugins_are_found_and_shown(site: Site) -> None:
    site.module("acme_plugin", PLUGIN)
    site.distribution("acme-plugin", "worchflow.plugins", acme="acme_plugin")
    infos = {info.name: info for info in Plugins(disabled=OURS).infos}
    assert sorted(infos) == ["acme", "memory"]
    assert infos["acme"].distribution == "acme-plugin"
    assert infos["acme"].version == "1.2"
    assert infos["acme"].hooks == ("worchflow_execution_started",)
    assert not infos["acme"].is_replacement


def test_plugin_named_like_a_built_in_replaces_it(site: Site) -> None:
    site.module("acme_logs", PLUGIN)
    site.distribution("acme-logs", "worchflow.plugins", logs="acme_logs")
    disabled = [name for name in OURS if name != "logs"]
    infos = {info.name: info for info in Plugins(disabled=disabled).infos}
    assert infos["logs"].distribution == "acme-logs"
    assert infos["logs"].is_replacement


def test_two_strangers_of_one_name_are_refused(site: Site) -> None:
    for name in ("acme-one", "acme-two"):
        module = name.replace("-", "_")
        site.module(module, PLUGIN)
        site.distribution(name, "worchflow.plugins", acme=module)
    with pytest.raises(PluginError) as caught:
        Plugins(disabled=OURS)
    for word in ("'acme'", "acme-one 1.2", "acme-two 1.2", "uninstall"):
        assert word in str(caught.value)


BROKEN = {
    "import error": ("raise ImportError('no driver')", ["no driver"]),
    "missing module": (None, ["ModuleNotFoundError", "acme_plugin"]),
    "exit at import": ("raise SystemExit(3)", ["SystemExit"]),
    "syntax error": ("def", ["SyntaxError"]),
    "misspelt hook": (
        PLUGIN.replace("execution_started", "execution_begun"),
        ["worchflow_execution_begun"],
    ),
    "unmarked hook": (
        PLUGIN.replace("@hookimpl", ""),
        ["worchflow_execution_started", "@hookimpl"],
    ),
    "wrong argument": (PLUGIN.replace("(execution)", "(execution, job)"), ["job"]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_plugin_is_refused_naming_distribution_error_and_remedy(
    site: Site, kind: str
) -> None:
    code, words = BROKEN[kind]
    if code is not None:
        site.module("acme_plugin", code)
    site.distribution("acme-plugin", "worchflow.plugins", acme="acme_plugin")
    with pytest.raises(PluginError) as caught:
        Plugins(disabled=OURS)
    message = str(caught.value)
    for word in ["'acme'", "acme-plugin 1.2", "WORCHFLOW_DISABLED_PLUGINS=acme", *words]:
        assert word in message, message
    assert "\n" not in message
    assert sorted(info.name for info in Plugins(disabled=[*OURS, "acme"]).infos) == ["memory"]


def test_plugin_given_in_code_is_checked_too() -> None:
    class Plugin:
        @hookimpl
        def worchflow_execution_started(self, execution: Any) -> None:
            return None

    with pytest.raises(PluginError, match="class Plugin; give an instance"):
        Plugins([Plugin], disabled=OURS)
    assert "Plugin" in [info.name for info in Plugins([Plugin()], disabled=OURS).infos]
    with pytest.raises(PluginError, match="'Plugin'"):
        Plugins([Plugin(), Plugin()], disabled=OURS)
    same = Plugin()
    assert len(Plugins([same, same], disabled=OURS, discover=False).infos) == 1


def test_plugin_module_named_in_settings_is_imported_or_refused(site: Site) -> None:
    site.module("my_plugin", PLUGIN)
    infos = Plugins(modules=["my_plugin"], disabled=OURS).infos
    assert [info.source for info in infos if info.name == "my_plugin"] == ["WORCHFLOW_PLUGINS"]
    with pytest.raises(PluginError, match="WORCHFLOW_PLUGINS names 'nothing_there'"):
        Plugins(modules=["nothing_there"], disabled=OURS)


def test_plugin_adds_others_and_is_named_when_it_fails() -> None:
    settings: Any = SimpleNamespace()
    added = ModuleType("added")

    class Adding:
        @hookimpl
        def worchflow_add_plugins(self, settings: Any) -> Any:
            return [added]

    class Failing:
        @hookimpl
        def worchflow_add_plugins(self) -> Any:
            raise RuntimeError("no licence")

    plugins = Plugins([Adding()], disabled=OURS)
    plugins.configure(settings)
    assert "Adding.added" in [info.name for info in plugins.infos]
    plugins = Plugins([Failing()], disabled=OURS)
    with pytest.raises(PluginError, match=r"'Failing' failed in worchflow_add_plugins.*no licence"):
        plugins.configure(settings)


# --- opening --------------------------------------------------------------------------------------


def test_url_that_nobody_opens_is_refused_with_its_password_masked() -> None:
    async def main() -> None:
        async with application(url="nosuch://ana:secret@host/x"):
            raise AssertionError("not reached")

    with pytest.raises(PluginError) as caught:
        run(main())
    assert "no plugin opens 'nosuch://ana:***@host/x'" in str(caught.value)
    assert "memory" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_plugin_that_fails_to_open_a_backend_is_named() -> None:
    class Opening:
        @hookimpl
        def worchflow_open_store(self, url: str) -> Any:
            raise RuntimeError("no driver")

    async def main() -> None:
        async with application(plugins=(Opening(),), url="nosuch://x"):
            raise AssertionError("not reached")

    with pytest.raises(PluginError, match=r"'Opening' failed in worchflow_open_store.*no driver"):
        run(main())


def test_strangers_plugin_answers_before_the_built_in_one() -> None:
    from worchflow_plugins.memory import MemoryStore

    mine = MemoryStore("mine")

    class Opening:
        @hookimpl
        def worchflow_open_store(self, url: str) -> Any:
            return mine if url.startswith("memory:") else None

    async def main() -> None:
        async with application(plugins=(Opening(),)) as app:
            assert app.journal.store is mine

    run(main())


# --- functions ------------------------------------------------------------------------------------

FUNCTIONS = """
from worchflow_core import function

@function
async def {name}(event, step):
    return 7
"""


def test_functions_of_installed_packages_are_found_and_stamped(site: Site) -> None:
    site.module("acme_flows", FUNCTIONS.format(name="one") + FUNCTIONS.format(name="two_three"))
    site.module("acme_single", FUNCTIONS.format(name="single"))
    site.distribution(
        "acme-flows",
        "worchflow.functions",
        anything="acme_flows",
        other="acme_single:single",
    )
    registry = discover(Plugins(disabled=OURS))
    assert {"one", "two-three", "single"} <= set(registry.ids)
    found = registry.get("one")
    assert found is not None
    assert found.code_version == "acme-flows 1.2"


def test_two_packages_with_one_function_id_are_refused(site: Site) -> None:
    for name in ("acme-one", "acme-two"):
        module = name.replace("-", "_")
        site.module(module, FUNCTIONS.format(name="pay"))
        site.distribution(name, "worchflow.functions", flows=module)
    with pytest.raises(FunctionError) as caught:
        discover(Plugins(disabled=OURS))
    for word in ("'pay'", "acme-one 1.2", "acme-two 1.2", "uninstall"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("raise RuntimeError('broken')", "broken"),
        ("x = 1", "holds no function"),
        (None, "acme_flows"),
    ],
)
def test_functions_that_cannot_be_loaded_are_refused(
    site: Site, code: str | None, word: str
) -> None:
    if code is not None:
        site.module("acme_flows", code)
    site.distribution("acme-flows", "worchflow.functions", flows="acme_flows")
    with pytest.raises(FunctionError) as caught:
        discover(Plugins(disabled=OURS))
    for expected in (word, "acme-flows 1.2", "'flows'"):
        assert expected in str(caught.value)


def test_functions_of_a_plugin_and_of_modules_are_taken(site: Site) -> None:
    site.module("my_flows", FUNCTIONS.format(name="mine"))

    @function
    async def added(event: Event[Any], step: Step) -> None:
        return None

    class Adding:
        @hookimpl
        def worchflow_add_functions(self) -> Any:
            return [added]

    class Wrong:
        @hookimpl
        def worchflow_add_functions(self) -> Any:
            return [lambda: 1]

    class Failing:
        @hookimpl
        def worchflow_add_functions(self) -> Any:
            raise RuntimeError("no licence")

    registry = discover(Plugins([Adding()], disabled=OURS), ["my_flows"])
    assert {"added", "mine"} <= set(registry.ids)
    with pytest.raises(FunctionError, match="'Wrong' added"):
        discover(Plugins([Wrong()], disabled=OURS))
    with pytest.raises(PluginError, match=r"'Failing'.*no licence.*DISABLED_PLUGINS=Failing"):
        discover(Plugins([Failing()], disabled=OURS))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("nothing_there", "no module 'nothing_there'"),
        ("flows.py", "without .py"),
        ("my_flows:nobody", "has no 'nobody'"),
        ("my_flows:number", "holds no function"),
        ("my_broken", "ZeroDivisionError"),
        ("my_needy", "no_such_library"),
        ("", "module '' cannot be imported"),
        ("..relative", "cannot be imported"),
    ],
)
def test_module_that_cannot_be_used_says_why(site: Site, name: str, word: str) -> None:
    site.module("my_flows", FUNCTIONS.format(name="mine") + "number = 7\n")
    site.module("my_broken", "1 / 0")
    site.module("my_needy", "import no_such_library")
    with pytest.raises(FunctionError, match=word):
        load_module(name)


# --- hooks ----------------------------------------------------------------------------------------


class Recorder:
    """A plugin with every hook of the specification, each writing down that it was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


def _recorder() -> Any:
    body = {}
    for name in [item for item in vars(specs) if item.startswith("worchflow_")]:
        spec = getattr(specs, name)
        names = spec.__code__.co_varnames[: spec.__code__.co_argcount]
        answer = "[]" if name in ("worchflow_add_functions", "worchflow_add_plugins") else "None"
        space: dict[str, Any] = {}
        exec(
            f"def {name}(self, {', '.join(names)}):\n"
            f"    self.calls.append(({name!r}, dict({', '.join(f'{n}={n}' for n in names)})))\n"
            f"    return {answer}\n",
            space,
        )
        body[name] = hookimpl(space[name])
    return type("Everything", (Recorder,), body)()


def test_every_hook_is_called_in_one_scenario() -> None:
    recorder = _recorder()
    runs: list[int] = []

    @function(retries=1, retry_delay=0)
    async def busy(event: Event[Any], step: Step) -> Any:
        value = await step.run("First", lambda: 1)
        if step.attempt == 1:
            await step.run("Second", lambda: runs.append(1) or 1 / 0)
        if event.data == "fail":
            raise ValueError("no")
        return value

    @function(retries=0)
    async def napping(event: Event[Any], step: Step) -> None:
        await step.sleep("Nap", "1h")

    @function(retries=0, cron="* * * * * *")
    async def ticking(event: Event[Any], step: Step) -> None:
        return None

    async def main() -> None:
        async with Worchflow(
            plugins=[recorder],
            overrides={"store_url": "memory://every-hook", **QUICK, "step_cache_url": "memory:c"},
            env_file=None,
        ) as app:
            for code in (busy, napping, ticking):
                app.registry.add(code)
            client = app.client
            cancelled = await client.send(busy, None, delay="1h")
            await cancelled.cancel()
            async with worker_of(app):
                assert await (await client.send(busy, None)).result(timeout=10) == 1
                failed = await client.send(busy, "fail")
                assert (await client.wait(failed.id, timeout=10)).status is Status.FAILED
                await client.send(napping, None)
                for name in ("worchflow_execution_suspended", "worchflow_schedule_fired"):
                    await until(lambda name=name: name in recorder.names())
            app.plugins.add_to("worchflow_add_commands", None)
            app.plugins.add_to("worchflow_add_dashboard", None)

    run(main())
    called = set(recorder.names())
    every = {name for name in vars(specs) if name.startswith("worchflow_")}
    # A superseded execution takes a worker that is declared dead: a test of its own, below.
    assert every - called == {"worchflow_execution_superseded"}
    order = [name for name in recorder.names() if name.endswith(("started", "stopped"))]
    assert order[0] == "worchflow_worker_started"
    assert order[-1] == "worchflow_worker_stopped"


def test_hooks_are_told_in_order_with_what_they_name() -> None:
    recorder = _recorder()

    @function(retries=0)
    async def simple(event: Event[Any], step: Step) -> int:
        return await step.run("First", lambda: 1)

    async def main() -> None:
        async with application(simple, plugins=(recorder,)) as app, worker_of(app):
            handle = await app.client.send(simple, None)
            await handle.result(timeout=10)
            await until(lambda: "worchflow_execution_completed" in recorder.names())

    run(main())
    told = [name.removeprefix("worchflow_") for name in recorder.names()]
    life = [name for name in told if name.startswith(("execution_", "step_"))]
    assert [name for name in life if not name.endswith("_scope")] == [
        "execution_queued",
        "execution_started",
        "step_completed",
        "execution_completed",
    ]
    facts = dict(recorder.calls)["worchflow_step_completed"]
    assert facts["step"].title == "First"


def test_superseded_execution_is_told_and_writes_nothing() -> None:
    from datetime import timedelta

    from tests.core.support import faulty_memory

    recorder = _recorder()
    store, options = faulty_memory()

    async def main() -> None:
        import asyncio

        gate = asyncio.Event()
        runs: list[int] = []

        @function
        async def slow(event: Event[Any], step: Step) -> None:
            runs.append(1)
            await gate.wait()

        async with application(slow, plugins=(recorder,), **options) as app, worker_of(app):
            handle = await app.client.send(slow, None)
            await until(lambda: runs)
            await store.inner.bury([app.worker.id], overdue=timedelta(seconds=-60))
            await until(lambda: "worchflow_execution_superseded" in recorder.names())
            gate.set()
            await handle.result(timeout=20)

    run(main())


def test_scopes_wrap_attempts_and_steps_and_their_errors_are_the_functions() -> None:
    events: list[str] = []

    class Scoping:
        def __init__(self) -> None:
            self.fails = False

        @hookimpl
        def worchflow_execution_scope(self, execution: Any) -> Any:
            return self.scope("execution")

        @hookimpl
        def worchflow_step_scope(self, execution: Any, title: str) -> Any:
            return self.scope(title)

        @asynccontextmanager
        async def scope(self, what: str) -> Any:
            events.append(f"enter {what}")
            if self.fails and what != "execution":
                raise RuntimeError("no session")
            try:
                yield
            finally:
                events.append(f"leave {what}")

    @function(retries=0)
    async def simple(event: Event[Any], step: Step) -> int:
        return await step.run("First", lambda: events.append("run") or 1)

    @function(retries=0)
    def plain(event: Event[Any], step: Any) -> int:
        return int(step.run("First", lambda: events.append("run") or 1))

    async def main() -> None:
        plugin = Scoping()
        async with application(simple, plain, plugins=(plugin,)) as app, worker_of(app):
            for code in (simple, plain):
                events.clear()
                await (await app.client.send(code, None)).result(timeout=10)
                assert events == [
                    "enter execution",
                    "enter First",
                    "run",
                    "leave First",
                    "leave execution",
                ]
            plugin.fails = True
            for code in (simple, plain):
                handle = await app.client.send(code, None)
                failed = await app.client.wait(handle.id, timeout=10)
                assert failed.status is Status.FAILED
                assert failed.error is not None
                assert failed.error.message == "no session"

    run(main())


def test_hook_that_nobody_implements_costs_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def notify(self: Plugins, hook: str, **arguments: Any) -> None:
        told.append(hook)

    def scopes(self: Plugins, *arguments: Any) -> Any:
        raise AssertionError("nobody implements a scope")

    monkeypatch.setattr(Plugins, "notify", notify)
    monkeypatch.setattr(Plugins, "execution_scopes", scopes)
    monkeypatch.setattr(Plugins, "step_scopes", scopes)

    @function(retries=1, retry_delay=0)
    async def simple(event: Event[Any], step: Step) -> int:
        value = await step.run("First", lambda: 1, timeout="10s")
        if step.attempt == 1:
            raise ValueError("once more")
        return value

    @function
    def plain(event: Event[Any], step: Any) -> int:
        return int(step.run("First", lambda: 1))

    async def main() -> None:
        async with application(simple, plain) as app, worker_of(app):
            for code in (simple, plain):
                await (await app.client.send(code, None)).result(timeout=10)

    run(main())
    assert set(told) <= {"worchflow_worker_started", "worchflow_worker_stopped"}
