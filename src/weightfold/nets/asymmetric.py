"""ACNet: three branches k x k, 1 x k and k x 1 while training, one convolution afterwards.

Ding, Guo, Ding, Han, ICCV 2019 (arXiv:1908.03930), Sec. 3. A baseline, and a model of its own, not
a chart: each branch has a batch norm with the statistics of its own output. The authors' builder
leaves kernels of 7 and more as they are; ours takes any odd kernel.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_weights, skip_init

from weightfold.core.charted import Charted
from weightfold.core.select import Where, select
from weightfold.nets.pairing import NORMS, batch_norms_behind, check_pairs, tied


class AsymmetricConv2d(nn.Module):
    """The sum of BN(k x k), BN(1 x k) and BN(k x 1), in the place of a convolution and its BN.

    The k x k branch starts with a copy of the given weights and batch norm (a bias goes into the
    running mean, the same function in eval mode); the others start with PyTorch's default
    initialisation and a fresh batch norm.

    Args:
        convolution: Square, odd kernel of at least 3; any stride, padding, dilation and groups.
        norm: The batch norm behind it, with running statistics.
        generator: Draws the weights of the two new branches; on the CPU.

    Raises:
        ValueError: The convolution or the batch norm is of another kind.
    """

    def __init__(
        self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        reason = _misfit(convolution, norm)
        if reason:
            raise ValueError(f"no asymmetric branches here: {reason}")
        self.training = convolution.training
        self.has_bias = convolution.bias is not None
        self.vacated: tuple[nn.Module, ...] = ()  # the Identity where the batch norm was
        self.padding_mode, self.padding = convolution.padding_mode, convolution.padding

        k = convolution.kernel_size[0]
        reach = [dilation * (k - 1) // 2 for dilation in convolution.dilation]
        sides = {"same": reach, "valid": [0, 0]}.get(str(self.padding), self.padding)
        height, width = int(sides[0]), int(sides[1])
        self.border = [width, width, height, height] if self.padding_mode != "zeros" else []
        if self.border:  # other borders than zeros are put on once, for all branches
            height = width = 0
        # On its short axis a branch sees only the middle of the k x k window, so it takes `reach`
        # less padding; where there is less padding than that, it leaves out rows (columns) of x.
        self.crop = (max(reach[0] - height, 0), max(reach[1] - width, 0))
        short = (max(height - reach[0], 0), max(width - reach[1], 0))

        self.square = _empty_like(convolution, (k, k), (height, width))
        self.horizontal = _empty_like(convolution, (1, k), (short[0], width))
        self.vertical = _empty_like(convolution, (k, 1), (height, short[1]))
        square_norm: Any = copy.deepcopy(norm)
        self.square_norm = square_norm
        self.horizontal_norm = copy.deepcopy(norm)
        self.vertical_norm = copy.deepcopy(norm)
        with torch.no_grad():
            self.square.weight.copy_(convolution.weight)
            if convolution.bias is not None:
                square_norm.running_mean.sub_(convolution.bias)
            for branch in (self.horizontal, self.vertical):
                drawn = torch.empty(branch.weight.shape)
                branch.weight.copy_(nn.init.kaiming_uniform_(drawn, 5**0.5, generator=generator))
        self.horizontal_norm.reset_parameters()
        self.vertical_norm.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Float (B, C, H, W) to the output of the convolution it stands for."""
        if self.border:
            x = F.pad(x, self.border, mode=self.padding_mode)
        rows, columns = self.crop
        middle_rows = x[:, :, rows : x.shape[2] - rows]
        middle_columns = x[:, :, :, columns : x.shape[3] - columns]
        return (
            self.square_norm(self.square(x))
            + self.horizontal_norm(self.horizontal(middle_rows))
            + self.vertical_norm(self.vertical(middle_columns))
        )

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """One convolution with a bias: exactly this function, batch norms included, in eval mode.

        Each branch's batch norm goes into its kernel and a bias; the 1 x k and k x 1 kernels are
        added to the middle row and column (paper, Sec. 3.3).
        """
        kernel, bias = _folded(self.square, self.square_norm)
        row, row_bias = _folded(self.horizontal, self.horizontal_norm)
        column, column_bias = _folded(self.vertical, self.vertical_norm)
        middle = kernel.shape[-1] // 2
        kernel[:, :, middle, :] += row[:, :, 0, :]
        kernel[:, :, :, middle] += column[:, :, :, 0]
        fused = _empty_like(self.square, self.square.kernel_size, self.padding, bias=True)
        fused.padding_mode = self.padding_mode
        fused.weight.copy_(kernel)
        assert fused.bias is not None
        fused.bias.copy_(bias + row_bias + column_bias)
        return fused.train(self.training)

    @torch.no_grad()
    def unmerge_norm(self) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        """A convolution and a batch norm like those this was made of; in eval mode as `fuse()`.

        The batch norm does nothing, or only adds what the convolution has no bias for.
        """
        convolution: nn.Conv2d = self.fuse()
        norm: Any = copy.deepcopy(self.square_norm)
        bias = convolution.bias
        assert bias is not None
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)  # the batch norm divides by sqrt(variance + eps)
        if norm.weight is not None:
            norm.weight.fill_(1.0)
        if norm.bias is not None:
            norm.bias.zero_()
        if not self.has_bias:
            convolution.bias = None
            if norm.bias is not None:
                norm.bias.copy_(bias)
            else:
                norm.running_mean.copy_(-bias)
        return convolution, norm


