"""The plugin host: finds plugins, opens backends by URL, tells lifecycle hooks, enters scopes.

It knows pluggy and nothing of what the hooks are about.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import pluggy

from worchflow_core import hookspecs
from worchflow_core.errors import PluginError, WorchflowError
from worchflow_core.lifecycle import Listener
from worchflow_core.models import Execution
from worchflow_core.protocols import Queue, StepCache, Store

if TYPE_CHECKING:
    from worchflow_core.settings import Settings

logger = logging.getLogger("worchflow.plugins")

GROUP = "worchflow.plugins"
OWN_DISTRIBUTION = "worchflow"
_TOLD = tuple(
    name
    for name in vars(hookspecs)
    if name.startswith("worchflow_")
    and name.endswith(
        (
            "_started",
            "_stopped",
            "_fired",
            "_queued",
            "_completed",
            "_replayed",
            "_failed",
            "_suspended",
            "_retrying",
            "_cancelled",
            "_superseded",
        )
    )
)

_WRAPPING = tuple(name for name in vars(hookspecs) if name.endswith("_scope"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """What `worchflow plugins` shows of one plugin; a replacement took a built-in's name."""

    name: str
    distribution: str | None
    version: str | None
    source: str
    hooks: tuple[str, ...]
    is_replacement: bool = False


