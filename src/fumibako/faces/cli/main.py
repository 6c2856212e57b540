"""The front of the command line: global options anywhere, commands by noun, errors as one line and an exit code.

Contract: names, options and exit codes are those of DESIGN §10; standard error explains every code but 0.
Failure: none leaves `run`: an error nobody foresaw is printed with its traceback and is exit code 70.
"""

from __future__ import annotations

import inspect
import json
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import click

from fumibako import __version__
from fumibako.faces.cli import account, alias, backup, demo, dns, domain, export, import_, policy, queue, server
from fumibako.faces.cli.house import House, HouseError, Misconfigured
from fumibako.faces.cli.terminal import LANGUAGES, Terminal, system_language
from fumibako.services import StoreUnavailable
from fumibako.services.admin import AdminError
from fumibako.services.texts import N_, text

EXIT_OK, EXIT_NO, EXIT_USAGE, EXIT_BUG = 0, 1, 2, 70


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fumibako")
def fumibako() -> None:
    """文箱 Fumibako: a company's whole mail server in one program.

    Global options stand anywhere: --data DIR (or FUMIBAKO_DATA), --json, --lang ja|en.
    """


for command in (server.init, server.serve, server.status, server.check, server.trace, domain.domain, account.account, alias.alias,
                policy.policy, queue.queue, dns.dns, backup.backup, backup.restore, export.export, import_.import_, demo.demo):
    fumibako.add_command(command)


def helped(command: click.Command) -> Iterator[click.Command | click.Option]:
    """The command, its options and all its subcommands: everything that has a help text."""
    texts: list[click.Command | click.Option] = [command]
    texts += (parameter for parameter in command.params if isinstance(parameter, click.Option))
    for one in texts:
        if one.help:
            one.help = inspect.cleandoc(one.help)
            yield one
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        yield from helped(inner)


@contextmanager
def _speaking(language: str) -> Iterator[None]:
    """Inside, the help of every command is in that language."""
    english = [(one, str(one.help)) for one in helped(fumibako)]
    for one, help_text in english:
        one.help = text(language, help_text)
    try:
        yield
    finally:
        for one, help_text in english:
            one.help = help_text


def run(house: House, arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    language = system_language()
    try:
        rest, options = split_globals(arguments)
        language = options.get("lang", language)
        if language not in LANGUAGES:
            raise click.UsageError("--lang ja|en")
        terminal = Terminal(house, options.get("data", os.environ.get("FUMIBAKO_DATA", "")), language, as_json="json" in options)
        with _speaking(language):
            return _invoke(terminal, rest)
    except click.UsageError as error:
        return _usage(error, language if language in LANGUAGES else "en")
    except Exception:
        traceback.print_exc()
        click.echo(text(language, N_("this is a bug of Fumibako; please report the lines above")), err=True)
        return EXIT_BUG


def _invoke(terminal: Terminal, arguments: list[str]) -> int:
    try:
        # click hands an Exit back as the result; a command that ends well has none.
        code = fumibako.main(args=arguments, prog_name="fumibako", standalone_mode=False, obj=terminal)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_NO
    except (AdminError, HouseError) as error:
        code = _no(terminal, terminal.words(error.problem, **_translated(terminal, error.values)))
        return EXIT_USAGE if isinstance(error, Misconfigured) else code
    except StoreUnavailable:
        return _no(terminal, terminal.words(N_("the server's storage does not answer; nothing is known to have changed")))
    except BrokenPipeError:
        return EXIT_OK      # `fumibako queue list | head`
    return code if isinstance(code, int) else EXIT_OK


def _translated(terminal: Terminal, values: Mapping[str, object]) -> dict[str, object]:
    """What is allowed is a catalogue text itself."""
    return {name: terminal.words(str(value)) if name == "allowed" else value for name, value in values.items()}


def split_globals(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take --data, --json and --lang out of wherever they stand (before a "--")."""
    rest: list[str] = []
    options: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--":
            return [*rest, word, *words], options
        if word == "--json":
            options["json"] = "yes"
        elif name in ("--data", "--lang"):
            if not equals and (value := next(words, "")) == "":
                raise click.UsageError(f"{name} needs a value")
            options[name[2:]] = value
        else:
            rest.append(word)
    return rest, options


def _no(terminal: Terminal, message: str) -> int:
    if terminal.as_json:
        click.echo(json.dumps({"error": message}, ensure_ascii=False))
    click.echo(message, err=True)
    return EXIT_NO


def _usage(error: click.UsageError, language: str) -> int:
    click.echo(f"{text(language, N_('usage'))}: {error.format_message()}", err=True)
    if error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
    return EXIT_USAGE
