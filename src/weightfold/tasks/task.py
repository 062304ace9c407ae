"""What is learnt: examples, their batches, the loss of each, and by what a network is judged."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from weightfold.core.arguments import check_values
from weightfold.data.batches import Augment, Augmentation, Batches
from weightfold.data.contents import digest_of, moved
from weightfold.data.dataset import Dataset
from weightfold.data.splitting import hold_out
from weightfold.nets import build
from weightfold.tasks.measure import Measure
from weightfold.tasks.outputs import tensor_of

EVALUATION_BATCH, EVALUATION_VALUES = 512, 2**25
"""Examples evaluated at once, at most, and the values of their inputs, about."""


class Terms(NamedTuple):
    """What a batch gives: its losses, and how it was judged."""

    losses: Tensor
    """(B,), or a scalar where the model computes the loss of the whole batch itself."""
    scores: dict[str, Tensor]
    """Measure -> (B,), by the outputs that were trained on; without a gradient."""


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """What is learnt, on which data.

    A subclass is a frozen dataclass, registered by `weightfold.tasks.registry.register`. Its fields
    are its options; they are part of what defines a run.

    Attributes:
        dataset: The examples.
        augment: How training images are varied, in place of what the recipe says.
    """

    dataset: Dataset
    augment: Augmentation | None = None

    name: ClassVar[str] = ""
    """Set by the registry."""
    measures: ClassVar[tuple[Measure, ...]] = ()
    """By what it is judged; the first decides the best epoch."""
    model_computes_loss: ClassVar[bool] = False
    """Whether `objective` gets its loss from the model, as a scalar, and only in train mode."""

    @property
    def stackable(self) -> bool:
        """Whether networks can be trained on it as one vmapped batch."""
        return not self.model_computes_loss

    @property
    def measure(self) -> Measure:
        """The first of the measures."""
        return self.measures[0]

    @property
    def outputs(self) -> int:
        """How many values a network gives for an example: its `num_classes`."""
        few = self.dataset.test.select(torch.arange(1, device="cpu"))  # also where meta is default
        return self.wanted(few.targets)[1]

    def network(self, spec: str) -> nn.Module:
        """An untrained network by its spec, that fits the task.

        Args:
            spec: As for `weightfold.nets.build`; weights come from torch's global generator.

        Raises:
            ValueError: There is no such network.
        """
        return build(spec, num_classes=self.outputs, in_channels=self.dataset.shape[0])

    @property
    def digest(self) -> str:
        """Hash of the contents of the data."""
        return self.dataset.digest

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Any) -> Tensor:
        """The loss of each example, (B,), which training makes small; without tricks of training.

        Args:
            outputs: As `read` returns them.
            targets: Of the same examples.
        """

    @abstractmethod
    def scores(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        """Measure -> (B,), for those measures that are means over examples; runs under vmap.

        Args:
            outputs: As `read` returns them.
            targets: Of the same examples.
        """

    @abstractmethod
    def wanted(self, targets: Any) -> tuple[int, ...]:
        """The shape that `read` must give for these targets."""

    @abstractmethod
    def baseline(self) -> float:
        """What the trivial predictor, which knows the training targets alone, gets by `measure`."""

    def read(self, outputs: Any) -> Tensor:
        """What losses and scores take, out of what the model returned: see `tensor_of`."""
        return tensor_of(outputs)

    def metrics(self) -> Mapping[str, Any]:
        """Fresh torchmetrics Metrics for the measures of a part as a whole, by their names.

        Each is given what `read` returns and the targets. Of one that computes a dict, its keys are
        the names.
        """
        return {}

    def drawn(self, image: Tensor, target: Any, outputs: Tensor | None = None) -> Tensor | None:
        """An image with its target drawn in, or what a network says of it.

        Args:
            image: uint8 (3, H, W).
            target: Of this image.
            outputs: As `read` returns them, of this image alone, (1, ...); None: draw the target.

        Returns:
            uint8 (3, H', W'), perhaps larger; None: the task draws nothing.
        """
        return None

    def objective(self, net: Callable[..., Any], inputs: Tensor, targets: Any) -> Terms:
        """What a training step makes small.

        Args:
            net: The network, in train mode, or what stands for it.
            inputs: float32 (B, ...), normalised.
            targets: (B, ...), or a list of B.
        """
        outputs = self.read(net(inputs))
        return Terms(self.losses(outputs, targets), self.scores(outputs.detach(), targets))

    def with_smoothing(self, share: float) -> Self:
        """The task with a share of each label spread over all classes.

        Raises:
            ValueError: The task has no labels.
        """
        if share:
            raise ValueError(f"label_smoothing={share} in the recipe: task {self.name!r} has none")
        return self

    def hold_out(self, validation: int | float, seed: int) -> Self:
        """The task with training examples set aside as part "validation"; unchanged for 0.

        Raises:
            ValueError: As `weightfold.data.hold_out`.
        """
        if validation < 0:
            raise ValueError(f"validation={validation}: a number of examples or a share, from 0")
        if not validation:
            return self
        return replace(self, dataset=hold_out(self.dataset, validation, seed))

    def batches(
        self,
        part: str,
        device: torch.device | str = "cpu",
        *,
        batch_size: int | None = None,
        seed: int = 0,
        augment: Augmentation | None = None,
        processes: int = 1,
    ) -> Batches:
        """Batches of a part of the data, normalised.

        Args:
            part: "train", "test" or "validation".
            device: Where they are wanted.
            batch_size: To train on: in an order that depends on `seed` and the epoch. A last batch
                of less than half the size, or of one example, is left out, unless it is the only
                one: the batch norm statistics of an image or two would undo an epoch's training,
                and of one there may be none. None: to evaluate on, all in order.
            seed: Of order and augmentation.
            augment: How training images are varied, if the task does not say.
            processes: Which share each batch: the last one has two examples for each.

        Raises:
            ValueError: `augment` with inputs that are no uint8 images.
        """
        examples = self.dataset.parts[part]
        values = max(1, torch.Size(self.dataset.shape).numel())
        size = max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // values))
        size = size if batch_size is None else batch_size
        rest = len(examples) % size
        few = 2 * rest < size or rest < 2 * processes
        return Batches(
            examples,
            batch_size=size,
            mean=self.dataset.mean,
            std=self.dataset.std,
            augment=None if batch_size is None else self.augmented(augment),
            seed=seed,
            device=device,
            drop_last=batch_size is not None and few and size <= len(examples),
            shuffle=batch_size is not None,
        )

    def augmented(self, augment: Augmentation | None) -> Augmentation | None:
        """How training images are varied, None if not at all.

        Args:
            augment: What the recipe says.

        Raises:
            ValueError: The inputs are no uint8 images, or the crop is padded by more than they are
                wide, so that it may hold no pixel of them.
        """
        augment = self.augment or augment
        if isinstance(augment, Augment) and not (augment.crop_padding or augment.flip):
            return None
        data = self.dataset
        if augment is not None and (data.train.dtype != torch.uint8 or len(data.shape) != 3):
            raise ValueError(
                f"{augment} varies uint8 images (C, H, W); for {data.train.dtype} {data.shape} set "
                "the recipe's crop_padding=0 and flip=False"
            )
        if isinstance(augment, Augment) and augment.crop_padding >= min(data.shape[1:]):
            raise ValueError(
                f"crop_padding={augment.crop_padding} leaves crops without a pixel of images of "
                f"{data.shape[1]} x {data.shape[2]}; give less than their shorter side"
            )
        return augment

    def check(
        self,
        net: nn.Module,
        forward: Callable[[Tensor], Any] | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Run the net on two test examples in eval mode, and see whether its outputs fit.

        Args:
            net: Left as found.
            forward: What to call, if not `net` itself, such as one of its domains.
            batch_size: To train on. If batches are of one example, the net is tried on one, too.

        Raises:
            ValueError: They do not, it does not take the inputs, has nothing to train or no values,
                or its batch norm has nothing to normalise in one example.
        """
        check_values(net)
        if not any(p.requires_grad for p in net.parameters()):
            raise ValueError(
                f"net={type(net).__name__} has no trainable parameter; call "
                "requires_grad_(True) on what is to be trained"
            )
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
        few = self.dataset.test.select(torch.arange(min(2, len(self.dataset.test))))
        inputs = self.dataset.normalize(few.inputs).to(device)
        with (
            evaluating(net),
            torch.no_grad(),
            torch.random.fork_rng([]),
            naming_dtype(net, inputs),
        ):
            outputs = (forward or net)(inputs)
        self.check_outputs(net, outputs, moved(few.targets, device))
        if batch_size is not None and min(batch_size, len(self.dataset.train)) == 1:
            self._check_alone(net, inputs[:1], forward or net, batch_size)

    def _check_alone(
        self, net: nn.Module, example: Tensor, forward: Callable[[Tensor], Any], batch_size: int
    ) -> None:
        """Refuse a net that cannot be trained on one example at a time; its buffers stay."""
        buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
        modes = {module: module.training for module in net.modules()}
        try:
            with torch.no_grad(), torch.random.fork_rng([]):
                net.train()
                forward(example)
        except ValueError as error:
            raise ValueError(
                f"batch_size={batch_size} with {len(self.dataset.train)} training examples gives "
                f"batches of one, which {type(net).__name__} cannot train on ({error}); use at "
                "least two"
            ) from error
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for name, buffer in net.named_buffers():
                    buffer.copy_(buffers[name])

    def check_outputs(self, net: nn.Module, outputs: Any, targets: Any) -> None:
        """Refuse what a net gave in eval mode, if it does not fit the targets.

        Raises:
            ValueError: As said.
        """
        wanted, asked = self.wanted(targets), f"task {self.name!r} on {self.dataset.name!r}"
        try:
            found = tuple(self.read(outputs).shape)
        except (TypeError, ValueError) as error:
            raise ValueError(f"net={type(net).__name__} does not fit {asked}: {error}") from None
        if found != wanted:
            raise ValueError(
                f"net={type(net).__name__} gives outputs of shape {found}, but {asked} takes "
                f"{wanted}, of so many examples first"
            )

    def identity(self) -> dict[str, Any]:
        """What defines the task, as JSON values: its name, options, and the data's contents."""
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        del options["dataset"]
        return {
            "name": self.name,
            **{name: _plain(value) for name, value in options.items() if value is not None},
            "data": {
                "name": self.dataset.name,
                "record": self.dataset.record,
                "contents": self.digest,
            },
        }


def _plain(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return digest_of(value.state_dict())
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


@contextmanager
def naming_dtype(net: nn.Module, inputs: Tensor | None = None) -> Iterator[None]:
    """Name the dtype of a net that stumbles over its inputs because they are of another.

    Args:
        net: Called inside.
        inputs: What it is called with, whose shape is named where the dtype is not the cause.

    Raises:
        ValueError: It does.
    """
    try:
        yield
    except RuntimeError as error:
        found = {str(p.dtype): None for p in net.parameters() if p.is_floating_point()}
        if not found or list(found) == ["torch.float32"]:
            if inputs is None:
                raise
            raise ValueError(
                f"net={type(net).__name__} does not run on the data's inputs, of shape "
                f"{tuple(inputs.shape)} ({error}); give a network for such inputs, or other data"
            ) from error
        raise ValueError(
            f"net={type(net).__name__} has parameters of {', '.join(found)} and does not run on "
            f"inputs of float32 ({error}); give net.float(), or cast them in its forward"
        ) from error


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Inside, the net and all its modules are in eval mode."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
