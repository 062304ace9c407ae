"""Directions in the space of weights, of a size that compares from one network to another."""

import torch
from torch import Tensor, nn

from weightfold.core.slots import split_name
from weightfold.probes.layers.splice import Checkpoint, read_checkpoint
from weightfold.probes.layers.units import NORMS
from weightfold.probes.objective import Objective, deployed


def random_direction(objective: Objective, seed: int, *, biases: bool) -> Tensor:
    """A Gaussian direction, normalised by filters: see `normalised`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        name: torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
        for name, tensor in objective.start.items()
    }
    return normalised(objective, drawn, biases=biases)


def gradient_direction(objective: Objective, *, biases: bool) -> Tensor:
    """Down the gradient, normalised by filters."""
    _, gradient = objective.gradient()
    return normalised(objective, objective.split(-gradient), biases=biases)


def normalised(objective: Objective, direction: dict[str, Tensor], *, biases: bool) -> Tensor:
    """Each filter of a direction as long as the network's (Li et al. 2018), as a vector (size,).

    A filter is what makes an output channel or unit. Biases, and scale and shift of normalisations,
    stay where they are, as by those authors' advice; or with `biases` each of these tensors is
    taken as a whole. A filter that is 0 stays 0.

    Args:
        objective: At the network's weights.
        direction: Name -> tensor.
        biases: Whether biases and normalisations move too.
    """
    found = {}
    for name, tensor in objective.start.items():
        d, path = direction[name], split_name(name)[0]
        owner = objective.net.get_submodule(path)
        beside = name.endswith("bias") or isinstance(owner, NORMS)
        if beside and not biases:
            found[name] = torch.zeros_like(tensor)
            continue
        if tensor.dim() < 2:
            scale = tensor.norm() / d.norm().clamp_min(torch.finfo(d.dtype).tiny)
        else:
            axis = 1 if isinstance(owner, nn.modules.conv._ConvTransposeNd) else 0
            others = [i for i in range(tensor.dim()) if i != axis]
            own, lengths = (t.square().sum(others, keepdim=True).sqrt() for t in (tensor, d))
            scale = own / lengths.clamp_min(torch.finfo(d.dtype).tiny)
        found[name] = d * scale
    return objective.flat(found)


def point_of(objective: Objective, other: Checkpoint, name: str) -> Tensor:
    """The chosen tensors of another network of the kind, as a vector (size,).

    Args:
        objective: The network.
        other: A module or a Charted net, a state_dict, or the path of a safetensors file.
        name: Of the argument, for errors.

    Raises:
        TypeError: It is none of these.
        ValueError: It is of another network.
        FileNotFoundError: There is no such file.
    """
    if isinstance(other, nn.Module):
        other = deployed(other, objective.coordinates).state_dict()
    tensors = read_checkpoint(other, objective.form, name)
    like = objective.flat()
    return objective.flat({key: tensors[key] for key in objective.start}).to(like)
