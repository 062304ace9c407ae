"""Batch norms of a plain network, in eval mode, folded into the convolutions before them."""

from collections import Counter
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from weightfold.core.copying import copied
from weightfold.core.slots import runs_as, split_name

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in which every batch norm that follows one convolution alone is an Identity.

    Args:
        model: A network torch.fx can trace; the copy is in eval mode.

    Returns:
        A module of the same class; the folded convolutions have a bias. A batch norm elsewhere
        stays, and so does one without running statistics, or where a hook, a parametrization or a
        forward of a subclass has a part in what the two layers compute.

    Raises:
        ValueError: torch.fx cannot trace the model.
    """
    model = copied(model).eval()
    for before, norm in foldable(model):
        fused = fuse(model.get_submodule(before), model.get_submodule(norm))
        model.set_submodule(before, fused)
        model.set_submodule(norm, nn.Identity())
    return model


def foldable(model: nn.Module) -> list[tuple[str, str]]:
    """Paths of each convolution and the batch norm that alone reads its output; both used once.

    Args:
        model: A network torch.fx can trace; left unchanged.

    Raises:
        ValueError: torch.fx cannot trace the model.
    """
    model = copied(model).eval()
    try:
        graph = _Tracer().trace(model)
    except Exception as error:
        raise ValueError(
            f"folding batch norm needs a network that torch.fx can trace, and "
            f"{type(model).__name__} is none ({error}); leave fold_bn=False"
        ) from error
    layers = dict(model.named_modules())
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    # What reads a layer's tensors itself needs them as they are.
    calls.update(split_name(str(node.target))[0] for node in graph.nodes if node.op == "get_attr")
    found = []
    for node in graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node):
            continue
        path, norm = str(before.target), str(node.target)
        alone = len(before.users) == 1 and calls[path] == calls[norm] == 1
        if before.op == "call_module" and alone and _fits(layers[path], layers[norm]):
            found.append((path, norm))
    return found


class _Tracer(fx.Tracer):
    """Keeps subclasses of convolutions and batch norms whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        layer = isinstance(m, (*CONVOLUTIONS, _BatchNorm))
        return layer or super().is_leaf_module(m, module_qualified_name)


def _fits(convolution: nn.Module, norm: Any) -> bool:
    # A parametrized convolution is of another class; weight_norm of old is a hook.
    if type(convolution) not in CONVOLUTIONS or not isinstance(norm, _BatchNorm):
        return False
    plain = runs_as(convolution, CONVOLUTIONS) and runs_as(norm, (nn.SyncBatchNorm, _BatchNorm))
    return plain and norm.running_mean is not None


def fuse(convolution: nn.Module, norm: nn.Module) -> nn.Module:
    """A convolution that computes both, in eval mode."""
    return fuse_conv_bn_eval(convolution, norm)  # type: ignore[arg-type]
