"""What a saved SharedNet's manifest says of its domains: read, checked, and made for others."""

import copy
from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, NotRequired, TypedDict

from weightfold.methods.share.names import check_names
from weightfold.records import conform, within

KIND = "sharing"
MOST_VALUES = 2**27

Size = Annotated[int, within(1, 2**20)]


class Told(TypedDict):
    """What is told about a domain, as far as it is used; more may be there."""

    model: NotRequired[str]
    class_names: NotRequired[list[Any]]
    image_shape: NotRequired[tuple[Size, Size, Size]]
    mean: NotRequired[float | list[float]]
    std: NotRequired[float | list[float]]
    value_range: NotRequired[tuple[float, float]]


class SharingConfig(TypedDict):
    """The configuration of the chart that shares filters between domains."""

    own: dict[str, list[tuple[int, int]]]
    norms: list[str]
    head: str
    classes: dict[str, Annotated[int, within(1, 2**40)]]
    shared_head: NotRequired[int]
    about: dict[str, Told]
    plan: NotRequired[dict[str, Any] | None]


def read_config(levels: list[list[dict[str, Any]]], where: object) -> dict[str, Any]:
    """Configuration of the chart that shares filters between domains, a `SharingConfig`.

    Args:
        levels: Charts of each level, as `weightfold.core.store.levels` gives them.
        where: What errors begin with.

    Raises:
        ValueError: There is no such chart, or its configuration is damaged.
    """
    found = [c["config"] for level in levels for c in level if c["kind"] == KIND]
    if len(found) != 1:
        raise ValueError(f"{where} is no saved net of several domains; see wf.share")
    conform(found[0], SharingConfig, f"{where} does not say its domains, as it should")
    check_names(list(found[0]["classes"]))
    for name, told in found[0]["about"].items():
        if prod(shape := told.get("image_shape", ())) > MOST_VALUES:
            raise ValueError(f"{where}: image_shape={shape} of {name!r} is beyond any image")
    return found[0]


def with_domains(
    levels: list[list[dict[str, Any]]], classes: Mapping[str, int], about: Mapping[str, Any]
) -> list[list[dict[str, Any]]]:
    """A copy of `levels` with other domains; what is told about further ones is left out.

    Args:
        levels: As `read_config`.
        classes: Domain -> number of classes.
        about: Domain -> what is told about it.
    """
    levels = copy.deepcopy(levels)
    told = {name: about[name] for name in classes if about.get(name)}
    read_config(levels, "net").update(classes=dict(classes), about=told)
    return levels
