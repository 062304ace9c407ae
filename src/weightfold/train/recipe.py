"""Recipes: every hyperparameter of a training run, and the presets. Imports no torch."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from weightfold.hints import check_fields


@dataclass(frozen=True, repr=False)
class Recipe:
    """Every hyperparameter of a training run; printed are those that differ from their defaults.

    Raises:
        TypeError: A value is of another type.
        ValueError: A value is out of range, or two values contradict each other.
    """

    epochs: int = 12
    """Passes over the training set."""

    batch_size: int = 128
    """Images in a step, over all devices together. An epoch's last step takes what is left, or is
    left out if that is less than half of it or one image a device."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd (with momentum and nesterov), or adamw (betas 0.9 and 0.999, decoupled decay)."""

    lr: float = 0.01
    """Learning rate before the schedule scales it."""

    momentum: float = 0.9
    """Momentum of sgd."""

    nesterov: bool = False
    """Nesterov momentum (sgd)."""

    weight_decay: float = 0.0
    """Weight decay; on every trainable parameter, biases and batch norm included."""

    decay_on: Literal["psi", "theta", "theta-theta0"] = "psi"
    """What is decayed: psi, the coordinates being trained, by the optimizer; theta, the weights of
    the deployed network, by adding weight_decay / 2 * |theta|^2 to the loss; or theta-theta0, their
    way from where they started, in the same manner. With adamw the last two are a part of the
    gradient that Adam scales, and it decays nothing itself. On a plain network psi and theta are
    the same."""

    schedule: Literal["step", "cosine", "linear", "constant"] = "cosine"
    """step multiplies lr by gamma at each milestone; cosine and linear take it down to 0 over the
    run, step by step."""

    milestones: tuple[int, ...] = ()
    """Epochs after which schedule step multiplies lr by gamma."""

    gamma: float = 0.1
    """Factor of schedule step."""

    warmup_epochs: int = 0
    """Epochs at the start in which lr rises linearly from 0, step by step."""

    label_smoothing: float = 0.0
    """Share of each label spread over all classes, in [0, 1)."""

    clip_norm: float | None = None
    """Largest norm of the whole gradient; none: unclipped."""

    crop_padding: int = 4
    """Zero padding, in pixels, of the random crop back to the image's size; 0: no crop."""

    flip: bool = True
    """Mirror each training image left to right with probability one half."""

    reset_momentum_each_epoch: bool = False
    """Start every epoch with zero momentum (sgd), as the ExpandNets authors' code does."""

    def __repr__(self) -> str:
        given = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        changed = [f"{name}={value!r}" for name, (value, usual) in given.items() if value != usual]
        return f"Recipe({', '.join(changed)})"

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("epochs", "batch_size"):
            self._need(getattr(self, name) >= 1, name, "an integer of at least 1")
        for name in ("lr", "gamma"):
            self._need(_finite(getattr(self, name), above=True), name, "a number above 0")
        self._need(_finite(self.weight_decay), "weight_decay", "a number of at least 0")
        for name in ("momentum", "label_smoothing"):
            self._need(0 <= getattr(self, name) < 1, name, "a number in [0, 1)")
        self._need(self.crop_padding >= 0, "crop_padding", "0 or more pixels")
        clip = self.clip_norm
        self._need(clip is None or _finite(clip, above=True), "clip_norm", "above 0, or None")
        self._check_sgd()
        self._check_schedule()

    def _check_sgd(self) -> None:
        if self.optimizer != "sgd":
            for name in ("nesterov", "reset_momentum_each_epoch"):
                self._need(not getattr(self, name), name, "False unless optimizer='sgd'")
        for name in ("nesterov", "reset_momentum_each_epoch"):
            self._need(not getattr(self, name) or self.momentum > 0, name, "False if momentum=0")

    def _check_schedule(self) -> None:
        rising = all(a < b for a, b in zip(self.milestones, self.milestones[1:], strict=False))
        inside = all(0 < m < self.epochs for m in self.milestones)
        self._need(
            rising and inside,
            "milestones",
            f"rising epochs between 1 and epochs - 1 = {self.epochs - 1}",
        )
        self._need(
            bool(self.milestones) == (self.schedule == "step"),
            "milestones",
            f"{'given' if self.schedule == 'step' else 'empty'} with schedule={self.schedule!r}",
        )
        self._need(
            0 <= self.warmup_epochs < self.epochs,
            "warmup_epochs",
            f"at least 0 and below epochs={self.epochs}",
        )

    def _need(self, holds: bool, name: str, right: str) -> None:
        if not holds:
            raise ValueError(f"{name}={getattr(self, name)!r} in the recipe: it must be {right}")

    @property
    def penalizes_theta(self) -> bool:
        """Whether the decay is a part of the loss, not of the optimizer."""
        return self.weight_decay > 0 and self.decay_on != "psi"

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of one step: a pure function, so that resuming restores no scheduler.

        Args:
            step: Steps taken before this one, since the start of the run.
            steps_per_epoch: Steps in an epoch.
        """
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return self.lr * (step + 1) / warmup
        if self.schedule == "step":
            return self.lr * self.gamma ** sum(step >= m * steps_per_epoch for m in self.milestones)
        progress = (step - warmup) / (self.epochs * steps_per_epoch - warmup)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * progress))
        return self.lr * (1 - progress) if self.schedule == "linear" else self.lr


def _finite(value: float, *, above: bool = False) -> bool:
    return math.isfinite(value) and (value > 0 if above else value >= 0)


RECIPES: dict[str, Recipe] = {
    "expandnets-cifar": Recipe(
        epochs=150,
        schedule="step",
        milestones=(50, 100),
        reset_momentum_each_epoch=True,
    ),
    "expandnets-cifar-12": Recipe(
        epochs=12,
        schedule="step",
        milestones=(6, 9),
        reset_momentum_each_epoch=True,
    ),
    "mobilenet-cifar": Recipe(
        epochs=350,
        lr=0.1,
        weight_decay=5e-4,
        schedule="step",
        milestones=(150, 250),
    ),
    "mobilenet-imagenet": Recipe(
        epochs=90,
        batch_size=256,
        lr=0.1,
        nesterov=True,
        weight_decay=1e-4,
        schedule="step",
        milestones=(30, 60),
        crop_padding=0,
    ),
    "shufflenet-imagenet": Recipe(
        epochs=250,
        batch_size=1024,
        lr=0.5,
        nesterov=True,
        weight_decay=4e-5,
        schedule="linear",
        crop_padding=0,
    ),
    "teacher-cifar-resnet18": Recipe(
        epochs=200,
        lr=0.1,
        weight_decay=5e-4,
        schedule="cosine",
    ),
    "digits": Recipe(
        epochs=30,
        batch_size=64,
        lr=0.05,
        schedule="cosine",
        crop_padding=0,
        flip=False,
    ),
}
"""Presets by name.

- expandnets-cifar: Guo, Alvarez and Salzmann 2020, section 4.1 and the authors' code: no decay,
  and the momentum zeroed at each epoch, because the code makes a new optimizer there.
- expandnets-cifar-12: the same in 12 epochs; the short schedule is ours.
- mobilenet-cifar: the paper's Table 2.
- mobilenet-imagenet: the paper's Table 3, MobileNet V1 and V2; nesterov as in the authors' code.
- shufflenet-imagenet: Table 3, ShuffleNet V2 0.5x, as in the authors' code, but for the end of the
  linear schedule: there after 300,000 steps, here with the last epoch.
- teacher-cifar-resnet18: a customary CIFAR recipe for ResNet-18. Ours: the paper names the teacher,
  not its training.
- digits: ours, for scikit-learn's 8 x 8 digits.

The two ImageNet recipes expect data that is cropped and resized when read.
"""
