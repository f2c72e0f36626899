"""Building the command line, running it, and turning every error into one line and a code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from worchflow_core.cli import exits, output
from worchflow_core.cli.flags import global_parameters

PROGRAM = "worchflow"


class Group(TyperGroup):
    """The commands of the core at once; those of plugins when they are asked for."""

    has_plugins = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Return all command names, those of plugins last."""
        self._add_plugins()
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by name; plugins are loaded only for a name the core does not have."""
        if cmd_name not in self.commands:
            self._add_plugins()
        return super().get_command(ctx, cmd_name)

    def _add_plugins(self) -> None:
        if not self.has_plugins:
            self.has_plugins = True
            from worchflow_core.cli.extensions import plugin_commands

            for name, command in plugin_commands(taken=self.commands).items():
                _extend(command)
                self.commands[name] = command


def build() -> Any:
    """Return the root command."""
    from worchflow_core.cli import (
        about,
        change,
        check,
        cluster,
        explain,
        fork,
        lists,
        move,
        run_command,
        schedules,
        send,
        show,
        work,
    )

    app = typer.Typer(
        cls=Group,
        name=PROGRAM,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Durable workflows: every step is saved, every layer is a plugin.",
    )
    app.callback()(_root)
    for family in (
        work,
        run_command,
        send,
        lists,
        show,
        explain,
        change,
        fork,
        move,
        cluster,
        check,
        schedules,
        about,
    ):
        family.register(app)
    root = typer.main.get_command(app)
    _extend(root)
    return root


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    output.prepare_streams()
    arguments = list(arguments)
    is_debugging = "--debug" in arguments
    if "--no-color" in arguments:
        os.environ["NO_COLOR"] = "1"
    _prepare_logging(is_debugging, is_verbose="--verbose" in arguments or "-v" in arguments)
    try:
        answer = build().main(args=arguments, prog_name=PROGRAM, obj={}, standalone_mode=False)
        return answer if isinstance(answer, int) else exits.DONE
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        output.say("interrupted")
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The reader left, as `head` does. Nothing more can be told; flushing at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except Exception as error:
        return _report(error, is_debugging)


def _print_version(value: bool) -> None:
    if value:
        from worchflow_core.version import __version__

        output.data(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and leave.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    pass


def _extend(command: Any) -> None:
    """Give a command, and all below it, the global flags it does not declare itself."""
    taken = {name for parameter in command.params for name in parameter.opts}
    command.params += [
        parameter for parameter in global_parameters() if not taken.intersection(parameter.opts)
    ]
    for child in getattr(command, "commands", {}).values():
        _extend(child)


def _report(error: Exception, is_debugging: bool) -> int:
    if is_debugging:
        import traceback

        traceback.print_exception(error)
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the parser's own errors
        message = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            output.say(message)
            return exits.USAGE
        context = getattr(error, "ctx", None)
        hint = f"{context.command_path} --help" if context is not None else ""
        output.error(message, hint=hint)
        return exits.USAGE
    if isinstance(error, exits.CommandError):
        output.error(str(error), details=error.details, hint=error.hint)
        return error.code
    code = exits.code_of(error)
    if code is not None:
        for line in str(error).splitlines() or [type(error).__name__]:
            output.error(line)
        return code
    output.error(
        f"{type(error).__name__}: {error}",
        hint="" if is_debugging else "this was not foreseen; --debug shows where it comes from",
    )
    return exits.FAILED


def _prepare_logging(is_debugging: bool, *, is_verbose: bool) -> None:
    import logging

    from worchflow_core.words import printable

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            text = f"{record.levelname.lower()}: {printable(record.getMessage())}"
            if record.exc_info and is_debugging:
                text += "\n" + self.formatException(record.exc_info)
            elif record.exc_info and record.exc_info[1] is not None:
                text += f" ({printable(repr(record.exc_info[1]), 300)})"
            return text

    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    logger = logging.getLogger("worchflow")
    for known in list(logger.handlers):
        logger.removeHandler(known)
    logger.addHandler(handler)
    logger.propagate = False
    level = logging.INFO if is_verbose else logging.WARNING
    logger.setLevel(logging.DEBUG if is_debugging else level)
