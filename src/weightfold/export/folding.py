"""Batch norms of a plain network, in eval mode, folded into the convolutions before them."""

import copy

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in which every batch norm that follows one convolution alone is an Identity.

    Args:
        model: A network torch.fx can trace; the copy is in eval mode.

    Returns:
        A module of the same class; the folded convolutions have a bias. A batch norm elsewhere
        stays.

    Raises:
        ValueError: torch.fx cannot trace the model.
    """
    model = copy.deepcopy(model).eval()
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:
        raise ValueError(
            f"fold_bn=True needs a network that torch.fx can trace, and {type(model).__name__} is "
            f"none ({error}); export with fold_bn=False"
        ) from error
    layers = dict(model.named_modules())
    calls = [node for node in graph.nodes if node.op == "call_module"]
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(layers[str(node.target)], _BatchNorm) or not isinstance(before, fx.Node):
            continue
        convolution = layers.get(str(before.target)) if before.op == "call_module" else None
        once = all(sum(c.target == n.target for c in calls) == 1 for n in (node, before))
        if isinstance(convolution, CONVOLUTIONS) and len(before.users) == 1 and once:
            fused = fuse_conv_bn_eval(convolution, layers[str(node.target)])  # type: ignore[arg-type]
            model.set_submodule(str(before.target), fused)
            model.set_submodule(str(node.target), nn.Identity())
    return model
