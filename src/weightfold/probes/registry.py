"""The probes by name, and how their options are read. Imports no torch before a probe is used."""

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from weightfold.spec import matching, parse_spec, read_options, read_value
from weightfold.train.recipe import Recipe

if TYPE_CHECKING:
    from weightfold.probes.finding import Finding


@dataclass(frozen=True)
class Probe:
    """A probe, not imported yet.

    Attributes:
        name: "intrinsic-dimension".
        home: "module:function:finding:options", of the function that measures, the class of what
            it finds, and the frozen dataclass of its options; without the last it has none.
        line: What it tells, in a line.
        networks: Whether it takes a network and data; else it has its own.
        trained: Whether the network must be trained already.
    """

    name: str
    home: str
    line: str
    networks: bool = True
    trained: bool = False

    @cached_property
    def measure(self) -> "Callable[..., Finding]":
        """The function: (net, data, *, seeds, folder, device, progress, recipe, **options)."""
        return self._find(1)

    @cached_property
    def finding(self) -> "type[Finding]":
        """The class of its findings, to read records with."""
        return self._find(2)

    def _find(self, index: int) -> Any:
        parts = self.home.split(":")
        return getattr(importlib.import_module(parts[0]), parts[index])

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        try:
            return inspect.signature(self.measure, eval_str=True).parameters
        except NameError:  # an annotation that only a type checker imports
            return inspect.signature(self.measure).parameters

    def takes(self, name: str) -> bool:
        """Whether its function has such an argument."""
        return name in self._parameters

    @cached_property
    def options(self) -> dict[str, Any]:
        """Its options with their defaults, those left out that only a mapping can give.

        One without a default, which must be given, has `dataclasses.MISSING`.
        """
        if self.home.count(":") < 3:
            return {}
        return {
            field.name: field.default
            for field in fields(self._find(3))
            if _kinds(self._annotations[field.name]) & {Mapping, Sequence} != {Mapping}
        }

    @cached_property
    def _annotations(self) -> Mapping[str, Any]:
        return get_type_hints(self._find(3))

    @property
    def recipe(self) -> Recipe | None:
        """The recipe it trains with if given none; None if it takes none."""
        parameter = self._parameters.get("recipe")
        return None if parameter is None else parameter.default

    def over(self, seeds: int) -> dict[str, Any]:
        """The argument of `measure` for the seeds 0 to seeds - 1.

        Raises:
            ValueError: `seeds` is below 1.
        """
        if seeds < 1:
            raise ValueError(f"seeds={seeds}: give how many, at least 1")
        return {"seeds": range(seeds)}

    def read(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Arguments of `measure` by what a spec gives.

        Args:
            texts: Option -> text: its own options, several values as "10+20+30"; and the fields of
                its recipe, which then is the default with these changes.

        Raises:
            ValueError: An option that it has not or that it needs, or a value out of range.
        """
        own = {name: self._annotations[name] for name in self.options}
        of_recipe = {f.name: f.type for f in fields(Recipe)} if self.recipe is not None else {}
        annotations = of_recipe | own
        found = read_options(self.name, texts, {n: _kind(a) for n, a in annotations.items()})
        values = {name: _value(value, annotations[name]) for name, value in found.items()}
        arguments = {name: value for name, value in values.items() if name in own}
        for name, default in self.options.items():
            if default is MISSING and name not in arguments:
                choices = ", ".join(map(str, get_args(own[name])))
                raise ValueError(
                    f"{self.name!r} needs the option {name} ({choices or 'any'}); write "
                    f"'{self.name},{name}=...'"
                )
        changes = {name: value for name, value in values.items() if name not in own}
        if self.recipe is not None and changes:
            arguments["recipe"] = replace(self.recipe, **changes)
        return arguments


def _kinds(annotation: Any) -> set[Any]:
    """What an annotation and the parts of its union are generic forms of."""
    return {get_origin(kind) for kind in (annotation, *get_args(annotation))}


def _kind(annotation: Any) -> Any:
    """What `read_options` reads a value as; None: as what it looks like."""
    if annotation == Sequence[str]:  # a condition called "true" is no bool
        return str
    return annotation if annotation in (int, float, bool, str) else None


def _value(value: Any, annotation: Any) -> Any:
    """Several values, "10+20+30" or one alone, where the annotation wants several."""
    if value is None or not _kinds(annotation) & {tuple, list, Sequence}:
        return value
    parts = str(value).split("+")
    return tuple(parts if annotation == Sequence[str] else map(read_value, parts))


F = TypeVar("F", bound=Callable[..., Any])


def register_probe(
    name: str,
    line: str,
    *,
    finds: "type[Finding]",
    options: type | None = None,
    networks: bool = True,
    trained: bool = False,
) -> Callable[[F], F]:
    """Decorates the function of a probe, in a file below this folder, and so lists it.

    The list is read from the sources, without importing them, so that it costs no torch: give
    literals, and for `finds` and `options` the names of classes that the file has.

    Args:
        name: "intrinsic-dimension"; the same as `finds.probe`.
        line: What it tells, in a line.
        finds: What it returns.
        options: The frozen dataclass of its options, which the function takes as `options` or field
            by field, as keyword arguments.
        networks: As in `Probe`.
        trained: As in `Probe`.

    Raises:
        ValueError: `finds` is of another probe.
    """
    if finds.probe != name:
        raise ValueError(f"name={name!r}, but {finds.__name__}.probe is {finds.probe!r}")
    return lambda function: function


@cache
def probes() -> Mapping[str, Probe]:
    """All probes by name, in alphabetical order.

    Raises:
        ValueError: Two have one name.
    """
    package = importlib.import_module("weightfold.probes")
    found: dict[str, Probe] = {}
    for root in map(Path, package.__path__):
        for path in sorted(root.rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if f"@{register_probe.__name__}(" in text:
                parts = path.relative_to(root).with_suffix("").parts
                for one in _declared(ast.parse(text), ".".join((package.__name__, *parts))):
                    if one.name in found:
                        raise ValueError(f"two probes are called {one.name!r}")
                    found[one.name] = one
    return dict(sorted(found.items()))


def list_probes(filter: str = "*") -> list[str]:
    """Names of the probes, as `weightfold probe` takes them.

    >>> import weightfold as wf
    >>> wf.list_probes("l*")
    ['landscape', 'layer-reset', 'lottery-ticket']

    Args:
        filter: A glob that the names match.
    """
    return matching(probes(), filter)


def _declared(tree: ast.Module, module: str) -> Iterator[Probe]:
    """The probes of a file."""
    for node in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == register_probe.__name__:
                name, line = map(ast.literal_eval, call.args)
                given = {str(keyword.arg): keyword.value for keyword in call.keywords}
                classes = [ast.unparse(given.pop(k)) for k in ("finds", "options") if k in given]
                flags = {key: ast.literal_eval(value) for key, value in given.items()}
                yield Probe(name, ":".join((module, node.name, *classes)), line, **flags)


def probe(spec: str) -> tuple[Probe, dict[str, str]]:
    """The probe of a spec "name,key=value", and the texts of its options.

    Raises:
        ValueError: There is no such probe, with near names; or the spec cannot be read.
    """
    name, texts = parse_spec(spec)
    if name not in probes():
        near = get_close_matches(name, probes(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no probe {name!r}; {hint}probes: {', '.join(probes())}")
    return probes()[name], texts
