"""Entry point: the group of commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping

import click

from ..errors import KobakoError, all_errors
from ..names import printable
from ..version import __version__
from .answer import Answer

COMMANDS: Mapping[str, str] = {
    "build": "Export, prove and package a model for phones.",
    "plan": "Show what a build would do, and what it needs; does nothing.",
    "validate": "Prove a package again, however old.",
    "run": "Run a package on this machine, in its real runtime.",
    "bench": "Time a package: load, first token, prefill, decode, memory.",
    "sign": "Sign a package, or make a key to sign with.",
    "verify": "Check that a package is what somebody you believe has signed.",
    "provenance": "Say who built a package, from what and how (SLSA).",
    "inspect": "Show what is inside an artifact or a package.",
    "publish": "Publish a package: to the Hub, an OCI registry or a directory.",
    "set": "Put packages together, with a table of which one does what.",
    "pull": "Pull a published package, or some targets of it; verified, resumable.",
    "matrix": "Turn a list of models into a build matrix for CI.",
    "models": "List the models kobako knows by name.",
    "doctor": "Check this machine and its installation.",
    "cache": "List or prune the cache.",
}
INTERNAL_ERROR = 70


def exit_codes_help() -> str:
    """The table of exit codes, one line each."""
    lines = [f"  {error.exit_code:>3}  {(error.__doc__ or '').strip().splitlines()[0]}" for error in all_errors()]
    return "\n".join(["Exit codes:", "    0  Done.", *lines, "   70  A bug in kobako.", "  130  Stopped by Ctrl-C."])


class LazyGroup(click.Group):
    """Lists commands without importing them, so that ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__package__}.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\n" + EXAMPLE + "\n\n" + exit_codes_help() + "\n")


EXAMPLE = """Example:
  kobako build smollm2-135m-instruct --recipe int8
  kobako run dist/smollm2-135m-instruct-int8 --task summarize "A long text …"
"""


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kobako")
def cli() -> None:
    """Small language models, packaged for phones with proof.

    kobako quantizes a model once, exports it to ExecuTorch, Core ML and LiteRT, proves each artifact in its real
    runtime, and writes one package.
    """


def main() -> None:
    """Run the command line; never shows a traceback for an expected failure."""
    # jsonschema would compile this package's grammars, a second of the processor's, for formats that kobako asks for
    # nowhere; Jupyter brings it along.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    answer = Answer()
    try:
        code = cli(standalone_mode=False, obj=answer)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nStopped. Finished stages are kept: the same command continues from there.", err=True)
        sys.exit(130)
    except KobakoError as error:
        _report(type(error).__name__, error.what, error.next_step, error.exit_code, answer)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        _report_bug(error, answer)


def _report(kind: str, what: str, next_step: str, code: int, answer: Answer) -> None:
    """Print an error: for people on stderr, for GitHub as annotation, and for scripts that asked for JSON on stdout,
    unless the command has printed its own document there: a failed proof's report, say, which tells what failed.
    """
    what, next_step = printable(what), printable(next_step)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {what}", err=True)
    if next_step:
        click.echo(f"       {next_step}", err=True)
    click.echo(f"       [{kind}, exit {code}]", err=True)
    if "--json" in sys.argv and not answer.given:
        import json

        click.echo(json.dumps({"error": {"kind": kind, "what": what, "next_step": next_step, "exit_code": code}}))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from ..report.ci import error_annotation

        click.echo(error_annotation(f"kobako: {kind}", f"{what} {next_step}".strip()), err=True)
    sys.exit(code)


def _report_bug(error: Exception, answer: Answer) -> None:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="kobako-bug-", suffix=".txt", delete=False) as file:
        traceback.print_exc(file=file)
    _report(
        "bug",
        f"kobako met an error it did not expect: {type(error).__name__}: {error}",
        f"Details are in {file.name}; please report them.",
        INTERNAL_ERROR,
        answer,
    )


if __name__ == "__main__":
    main()
