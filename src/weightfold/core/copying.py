"""Deep copies of networks in which hooks compute weights, which torch's own refuses to copy."""

import copy
from collections.abc import Collection, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._pytree import tree_leaves

Network = TypeVar("Network", bound=nn.Module)
COMPUTING = (WeightNorm, SpectralNorm, BasePruningMethod)
"""Forward pre-hooks of torch that put a weight into an attribute of their module."""


def copied(model: Network, memo: dict[int, Any] | None = None) -> Network:
    """A deep copy; weights that a forward pre-hook computes anew are copied without their history.

    Args:
        model: Left unchanged.
        memo: As for `copy.deepcopy`.

    Raises:
        ValueError: A module keeps another tensor with a history, which no copy can follow.
    """
    memo = {} if memo is None else memo
    for path, module, name, tensor in _with_history(model):
        hooks = module._forward_pre_hooks.values()
        computed = any(
            getattr(hook, "name", getattr(hook, "_tensor_name", None)) == name for hook in hooks
        )
        if not computed and name != "_buffers":
            raise ValueError(
                f"module {path!r} ({type(module).__name__}) keeps in {name!r} a tensor that "
                "autograd computed, so that the network cannot be copied; compute it in forward, "
                f"or keep {name}.detach()"
            )
        memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(model, memo)


def without_history(model: nn.Module) -> dict[int, Any]:
    """A memo for `copy.deepcopy` of a model whose forward alone can have kept tensors."""
    return {id(tensor): tensor.detach().clone() for *_, tensor in _with_history(model)}


def _with_history(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Tensors that are no leaves: path and module that keeps each, and its attribute there."""
    for path, module, name, tensor in kept_tensors(model, ("_parameters", "_modules")):
        if not tensor.is_leaf:
            yield path, module, name, tensor


def kept_tensors(
    model: nn.Module, passed: Collection[str] = ("_parameters", "_buffers", "_modules")
) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Tensors in attributes of modules: path and module that keeps each, and its attribute there.

    Args:
        model: Whose modules are looked through.
        passed: Attributes that are not looked into.
    """
    tables = {id(table) for m in model.modules() for table in (m._parameters, m._buffers)}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in passed:
                # A table of tensors that another module refers to stays that table in a copy.
                others = tables - {id(value)}
                for tensor in tree_leaves(value, lambda v, others=others: id(v) in others):
                    if isinstance(tensor, Tensor):
                        yield path, module, name, tensor


@torch.no_grad()
def compute_again(model: nn.Module) -> None:
    """Let the hooks of weight norm, spectral norm and pruning compute their weights."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm):
                setattr(module, hook.name, hook.compute_weight(module, do_power_iteration=False))
            elif isinstance(hook, COMPUTING):
                hook(module, ())
