"""The best network of a comparison, deployed to files."""

from dataclasses import dataclass
from pathlib import Path

import torch

from weightfold.export import onnx_runner, to_onnx
from weightfold.files import write_json
from weightfold.lab.pictures import trained
from weightfold.lab.results import Results
from weightfold.lab.training import Training
from weightfold.tasks.measure import Measure
from weightfold.tasks.task import Task
from weightfold.train import checkpoint, evaluate


@dataclass(frozen=True)
class Deployed:
    """The network that was exported.

    Attributes:
        variant: Of the best mean by the task's measure after the last epoch.
        seed: The first one, whatever its own value.
        measure: Of the task.
        test_value: By it, of the deployed network in torch.
        onnx_value: Of its ONNX file in ONNX Runtime; None: there is none.
        onnx_difference: Batch size -> largest |ONNX Runtime - torch| over the largest |torch|.
        failed: Why there is no ONNX file; "" if there is.
    """

    variant: str
    seed: int
    measure: Measure
    test_value: float
    onnx_value: float | None
    onnx_difference: dict[int, float]
    failed: str = ""

    def __str__(self) -> str:
        text = f"Deployed: {self.variant}, the best mean, seed {self.seed}, the first. "
        torchs = self.measure.text(self.test_value)
        if self.onnx_value is None:
            return f"{text}It has test {torchs} in torch; there is no ONNX file: {self.failed}"
        return (
            f"{text}Its ONNX file has test {self.measure.text(self.onnx_value)} in ONNX Runtime, "
            f"the network {torchs} in torch; their outputs differ by at most "
            f"{max(self.onnx_difference.values()):.1e} of the largest one."
        )


def deploy_best(results: Results, folder: Path, task: Task) -> Deployed:
    """Write the best variant's deployed network as safetensors and ONNX, with how to feed it.

    Args:
        results: The first measure is the task's, after the last epoch.
        folder: Of the comparison; holds the runs.
        task: What was learnt.
    """
    key, measure = results.experiment.measures[0].key, task.measure
    means = {x: found.value for x in results.outcomes if (found := results.estimate(x, key))}
    labels = list(means)
    run = results.run_of(labels[measure.best([means[label] for label in labels])])
    assert isinstance(run, Training)
    net = trained(run, task, folder)
    target, dataset = folder / "deployed", task.dataset
    target.mkdir(exist_ok=True)
    checkpoint.save_weights(net, target / "model.safetensors")
    write_json(
        target / "model.json",
        {
            "model": str(run.model),
            "trained_as": run.variant,
            "task": task.name,
            "data": str(run.data),
            "seed": run.seed,
            "num_classes": dataset.num_classes,
            "class_names": dataset.class_names,
            "image_shape": dataset.shape,
            "input": "(pixel / 255 - mean) / std per channel, float32 (B, C, H, W)",
            "mean": dataset.mean,
            "std": dataset.std,
        },
    )
    value, path = evaluate(net, task)[measure.name], target / "model.onnx"
    try:
        report = to_onnx(net, torch.zeros(1, *dataset.shape), path)
    except TypeError as error:  # its outputs are no tensor
        return Deployed(run.variant, run.seed, measure, value, None, {}, str(error))
    there = evaluate(net, task, forward=onnx_runner(path))[measure.name]
    return Deployed(run.variant, run.seed, measure, value, there, report.max_relative_difference)
