"""Average precision of found boxes, by torchmetrics."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from weightfold.tasks.grid import Boxes

_RECALLS = [i / 10 for i in range(11)]


class AveragePrecision:
    """Average precisions of a detector's outputs: "map50", "map" and "map50_voc07".

    As torchmetrics and COCO's code count: precision made monotone, its mean at 101 levels of
    recall, or at 11 as VOC 2007's, over the classes that occur.

    Args:
        find: Finds the boxes in outputs.

    Raises:
        ImportError: torchmetrics or faster-coco-eval is not installed.
    """

    def __init__(self, find: Callable[[Tensor], Boxes]) -> None:
        try:
            import faster_coco_eval  # noqa: F401
            from torchmetrics.detection import MeanAveragePrecision
        except ImportError as error:
            raise ImportError(
                "task 'detect' needs torchmetrics and faster-coco-eval: "
                "pip install 'weightfold[detect]'"
            ) from error
        self._find, backend = find, "faster_coco_eval"
        self._coco = MeanAveragePrecision(backend=backend)
        self._voc = MeanAveragePrecision(
            backend=backend, iou_thresholds=[0.5], rec_thresholds=_RECALLS
        )

        for metric in (self._coco, self._voc):
            metric.warn_on_many_detections = False  # COCO counts the 100 best

    def to(self, device: torch.device | str) -> Self:
        """On `device`."""
        self._coco, self._voc = self._coco.to(device), self._voc.to(device)
        return self

    def update(self, outputs: Tensor, targets: Any) -> None:
        """Take a batch into account: outputs, in which boxes are found, and targets."""
        self.compare(self._find(outputs), targets)

    def compare(self, found: Boxes, targets: Any) -> None:
        """Take images into account: their boxes found, with "scores", and true, in pixels."""
        for metric in (self._coco, self._voc):
            metric.update(found, list(targets))

    def compute(self) -> dict[str, Tensor]:
        """By measure, of all that was taken into account."""
        coco, voc = self._coco.compute(), self._voc.compute()
        return {"map50": coco["map_50"], "map": coco["map"], "map50_voc07": voc["map"]}
