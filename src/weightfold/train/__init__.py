"""Training: recipes, one loop on Lightning Fabric, and the record it leaves.

Names that need torch are imported on first use, so that the command line can read `RECIPES`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weightfold.tasks.distillation import Distillation as Distillation
from weightfold.train.options import Options as Options
from weightfold.train.recipe import RECIPES as RECIPES
from weightfold.train.recipe import Recipe as Recipe

if TYPE_CHECKING:
    from weightfold.train.distill import load_teacher as load_teacher
    from weightfold.train.evaluation import evaluate as evaluate
    from weightfold.train.history import History as History
    from weightfold.train.history import Row as Row
    from weightfold.train.loop import fit as fit
    from weightfold.train.record import session as session
    from weightfold.train.runs import Observer as Observer
    from weightfold.train.runs import Start as Start
    from weightfold.train.runs import View as View
    from weightfold.train.steps import NonFiniteLoss as NonFiniteLoss
    from weightfold.train.strategies.seeds import fit_seeds as fit_seeds
    from weightfold.train.strategies.together import train_together as train_together

_HOMES = {
    "load_teacher": "distill",
    "evaluate": "evaluation",
    "History": "history",
    "Row": "history",
    "fit": "loop",
    "session": "record",
    "Observer": "runs",
    "Start": "runs",
    "View": "runs",
    "fit_seeds": "strategies.seeds",
    "NonFiniteLoss": "steps",
    "train_together": "strategies.together",
}

__all__ = ["RECIPES", "Distillation", "Options", "Recipe", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
