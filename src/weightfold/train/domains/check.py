"""What must hold between a net and its data before anything is trained."""

from collections.abc import Collection, Mapping

from torch import nn

from weightfold.data import Dataset
from weightfold.train.domains.objective import shared_net


def check_domains(net: nn.Module, datasets: Mapping[str, Dataset]) -> tuple[str, ...]:
    """Refuse data that is not the net's.

    Returns:
        All domains of the net, in order.

    Raises:
        KeyError: The net has no such domain.
        TypeError: `net` has no domains.
        ValueError: No data at all, or a number of classes that differs from the net's.
    """
    classes = shared_net(net).classes
    if not datasets:
        raise ValueError("datasets is empty; give domain -> data set")
    for name, dataset in datasets.items():
        if name not in classes:
            raise KeyError(f"datasets has {name!r}; the net's domains are {', '.join(classes)}")
        if dataset.num_classes != classes[name]:
            raise ValueError(
                f"domain {name!r} has {classes[name]} classes in the net, but its data set "
                f"{dataset.name!r} has {dataset.num_classes}"
            )
    return tuple(classes)


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
