"""Where the command line begins: what is asked for is found, filled in and run."""

import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, make_dataclass
from functools import reduce
from importlib import import_module
from operator import or_
from types import ModuleType
from typing import Annotated, Any

import tyro

from weightfold.cli import scan
from weightfold.cli.presets import chosen_preset
from weightfold.train.recipe import RECIPES
from weightfold.version import __version__

ERRORS = (ValueError, TypeError, LookupError, OSError, ImportError, ArithmeticError, RuntimeError)
"""What wrong arguments, files, installations and machines raise."""

DESCRIPTION = """Train a compact CNN in expanded coordinates, deploy the very same compact CNN;
let many domains share one; ask a network how many parameters it needs, which layers matter, and
whether it learns by heart.

'weightfold COMMAND --help' explains a command. Networks, data sets and variants are given as
specs, "name" or "name,key=value,key=value": smallnet_b,kernel_size=9; cifar10,corrupt=0.8;
ck,rate=4. A command that was stopped goes on when it is given again. After an error, --debug
shows where it came from. --version prints the version.

Charts, the ways to compute a network's weights from trained coordinates:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point `weightfold`.

    Args:
        arguments: Of the command line; None: sys.argv's.

    Returns:
        The exit code: 0; 2 after an error; 130 after Ctrl-C (SIGINT), 143 after SIGTERM, 141 after
        a pipe that was closed.

    Raises:
        SystemExit: After --help and --version (0) and after options that cannot be read (2).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        with _terminable():
            _parse([argument for argument in given if argument != "--debug"]).run()
    except KeyboardInterrupt as stop:
        print("\nweightfold: stopped; the same command goes on from here", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
    except BrokenPipeError:  # whoever read what is printed, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as the shell says of SIGPIPE
    except ERRORS as error:
        if debug:
            traceback.print_exc()
        print(f"weightfold: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the command is left as after Ctrl-C."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`, so that what is being written is whole or gone."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(arguments: list[str]) -> Any:
    """The command, its options filled in."""
    if arguments[:1] == ["--version"]:
        print(f"weightfold {__version__}")
        raise SystemExit(0)
    charts = "\n".join(f"  {kind:<10}  {line}" for kind, line in scan.chart_lines().items())
    return _choose(import_module("weightfold.cli"), "weightfold", DESCRIPTION + charts, arguments)


def _choose(folder: ModuleType, prog: str, description: str, arguments: list[str]) -> Any:
    """One of a folder's commands, its options filled in; the help if none is named."""
    found = scan.commands(folder)
    name, *rest = arguments or ["--help"]
    command = found.get(name)
    if isinstance(command, ModuleType):
        return _choose(command, f"{prog} {name}", _help(command), rest)
    if command is not None:
        return _options(command, f"{prog} {name}", rest)
    listed = [_subcommand(name, command) for name, command in found.items()]
    return tyro.cli(
        reduce(or_, listed), prog=prog, description=description, args=arguments or ["--help"]
    )


def _subcommand(name: str, command: type | ModuleType) -> Any:
    """A command as the help of its folder lists it."""
    cls: Any = make_dataclass(name, []) if isinstance(command, ModuleType) else command
    line = _help(command).partition("\n")[0]
    return Annotated[cls, tyro.conf.subcommand(name, description=line)]


def _help(command: object) -> str:
    return inspect.getdoc(command) or ""


def _options(command: Any, prog: str, arguments: list[str]) -> Any:
    """A command, filled in by the options after its name."""
    return tyro.cli(
        command,
        prog=prog,
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
        **_defaults(command, arguments),
    )


def _defaults(command: Any, arguments: Sequence[str]) -> dict[str, Any]:
    """`default` for tyro: the recipe that `arguments` name, so that --help shows its values."""
    found = {field.name: field for field in fields(command)}
    if "recipe" not in found:
        return {}
    preset = chosen_preset(arguments, command.preset)
    required = {
        name: tyro.MISSING
        for name, field in found.items()
        if field.default is MISSING and field.default_factory is MISSING
    }
    return {"default": command(**required, preset=preset, recipe=RECIPES[preset])}


def _one_line(error: BaseException) -> str:
    """Its message; that of a KeyError without the quotes that str() puts around it."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split()) or type(error).__name__
