"""The front door: a table of commands, each imported only when it runs, and one place where errors end.

`driftline --help` reads the table below and imports nothing but click; a test keeps it so.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from driftline import __version__
from driftline.cli.errors import EXIT_BAD_INPUT, EXIT_FAILURE, translate

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("driftline.cli.demo", "A simulated fraud stream with injected changes; nothing to install."),
    "init": ("driftline.cli.init", "Write a commented configuration from a topic sample or a file."),
    "validate": ("driftline.cli.validate", "Check configurations; print what they will cost."),
    "topics": ("driftline.cli.topics", "Create Driftline's topics, or print them and their ACLs."),
    "baseline": ("driftline.cli.baseline", "Build and list reference distributions."),
    "publish": ("driftline.cli.publish", "Send the rows of a CSV or Parquet file as predictions and labels."),
    "run": ("driftline.cli.run", "Run the processors: ingest, join, detect, alert."),
    "replay": ("driftline.cli.replay", "Run the same processors over a file or over the observations topic."),
    "backtest": ("driftline.cli.backtest", "Try a configuration on rows of the past: alarms, delays, a budget."),
    "status": ("driftline.cli.status", "Lag, learning progress, dead letters, open incidents and alerts."),
    "state": ("driftline.cli.state", "Look at the checkpoints of tasks, save them to a file, bring them back."),
    "tail": ("driftline.cli.tail", "Print drift events, alerts, incidents or dead letters as they come."),
    "picture": ("driftline.cli.picture", "Draw what the topics say as one page."),
}
"""Command name to its module, which has it as `command`, and its line in the help."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run, with errors shown in one line."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module_name = COMMANDS[cmd_name][0]
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name != module_name:
                raise
            raise click.ClickException(f"{cmd_name}: not part of this installation") from error
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(self, *args: Any, **options: Any) -> Any:
        given = options.pop("args", args[0] if args else None)
        words = list(sys.argv[1:] if given is None else given)
        debug = "--debug" in words  # wherever it stands: it is added to a line that has just failed
        options["standalone_mode"] = False
        try:
            result = super().main([word for word in words if word != "--debug"], *args[1:], **options)
            sys.stdout.flush()
        except BaseException as error:  # the one place where an error becomes an exit code
            if debug and not isinstance(error, (SystemExit, click.exceptions.Exit, click.UsageError)):
                raise
            sys.exit(_exit_code(error))
        sys.exit(result if isinstance(result, int) else 0)


def _exit_code(error: BaseException) -> int:
    """Show an error the way its kind asks for and give the exit code."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        error = error.__context__  # click has made an exit of it
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else EXIT_FAILURE
        case click.exceptions.Exit():
            return error.exit_code
        case KeyboardInterrupt() | click.Abort():
            # 130 = 128 + SIGINT: what a shell expects of an interrupted program
            return 130
        case BrokenPipeError():
            # the reader has had enough (`| head`); stdout must not be flushed again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        case click.ClickException():
            error.show()
            return error.exit_code
        case Exception():
            failure = translate(error)
            if failure is None:
                text = " ".join(str(error).split())
                click.echo(f"error: {type(error).__name__}: {text}\n  hint: run again with --debug for the traceback", err=True)
                return EXIT_FAILURE
            failure.show()
            return failure.exit_code
    raise error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="driftline")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Driftline watches models on Kafka: predictions and labels in, drift events and alerts out.

    Data goes to stdout, logs and progress to stderr. Exit codes: 0 done, 1 failure, 2 bad configuration or
    usage, 3 an alert fires (status --exit-code).
    """


def main() -> None:
    """Run the command line of this process."""
    cli.main(prog_name="driftline")


__all__ = ["COMMANDS", "EXIT_BAD_INPUT", "cli", "main"]
