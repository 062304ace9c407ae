"""What folders hold, found by looking: commands by importing them, other things in the sources.

The sources are read because the command line's help must not import torch.
"""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def commands(folder: ModuleType) -> dict[str, type | ModuleType]:
    """Name -> command, of a folder of commands.

    A command is a file's dataclass that has `run`, under the file's name: its fields are the
    options, the first line of its docstring is the help. A folder is a command with commands of
    its own.

    Raises:
        ValueError: A file has several.
    """
    found: dict[str, type | ModuleType] = {}
    for info in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{folder.__name__}.{info.name}")
        if info.ispkg:
            found[info.name] = module
            continue
        own = [value for value in vars(module).values() if _is_command(value, module)]
        if len(own) > 1:
            raise ValueError(f"{module.__file__} has {len(own)} commands; give each a file")
        if own:
            found[info.name] = own[0]
    return dict(sorted(found.items()))


def _is_command(value: object, module: ModuleType) -> bool:
    if not (isinstance(value, type) and is_dataclass(value)):
        return False
    return value.__module__ == module.__name__ and hasattr(value, "run")


def chart_lines() -> dict[str, str]:
    """Kind -> first line of the docstring, of each chart."""
    return {
        name: _first_line(node)
        for node in _classes("weightfold.methods", "*/chart.py")
        for name in _kinds(node)
    }


def task_lines() -> dict[str, str]:
    """Name -> first line of the docstring, of each task."""
    return {
        name: _first_line(node)
        for node in _classes("weightfold.tasks", "*.py")
        for name in _registered(node)
    }


def variant_lines() -> dict[str, str]:
    """Names -> what they are, of the variants of networks: a line for each method's file of them.

    Names are read where `Variant` is called with a text, or for each of a literal of texts.
    """
    found = {"compact": "The network as it is.", "acnet": "With asymmetric branches."}
    for tree in _trees("weightfold.methods", "*/variants.py"):
        line = (ast.get_docstring(tree) or "").partition("\n")[0]
        found[", ".join(_variants(tree))] = line
    return found


def help_of(lines: dict[str, str]) -> str:
    """Names and lines as the end of an option's help."""
    return "\n".join(f"{name}: {line}" for name, line in lines.items())


def _classes(package: str, pattern: str) -> Iterator[ast.ClassDef]:
    """The classes of a package's files."""
    for tree in _trees(package, pattern):
        yield from (node for node in tree.body if isinstance(node, ast.ClassDef))


def _trees(package: str, pattern: str) -> Iterator[ast.Module]:
    """The sources of a package's files, which is not imported."""
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob(pattern)):
            yield ast.parse(path.read_text(encoding="utf-8"))


def _variants(tree: ast.Module) -> Iterator[str]:
    """The names in `Variant("name", ...)` and in `Variant(name, ...) for name in LITERAL`."""
    literals: dict[str, ast.expr] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value):
                literals[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                literals[name] = value
            case ast.Call(func=ast.Name(id="Variant"), args=[ast.Constant(value=str(name)), *_]):
                yield name
            case ast.GeneratorExp(
                elt=ast.Call(func=ast.Name(id="Variant"), args=[ast.Name(id=each), *_]),
                generators=[ast.comprehension(target=ast.Name(id=target), iter=over)],
            ) if each == target:
                yield from ast.literal_eval(
                    literals.get(over.id, over) if isinstance(over, ast.Name) else over
                )


def _kinds(node: ast.ClassDef) -> Iterator[str]:
    """The string assigned to `kind` in the class."""
    for item in node.body:
        match item:
            case ast.Assign(targets=[ast.Name(id="kind")], value=ast.Constant(value=str(kind))):
                yield kind


def _registered(node: ast.ClassDef) -> Iterator[str]:
    """The name in `@register("name")` above the class."""
    for item in node.decorator_list:
        match item:
            case ast.Call(func=ast.Name(id="register"), args=[ast.Constant(value=str(name))]):
                yield name


def _first_line(node: ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]
