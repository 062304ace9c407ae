"""The training loop, on Lightning Fabric."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from weightfold.data import Batches, Dataset, ImageSet, split
from weightfold.train import checkpoint
from weightfold.train.evaluate import count_correct
from weightfold.train.feed import evaluation_batches, training_batches
from weightfold.train.history import SELECTIONS, History, Row
from weightfold.train.logs import watching
from weightfold.train.recipe import Distillation, Recipe
from weightfold.train.record import check_same, describe, write_run
from weightfold.train.steps import Fabric, Steps

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


def fit(
    net: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    folder: Path | str,
    seed: int,
    validation: int | float = 0,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
    device: str = "auto",
    precision: Precision = "32-true",
    devices: int = 1,
    resume: bool = True,
    progress: bool | Callable[[Row], None] = True,
    tensorboard: bool = False,
    about: Mapping[str, Any] | None = None,
) -> History:
    """Train a network and leave its record in a folder.

    After each epoch the folder holds run.json (configuration, versions, machine), metrics.csv,
    history.json, last.pt (to resume from), last.safetensors and best.safetensors
    (`net.state_dict()`). A run that was stopped, by whatever, continues after its last whole epoch
    when `fit` is called again, and on a device with deterministic kernels, such as a CPU, ends with
    the weights, bit for bit, of a run never stopped: data order, augmentation and torch's random
    numbers of an epoch depend on (seed, epoch) alone, the learning rate on the step alone. A
    finished run is not trained again. The caller's random state is left as found.

    Args:
        net: Maps float32 (B, C, H, W) to logits (B, classes). Holds the last epoch's weights on
            return. Its initial weights are the caller's; for a seeded run, seed them.
        dataset: Training and test images.
        recipe: Every hyperparameter.
        folder: Where the record goes; made if missing.
        seed: Of data order, augmentation, validation split and dropout.
        validation: Images (int) or share (float) of the training set to hold out. The best epoch
            is chosen on them, without them on the test set, as `History.selection` says.
        teacher: Distill from this network, in eval mode; a copy is used.
        distillation: How; given with `teacher`.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "32-true"; or "16-mixed" or "bf16-mixed", in which charts stay in float32.
        devices: Processes, each with a device and its slice of every batch (DDP, started by spawn:
            guard your script with `if __name__ == "__main__"`). The gradient is that of the whole
            batch; batch norm sees its slice, and the first process's statistics are kept.
        resume: False refuses a folder that holds a run.
        progress: True for a progress bar; or a function called with each epoch's row.
        tensorboard: Also write the figures to folder/tensorboard.
        about: What else defines the run (network, expansion...), as JSON values; recorded, and
            compared when the folder already holds a run.

    Returns:
        The history of all epochs, earlier sessions' included.

    Raises:
        FileExistsError: The folder holds another run (the message names what differs), or holds
            this one and `resume` is False.
        NonFiniteLoss: The loss became NaN or infinite.
        ValueError: An argument is out of range, or the network has not one output per class.
    """
    folder = Path(folder)
    if (teacher is None) != (distillation is None):
        raise ValueError("teacher and distillation go together: give both or neither")
    if not 1 <= devices <= max(1, recipe.batch_size // 2):
        raise ValueError(f"devices={devices}: it must be between 1 and half of batch_size")
    if validation < 0:
        raise ValueError(f"validation={validation}: a number of images or a share, at least 0")
    configuration = describe(
        net,
        dataset,
        recipe,
        seed=seed,
        validation=validation,
        teacher=teacher,
        distillation=distillation,
        precision=precision,
        about=about or {},
    )
    if check_same(configuration, folder):
        if not resume:
            raise FileExistsError(
                f"folder={str(folder)!r} already holds this run; resume=True continues it"
            )
        history = checkpoint.finished(folder)
        if history is not None:
            checkpoint.load_weights(net, folder / checkpoint.LAST_WEIGHTS)
            return history
    plan = _Plan(
        dataset,
        recipe,
        folder,
        configuration,
        seed,
        validation,
        teacher,
        distillation,
        progress,
        tensorboard,
    )
    fabric = Fabric(
        accelerator=device,
        devices=devices,
        precision=precision,
        strategy="auto" if devices == 1 else "ddp_spawn",
    )
    home = next((p.device for p in net.parameters()), torch.device("cpu"))
    fabric.launch(partial(_run, plan=plan), net)
    net.to(home)
    if devices > 1:
        checkpoint.load_weights(net, folder / checkpoint.LAST_WEIGHTS)
    return checkpoint.load_history(folder / checkpoint.HISTORY)


@dataclass(frozen=True)
class _Plan:
    """What `fit` was given; goes to every process."""

    dataset: Dataset
    recipe: Recipe
    folder: Path
    configuration: dict[str, Any]
    seed: int
    validation: int | float
    teacher: nn.Module | None
    distillation: Distillation | None
    progress: bool | Callable[[Row], None]
    tensorboard: bool


def _run(fabric: Fabric, net: nn.Module, *, plan: _Plan) -> None:
    """One process of a run; what it reports is in the folder."""
    first, recipe = fabric.is_global_zero, plan.recipe
    if first:
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_run(plan.folder, plan.configuration, net, fabric.device)
    train, held_out = plan.dataset.train, None
    if plan.validation:
        train, held_out = split(train, plan.validation, plan.seed)
    batches = training_batches(train, plan.dataset, recipe, plan.seed, fabric.device)
    steps = Steps(fabric, net, plan.dataset.num_classes, recipe, plan.teacher, plan.distillation)
    history = History(_resume(steps, plan.folder), SELECTIONS[held_out is not None])

    def unaugmented(images: ImageSet) -> Batches:
        return evaluation_batches(images, plan.dataset, fabric.device)

    def accuracy(images: Batches) -> float:
        share = {"rank": fabric.global_rank, "world": fabric.world_size}
        counts = count_correct(net, images, steps.model, **share)
        fabric.all_reduce(counts, reduce_op="sum")
        correct, seen = counts.tolist()
        return correct / seen

    test = unaugmented(plan.dataset.test)
    validation = unaugmented(held_out) if held_out is not None else None
    with (
        torch.random.fork_rng(devices=range(torch.cuda.device_count())),
        watching(
            plan.progress if first else False,
            plan.folder / "tensorboard" if plan.tensorboard and first else None,
            epochs=recipe.epochs,
            steps=len(batches),
            done=len(history.rows),
        ) as watch,
    ):
        for index in range(len(history.rows), recipe.epochs):
            start = time.perf_counter()
            trained = steps.epoch(index, batches, plan.seed, watch)
            row = Row(
                epoch=index + 1,
                **asdict(trained),
                test_accuracy=accuracy(test),
                validation_accuracy=accuracy(validation) if validation is not None else None,
                seconds=time.perf_counter() - start,
            )
            history = replace(history, rows=(*history.rows, row))
            if first:
                _save(steps, history, plan.folder)
            fabric.barrier()
            watch.epoch(row)
        history = replace(history, final_train_error=1 - accuracy(unaugmented(train)))
    if first:
        checkpoint.write_history(plan.folder, history)
    fabric.barrier()


def _save(steps: Steps, history: History, folder: Path) -> None:
    """Write an epoch's files: the weights before last.pt, which makes the epoch count as done."""
    if history.best_epoch == len(history.rows):
        checkpoint.save_weights(steps.net, folder / checkpoint.BEST_WEIGHTS)
    checkpoint.save_weights(steps.net, folder / checkpoint.LAST_WEIGHTS)
    state = {
        "net": steps.net.state_dict(),
        "optimizer": steps.optimizer.state_dict(),
        "precision": steps.fabric.strategy.precision.state_dict(),
        "rows": [asdict(row) for row in history.rows],
    }
    checkpoint.save_state(folder / checkpoint.LAST, state)
    checkpoint.write_history(folder, history)


def _resume(steps: Steps, folder: Path) -> tuple[Row, ...]:
    """Restore the last whole epoch, if there is one; the rows so far."""
    path = folder / checkpoint.LAST
    if not path.exists():
        return ()
    state = checkpoint.load_state(path, steps.fabric.device)
    steps.net.load_state_dict(state["net"])
    steps.optimizer.load_state_dict(state["optimizer"])
    steps.fabric.strategy.precision.load_state_dict(state["precision"])
    return tuple(Row(**row) for row in state["rows"])