def asymmetric(
    model: nn.Module,
    where: Where = None,
    *,
    example_input: Tensor | None = None,
    pairs: Mapping[str, str] | None = None,
    seed: int = 0,
) -> nn.Module:
    """A copy of `model` with ACNet's branches for its convolutions; `asymmetric_deploy` undoes it.

    Each square convolution with an odd kernel of at least 3, together with the batch norm that
    runs directly behind it, becomes an `AsymmetricConv2d`; an Identity is left where the batch norm
    was. Convolutions without such a batch norm, and those that are used, registered or tied twice,
    stay as they are.

    Args:
        model: Any module; it is not changed.
        where: Names, globs, types or a predicate that choose among these convolutions; None: all.
        example_input: A batch for `model`. It runs through a copy to find the batch norms behind
            the convolutions, and to check that each can move to its convolution.
        pairs: Convolution -> batch norm by name, instead of finding them.
        seed: Of the new branches' weights.

    Raises:
        ValueError: Neither `example_input` nor `pairs`; a pair that does not fit; nothing to
            replace; a `where` that matches nothing.
        TypeError: `model` is charted.
    """
    if any(isinstance(module, Charted) for module in model.modules()):
        raise TypeError("model is a Charted net; give the plain model to asymmetric()")
    modules = dict(model.named_modules())
    shared = tied(model)
    if pairs is None:
        if example_input is None:
            raise ValueError("give example_input (or pairs), to tell each layer's batch norm")
        found = batch_norms_behind(model, example_input)
        chosen = {
            c: n
            for c, n in found.items()
            if not _misfit(modules[c], modules[n]) and not {c, n} & shared
        }
    else:
        chosen = dict(pairs)
        for convolution, norm in chosen.items():
            reason = _misfit(modules.get(convolution), modules.get(norm))
            if {convolution, norm} & shared:
                reason = "it is registered twice or shares a parameter"
            if reason:
                raise ValueError(f"pairs={{{convolution!r}: {norm!r}}} does not fit: {reason}")
    what = "square convolution with an odd kernel above 1 and a batch norm directly behind it"
    if not chosen:
        raise ValueError(f"the model has no {what}")
    names = select({name: modules[name] for name in chosen}, where, what=what)
    chosen = {name: chosen[name] for name in names}
    if example_input is not None:
        check_pairs(model, chosen, example_input)

    net = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for name, norm_name in chosen.items():
        convolution: Any = net.get_submodule(name)
        norm: Any = net.get_submodule(norm_name)
        branches = AsymmetricConv2d(convolution, norm, generator=generator)
        branches.vacated = (nn.Identity(),)
        net.set_submodule(name, branches)
        net.set_submodule(norm_name, branches.vacated[0])
    return net


def asymmetric_deploy(model: nn.Module) -> nn.Module:
    """A copy with plain convolutions again: class, state_dict keys and shapes before `asymmetric`.

    It computes the same function in eval mode. Where the convolution had no bias, the batch norm
    behind it carries it; otherwise that batch norm does nothing.

    Raises:
        ValueError: `model` has no `AsymmetricConv2d`, or is a part of a model that lacks the
            places of the batch norms (`AsymmetricConv2d.fuse` needs none).
    """
    net = copy.deepcopy(model)
    places = {module: name for name, module in net.named_modules()}
    branches = [module for module in places if isinstance(module, AsymmetricConv2d)]
    if not branches:
        raise ValueError("the model has no AsymmetricConv2d; give what asymmetric() returned")
    for module in branches:
        if not module.vacated or module.vacated[0] not in places:
            raise ValueError(
                f"layer {places[module]!r}: the place of its batch norm is not in this model; "
                "give the whole model that asymmetric() returned"
            )
        convolution, norm = module.unmerge_norm()
        net.set_submodule(places[module], convolution)
        net.set_submodule(places[module.vacated[0]], norm)
    return net


def _misfit(convolution: Any, norm: Any) -> str:
    """Why these two cannot become branches; empty if they can."""
    if type(convolution) is not nn.Conv2d:
        return f"a Conv2d is needed, not {type(convolution).__name__}"
    height, width = convolution.kernel_size
    if height != width or height < 3 or height % 2 == 0:
        return f"kernel_size={height, width} is not square and odd, of 3 or more"
    if type(norm) not in NORMS:
        return f"a BatchNorm2d is needed behind it, not {type(norm).__name__}"
    if norm.num_features != convolution.out_channels:
        return f"{norm.num_features} channels in the batch norm, {convolution.out_channels} before"
    if norm.running_mean is None:
        return "the batch norm keeps no running statistics (track_running_stats=True)"
    return ""


def _empty_like(
    convolution: nn.Conv2d,
    kernel_size: tuple[int, ...],
    padding: str | tuple[int, ...],
    *,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution of other kernel and padding, its values not yet set."""
    empty: Any = skip_init(
        nn.Conv2d,
        convolution.in_channels,
        convolution.out_channels,
        kernel_size,
        stride=convolution.stride,
        padding=padding,
        dilation=convolution.dilation,
        groups=convolution.groups,
        bias=bias,
        device=convolution.weight.device,
        dtype=convolution.weight.dtype,
    )
    return empty.requires_grad_(convolution.weight.requires_grad)


def _folded(convolution: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution and its batch norm in eval mode, at least in float32."""
    dtype = torch.promote_types(convolution.weight.dtype, torch.float32)
    mean, variance = norm.running_mean.to(dtype), norm.running_var.to(dtype)
    weight, shift = (None if t is None else t.to(dtype) for t in (norm.weight, norm.bias))
    kernel, bias = fuse_conv_bn_weights(
        convolution.weight.to(dtype), None, mean, variance, norm.eps, weight, shift
    )
    return kernel.detach(), bias.detach()
