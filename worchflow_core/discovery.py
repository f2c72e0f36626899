"""Finding functions: installed packages, plugins, and modules named by the user."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

from worchflow_core.errors import FunctionError
from worchflow_core.functions import Function, Registry, stamped
from worchflow_core.plugins import Plugins

GROUP = "worchflow.functions"


def discover(plugins: Plugins, modules: Sequence[str] = ()) -> Registry:
    """Return every function there is: of packages, of plugins, and of `modules`.

    Args:
        plugins: their `worchflow_add_functions` is called.
        modules: `module` or `module:attribute`; the current directory is searched too.

    Raises:
        FunctionError: something cannot be imported, is no function, or two share an id; the
            message names the distribution or module.
    """
    registry = Registry()
    for found in _packaged():
        registry.add(found)
    for plugin, item in plugins.added_functions():
        if not isinstance(item, Function):
            raise FunctionError(f"plugin {plugin!r} added {item!r}, which is no @function")
        registry.add(stamped(item, origin=f"plugin {plugin}"))
    for name in modules:
        for item in load_module(name):
            registry.add(item)
    return registry


def load_module(name: str) -> list[Function[Any, Any]]:
    """Return the functions of `module` or `module:attribute`.

    Raises:
        FunctionError: it cannot be imported, or there is no function in it.
    """
    if "" not in sys.path:  # a console script has no current directory
        sys.path.insert(0, "")
    module_name, _, attribute = name.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise FunctionError(
                f"no module {module_name!r} in the current directory or among the installed "
                "packages; give its dotted name, without .py"
            ) from None
        raise FunctionError(f"module {module_name!r} cannot be imported: {error!r}") from error
    except (Exception, SystemExit) as error:
        raise FunctionError(f"module {module_name!r} cannot be imported: {error!r}") from error
    for part in attribute.split(".") if attribute else ():
        try:
            target = getattr(target, part)
        except AttributeError:
            raise FunctionError(f"module {module_name!r} has no {attribute!r}") from None
    found = [stamped(item, origin=name) for item in functions_in(target)]
    if not found:
        raise FunctionError(f"{name!r} holds no function; decorate one with @function")
    return found


def functions_in(target: Any) -> Iterator[Function[Any, Any]]:
    """Yield the functions that an entry point or module attribute stands for, each once."""
    if isinstance(target, Function):
        yield target
    elif isinstance(target, ModuleType):
        values = list(vars(target).values())
        yield from {id(item): item for item in values if isinstance(item, Function)}.values()
    elif isinstance(target, Iterable) and not isinstance(target, (str, bytes)):
        yield from (item for item in target if isinstance(item, Function))


def _packaged() -> Iterator[Function[Any, Any]]:
    import importlib_metadata

    seen: set[tuple[str, str]] = set()
    for entry in sorted(importlib_metadata.entry_points(group=GROUP), key=lambda item: item.value):
        distribution = entry.dist.name if entry.dist else None
        version = entry.dist.version if entry.dist else None
        if (entry.value, str(distribution)) in seen:
            continue
        seen.add((entry.value, str(distribution)))
        package = f"{distribution} {version}" if distribution else "an unknown package"
        try:
            target = entry.load()
        except (Exception, SystemExit) as error:
            raise FunctionError(
                f"functions of {package} (entry point {entry.name!r}, {entry.value}) cannot be "
                f"loaded: {error!r}; repair or uninstall {distribution}"
            ) from error
        found = list(functions_in(target))
        if not found:
            raise FunctionError(
                f"entry point {entry.name!r} of {package} ({entry.value}) holds no function; "
                "let it name a @function, or a module that has some"
            )
        for item in found:
            yield stamped(item, origin=entry.value, distribution=distribution, version=version)
