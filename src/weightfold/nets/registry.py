"""Networks by name: ours, those of other libraries, and any function of the user's."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from weightfold.hints import check_type
from weightfold.nets import zoo
from weightfold.spec import matching, parse_spec, read_options

_NETWORKS: dict[str, Callable[..., nn.Module]] = {}
Factory = TypeVar("Factory", bound=Callable[..., nn.Module])
_GIVEN = ("num_classes", "in_channels")


def network(name: str) -> Callable[[Factory], Factory]:
    """Decorator that offers a class or function in this folder as network `name`.

    It takes `num_classes` and `in_channels`; its other arguments are the options of the spec, and
    the first line of its docstring is what `available` shows.

    Raises:
        ValueError: Another network has that name.
    """

    def register(factory: Factory) -> Factory:
        if name in _NETWORKS:
            raise ValueError(f"network {name!r} exists already: {_NETWORKS[name].__qualname__}")
        _NETWORKS[name] = factory
        return factory

    return register


@cache
def _networks() -> Mapping[str, Callable[..., nn.Module]]:
    """Our networks, found by importing every module of this folder."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"weightfold.nets.{module.name}")
    return dict(sorted(_NETWORKS.items()))


def available() -> dict[str, str]:
    """Name -> one line, of our networks and torchvision's models.

    `build` also takes "timm/<name>", "smp/<name>" and "module:function".
    """
    ours = {name: _first_line(factory) for name, factory in _networks().items()}
    return ours | zoo.torchvision_lines()


def list_nets(filter: str = "*") -> list[str]:
    """Names of networks that `build` takes: ours, then torchvision's.

    >>> import weightfold as wf
    >>> wf.list_nets("resnet1*")
    ['resnet101', 'resnet152', 'resnet18']

    Args:
        filter: A glob that the names match.
    """
    return matching(available(), filter)


def build(spec: str, *, num_classes: int, in_channels: int = 3) -> nn.Module:
    """An untrained network by its spec.

    Weights come from torch's global generator, as in every torch module: seed it before. Trained
    weights are never downloaded.

    Args:
        spec: "name" or "name,key=value,...": a name of `available()` ("smallnet_b,kernel_size=9",
            "resnet18,small_image=true"), "timm/<name>", "smp/<name>" (of
            segmentation-models-pytorch), or "module:function" of your own, imported as `python -m`
            would from the working directory and called with `num_classes` and `in_channels` (each
            if it has an argument of that name) and the options.
        num_classes: Outputs, at least 1.
        in_channels: Channels of the images, at least 1.

    Returns:
        A module from images float (B, in_channels, H, W) to logits (B, num_classes), or what its
        kind gives: maps (B, num_classes, H, W), in a dict for torchvision's; boxes.

    Raises:
        ValueError: Unknown name (with near ones), unknown option (with those it has), bad value.
        ImportError: The library of the network is not installed.
        TypeError: A user's function gave something else than a module.
    """
    for argument, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        check_type(argument, value, int)
        if value < 1:
            raise ValueError(f"{argument}={value} must be at least 1")
    name, options = parse_spec(spec)
    given = {"num_classes": num_classes, "in_channels": in_channels}
    if name.startswith("timm/"):
        return zoo.build_timm(name.removeprefix("timm/"), options, **given)
    if name.startswith("smp/"):
        return zoo.build_smp(name.removeprefix("smp/"), options, **given)
    if ":" in name:
        return _build_users(name, options, given)
    if name in _networks():
        return _call(name, _networks()[name], options, given)
    if name in zoo.torchvision_names():
        return zoo.build_torchvision(name, options, **given)
    names = [*_networks(), *zoo.torchvision_names()]
    near = ", ".join(get_close_matches(name, names, n=4)) or ", ".join(_networks())
    raise ValueError(
        f"no network {name!r}; near: {near}; others: a torchvision model by its name, "
        "'timm/<name>', 'smp/<name>', 'module:function'"
    )


def _call(
    name: str, factory: Callable[..., nn.Module], options: Mapping[str, str], given: dict[str, int]
) -> nn.Module:
    """`factory` with those of `given` that it names, and the options read by its annotations."""
    try:
        signature = inspect.signature(factory, eval_str=True)
    except NameError:  # an annotation that only a type checker imports
        signature = inspect.signature(factory)
    parameters = signature.parameters
    accepted: dict[str, Any] = {
        key: p.annotation if p.annotation in (int, float, bool, str) else None
        for key, p in parameters.items()
        if key not in _GIVEN and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        accepted = {key: None for key in options if key not in _GIVEN} | accepted
    arguments: dict[str, Any] = {key: v for key, v in given.items() if key in parameters}
    arguments |= read_options(name, options, accepted)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(f"{name!r}: {error}; its options: {', '.join(accepted)}") from None
    return factory(**arguments)


def _build_users(name: str, options: Mapping[str, str], given: dict[str, int]) -> nn.Module:
    """The network that the user's "module:function" makes."""
    module_name, _, function_name = name.partition(":")
    with working_directory_importable():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # the module is there, an import inside it is not
            raise ValueError(
                f"network {name!r}: no module {error.name!r}, neither in {Path.cwd()} nor installed"
            ) from None
        function = getattr(module, function_name, None)
        if not callable(function):
            names = [key for key, value in vars(module).items() if callable(value)]
            near = ", ".join(get_close_matches(function_name, names, n=3) or names[:5])
            raise ValueError(
                f"network {name!r}: {module_name} has no function {function_name!r}; it has {near}"
            )
        net = _call(name, function, options, given)
    if not isinstance(net, nn.Module):
        raise TypeError(f"network {name!r} gave a {type(net).__name__}; return a torch.nn.Module")
    return net


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """Puts the working directory first on the import path, as `python -m` does, for a while."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


def _first_line(factory: Callable[..., nn.Module]) -> str:
    return (inspect.getdoc(factory) or "").partition("\n")[0]
