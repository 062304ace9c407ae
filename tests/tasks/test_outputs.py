"""Models that return more than a tensor, and models that compute their loss themselves."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import googlenet, inception_v3
from torchvision.models.segmentation import fcn_resnet50

from tasks.cases import CASES, dataset
from weightfold.data import Dataset, Examples
from weightfold.tasks import build
from weightfold.tasks.outputs import auxiliary, tensor_of
from weightfold.train import Recipe, evaluate, fit

RECIPE = Recipe(epochs=8, batch_size=8, lr=0.05, schedule="constant", crop_padding=0, flip=False)


class Named(NamedTuple):
    logits: Tensor
    aux_logits: Tensor


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.main, self.side, self.wrap = nn.Linear(5, 3), nn.Linear(5, 3), wrap

    def forward(self, x):
        return self.wrap(self.main(x), self.side(x))


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (Named, None),
        (lambda main, side: {"out": main, "aux": side}, None),
        (lambda main, side: {"scores": main, "other": side}, "scores"),
        (lambda main, side: (side, main), 1),
    ],
)
def test_the_task_says_which_output_is_meant(wrap, output):
    torch.manual_seed(0)
    data = dataset(lambda x: (x[:, 0] > 0).long() + (x[:, 1] > 0), 3)
    task, net = build("classify", data, output=output), Wrapped(wrap)
    task.check(net)
    fit(net, task, RECIPE, progress=False)
    plain = evaluate(net.main, data)
    assert evaluate(net, task) == plain and plain["accuracy"] > 0.7


def test_several_outputs_without_a_name_are_refused():
    data = dataset(lambda x: (x[:, 0] > 0).long(), 2)
    with pytest.raises(ValueError, match=r"net=Wrapped.*'classify'.*output=None"):
        build("classify", data).check(Wrapped(lambda main, side: (main, side)))


def test_auxiliary_classifiers_take_part_in_training():
    data = dataset(lambda x: (x[:, 0] > 0).long(), 3)
    x, y = data.train.inputs, data.train.targets
    net = Wrapped(Named)
    losses = build("classify", data, aux_weight=0.25).objective(net, x, y).losses
    main, side = (
        nn.functional.cross_entropy(layer(x), y, reduction="none") for layer in (net.main, net.side)
    )
    torch.testing.assert_close(losses, main + 0.25 * side)


@pytest.mark.parametrize("make", [googlenet, inception_v3])
def test_torchvisions_auxiliary_outputs_are_read(make):
    net = make(weights=None, aux_logits=True, init_weights=False, num_classes=4).train()
    size = 75 if make is inception_v3 else 64
    if make is inception_v3:
        net.AuxLogits.forward = lambda x: torch.zeros(len(x), 4)  # it wants 299 pixels
    found = net(torch.randn(2, 3, size, size))
    assert tensor_of(found).shape == (2, 4)
    assert len(auxiliary(found)) == (1 if make is inception_v3 else 2)


def test_a_segmentation_networks_dict_is_read_by_the_pixel():
    images, labels = torch.randn(4, 3, 32, 32), torch.randint(0, 5, (4, 32, 32))
    data = Dataset("pixels", Examples(images, labels), Examples(images, labels), 5)
    task = build("classify", data, aux_weight=0.5)
    net = fcn_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    task.check(net)
    losses, scores = task.objective(net.train(), images, labels)
    assert losses.shape == scores["accuracy"].shape == (4,)


def test_a_model_that_computes_its_loss_trains_on_ragged_targets(tmp_path):
    case = CASES["toy-counting"]()
    task, net = case.task, case.net(0)
    before = evaluate(net, task)["count_error"]
    history = fit(net, task, RECIPE, folder=tmp_path, progress=False)
    assert history.last() == evaluate(net, task)["count_error"] < before / 2
    assert history.rows[-1]["train_loss"] < history.rows[0]["train_loss"]
    assert "test_loss" not in history.rows[-1].values
    rows = [row["test_count_error"] for row in history.rows]
    assert history.best_epoch == 1 + rows.index(min(rows))
