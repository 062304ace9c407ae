"""Compare ways to train one network over seeds: compact against expansions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import nn

from weightfold.data import Augment, Dataset, load
from weightfold.export import accuracy as runner_accuracy
from weightfold.export import onnx_runner, to_onnx
from weightfold.files import foreign, locked, write_json
from weightfold.lab.cell import Cell, build
from weightfold.lab.compare_page import write_all
from weightfold.lab.comparison import Comparison, Deployed, Result
from weightfold.lab.executors.base import RunExecutor
from weightfold.lab.executors.registry import opened
from weightfold.lab.runner import run_cells
from weightfold.lab.saved import deployed, load_run
from weightfold.records import read_record, write_record
from weightfold.report.statistics import paired, summarize
from weightfold.tasks.registry import as_task
from weightfold.timing import alternate
from weightfold.train import History, Recipe, checkpoint, evaluate, session
from weightfold.train.optimizer import make_optimizer
from weightfold.train.record import check_same

WARMUP_STEPS, TIMED_STEPS = 5, 30


class ComparisonRecord(TypedDict):
    """What a comparison's run.json holds."""

    configuration: dict[str, Any]
    sessions: list[dict[str, Any]]
    step_seconds: dict[str, float]


def compare(
    model: str,
    data: str,
    variants: Sequence[str],
    *,
    seeds: Sequence[int],
    recipe: Recipe,
    folder: Path | str,
    match: Literal["epochs", "time"] = "epochs",
    data_root: Path | None = None,
    on: str = "local",
    jobs: int | None = None,
    progress: bool = True,
) -> Comparison:
    """Train a network in several ways over seeds; leave numbers, a page and the best one deployed.

    A call that was stopped goes on when it is repeated.

    Args:
        model: Network spec, see `weightfold.nets.build`.
        data: Data spec, see `weightfold.data.load`.
        variants: See `weightfold.lab.variants`; the first is what the others are compared with.
        seeds: At least two. A seed's variants share the order of the data and the augmentation,
            and the initial weights of all that is not expanded.
        recipe: Hyperparameters.
        folder: Made if missing; gets results.json and .csv, runs.csv, curves.png, index.html, the
            runs in runs/, and the best variant's network in deployed/.
        match: "epochs", the recipe's for all; or "time": the slowest variant gets those, the
            others as many as its steps take, by step times measured at first. Milestones and
            warm-up are stretched with them.
        data_root: Data folder; None: $WEIGHTFOLD_DATA.
        on: Where they are trained, see `run_cells`; step times are measured on this machine.
        jobs: Networks trained at once, see `run_cells`.
        progress: Show bars.

    Raises:
        FileExistsError: The folder holds another comparison (the message says what differs), or
            other files; or another process compares in it.
        ValueError: A spec is wrong, or variants or seeds are too few or repeat.
        CellsFailed: A training failed.
        ConnectionError: The executor cannot be reached.
    """
    folder, variants, seeds = Path(folder), tuple(variants), tuple(seeds)
    for name, values in (("variants", variants), ("seeds", seeds)):
        if len(set(values)) < max(2, len(values)):
            raise ValueError(f"{name}={values}: give at least two, each once")
    configuration = {
        "model": model,
        "data": data,
        "variants": list(variants),
        "seeds": list(seeds),
        "match": match,
        "recipe": json.loads(json.dumps(asdict(recipe))),
    }
    if not check_same(configuration, folder) and foreign(folder):
        raise FileExistsError(
            f"folder={str(folder)!r} holds files that are no comparison; give a new or empty one"
        )
    dataset = load(data, data_root)
    nets = {v: build(Cell(model, v, data, recipe, seeds[0]), dataset) for v in variants}
    with opened(on, folder / "runs", jobs=jobs) as executor, locked(folder):
        with _threads_of(executor):
            started, times = _begin(folder, configuration, nets, dataset, recipe)
        epochs = _epochs(recipe.epochs, times, match)
        cells = {
            (variant, seed): Cell(model, variant, data, stretched(recipe, epochs[variant]), seed)
            for seed in seeds
            for variant in variants
        }
        trained = run_cells(
            list(cells.values()),
            folder / "runs",
            data_root=data_root,
            on=executor,
            progress=progress,
        )
        histories = {v: tuple(trained[cells[v, seed]] for seed in seeds) for v in variants}
        results = tuple(_result(v, nets, histories, times) for v in variants)
        best = max(results, key=lambda result: result.last.mean).variant
        shipped = _deploy(cells[best, seeds[0]], folder, dataset)
        comparison = Comparison(configuration, started, results, histories, shipped)
        write_all(comparison, folder)
    return comparison


