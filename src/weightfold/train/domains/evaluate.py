"""Measures by domain, and the Decathlon score."""

from collections.abc import Mapping

from torch import nn

from weightfold.data import Data
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task
from weightfold.train.domains.check import check_domains, check_outputs
from weightfold.train.evaluation import evaluate

DECATHLON_BASELINE_ERRORS: Mapping[str, float] = {
    "imagenet12": 0.4013,
    "aircraft": 0.3966,
    "cifar100": 0.1788,
    "daimlerpedcls": 0.0718,
    "dtd": 0.4447,
    "gtsrb": 0.0247,
    "vgg-flowers": 0.1859,
    "omniglot": 0.1231,
    "svhn": 0.0345,
    "ucf101": 0.4880,
}
"""Test errors of networks fine-tuned whole, one per domain: Rebuffi, Bilen and Vedaldi 2017,
"Learning multiple visual domains with residual adapters", Table 1, row Finetune, as 1 - accuracy;
their score is by definition 2500. They hold for the Decathlon's own 72-pixel images and test sets,
not for other copies of these data sets."""


def evaluate_domains(
    net: nn.Module, data: Mapping[str, Task | Data], part: str = "test"
) -> dict[str, float]:
    """The first measure of each domain's task, in eval mode.

    Args:
        net: A SharedNet, or a Charted net over one.
        data: Domain -> task, or data to classify; some of the net's domains, or all.
        part: "test", "train" or "validation".

    Returns:
        Domain -> value; of data to classify, the share of examples whose highest logit is their
        label's.

    Raises:
        KeyError: The net has no such domain.
        TypeError: `net` has no domains.
        ValueError: No domain, or a task that the net's outputs do not fit.
    """
    tasks = {name: as_task(given) for name, given in data.items()}
    check_domains(net, tasks)
    check_outputs(net, tasks)

    def measure(name: str, task: Task) -> float:
        found = evaluate(net, task, part, forward=lambda inputs: net({name: inputs})[name])
        return found[task.measure.name]

    return {name: measure(name, task) for name, task in tasks.items()}


def decathlon_points(
    errors: Mapping[str, float], baseline_errors: Mapping[str, float]
) -> dict[str, float]:
    """Points by domain, 0 to 1000 each, whose sum is `decathlon_score`.

    Args:
        errors: Domain -> error E, a share in [0, 1].
        baseline_errors: Domain -> error of the baseline, in (0, 1]; of exactly the same domains.

    Raises:
        ValueError: Other domains, or an error out of range.
    """
    if errors.keys() != baseline_errors.keys():
        differ = ", ".join(sorted(errors.keys() ^ baseline_errors.keys()))
        raise ValueError(
            f"errors and baseline_errors name other domains ({differ}); give both for the same"
        )
    points = {}
    for name, error in errors.items():
        baseline = baseline_errors[name]
        if not 0 <= error <= 1 or not 0 < baseline <= 1:
            raise ValueError(
                f"{name}: error {error} and baseline {baseline} must be shares, from 0 to 1 and "
                "the baseline above 0"
            )
        worst = 2 * baseline
        points[name] = 1000 * (max(0.0, worst - error) / worst) ** 2
    return points


def decathlon_score(errors: Mapping[str, float], baseline_errors: Mapping[str, float]) -> float:
    """The score of the Visual Decathlon (Rebuffi, Bilen and Vedaldi 2017).

    S = sum over domains of alpha max(0, Emax - E)^2 with Emax twice the baseline's error and alpha
    = 1000 / Emax^2: a perfect domain counts 1000, one at the baseline 250, one at Emax or worse 0.

    Args:
        errors: As for `decathlon_points`.
        baseline_errors: As for `decathlon_points`; `DECATHLON_BASELINE_ERRORS` are those of the
            challenge.

    Raises:
        ValueError: As `decathlon_points`.
    """
    return sum(decathlon_points(errors, baseline_errors).values())
