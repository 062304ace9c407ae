"""Tasks by name: one class a file of this folder, found by its decorator."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, get_args

from weightfold.data.pairs import Data, as_dataset
from weightfold.spec import matching, parse_spec, read_options
from weightfold.tasks.task import Task

T = TypeVar("T", bound=type[Task])

_TASKS: dict[str, type[Task]] = {}
_SCALARS = {int, float, bool, str}
_NO_SCALAR = object()


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
        name: One of `available`, or with options that are numbers or texts, "segment,summed=true".
        data: As for `weightfold.data.as_dataset`.
        **options: Of the task.

    Raises:
        ValueError: No such task or option, or as the task says.
    """
    kind, texts = parse_spec(name)
    if kind not in tasks():
        raise ValueError(f"task={name!r}; give one of {', '.join(tasks())}")
    cls = tasks()[kind]
    given: dict[str, Any] = {**read_options(kind, texts, _taken(cls)), **options}
    return cls(as_dataset(data), **given)


def recorded(told: Mapping[str, Any], data: Data, where: Any) -> Task:
    """The task of a record, `Task.identity`, on such data, without what is of training alone.

    Args:
        told: The record.
        data: As for `weightfold.data.as_dataset`.
        where: The record is from, for errors.

    Raises:
        ValueError: The data does not fit the task, or the record is damaged.
    """
    if told["name"] not in tasks():
        raise ValueError(f"{where}: task={told['name']!r}; there is {', '.join(tasks())}")
    taken = _taken(tasks()[told["name"]])
    options = {name: _tuples(value) for name, value in told.items() if name in taken}
    try:
        return build(told["name"], data, **options)
    except TypeError as error:
        raise ValueError(f"{where} is damaged: task {told['name']!r}: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _taken(cls: type[Task]) -> dict[str, Any]:
    """Options of a task that may be numbers or texts -> the type of that, as of `_scalar`."""
    return {f.name: t for f in fields(cls) if (t := _scalar(f.type)) is not _NO_SCALAR}


def _scalar(annotation: Any) -> Any:
    """The type of an option that a spec may give; None if that is any of several."""
    kinds = set(get_args(annotation) or (annotation,))
    if not kinds & _SCALARS:
        return _NO_SCALAR
    return annotation if annotation in _SCALARS else None


def as_task(data: Task | Data) -> Task:
    """The task that is meant: a Task as it is; data alone is to be classified.

    Args:
        data: A task, or what `weightfold.data.as_dataset` takes.

    Raises:
        TypeError: It is neither.
        ValueError: The targets are no class labels.
    """
    return data if isinstance(data, Task) else build("classify", data)
