"""The batches a run reads: augmented to train on, as they are to evaluate on."""

from typing import Literal

import torch

from weightfold.data import Augment, Batches, Dataset, ImageSet, split
from weightfold.train.recipe import Recipe

EVALUATION_BATCH = 512


def set_aside(
    dataset: Dataset, validation: int | float, seed: int
) -> tuple[ImageSet, ImageSet | None]:
    """The images to train on and, with `validation`, those to choose the best epoch on."""
    if not validation:
        return dataset.train, None
    return split(dataset.train, validation, seed, dataset.groups)


def training_batches(
    images: ImageSet,
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
    device: torch.device | str,
    augment: Augment | Literal["recipe"] = "recipe",
) -> Batches:
    """`images` in an order and an augmentation that depend on `seed` and the epoch.

    `augment` takes the place of the recipe's.

    A last batch of less than half the size is left out: the batch norm statistics of an image or
    two would undo an epoch's training.
    """
    rest = len(images) % recipe.batch_size
    if augment == "recipe":
        augment = Augment(recipe.crop_padding, recipe.flip)
    return Batches(
        images,
        batch_size=recipe.batch_size,
        mean=dataset.mean,
        std=dataset.std,
        augment=augment if augment.crop_padding or augment.flip else None,
        seed=seed,
        device=device,
        drop_last=2 * rest < recipe.batch_size <= len(images),
        shuffle=True,
    )


def evaluation_batches(images: ImageSet, dataset: Dataset, device: torch.device | str) -> Batches:
    """`images` in order, not augmented."""
    return Batches(
        images,
        batch_size=EVALUATION_BATCH,
        mean=dataset.mean,
        std=dataset.std,
        augment=None,
        seed=0,
        device=device,
        drop_last=False,
        shuffle=False,
    )
