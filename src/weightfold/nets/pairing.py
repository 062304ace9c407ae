"""Which batch norm runs directly behind which convolution, found by running the network."""

import copy
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def batch_norms_behind(model: nn.Module, example_input: Tensor) -> dict[str, str]:
    """Convolution -> batch norm, by name, wherever a batch norm is given a convolution's output.

    Convolutions and batch norms that are registered under two names, run more than once, or share
    a weight are left out. The model is not changed: a copy runs, in eval mode.

    Args:
        model: The network.
        example_input: One batch it accepts.
    """
    probe = copy.deepcopy(model).eval()
    registered = Counter(id(m) for _, m in probe.named_modules(remove_duplicate=False))
    owners = Counter(id(p) for _, p in probe.named_parameters(remove_duplicate=False))
    outputs: list[tuple[str, Tensor]] = []
    inputs: list[tuple[str, Tensor]] = []
    for name, module in probe.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _, args, output, name=name: outputs.append((name, output))
            )
        elif isinstance(module, NORMS):
            module.register_forward_pre_hook(
                lambda _, args, name=name: inputs.append((name, args[0]))
            )
    with torch.no_grad():
        probe(example_input)

    def single(name: str, runs: Counter[str]) -> bool:
        module = probe.get_submodule(name)
        tied = any(owners[id(p)] > 1 for p in module.parameters())
        return runs[name] == 1 and registered[id(module)] == 1 and not tied

    made_by = {id(tensor): name for name, tensor in outputs}
    convolution_runs = Counter(name for name, _ in outputs)
    norm_runs = Counter(name for name, _ in inputs)
    pairs: dict[str, str] = {}
    for norm, tensor in inputs:
        convolution = made_by.get(id(tensor))
        if convolution and single(convolution, convolution_runs) and single(norm, norm_runs):
            pairs[convolution] = norm
    return pairs


def check_pairs(model: nn.Module, pairs: Mapping[str, str], example_input: Tensor) -> None:
    """Checks that each batch norm can move into its convolution's place without a difference.

    It cannot where something else reads the convolution's output, or the batch norm runs on
    something else. To tell, a copy runs with random batch norm statistics before and after each
    move.

    Raises:
        ValueError: A pair that changes the network's output.
    """
    probe = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(0)
    for module in probe.modules():
        if isinstance(module, NORMS):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    values = 0.5 + torch.rand(tensor.shape, generator=generator)
                    tensor.data.copy_(values)
    with torch.no_grad():
        before = tree_leaves(probe(example_input))
        for convolution, norm in pairs.items():
            moved = nn.Sequential(probe.get_submodule(convolution), probe.get_submodule(norm))
            probe.set_submodule(convolution, moved)
            probe.set_submodule(norm, nn.Identity())
            after = tree_leaves(probe(example_input))
            if not all(
                a.shape == b.shape and torch.allclose(a, b, equal_nan=True)
                for a, b in zip(before, after, strict=True)
                if isinstance(a, Tensor)
            ):
                raise ValueError(
                    f"batch norm {norm!r} does not belong to convolution {convolution!r} alone "
                    "(the output changes when it moves there); leave the layer out by `where` "
                    "or give other `pairs`"
                )
