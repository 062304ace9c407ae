"""wf.splice: one network of the tensors of two."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from weightfold.core import checkpoint_file
from weightfold.core.charted import check_state
from weightfold.core.copying import copied
from weightfold.core.select import Where, select
from weightfold.core.slots import Slots
from weightfold.data.pairs import Data, as_dataset
from weightfold.probes.layers.batch_norm import (
    Policy,
    check_policy,
    recalibrate,
    running_statistics,
)
from weightfold.probes.layers.units import check_plain, kept_tensors, normalised, owner
from weightfold.train.starts import Start, begin

Checkpoint = nn.Module | Mapping[str, Tensor] | str | Path
"""A network's tensors: a module, a state_dict, or the path of a safetensors file."""


def splice(
    trained: nn.Module,
    other: Checkpoint,
    layers: Where,
    *,
    bn: Policy,
    data: Data | None = None,
) -> nn.Module:
    """The network with the tensors of `layers` from `other` and the rest from `trained`.

    The parameters and buffers of exactly the chosen layers are taken, bit for bit, but for batch
    norm's running statistics (mean, variance, count), of which `bn` decides:

    - "keep": all stay those of `trained`.
    - "source": those of a batch norm are taken from `other` if it is among the chosen layers, or
      reads the output of one of them directly.
    - "recalibrate": all are estimated anew by running training data through the spliced network,
      see `weightfold.probes.layers.batch_norm.recalibrate`.

    A network without running statistics takes any policy.

    >>> import torch, weightfold as wf
    >>> one, other = (torch.nn.Sequential(torch.nn.Linear(3, 2)) for _ in range(2))
    >>> torch.equal(wf.splice(one, other, "0", bn="keep")[0].weight, other[0].weight)
    True

    Args:
        trained: Left unchanged.
        other: The same network with other weights: a module, a state_dict or a safetensors file.
        layers: Layers by name, glob, type or predicate; a module brings all that it holds. None:
            all. A tensor tied to one elsewhere changes there too.
        bn: What becomes of running statistics.
        data: Training data for "recalibrate"; for "source", one input of it shows which batch
            norm reads which layer, and is needed unless all batch norms are chosen.

    Returns:
        A new module of the class, device and modes of `trained`.

    Raises:
        TypeError: `trained` is no plain module, or `other` no checkpoint.
        ValueError: `bn` is unknown or needs `data`; `layers` matches nothing or no tensor; `other`
            is of another network (names and shapes are listed) or a damaged file.
        FileNotFoundError: The file is missing.
    """
    check_policy(bn)
    check_plain(trained, "trained")
    source = read_checkpoint(other, trained, "other")
    chosen = _chosen(trained, layers)
    tensors = kept_tensors(trained)
    statistics = running_statistics(trained)
    all_statistics = {name for names in statistics.values() for name in names}
    places = Slots.of(trained).places
    taken = [
        name
        for name in tensors
        if name not in all_statistics and any(owner(place) in chosen for place in places[name])
    ]
    if not taken and not (chosen & statistics.keys()):
        raise ValueError(f"layers={layers!r} chooses layers that have no tensors")
    rest = [norm for norm in statistics if norm not in chosen]
    if data is None and bn == "source" and rest:
        raise ValueError(
            "bn='source' needs data: one input of it shows whether a batch norm that is not chosen "
            f"({', '.join(rest[:5])}) reads the output of a layer that is"
        )
    if data is None and bn == "recalibrate" and statistics:
        raise ValueError("bn='recalibrate' needs data: training data to run through the network")
    samples = None if data is None else as_dataset(data).to(_device(trained))
    if bn == "source":
        layer_of = (
            normalised(trained, samples.normalize(samples.train.inputs[:1])) if samples else {}
        )
        going = [norm for norm in statistics if norm in chosen or layer_of.get(norm) in chosen]
        taken += [name for norm in going for name in statistics[norm]]
    start = Start(trained, through="reset", options={"layers": tuple(taken), "to": source})
    net = begin(copied(trained), start)
    if bn == "recalibrate" and statistics and samples is not None:
        recalibrate(net, samples)
    return net


def _chosen(net: nn.Module, layers: Where) -> set[str]:
    """Paths of all modules that `layers` chooses or that lie in one that it chooses."""
    modules = dict(net.named_modules())
    if layers is None:
        return set(modules)
    candidates = {path: module for path, module in modules.items() if path} or modules
    try:
        names = select(candidates, layers, what="layer", net=net)
    except ValueError as error:
        raise ValueError(f"layers: {error}") from None
    return {path for path in modules if any(f"{path}.".startswith(f"{n}.") for n in names)}


def _device(net: nn.Module) -> torch.device:
    return next((t.device for t in (*net.parameters(), *net.buffers())), torch.device("cpu"))


def read_checkpoint(checkpoint: Checkpoint, net: nn.Module, name: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint of `net`, each under its first name in `net`.

    Args:
        checkpoint: The checkpoint; of tied tensors any of the names.
        net: The network that it has to be of.
        name: What the checkpoint is called in errors.

    Raises:
        TypeError: It is none.
        ValueError: It is of another network, or a damaged file.
        FileNotFoundError: The file is missing.
    """
    given = checkpoint_file.named_as(_tensors_of(checkpoint, name), net.state_dict())
    canonical = Slots.of(net).canonical
    found: dict[str, Tensor] = {}
    for key, tensor in given.items():
        first = canonical.get(key, key)
        if first in found and not torch.equal(found[first], tensor):
            raise ValueError(
                f"{name} has two values for {first!r}, which in the network is one tensor under "
                "several names; give a checkpoint of the same network"
            )
        found[first] = tensor
    wanted = kept_tensors(net)
    try:
        check_state(wanted, found)
    except KeyError as error:
        raise ValueError(f"{name} is no checkpoint of this network: {error.args[0]}") from None
    if other := [n for n in wanted if found[n].dtype != wanted[n].dtype]:
        raise ValueError(
            f"{name} has {other[0]!r} as {found[other[0]].dtype}, the network has "
            f"{wanted[other[0]].dtype}; convert one of them"
        )
    return found


def _tensors_of(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    if isinstance(checkpoint, nn.Module):
        check_plain(checkpoint, name)
        checkpoint = checkpoint.state_dict()
    if isinstance(checkpoint, str | Path):
        if not Path(checkpoint).is_file():
            raise FileNotFoundError(f"{name}={str(checkpoint)!r}: there is no such file")
        try:
            return checkpoint_file.read_checkpoint(Path(checkpoint))
        except ValueError as error:
            raise ValueError(
                f"{name}={str(checkpoint)!r} is no safetensors file ({error}); write it with "
                "safetensors.torch.save_file, or give a state_dict"
            ) from None
    if not isinstance(checkpoint, Mapping):
        raise TypeError(
            f"{name} is a {type(checkpoint).__name__}; give a module, a state_dict or the path of "
            "a safetensors file"
        )
    return {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
