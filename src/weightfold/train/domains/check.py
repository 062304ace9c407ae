"""What must hold between a net and its data before anything is trained."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from weightfold.tasks.task import Task
from weightfold.train.domains.objective import shared_net


def check_domains(net: nn.Module, tasks: Mapping[str, Task]) -> tuple[str, ...]:
    """Refuse tasks that are not the net's.

    Returns:
        All domains of the net, in order.

    Raises:
        KeyError: The net has no such domain.
        TypeError: `net` has no domains.
        ValueError: No task at all, or tasks of different measures.
    """
    classes = shared_net(net).classes
    if not tasks:
        raise ValueError("data is empty; give domain -> task or data set")
    for name in tasks:
        if name not in classes:
            raise KeyError(f"data has {name!r}; the net's domains are {', '.join(classes)}")
    measures = {task.measures for task in tasks.values()}
    if len(measures) > 1:
        names = {name: task.name for name, task in tasks.items()}
        raise ValueError(f"the domains' tasks have different measures: {names}; give tasks alike")
    return tuple(classes)


def check_outputs(net: nn.Module, tasks: Mapping[str, Task], batch_size: int | None = None) -> None:
    """Refuse tasks that the net's outputs do not fit, and batches of one that it cannot take.

    Raises:
        ValueError: As said; the message names the domain.
    """
    for name, task in tasks.items():
        try:
            forward = partial(_domain, net, name)
            task.check(net, forward, batch_size)
        except ValueError as error:
            raise ValueError(f"domain {name!r}: {error}") from None


def _domain(net: nn.Module, name: str, inputs: Tensor) -> Any:
    return net({name: inputs})[name]


def check_all(given: Collection[str], domains: Collection[str], argument: str) -> None:
    """Refuse an argument that leaves a domain out.

    Raises:
        ValueError: As said, or it names one that is not there.
    """
    missing = [name for name in domains if name not in given]
    unknown = [name for name in given if name not in domains]
    if missing or unknown:
        found = [f"lacks {', '.join(missing)}"] * bool(missing)
        found += [f"names {', '.join(unknown)}, no domain of the net"] * bool(unknown)
        raise ValueError(f"{argument} {' and '.join(found)}; give {', '.join(domains)}")
