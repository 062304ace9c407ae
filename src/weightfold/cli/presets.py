"""The recipe options that `train` and `compare` share."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import tyro

from weightfold.train.recipe import RECIPES

if TYPE_CHECKING:
    Preset = str
else:
    Preset = tyro.extras.literal_type_from_choices(tuple(RECIPES))


def chosen_preset(arguments: Sequence[str], default: str) -> str:
    """What `arguments` say of --recipe.

    Raises:
        ValueError: There is no such recipe.
    """
    name = default
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == "--recipe":
            name = following
        elif argument.startswith("--recipe="):
            name = argument.partition("=")[2]
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no recipe {name!r}; {hint}recipes: {', '.join(RECIPES)}")
    return name
