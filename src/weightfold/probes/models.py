"""The networks a probe trains: copies of the user's module, or what the user's factory makes."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import fields

import torch
from torch import Tensor, nn

from weightfold.core.copying import copied
from weightfold.data import Dataset
from weightfold.data.pairs import Data
from weightfold.tasks.classify import Classification
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task, evaluating, naming_dtype
from weightfold.train.seeding import mixed_seed

Model = nn.Module | Callable[[int], nn.Module]
"""What probes take for `net`: a module, whose present weights every seed starts from, or a
function that makes the network of a seed."""


def labelled(data: Task | Data, why: str) -> Dataset:
    """The data of a probe that asks about class labels.

    Args:
        data: A `Classification`, or what `weightfold.data.as_dataset` takes.
        why: Only of them, for errors: "it shuffles labels".

    Raises:
        TypeError: It is another task.
        ValueError: As for `as_dataset`, or the task has options, which this probe would not heed.
    """
    if isinstance(data, Task) and not isinstance(data, Classification):
        raise TypeError(
            f"data is the task {data.name!r}; this probe takes class labels alone, the task "
            f"'classify', because {why}"
        )
    task = as_task(data)
    options = (f for f in fields(task) if f.init and f.name != "dataset")
    if told := [f.name for f in options if getattr(task, f.name) != f.default]:
        raise ValueError(
            f"data is a task with {', '.join(f'{n}={getattr(task, n)!r:.40}' for n in told)}, but "
            "this probe trains and tests by the labels alone; give its dataset (label_smoothing "
            "goes into the recipe, and a net may return the one output that is meant)"
        )
    return task.dataset


def net_of(net: Model, seed: int) -> nn.Module:
    """The network of a seed: a copy of the module, or what the factory makes of the seed.

    The factory is called with torch's global generator seeded, and the generator left as found.

    Raises:
        TypeError: `net` is neither, or the factory gave something else than a module.
        ValueError: The network has parameters but none that is trained.
    """
    if isinstance(net, nn.Module):
        made = copied(net)
    elif callable(net):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = net(seed)
    else:
        raise TypeError(
            f"net is a {type(net).__name__}; give a torch.nn.Module, or a function that makes "
            "one from a seed"
        )
    if not isinstance(made, nn.Module):
        raise TypeError(f"net(seed) gave a {type(made).__name__}; return a torch.nn.Module")
    if not any(p.requires_grad for p in made.parameters()):
        raise ValueError("the network has no trainable parameter")
    return made


def fresh(net: Model, seed: int) -> nn.Module:
    """The network with weights drawn anew from `seed`.

    A factory is called with another seed than `net_of` calls it with; of a module a copy is made
    and every submodule's `reset_parameters()` called.

    Raises:
        ValueError: A submodule has parameters but no `reset_parameters`.
    """
    drawn = mixed_seed("drawn anew", seed)
    if not isinstance(net, nn.Module):
        return net_of(net, drawn % 2**31)
    made = net_of(net, seed)
    redraw(made, made.modules(), drawn)
    return made


def redraw(net: nn.Module, modules: Iterable[nn.Module], seed: int) -> None:
    """Draw the weights of `modules`, parts of `net`, anew, in place; buffers are reset with them.

    Raises:
        ValueError: One of them has parameters but no `reset_parameters`.
    """
    names = {module: name for name, module in net.named_modules()}
    modules = list(modules)
    for module in modules:
        own = [name for name, _ in module.named_parameters(recurse=False)]
        if own and not callable(getattr(module, "reset_parameters", None)):
            raise ValueError(
                f"module {names[module] or 'itself'!r} ({type(module).__name__}) has parameters, "
                f"{', '.join(own)} but no reset_parameters() to draw them anew with; give it one, "
                "or give `net` as a function that makes the network of a seed"
            )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in modules:
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()


def check_network(
    net: nn.Module, task: Task, device: torch.device | str, *, gradients: Collection[str] = ()
) -> None:
    """Run a batch of the training set forward and back.

    Args:
        net: Left unchanged.
        task: What it learns. Of class labels it may tell more than there are.
        device: To run on.
        gradients: Names of parameters that must get a gradient.

    Raises:
        ValueError: The outputs do not fit the task, or a parameter gets none.
    """
    device = torch.device(device)
    tried = copied(net).to(device)
    few = task.dataset.train.select(torch.arange(min(8, len(task.dataset.train)))).to(device)
    inputs = task.dataset.normalize(few.inputs)
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        naming_dtype(net, inputs),
    ):
        with evaluating(tried), torch.no_grad():
            outputs = tried(inputs)
        if isinstance(task, Classification) and isinstance(outputs, Tensor) and outputs.dim() > 1:
            outputs = outputs[:, : task.classes]
        task.check_outputs(net, outputs, few.targets)
        losses = task.objective(tried.train(), inputs, few.targets).losses
    if losses.requires_grad:
        losses.mean().backward()
    idle = [n for n, p in tried.named_parameters() if n in gradients and p.grad is None]
    if idle:
        raise ValueError(
            f"{len(idle)} parameters get no gradient: {', '.join(idle[:8])}; the output does not "
            "depend on them, but they would be counted. Leave them out with where=, or call "
            "requires_grad_(False) on them"
        )