class Plugins:
    """All plugins of one application.

    Args:
        extra: plugin modules or objects given in code.
        modules: names of plugin modules, from WORCHFLOW_PLUGINS.
        disabled: names of plugins to leave out.
        discover: also take the plugins of installed packages.

    Raises:
        PluginError: a plugin cannot be loaded, has a misspelt hook, or two share a name.
    """

    def __init__(
        self,
        extra: Iterable[object] = (),
        *,
        modules: Sequence[str] = (),
        disabled: Sequence[str] = (),
        discover: bool = True,
    ) -> None:
        self._manager = pluggy.PluginManager("worchflow")
        self._manager.add_hookspecs(hookspecs)
        self._listeners: dict[str, Listener] = {}
        self._tellers: dict[str, list[tuple[Listener, Callable[..., Any], tuple[str, ...]]]] = {}
        self._wrapping: frozenset[str] = frozenset()
        self._infos: dict[str, PluginInfo] = {}
        self._places: dict[str, str] = {}
        self._disabled = frozenset(disabled)
        if discover:
            self._discover()
        for name in modules:
            self._register(_import_plugin(name), name=name, source="WORCHFLOW_PLUGINS")
        for plugin in extra:
            self._register(plugin, name=_name_of(plugin), source="code")
        self._check_pending()
        self._index()

    def configure(self, settings: Settings) -> None:
        """Let plugins add further ones for these settings; called once, by the application.

        Raises:
            PluginError: a plugin fails at it, or what it adds cannot be registered.
        """
        for implementation in self._manager.hook.worchflow_add_plugins.get_hookimpls():
            name = implementation.plugin_name
            try:
                arguments = [settings] if implementation.argnames else []
                added = list(cast("Iterable[object]", implementation.function(*arguments) or ()))
            except Exception as error:
                raise self._failed(name, "failed in worchflow_add_plugins", error) from error
            for plugin in added:
                self._register(plugin, name=f"{name}.{_name_of(plugin)}", source=f"plugin {name}")
        self._check_pending()
        self._index()

    # --- open ---------------------------------------------------------------------------------

    def open_store(self, url: str, settings: Settings) -> Store:
        """Return the store some plugin opens for `url`, not yet entered.

        Raises:
            PluginError: no plugin answers; the message lists the installed ones.
        """
        store = self._first_answer("worchflow_open_store", url, settings)
        if store is None:
            raise PluginError(self._nobody_opens(url, "worchflow_open_store"))
        return cast(Store, store)

    def open_queue(self, url: str, settings: Settings, *, required: bool) -> Queue | None:
        """Return the queue some plugin opens for `url`; None if nobody does and none is required.

        Raises:
            PluginError: a queue is required and no plugin answers.
        """
        queue = self._first_answer("worchflow_open_queue", url, settings)
        if queue is None and required:
            raise PluginError(self._nobody_opens(url, "worchflow_open_queue"))
        return cast("Queue | None", queue)

    def open_step_cache(self, url: str, settings: Settings, *, required: bool) -> StepCache | None:
        """Return the step cache some plugin opens for `url`, as `open_queue` does."""
        cache = self._first_answer("worchflow_open_step_cache", url, settings)
        if cache is None and required:
            raise PluginError(self._nobody_opens(url, "worchflow_open_step_cache"))
        return cast("StepCache | None", cache)

    def _first_answer(self, hook: str, url: str, settings: Settings) -> Any:
        arguments = {"url": url, "settings": settings}
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            try:
                answer = implementation.function(
                    *(arguments[name] for name in implementation.argnames)
                )
            except WorchflowError:
                raise
            except Exception as error:
                raise self._failed(
                    implementation.plugin_name, f"failed in {hook}", error
                ) from error
            if answer is not None:
                return answer
        return None

    # --- add ----------------------------------------------------------------------------------

    def added_functions(self) -> Iterator[tuple[str, Any]]:
        """Yield (plugin name, function) for every function a plugin adds."""
        for implementation in self._manager.hook.worchflow_add_functions.get_hookimpls():
            name = implementation.plugin_name
            try:
                functions = list(cast("Iterable[Any]", implementation.function()))
            except Exception as error:
                raise self._failed(name, "failed in worchflow_add_functions", error) from error
            for function in functions:
                yield name, function

    def add_to(self, hook: str, subject: Any) -> dict[str, Exception]:
        """Call an `add` hook of every plugin by itself; return what went wrong, by plugin."""
        errors: dict[str, Exception] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                implementation.function(*([subject] if implementation.argnames else []))
            except Exception as error:
                logger.exception("plugin %s failed in %s", implementation.plugin_name, hook)
                errors[implementation.plugin_name] = error
        return errors

    # --- told ---------------------------------------------------------------------------------

    def hears(self, hook: str) -> bool:
        """Return whether anybody implements a lifecycle hook."""
        return hook in self._tellers

    def notify(self, hook: str, **arguments: Any) -> None:
        """Tell every plugin that listens; returns at once and never raises."""
        for listener, function, names in self._tellers.get(hook, ()):
            listener.tell(function, {name: arguments[name] for name in names})

    def open(self) -> None:
        """Let the plugins listen, also again after a close."""
        for listener in self._listeners.values():
            listener.open()

    def close(self, timeout: float = 5.0) -> None:
        """Let the plugins hear what is still untold, for at most `timeout` seconds each."""
        for listener in self._listeners.values():
            listener.close(timeout)

    # --- wrap ---------------------------------------------------------------------------------

    def execution_scopes(self, execution: Execution) -> list[AbstractAsyncContextManager[None]]:
        """Return what to enter around an attempt."""
        scopes = self._manager.hook.worchflow_execution_scope(execution=execution)
        return [scope for scope in scopes if scope is not None]

    def step_scopes(
        self, execution: Execution, title: str
    ) -> list[AbstractAsyncContextManager[None]]:
        """Return what to enter around a step."""
        scopes = self._manager.hook.worchflow_step_scope(execution=execution, title=title)
        return [scope for scope in scopes if scope is not None]

    def wraps(self, hook: str) -> bool:
        """Return whether anybody implements a scope hook."""
        return hook in self._wrapping

    # --- about --------------------------------------------------------------------------------

    @property
    def infos(self) -> list[PluginInfo]:
        """What is loaded, by name."""
        return [self._infos[name] for name in sorted(self._infos)]

    # --- finding and checking -------------------------------------------------------------------

    def _discover(self) -> None:
        import importlib_metadata

        chosen: dict[str, Any] = {}
        replaced: set[str] = set()
        entries = importlib_metadata.entry_points(group=GROUP)
        for entry in sorted(entries, key=_is_own, reverse=True):
            known = chosen.get(entry.name)
            if known is not None and not _is_own(known) and entry.value != known.value:
                raise PluginError(
                    f"two plugins are named {entry.name!r}: one of {_distribution(known)}, one of "
                    f"{_distribution(entry)}; uninstall one of them"
                )
            if known is not None and not _is_own(entry):
                replaced.add(entry.name)
            chosen[entry.name] = entry
        for name in sorted(chosen.keys() - self._disabled):
            entry = chosen[name]
            try:
                plugin = entry.load()
            except (Exception, SystemExit) as error:
                self._places[name] = _distribution(entry)
                raise self._failed(name, "cannot be loaded", error) from error
            self._register(plugin, name=name, source=entry.value, entry=entry)
            if name in replaced:
                self._infos[name] = replace(self._infos[name], is_replacement=True)

    def _register(self, plugin: object, *, name: str, source: str, entry: Any = None) -> None:
        if name in self._disabled:
            return
        if isinstance(plugin, type):
            raise PluginError(f"plugin {name!r} is the class {plugin.__name__}; give an instance")
        if self._manager.is_registered(plugin):
            return
        if entry is not None:
            self._places[name] = _distribution(entry)
        unmarked = [
            attribute
            for attribute in dir(plugin)
            if attribute.startswith("worchflow_")
            and callable(getattr(plugin, attribute))
            and not hasattr(getattr(plugin, attribute), "worchflow_impl")
            and not (isinstance(plugin, ModuleType) and _is_foreign(plugin, attribute))
        ]
        if unmarked:
            raise PluginError(
                f"{self._called(name)}: {unmarked[0]} is not marked; put @hookimpl above it, or "
                f"disable it with WORCHFLOW_DISABLED_PLUGINS={name}"
            )
        try:
            self._manager.register(plugin, name)
        except (ValueError, pluggy.PluginValidationError) as error:
            raise PluginError(
                f"{self._called(name)} cannot be registered: {_first_line(error)}; "
                f"repair it, or disable it with WORCHFLOW_DISABLED_PLUGINS={name}"
            ) from error
        callers = self._manager.get_hookcallers(plugin) or []
        self._infos[name] = PluginInfo(
            name=name,
            distribution=entry.dist.name if entry is not None and entry.dist else None,
            version=entry.dist.version if entry is not None and entry.dist else None,
            source=source,
            hooks=tuple(sorted(caller.name for caller in callers)),
        )

    def _check_pending(self) -> None:
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            name = self._manager.get_name(error.plugin) or _name_of(error.plugin)
            reason = _first_line(error).partition(" in plugin ")[0]
            raise PluginError(
                f"{self._called(name)}: {reason}; `worchflow plugins --hooks` lists the hooks "
                f"there are; repair it, or disable it with WORCHFLOW_DISABLED_PLUGINS={name}"
            ) from None

    def _called(self, name: str) -> str:
        place = self._places.get(name)
        return f"plugin {name!r} of {place}" if place else f"plugin {name!r}"

    def _failed(self, name: str, what: str, error: BaseException) -> PluginError:
        return PluginError(
            f"{self._called(name)} {what}: {error!r}; repair or uninstall it, or disable it with "
            f"WORCHFLOW_DISABLED_PLUGINS={name}"
        )

    def _index(self) -> None:
        self._tellers.clear()
        self._wrapping = frozenset(
            hook for hook in _WRAPPING if getattr(self._manager.hook, hook).get_hookimpls()
        )
        for hook in _TOLD:
            for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
                name = implementation.plugin_name
                listener = self._listeners.setdefault(name, Listener(name))
                self._tellers.setdefault(hook, []).append(
                    (listener, implementation.function, tuple(implementation.argnames))
                )

    def _nobody_opens(self, url: str, hook: str) -> str:
        from worchflow_core.settings import mask_url  # late: pydantic-settings takes 0.2 s

        openers = [info.name for info in self.infos if hook in info.hooks]
        return (
            f"no plugin opens {mask_url(url)!r}. Installed: {', '.join(openers) or 'none'}. "
            f"Install one that implements {hook}."
        )


def _import_plugin(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise PluginError(
            f"WORCHFLOW_PLUGINS names {name!r}, which cannot be imported: {error!r}"
        ) from error


def _is_own(entry: Any) -> bool:
    return bool(entry.dist) and entry.dist.name.lower() == OWN_DISTRIBUTION


def _distribution(entry: Any) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"


def _name_of(plugin: object) -> str:
    return getattr(plugin, "__name__", None) or type(plugin).__name__


def _is_foreign(module: ModuleType, attribute: str) -> bool:
    return getattr(getattr(module, attribute), "__module__", None) != module.__name__


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:3])
