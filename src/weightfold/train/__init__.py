"""Training: recipes, one loop with callbacks and strategies, and the record it leaves.

Names that need torch are imported on first use, so that the command line can read `RECIPES`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weightfold.tasks.distillation import Distillation as Distillation
from weightfold.train.options import Options as Options
from weightfold.train.recipe import RECIPES as RECIPES
from weightfold.train.recipe import Recipe as Recipe

if TYPE_CHECKING:
    from weightfold.train.callbacks import Callback as Callback
    from weightfold.train.callbacks import KeepWeights as KeepWeights
    from weightfold.train.context import Context as Context
    from weightfold.train.evaluation import evaluate as evaluate
    from weightfold.train.history import History as History
    from weightfold.train.history import Row as Row
    from weightfold.train.loop import NonFiniteLoss as NonFiniteLoss
    from weightfold.train.record import session as session
    from weightfold.train.single import fit as fit
    from weightfold.train.starts import Start as Start
    from weightfold.train.starts import start_maps as start_maps
    from weightfold.train.together import Run as Run
    from weightfold.train.together import fit_seeds as fit_seeds
    from weightfold.train.together import fit_together as fit_together

_HOMES = {
    "Callback": "callbacks",
    "KeepWeights": "callbacks",
    "Context": "context",
    "evaluate": "evaluation",
    "History": "history",
    "Row": "history",
    "NonFiniteLoss": "loop",
    "session": "record",
    "fit": "single",
    "Start": "starts",
    "start_maps": "starts",
    "Run": "together",
    "fit_seeds": "together",
    "fit_together": "together",
}

__all__ = ["RECIPES", "Distillation", "Options", "Recipe", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
