"""`plugins` and `doctor`: what is installed, what is set, what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worchflow_core.cli import exits, output
from worchflow_core.cli.flags import flags_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worchflow_core.cli.flags import Flags
    from worchflow_core.doctor import SettingInfo
    from worchflow_core.models import Finding


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command("plugins")(plugins)
    app.command("doctor")(doctor)


def plugins(
    ctx: typer.Context,
    hooks: Annotated[bool, typer.Option("--hooks", help="List each hook and who has it.")] = False,
    errors: Annotated[
        bool, typer.Option("--errors", help="Print only what cannot be loaded.")
    ] = False,
) -> None:
    """List the plugins that are loaded."""
    from worchflow_core.errors import PluginError
    from worchflow_core.plugins import Plugins
    from worchflow_core.settings import load_settings
    from worchflow_core.words import printable

    flags = flags_of(ctx)
    settings = load_settings(flags.overrides())
    problem: str | None = None
    try:
        loaded = Plugins(modules=settings.plugins, disabled=settings.disabled_plugins)
        loaded.configure(settings)
        infos = loaded.infos
    except PluginError as error:
        problem, infos = str(error), []
    if errors:
        found = [problem] if problem else []
        if flags.json:
            output.document({"items": [{"error": text} for text in found], "total": len(found)})
        for text in () if flags.json else found:
            output.data(printable(text))
        raise typer.Exit(exits.FAILED if found else exits.DONE)
    if problem:
        raise PluginError(problem)
    if flags.json:
        items = [
            {
                "name": info.name,
                "distribution": info.distribution,
                "version": info.version,
                "source": info.source,
                "hooks": list(info.hooks),
                "isReplacement": info.is_replacement,
            }
            for info in infos
        ]
        output.document({"items": items, "total": len(items)})
    elif hooks:
        _print_hooks(infos)
    else:
        _print_plugins(infos)


def _print_plugins(infos: Sequence[Any]) -> None:
    from worchflow_core.cli.tables import Column, table
    from worchflow_core.words import printable

    columns = [
        Column(title="PLUGIN"),
        Column(title="PACKAGE", shrinks=True),
        Column(title="SOURCE", shrinks=True),
        Column(title="HOOKS", is_number=True),
        Column(title="NOTE"),
    ]
    rows = [
        [
            printable(info.name),
            printable(f"{info.distribution} {info.version}" if info.distribution else "-"),
            printable(info.source),
            str(len(info.hooks)),
            "replaces the built-in" if info.is_replacement else "",
        ]
        for info in infos
    ]
    for line in table(columns, rows):
        output.data(line)


def _print_hooks(infos: Sequence[Any]) -> None:
    from worchflow_core import hookspecs
    from worchflow_core.words import printable

    names = [name for name in vars(hookspecs) if name.startswith("worchflow_")]
    size = max(map(len, names))
    for name in names:
        owners = ", ".join(info.name for info in infos if name in info.hooks)
        output.data(f"{name:<{size}}  {printable(owners) or '-'}")


def doctor(ctx: typer.Context) -> None:
    """Check settings, backends, functions and workers; exit 1 when something is wrong."""
    from worchflow_core.cli.opening import run_async
    from worchflow_core.doctor import is_healthy, list_settings
    from worchflow_core.settings import load_settings

    flags = flags_of(ctx)
    rows = list_settings(load_settings(flags.overrides()), flags.overrides())
    findings = run_async(_examine(flags))
    if flags.json:
        _print_document(rows, findings)
    else:
        _print_report(rows, findings, flags)
    raise typer.Exit(exits.DONE if is_healthy(findings) else exits.FAILED)


async def _examine(flags: Flags) -> list[Finding]:
    """Return all findings; what cannot even be opened is one of them."""
    from worchflow_core.cli.opening import load_app, require_file
    from worchflow_core.doctor import diagnose
    from worchflow_core.errors import FunctionError, WorchflowError
    from worchflow_core.models import Finding

    findings: list[Finding] = []
    try:
        app = load_app(flags)
    except FunctionError as error:
        findings.append(Finding(level="problem", subject="functions", text=str(error)))
        app = load_app(flags, functions=())
    findings += _unknown_settings()
    try:
        require_file(app)
    except exits.CommandError as error:
        findings.append(Finding(level="ok", subject="store", text=str(error)))
        return [*_versions(app), *findings]
    try:
        async with app:
            return [*await diagnose(app), *findings]
    except (WorchflowError, OSError) as error:
        findings.append(Finding(level="problem", subject="store", text=str(error)))
        return [*_versions(app), *findings]


def _versions(app: Any) -> list[Finding]:
    from worchflow_core.doctor import versions

    return versions(app)


def _unknown_settings() -> list[Finding]:
    from worchflow_core.models import Finding
    from worchflow_core.settings import unknown_variables

    return [
        Finding(
            level="warning",
            subject="settings",
            text=f"{name} is no setting of Worchflow itself; a plugin may read it",
        )
        for name in unknown_variables()
    ]


def _print_document(rows: Sequence[SettingInfo], findings: Sequence[Finding]) -> None:
    from worchflow_core.doctor import is_healthy

    output.document(
        {
            "healthy": is_healthy(findings),
            "findings": [
                {"level": item.level, "subject": item.subject, "text": item.text}
                for item in findings
            ],
            "settings": [
                {"name": row.variable, "value": row.value, "source": row.source} for row in rows
            ],
        }
    )


def _print_report(rows: Sequence[SettingInfo], findings: Sequence[Finding], flags: Flags) -> None:
    from worchflow_core.words import printable

    size = max(len(item.subject) for item in findings)
    for item in findings:
        text = f"{item.subject:<{size}}  {printable(item.text)}"
        output.data(f"{output.mark(item.level)} {text}")
    output.data("")
    width = max(len(row.variable) for row in rows)
    for row in rows:
        output.data(f"  {row.variable:<{width}}  {printable(row.value)}  ({row.source})")
    problems = sum(item.level == "problem" for item in findings)
    warnings = sum(item.level == "warning" for item in findings)
    output.data("")
    output.data(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
