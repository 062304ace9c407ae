"""What is learnt: one registered class a file.

Names that need torch are imported on first use, so that the command line can read `Distillation`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weightfold.tasks.distillation import Distillation as Distillation

if TYPE_CHECKING:
    from weightfold.tasks.measure import Measure as Measure
    from weightfold.tasks.registry import as_task as as_task
    from weightfold.tasks.registry import available as available
    from weightfold.tasks.registry import build as build
    from weightfold.tasks.registry import list_tasks as list_tasks
    from weightfold.tasks.registry import register as register
    from weightfold.tasks.task import Task as Task
    from weightfold.tasks.task import Terms as Terms

_HOMES = {
    "as_task": "registry",
    "available": "registry",
    "build": "registry",
    "list_tasks": "registry",
    "register": "registry",
    "Measure": "measure",
    "Task": "task",
    "Terms": "task",
}

__all__ = ["Distillation", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
