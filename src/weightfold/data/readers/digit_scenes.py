"""Scenes of scikit-learn's digits with masks or boxes, made when read."""

from typing import Any

import torch
from torch import Tensor

from weightfold.data.dataset import Dataset, Examples, mean_and_std
from weightfold.data.readers.digits import digits
from weightfold.data.registry import reader

_CELL, _DIGIT = 24, 16
_COUNTS = {"train": 240, "test": 80}


@reader("digit_masks")
def digit_masks() -> Dataset:
    """Scenes of up to 4 digits with masks for task segment: 240 to train, 80 to test, 48 x 48.

    Class 0 is the ground, class 1 + d the ink of digit d. Digits are 16 pixels high, each at a
    random place of its own quarter; those of test scenes are test images of "digits".
    """
    return _made("digit_masks", ("ground", *"0123456789"), boxes=False)


@reader("digit_boxes")
def digit_boxes() -> Dataset:
    """Scenes of up to 4 digits with boxes, for task detect; the scenes of "digit_masks"."""
    return _made("digit_boxes", tuple("0123456789"), boxes=True)


def _made(name: str, class_names: tuple[str, ...], *, boxes: bool) -> Dataset:
    source = digits()
    generator = torch.Generator().manual_seed(0)
    parts = {}
    for part, count in _COUNTS.items():
        made = [_scene(source.parts[part], generator) for _ in range(count)]
        images = torch.stack([image for image, _, _ in made])
        masks = torch.stack([mask for _, mask, _ in made])
        parts[part] = Examples(images, [found for *_, found in made] if boxes else masks)
    mean, std = mean_and_std(parts["train"])
    record = {"source": "scenes of sklearn.datasets.load_digits"}
    return Dataset(
        name, parts["train"], parts["test"], len(class_names), mean, std, class_names, record
    )


def _scene(digits: Examples, generator: torch.Generator) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Image uint8 (1, H, W), mask uint8 (H, W), and the digits' boxes."""

    def draw(limit: int, size: int = 1) -> Tensor:
        return torch.randint(limit, (size,), generator=generator)

    side = 2 * _CELL
    image = torch.zeros(side, side, dtype=torch.uint8)
    mask, boxes, labels = torch.zeros_like(image), [], []
    taken = torch.randperm(4, generator=generator)[: 1 + int(draw(4))].tolist()
    for cell in taken:
        which = draw(len(digits))
        digit = digits.inputs[which][0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1)
        label = int(digits.targets[which])
        top, left = draw(_CELL - _DIGIT, 2).tolist()
        top, left = top + _CELL * (cell // 2), left + _CELL * (cell % 2)
        place = (slice(top, top + _DIGIT), slice(left, left + _DIGIT))
        image[place] = digit
        mask[place] = (digit > 127) * (1 + label)
        rows, columns = ((digit > 0).any(dim=d).nonzero()[:, 0] for d in (1, 0))
        low, high = (columns[0], rows[0]), (columns[-1] + 1, rows[-1] + 1)
        boxes.append(
            [int(left + low[0]), int(top + low[1]), int(left + high[0]), int(top + high[1])]
        )
        labels.append(label)
    found = {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)}
    return image[None], mask, found
