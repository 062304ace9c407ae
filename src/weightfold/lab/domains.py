"""A training on several domains as a run: one SharedNet. Imports no torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.lab.run import Run, by_epoch
from weightfold.spec import parse_spec, read_options
from weightfold.train.domains.joint import Joint
from weightfold.train.progress import ProgressCallback
from weightfold.train.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from weightfold.data import Dataset
    from weightfold.methods.share.layers import Layers
    from weightfold.methods.share.net import SharedNet
    from weightfold.methods.share.plan import Plan
    from weightfold.train import History

STRATEGIES = ("bottom", "top", "random", "independent")
_OPTIONS = {
    "fraction": float,
    "num_filters": int,
    "budget": str,
    "bn": str,
    "shared_norms": str,
    "head": str,
}
PLAIN = "plain.safetensors"
"""In the folder of a training of one domain: the state_dict of its plain network."""


@dataclass(frozen=True)
class Domain:
    """A data set under a domain's name.

    Attributes:
        name: Of the domain.
        data: Data spec as `weightfold.data.load` takes it; if it begins with no data set's name,
            the path of a folder or .npz file below the data folder.
        classes: How many.
    """

    name: str
    data: str
    classes: int


@dataclass(frozen=True)
class DomainsTraining(Run):
    """What is trained jointly, on what, how, and from which seed.

    Attributes:
        model: Network spec, as `weightfold.nets.build` takes it.
        plan: What each domain owns: "bottom", "top" or "random" with options fraction,
            num_filters, budget, bn, shared_norms and head of `wf.plan_sharing`, whose `seed` is
            the run's; or "independent", which is fraction 1.
        domains: Their data.
        recipe: Hyperparameters; the batch is each domain's.
        seed: Of the classifiers, a random plan, data order and augmentation.
        size: Height and width of the images.
        joint: How the domains are trained together.
        start: Where all but the classifiers starts: the last weights of a training of one domain,
            or the path of a .safetensors file below the data folder; None: at random, from `seed`.
            Batch norms that it lacks, or that were folded, are made to do nothing at first.
        test_limit: Of each domain's test images, this many of a fixed random order; None: all.
    """

    model: str
    plan: str
    domains: tuple[Domain, ...]
    recipe: Recipe
    seed: int
    size: int
    joint: Joint = field(default_factory=Joint)
    start: "DomainsTraining | str | None" = None
    test_limit: int | None = None

    @property
    def title(self) -> str:
        """What is being trained, in a few words."""
        return f"{self.model} {self.plan} x{len(self.domains)} seed {self.seed}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Network, plan, number of domains and seed."""
        return (self.model, self.plan, f"{len(self.domains)}domains", f"seed{self.seed}")

    @property
    def before(self) -> "DomainsTraining | None":
        """The training that must be finished first."""
        return self.start if isinstance(self.start, DomainsTraining) else None

    @property
    def classes(self) -> dict[str, int]:
        """Domain -> classes; the most of any for all of them if they share the classifier."""
        classes = {domain.name: domain.classes for domain in self.domains}
        if read_plan(self.plan)[1].get("head") == "shared":
            return dict.fromkeys(classes, max(classes.values()))
        return classes

    @property
    def derived(self) -> dict[str, Any]:
        """Its plan in words, and what all domains store together or as networks of their own."""
        plan = plan_of(self.model, self.plan, self.size, self.seed)
        account = plan.account(self.classes)
        return {
            "plan": str(plan),
            "total_parameters": account.total.parameters,
            "total_bytes": account.total.bytes,
            "independent_parameters": account.independent.parameters,
            "independent_bytes": account.independent.bytes,
        }

    def finished(self, root: Path) -> "History | None":
        """The record of its run below `root`; None if it has not come to its end."""
        from weightfold.train import checkpoint

        if len(self.domains) == 1 and not (root / self.folder / PLAIN).exists():
            return None  # it was stopped before its last file
        return checkpoint.finished(root / self.folder)

    def train(
        self,
        root: Path,
        *,
        data_root: Path | None = None,
        progress: bool | ProgressCallback = True,
    ) -> "History":
        """Train it in its folder below `root`, or go on where it stopped; a no-op once finished.

        Args:
            root: Folder of the runs; holds that of `start`.
            data_root: Data folder; None: $WEIGHTFOLD_DATA.
            progress: True for bars; or a function told of each epoch, the classifiers' first.

        Raises:
            FileNotFoundError: Data or weights to start from are missing; the message names all.
            ValueError: A domain's data has other classes or another size than declared.
        """
        from weightfold.train import checkpoint
        from weightfold.train.domains import DomainOptions, fit_domains

        done = self.finished(root)
        if done is not None:
            return done
        self._check_files(data_root)
        datasets = {d.name: load_domain(d, self, data_root) for d in self.domains}
        images = [_first_images(dataset) for dataset in datasets.values()]
        net = shared_net(self, self._state(root, data_root), images)
        history = fit_domains(
            net,
            datasets,
            self.recipe,
            folder=root / self.folder,
            seed=self.seed,
            progress=by_epoch(progress, self.joint.head_epochs + self.recipe.epochs),
            options=DomainOptions(
                joint=self.joint, about={"model": self.model, "plan": self.plan, "key": self.key}
            ),
        )
        if len(self.domains) == 1:
            plain = net.deploy(domain=self.domains[0].name)
            checkpoint.save_weights(plain, root / self.folder / PLAIN)
        return history

    def to_json(self, record: "History") -> Any:
        """The history as `History.as_json` gives it."""
        return record.as_json()

    def from_json(self, written: Any) -> "History":
        """The history again."""
        from weightfold.train import History

        return History.from_json(written)

    def _state(self, root: Path, data_root: Path | None) -> dict[str, Any] | None:
        """The state_dict it starts from."""
        from weightfold.core.tensor_file import read_tensors

        if self.start is None:
            return None
        if isinstance(self.start, str):
            return read_tensors(_below(data_root, self.start))
        return read_tensors(root / self.start.folder / PLAIN)

    def _check_files(self, data_root: Path | None) -> None:
        """Raise with the names of all that is missing."""
        from weightfold.data.registry import readers

        paths = [d.data.partition(",")[0] for d in self.domains]
        paths = [_below(data_root, path) for path in paths if path not in readers()]
        if isinstance(self.start, str):
            paths.append(_below(data_root, self.start))
        missing = [str(path) for path in paths if not path.exists()]
        if missing:
            raise FileNotFoundError(
                f"{', '.join(missing)}: missing. A domain is an .npz file or a folder with "
                "train/CLASS/IMAGE and test/CLASS/IMAGE; weights are the state_dict of "
                f"{self.model} trained on ImageNet, as .safetensors"
            )


