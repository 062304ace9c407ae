"""Which tensors are set back together: a layer and the normalisation of its output."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from weightfold.core.charted import Charted
from weightfold.core.slots import Slots, split_name
from weightfold.trace import trace

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""Normalisations; `_NormBase` is torch's base of batch and instance norms."""


@dataclass(frozen=True)
class Unit:
    """A layer with its own parameters, and the normalisations that read its output directly.

    That they go together is our choice: the scale and shift of a batch norm are part of what the
    layer before it computes, and fold into its weights.

    Attributes:
        name: Path of the layer; "itself" if that is the whole network.
        modules: Paths of the layer and its normalisations.
        tensors: Names of their parameters and buffers. Of tied tensors the unit that comes first
            has the tensor.
        parameters: Number of weights.
    """

    name: str
    modules: tuple[str, ...]
    tensors: tuple[str, ...]
    parameters: int


def layer_units(net: nn.Module, x: Tensor) -> tuple[Unit, ...]:
    """The units of a network, in the order in which it registers its layers.

    A normalisation that reads anything else than one layer's output (behind an addition, say) is
    a unit of its own. Layers without parameters are in none.

    Args:
        net: Left unchanged.
        x: An input, (1, ...); a copy of the network runs once on it in eval mode.
    """
    norms = normalised(net, x)
    tensors = kept_tensors(net)
    units = []
    for path in dict.fromkeys(owner(n) for n, t in tensors.items() if isinstance(t, nn.Parameter)):
        if path in norms:
            continue
        modules = (path, *(norm for norm, layer in norms.items() if layer == path))
        names = tuple(name for name in tensors if owner(name) in modules)
        weights = sum(tensors[n].numel() for n in names if isinstance(tensors[n], nn.Parameter))
        units.append(Unit(path or "itself", modules, names, weights))
    return tuple(units)


def normalised(net: nn.Module, x: Tensor) -> dict[str, str]:
    """Whose output each normalisation reads, of those that read one layer's, directly.

    Args:
        net: Left unchanged.
        x: As for `layer_units`.

    Returns:
        Path of the normalisation -> path of the layer, in the order in which they ran.

    Raises:
        ValueError: The network does not run on it.
    """
    layers = {owner(name) for name, _ in net.named_parameters()}
    norms = {path for path, module in net.named_modules() if isinstance(module, NORMS)}
    sources = trace(net, x, argument="x").sources(norms)
    return {norm: layer for norm, layer in sources.items() if layer in layers - norms}


def kept_tensors(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of the state_dict, each under its first name."""
    kept = net.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in Slots.of(net).tensors.items() if name in kept}


def owner(name: str) -> str:
    """Path of the layer that tensor `name` belongs to; a parametrized layer owns the originals."""
    path = f".{split_name(name)[0]}".partition(".parametrizations.")[0]
    return path.removeprefix(".")


def check_plain(net: nn.Module, name: str) -> None:
    """Refuse what has no layers with weights of their own.

    Raises:
        TypeError: `net`, the argument `name`, is no module, or holds a Charted net.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"{name} is a {type(net).__name__}; give a torch.nn.Module")
    if any(isinstance(module, Charted) for module in net.modules()):
        raise TypeError(
            f"{name} holds a Charted net, whose layers' weights are computed from coordinates; "
            "give what its deploy() returns"
        )
