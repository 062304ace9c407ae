"""Which batch norm runs directly behind which convolution, found by running the network."""

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from weightfold.core.copying import copied
from weightfold.trace import trace

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def tied(model: nn.Module) -> set[str]:
    """Names of the modules that are registered twice or share a parameter with another one."""
    registered = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
    owners = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    return {
        name
        for name, module in model.named_modules()
        if registered[id(module)] > 1
        or any(owners[id(p)] > 1 for p in module.parameters(recurse=False))
    }


def batch_norms_behind(model: nn.Module, example_input: Tensor) -> dict[str, str]:
    """Convolution -> batch norm, by name, wherever a batch norm is given a convolution's output.

    Those that run more than once, and convolutions with several batch norms, are left out. The
    model is not changed: a copy runs, in eval mode.

    Args:
        model: The network.
        example_input: One batch it accepts.

    Raises:
        ValueError: It does not accept it.
    """
    modules = dict(model.named_modules())
    run = trace(model, example_input)
    sources = run.sources({path for path, module in modules.items() if isinstance(module, NORMS)})
    readers = Counter(sources.values())
    return {
        c: norm
        for norm, c in sources.items()
        if isinstance(modules[c], nn.Conv2d) and run.runs[c] == run.runs[norm] == readers[c] == 1
    }


def check_pairs(model: nn.Module, pairs: Mapping[str, str], example_input: Tensor) -> None:
    """Checks that each batch norm can move into its convolution's place without a difference.

    It cannot where something else reads the convolution's output, or the batch norm runs on
    something else. To tell, a copy runs with random batch norm statistics before and after each
    move.

    Raises:
        ValueError: A pair that changes the network's output.
    """
    probe = copied(model).eval()
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