def step_seconds(
    nets: Mapping[str, nn.Module], dataset: Dataset, recipe: Recipe
) -> dict[str, float]:
    """Median wall time of a training step of each network, their steps taken in turn.

    A step is forward, backward and optimizer on one batch that is there already. It trains the
    networks given: pass some that are not needed afterwards.

    Args:
        nets: By name.
        dataset: Its first training batch is used.
        recipe: Gives batch size, loss and optimizer.
    """
    device = _device()
    augment = Augment(recipe.crop_padding, recipe.flip)
    batches = as_task(dataset).batches(
        "train", device, batch_size=recipe.batch_size, augment=augment
    )
    images, labels = next(batches.epoch(0))

    def stepper(net: nn.Module) -> Any:
        net.to(device).train()
        optimizer = make_optimizer(net.parameters(), recipe, recipe.weight_decay)

        def step() -> float:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images), labels, label_smoothing=recipe.label_smoothing)
            loss.backward()
            optimizer.step()
            return loss.item()  # waits for the device

        return step

    steppers = {name: stepper(net) for name, net in nets.items()}
    latencies = alternate(steppers, warmup=WARMUP_STEPS, repeats=TIMED_STEPS)
    return {name: latency.median_ms / 1000 for name, latency in latencies.items()}


def _device() -> torch.device:
    """Where `fit` trains with device="auto"."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


@contextmanager
def _threads_of(executor: RunExecutor) -> Iterator[None]:
    """As many threads of torch as each of an executor's workers has."""
    before = torch.get_num_threads()
    if executor.threads is not None:
        torch.set_num_threads(executor.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def stretched(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe in another number of epochs, milestones and warm-up in proportion."""
    factor = epochs / recipe.epochs
    return replace(
        recipe,
        epochs=epochs,
        milestones=tuple(round(milestone * factor) for milestone in recipe.milestones),
        warmup_epochs=round(recipe.warmup_epochs * factor),
    )


def _begin(
    folder: Path,
    configuration: dict[str, Any],
    nets: Mapping[str, nn.Module],
    dataset: Dataset,
    recipe: Recipe,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Measure step times, once a comparison; note them and this session in run.json."""
    path = folder / checkpoint.RUN
    record: dict[str, Any] = {"configuration": configuration, "sessions": []}
    if check_same(configuration, folder):
        record = read_record(path, ComparisonRecord)
    else:
        record["step_seconds"] = step_seconds(nets, dataset, recipe)
    record["sessions"].append(session(_device()))
    write_record(path, record)
    return record["sessions"][-1], record["step_seconds"]


def _epochs(epochs: int, times: Mapping[str, float], match: str) -> dict[str, int]:
    """Epochs of each variant."""
    slowest = max(times.values())
    return {v: round(epochs * slowest / t) if match == "time" else epochs for v, t in times.items()}


def _result(
    variant: str,
    nets: Mapping[str, nn.Module],
    histories: Mapping[str, tuple[History, ...]],
    times: Mapping[str, float],
) -> Result:
    first = next(iter(nets))
    last = {v: [history.last_value for history in histories[v]] for v in (first, variant)}
    return Result(
        variant=variant,
        epochs=len(histories[variant][0].rows),
        last=summarize(last[variant]),
        best=summarize([history.best_value for history in histories[variant]]),
        difference=paired(last[variant], last[first]) if variant != first else None,
        training_parameters=sum(p.numel() for p in nets[variant].parameters()),
        deployed_parameters=sum(p.numel() for p in deployed(nets[variant]).parameters()),
        step_seconds=times[variant],
        step_ratio=times[variant] / times[first],
    )


def _deploy(cell: Cell, folder: Path, dataset: Dataset) -> Deployed:
    """Write the cell's deployed network as safetensors and ONNX, with how to feed it."""
    net = deployed(load_run(folder / "runs" / cell.folder, dataset, model=cell.model))
    target = folder / "deployed"
    target.mkdir(exist_ok=True)
    checkpoint.save_weights(net, target / "model.safetensors")
    report = to_onnx(net, torch.zeros(1, *dataset.image_shape), target / "model.onnx")
    write_json(
        target / "model.json",
        {
            "model": cell.model,
            "trained_as": cell.variant,
            "data": cell.data,
            "seed": cell.seed,
            "num_classes": dataset.num_classes,
            "class_names": dataset.class_names,
            "image_shape": dataset.image_shape,
            "input": "(pixel / 255 - mean) / std per channel, float32 (B, C, H, W)",
            "mean": dataset.mean,
            "std": dataset.std,
        },
    )
    test = as_task(dataset).batches("test")
    return Deployed(
        variant=cell.variant,
        seed=cell.seed,
        test_accuracy=evaluate(net, dataset)["accuracy"],
        onnx_accuracy=runner_accuracy(onnx_runner(target / "model.onnx"), test.epoch(0)),
        onnx_difference=report.max_relative_difference,
    )
