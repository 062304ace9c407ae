"""`wf.doconv`."""

from math import prod

from torch import nn

from weightfold.core.arguments import check_memory, unwrapped
from weightfold.core.charted import Charted
from weightfold.core.select import Where, coordinate_layers, locate, plain_model, select
from weightfold.core.slots import Slots, check_chartable
from weightfold.methods.doconv.chart import DepthwiseFactor

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def doconv(net: nn.Module, *, where: Where = None) -> Charted:
    """Give kernels a depthwise factor over their taps, folded on the weights (DO-Conv).

    >>> import torch, weightfold as wf
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
    >>> net = wf.doconv(model)
    >>> [tuple(p.shape) for p in net.parameters()]
    [(8,), (8, 3, 3, 3), (3, 9, 9)]
    >>> torch.equal(net.deploy()[0].weight, model[0].weight)
    True

    Args:
        net: A module or a Charted net; left unchanged. The function stays what it is.
        where: None: every convolution with a kernel larger than 1 that trains; or names, globs,
            layer types, a predicate `(name, layer)`.

    Raises:
        TypeError: `net` is no module, or holds a Charted net inside.
        ValueError: Nothing is chosen, or a chosen layer has a kernel of 1 or a weight that is no
            parameter.
        MemoryError: The factors take more memory than there is.
    """
    net = unwrapped(net)
    modules = {**dict(plain_model(net).named_modules()), **coordinate_layers(net)}
    layers = {n: m for n, m in modules.items() if isinstance(m, CONVOLUTIONS)}
    if where is None:
        layers = {n: m for n, m in layers.items() if prod(m.kernel_size) > 1}
    names = select(layers, where, what="convolution") if layers else []
    slots, groups = Slots.of(net), dict[str, int]()
    for name in names:
        place = locate(net, f"{name}.weight")
        if place is None or prod(layers[name].kernel_size) == 1:
            if where is None:
                continue
            raise ValueError(
                f"layer {name!r} has {'a kernel of 1' if place else 'a weight that is computed'}; "
                "leave it out of `where`"
            )
        weight = slots.canonical[place]
        if where is None and not slots.tensors[weight].requires_grad:
            continue
        check_chartable(net, place, slots.tensors[weight])
        groups[weight] = layers[name].groups
    if not groups:
        raise ValueError(f"where={where!r} finds no trainable convolution with a kernel above 1")
    parameters = dict(net.named_parameters(remove_duplicate=False))
    values = {name: parameters[name] for name in groups}
    sizes = [groups[n] * v.shape[1] * prod(v.shape[2:]) ** 2 for n, v in values.items()]
    check_memory("doconv makes factors", sum(sizes) * max(v.itemsize for v in values.values()))
    return Charted(net, [DepthwiseFactor(values, groups)])