def read_plan(plan: str) -> tuple[str, dict[str, Any]]:
    """Strategy and arguments of `wf.plan_sharing` of a training's `plan`.

    Raises:
        ValueError: The plan is unknown or has other options.
    """
    name, texts = parse_spec(plan)
    if name not in STRATEGIES:
        raise ValueError(f"plan={plan!r}; choose {', '.join(STRATEGIES)}")
    if name == "independent":
        return "bottom", {**read_options(name, texts, {}), "fraction": 1.0}
    return name, dict(read_options(name, texts, _OPTIONS))


@cache
def plan_of(model: str, plan: str, size: int, seed: int) -> "Plan":
    """The plan of a training, made from its network's shapes alone."""
    from weightfold.methods.share.plan import plan_sharing

    strategy, options = read_plan(plan)
    net, layers = _layers_of(model, size)
    return plan_sharing(net, strategy, seed=seed, layers=layers, **options)  # type: ignore[arg-type]


@cache
def _layers_of(model: str, size: int) -> "tuple[nn.Module, Layers]":
    """A network without memory, and its layers as they run on images of a size."""
    import torch

    from weightfold.methods.share.layers import find_layers
    from weightfold.nets import build

    with torch.random.fork_rng(devices=[]):
        net = build(model, num_classes=10)
    layers = find_layers(net, torch.zeros(1, 3, size, size))
    return net.to("meta"), layers


