"""Tasks by name: one class a file of this folder, found by its decorator."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from weightfold.data.pairs import Data, as_dataset
from weightfold.spec import matching
from weightfold.tasks.task import Task

T = TypeVar("T", bound=type[Task])

_TASKS: dict[str, type[Task]] = {}


def register(name: str) -> Callable[[T], T]:
    """Decorator that makes a class in `tasks/` the task `name`.

    Raises:
        ValueError: Another task has that name.
    """

    def add(cls: T) -> T:
        if name in _TASKS:
            raise ValueError(f"task {name!r} exists already: {_TASKS[name]}")
        cls.name = name
        _TASKS[name] = cls
        return cls

    return add


@cache
def _scan() -> None:
    package = importlib.import_module("weightfold.tasks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def tasks() -> Mapping[str, type[Task]]:
    """All tasks by name, found by importing every module of `tasks/`."""
    _scan()
    return dict(sorted(_TASKS.items()))


def available() -> dict[str, str]:
    """Name -> one line, of the tasks."""
    return {name: (inspect.getdoc(cls) or "").partition("\n")[0] for name, cls in tasks().items()}


def list_tasks(filter: str = "*") -> list[str]:
    """Names of tasks that `build` takes.

    >>> import weightfold as wf
    >>> wf.list_tasks("[cr]*")
    ['classify', 'regress']

    Args:
        filter: A glob that the names match.
    """
    return matching(tasks(), filter)


def build(name: str, data: Data, **options: Any) -> Task:
    """A task by its name.

    Args:
        name: One of `available`.
        data: As for `weightfold.data.as_dataset`.
        **options: Of the task.

    Raises:
        ValueError: No such task, or as the task says.
    """
    if name not in tasks():
        raise ValueError(f"task={name!r}; give one of {', '.join(tasks())}")
    return tasks()[name](as_dataset(data), **options)


def as_task(data: Task | Data) -> Task:
    """The task that is meant: a Task as it is; data alone is to be classified.

    Args:
        data: A task, or what `weightfold.data.as_dataset` takes.

    Raises:
        TypeError: It is neither.
        ValueError: The targets are no class labels.
    """
    return data if isinstance(data, Task) else build("classify", data)
