"""Runs that start from other runs: from their weights at a step, through a named map."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weightfold.core.charted import Charted, check_state
from weightfold.core.checkpoint_file import named_as
from weightfold.core.slots import Slots
from weightfold.data.contents import digest_of
from weightfold.hints import check_type
from weightfold.methods.embed.verb import lift
from weightfold.methods.expand.twin import linear_from_twin
from weightfold.train import checkpoint

Tensors = Mapping[str, Tensor]
Map = Callable[..., None]
"""Takes the net that is to start, filled in place, the source's tensors, and the options."""

_MAPS: dict[str, Map] = {}


@dataclass(frozen=True)
class Start:
    """Where a run starts from: another run's weights, through a map.

    Attributes:
        source: The folder of the other run; a file of weights, of safetensors or of torch.save (see
            `weightfold.core.checkpoint_file`); or, of one in memory, its network or its tensors by
            name.
        at: Which of the folder's weights: "last", "best", or an optimizer step that the run's
            `Options.save_at` kept.
        through: Name of the map, one of `start_maps`.
        options: Of the map.
    """

    source: Path | str | nn.Module | Tensors
    at: int | Literal["last", "best"] = "last"
    through: str = "identity"
    options: Mapping[str, Any] = field(default_factory=dict)

    def tensors(self) -> Tensors:
        """The source's tensors by name.

        Raises:
            FileNotFoundError: The folder has no such weights.
            ValueError: They are damaged or were changed.
        """
        if isinstance(self.source, nn.Module):
            return self.source.state_dict()
        if isinstance(self.source, Mapping):
            return self.source
        if Path(self.source).is_file():
            return checkpoint.read_weights(Path(self.source))
        names = {"last": checkpoint.LAST_WEIGHTS, "best": checkpoint.BEST_WEIGHTS}
        name = names[self.at] if isinstance(self.at, str) else checkpoint.step_weights(self.at)
        path = Path(self.source) / name
        if not path.is_file():
            raise FileNotFoundError(
                f"start: {path} does not exist; a run keeps its weights at an optimizer step with "
                "Options(save_at=(...,))"
            )
        return checkpoint.read_weights(path)

    def identity(self) -> dict[str, Any]:
        """What defines it, as JSON values."""
        return {
            "at": self.at,
            "through": self.through,
            "options": digest_of({name: _value(v) for name, v in self.options.items()}),
            "weights": digest_of(dict(self.tensors())),
        }


def start_map(name: str) -> Callable[[Map], Map]:
    """Decorator that makes a function the map `name`.

    It gets the net, filled in place, and the tensors of the source; its keyword arguments are the
    options of `Start`.

    Raises:
        ValueError: Another map has that name.
    """

    def register(function: Map) -> Map:
        if name in _MAPS:
            raise ValueError(f"start map {name!r} exists already: {_MAPS[name]}")
        _MAPS[name] = function
        return function

    return register


def start_maps() -> tuple[str, ...]:
    """Names of the maps."""
    return tuple(_MAPS)


def begin(net: nn.Module, start: Start | None) -> nn.Module:
    """Give a net the weights it is to start from, in place; without a start it stays as it is.

    Returns:
        The net.

    Raises:
        FileNotFoundError: As `Start.tensors`.
        KeyError: The weights are of another network; the message says which names differ.
        TypeError: `start` is no `Start`.
        ValueError: No such map, or as the map says.
    """
    if start is None:
        return net
    check_type("start", start, Start)
    if start.through not in _MAPS:
        raise ValueError(f"through={start.through!r}; give one of {', '.join(_MAPS)}")
    source = start.source if isinstance(start.source, nn.Module) else start.tensors()
    with torch.no_grad():
        _MAPS[start.through](net, source, **start.options)
    return net


@start_map("identity")
def identity(net: nn.Module, source: nn.Module | Tensors) -> None:
    """All weights and buffers as they are; of tied ones any of their names will do."""
    net.load_state_dict(_state(net, _tensors(source)))


@start_map("reset")
def reset(
    net: nn.Module,
    source: nn.Module | Tensors,
    *,
    layers: tuple[str, ...],
    to: Start | Tensors | None = None,
) -> None:
    """All as they are, but for some layers, which stay as the net has them, or are set back.

    Args:
        net: Filled in place.
        source: The other run's weights.
        layers: Names of modules, or of tensors; a tensor tied to one elsewhere changes there too.
        to: Where these layers' weights are from, as Start("runs/b", at=0); None: from the net.

    Raises:
        ValueError: The net has no such layer.
    """
    tensors = _state(net, _tensors(source))
    given = net.state_dict() if to is None else to.tensors() if isinstance(to, Start) else to
    there = _state(net, given)
    canonical = Slots.of(net).canonical
    chosen: set[str] = set()
    for layer in layers:
        inside = {canonical.get(n, n) for n in tensors if n == layer or n.startswith(f"{layer}.")}
        if not inside:
            raise ValueError(f"layers has {layer!r}; the net's tensors are {', '.join(tensors)}")
        chosen |= inside
    tensors |= {name: there[name] for name in tensors if canonical.get(name, name) in chosen}
    net.load_state_dict(tensors)


@start_map("fit")
def fit_charts(net: nn.Module, source: nn.Module | Tensors) -> None:
    """A plain network's weights in the coordinates of a Charted net, as near as they come.

    Of masks that is: prune, and rewind to these weights.

    Raises:
        TypeError: The net is no Charted net.
    """
    if not isinstance(net, Charted):
        raise TypeError(f"start 'fit' takes a Charted net; this is a {type(net).__name__}")
    net.fit(dict(_tensors(source)))


@start_map("contract")
def contract(net: nn.Module, source: nn.Module | Tensors) -> None:
    """The weights of the plain network that a Charted net deploys to.

    Raises:
        TypeError: The source is no Charted net.
    """
    if not isinstance(source, Charted):
        raise TypeError("start 'contract' takes source=net, the Charted net that was trained")
    identity(net, source.deploy())


@start_map("embed")
def embed_convolutions(net: nn.Module, source: nn.Module | Tensors) -> None:
    """A convolutional network's weights in its embedding (d'Ascoli et al. 2019), in place.

    Raises:
        ValueError: The net has no embedded layers.
        KeyError: The weights are of another network; the message says which names differ.
    """
    lift(net, dict(_tensors(source)))


@start_map("twin")
def from_twin(net: nn.Module, source: nn.Module | Tensors) -> None:
    """The weights of the nonlinear twin of an expanded net (Guo et al. 2020, section 5.3)."""
    if not isinstance(net, Charted) or not isinstance(source, nn.Module):
        raise TypeError("start 'twin' takes an expanded net, and source=net, its trained twin")
    net.load_state_dict(linear_from_twin(net, source).state_dict())


def _tensors(source: nn.Module | Tensors) -> Tensors:
    return source.state_dict() if isinstance(source, nn.Module) else source


def _state(net: nn.Module, tensors: Tensors) -> dict[str, Any]:
    """A whole state_dict of the net: tied tensors under all their names, further state its own.

    Raises:
        KeyError: The tensors are of another network.
    """
    own = net.state_dict()
    given = named_as(dict(tensors), own)
    for name, first in Slots.of(net).canonical.items():
        if name in own and name not in given and first in given:
            given[name] = given[first]
    state = {n: value for n, value in own.items() if not isinstance(value, Tensor)} | given
    check_state(own, state)
    return state


def _value(value: Any) -> Any:
    if isinstance(value, Start):
        return value.identity()
    return dict(value) if isinstance(value, Mapping) else value