def shared_net(
    training: DomainsTraining, state: dict[str, Any] | None, images: "Sequence[Tensor]" = ()
) -> "SharedNet":
    """The training's net with its initial weights.

    Args:
        training: Whose.
        state: state_dict of a plain network with any number of classes, with or without its batch
            norms; None: random weights.
        images: Normalised images of the domains; batch norms that are new, or do nothing because
            they were folded, get their statistics from these, see `renormalize`.

    Raises:
        KeyError: The state is of another architecture.
    """
    import torch

    from weightfold.core.charted import check_state
    from weightfold.methods.share.verb import share
    from weightfold.nets import build

    plan = plan_of(training.model, training.plan, training.size, training.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = build(training.model, num_classes=10)
    if state is not None:
        own = model.state_dict()
        norms = [n for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
        with_norms = any(name.rpartition(".")[0] in norms for name in state)
        fresh = {plan.head, *(() if with_norms else norms)}
        new = {name: own[name] for name in own if name.rpartition(".")[0] in fresh}
        state = {**state, **new}
        check_state(own, state)
        model.load_state_dict(state)
        if images and all((state[f"{n}.running_mean"] == 0).all() for n in norms):
            renormalize(model, norms, torch.cat([*images]))
    return share(model, training.classes, plan, seed=training.seed)


def renormalize(model: "nn.Module", norms: Sequence[str], images: "Tensor") -> None:
    """Give batch norms the statistics of their inputs and leave the network's function as it is.

    Trained weights are handed on with batch norm folded in, and a batch norm that does nothing in
    its place; in train mode that would divide by spreads which the weights know nothing of. Here
    running statistics become those of `images`, and weight and bias what undoes them.

    Args:
        model: Put in eval mode; changed in place.
        norms: Paths of its batch norms.
        images: float (B, C, H, W), as the model takes them.
    """
    import torch

    def before(norm: Any, args: tuple) -> None:
        x = args[0]
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias += scale * (mean - norm.running_mean)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    hooks = [model.get_submodule(n).register_forward_pre_hook(before) for n in norms]
    with torch.no_grad():
        model.eval()(images)
    for hook in hooks:
        hook.remove()


def _first_images(dataset: "Dataset") -> "Tensor":
    import torch

    part = dataset.train.select(torch.arange(min(100, len(dataset.train))))
    return dataset.normalize(part.inputs)


def _below(data_root: Path | None, name: str) -> Path:
    """A path below the data folder, or the absolute path it is."""
    from weightfold.data.registry import ROOT_VARIABLE

    return Path(data_root or os.environ.get(ROOT_VARIABLE, ".")).expanduser() / name


@cache
def _read(data: str, size: int, test_limit: int | None, data_root: Path | None) -> "Dataset":
    """A data set in colour, at the run's size, with fewer test images."""
    from dataclasses import replace

    import torch

    from weightfold.data import load
    from weightfold.data.registry import readers

    name, _, options = data.partition(",")
    where = name if name in readers() else str(_below(data_root, name))
    spec = ",".join(filter(None, (where, options, "rgb=true", f"size={size}")))
    dataset = load(spec, data_root)
    if test_limit is None or test_limit >= len(dataset.test):
        return dataset
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(dataset.test), generator=generator)[:test_limit]
    record = {**dataset.record, "test": test_limit}
    return replace(dataset, test=dataset.test.select(order), record=record)


def load_domain(domain: Domain, training: DomainsTraining, data_root: Path | None) -> "Dataset":
    """The data of a domain of a training.

    Raises:
        ValueError: It has other classes than declared.
    """
    from dataclasses import replace

    dataset = _read(domain.data, training.size, training.test_limit, data_root)
    if dataset.num_classes != domain.classes:
        raise ValueError(
            f"domain {domain.name!r} is declared with {domain.classes} classes, its data "
            f"{domain.data!r} has {dataset.num_classes}"
        )
    classes = training.classes[domain.name]
    spare = tuple(f"unused-{i}" for i in range(classes - domain.classes))
    return replace(dataset, num_classes=classes, class_names=(*dataset.class_names, *spare))
