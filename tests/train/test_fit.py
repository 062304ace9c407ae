import copy
import csv
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from weightfold.data import Batches, hold_out
from weightfold.tasks import Distillation, build
from weightfold.train import History, NonFiniteLoss, Options, Recipe, Row, evaluate, fit


def train(net, data, recipe, folder, *, seed=0, progress=False, **options):
    return fit(
        net,
        data,
        recipe,
        seed=seed,
        folder=folder,
        device="cpu",
        progress=progress,
        options=Options(**options),
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def by_hand(net, dataset, recipe, seed=0, images=None):
    """A textbook loop: a new optimizer each epoch if the momentum is reset."""
    batches = Batches(
        images or dataset.train,
        batch_size=recipe.batch_size,
        mean=dataset.mean,
        std=dataset.std,
        augment=None,
        seed=seed,
        device="cpu",
        drop_last=False,
        shuffle=True,
    )

    def new():
        return torch.optim.SGD(
            net.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay
        )

    optimizer = new()
    for epoch in range(recipe.epochs):
        if recipe.reset_momentum_each_epoch:
            optimizer = new()
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * 0.1 ** sum(epoch >= m for m in recipe.milestones)
        for x, y in batches.epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    return net


@pytest.mark.parametrize("reset", [False, True])
def test_it_is_the_textbook_loop(dataset, make_net, quick, tmp_path, reset):
    recipe = replace(
        quick,
        schedule="step",
        milestones=(2,),
        weight_decay=1e-2,
        reset_momentum_each_epoch=reset,
    )
    net, other = make_net(), make_net()
    net[4] = other[4] = nn.Identity()
    train(net, dataset, recipe, tmp_path)
    for a, b in zip(net.parameters(), by_hand(other, dataset, recipe).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert (net[1].running_mean - other[1].running_mean).abs().max() < 1e-6


def test_it_learns_and_leaves_its_record(dataset, make_net, quick, tmp_path):
    net = make_net()
    history = train(net, dataset, replace(quick, epochs=8), tmp_path)
    assert history.last_value > 0.9  # four classes, linearly separable
    assert history.rows[0]["train_loss"] > history.rows[-1]["train_loss"]
    assert history.selection.startswith("test")
    assert history.best_value == max(row["test_accuracy"] for row in history.rows)

    net.eval()
    x = (dataset.train.inputs / 255 - 0.3) / 0.25
    wrong = (net(x).argmax(1) != dataset.train.targets).double().mean().item()
    assert 1 - history.last(part="train_eval") == pytest.approx(wrong)
    assert history.last_value == evaluate(net, dataset)["accuracy"]

    last = load_file(tmp_path / "last.safetensors")
    assert all(torch.equal(last[name], t) for name, t in net.state_dict().items())
    best = make_net()
    best.load_state_dict(load_file(tmp_path / "best.safetensors"))
    assert evaluate(best, dataset)["accuracy"] == history.best_value

    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [float(r["test_accuracy"]) for r in rows] == [r["test_accuracy"] for r in history.rows]
    assert json.loads((tmp_path / "history.json").read_text())["best_epoch"] == history.best_epoch
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["parameters"] == {"training": 308, "deployed": 308}  # 40 + 8 + 260
    data = run["configuration"]["task"]["data"]
    assert (data["name"], data["record"]) == ("stripes", {"made": "here"})
    assert run["sessions"][0]["torch"] == torch.__version__
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_validation_split_chooses_the_best(dataset, make_net, quick, tmp_path):
    net = make_net()
    history = train(net, dataset, quick, tmp_path, validation=40, seed=3)
    assert history.selection == "validation"
    assert history.best_epoch == max(history.rows, key=lambda r: r["validation_accuracy"]).epoch
    held_out = evaluate(net, hold_out(dataset, 40, 3), "validation")
    assert history.last(part="validation") == held_out["accuracy"]
    assert history.best_value == history.rows[history.best_epoch - 1]["test_accuracy"]


def test_the_best_is_the_first_by_validation_not_by_test():
    figures = [(0.5, 0.9), (0.8, 0.6), (0.8, 0.7)]
    rows = [
        Row(e + 1, 0.1, 1, e + 1, {"test_accuracy": t, "validation_accuracy": v})
        for e, (v, t) in enumerate(figures)
    ]
    history = History(tuple(rows), "validation")
    assert (history.best_epoch, history.best_value, history.last_value) == (2, 0.6, 0.7)
    assert history.seconds_per_step == 2
    assert History.from_json(json.loads(json.dumps(history.as_json()))) == history


@pytest.mark.parametrize(
    "changes",
    [
        {"decay_on": "theta", "weight_decay": 0.1},
        {"label_smoothing": 0.2},
        {"clip_norm": 0.01},
        {"optimizer": "adamw", "lr": 1e-3},
        {"warmup_epochs": 2},
        {"crop_padding": 2},
        {"flip": True},
        {"nesterov": True},
    ],
)
def test_every_option_changes_the_weights(dataset, make_net, quick, tmp_path, changes):
    net, other = make_net(), make_net()
    train(net, dataset, quick, tmp_path / "a")
    train(other, dataset, replace(quick, **changes), tmp_path / "b")
    assert not same(net, other)


def test_decay_on_theta_is_decay_on_psi_for_a_plain_net(dataset, make_net, quick, tmp_path):
    nets = {}
    for decay_on in ("psi", "theta"):
        recipe = replace(quick, weight_decay=0.1, decay_on=decay_on)
        train(nets.setdefault(decay_on, make_net()), dataset, recipe, tmp_path / decay_on)
    for a, b in zip(nets["psi"].parameters(), nets["theta"].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_last_batch_below_half_is_left_out(dataset, make_net, quick, tmp_path):
    sizes = []
    net = make_net()

    def note(module, args, output):
        if module.training:
            sizes.append(len(args[0]))

    net.register_forward_hook(note)
    quick = replace(quick, epochs=1)
    train(net, dataset, quick, tmp_path / "a")  # 120 images
    train(net, dataset, replace(quick, batch_size=50), tmp_path / "b")
    train(net, dataset, replace(quick, batch_size=500), tmp_path / "c")
    assert sizes == [32, 32, 32, 24, 50, 50, 120]


def test_clipping_bounds_the_step(dataset, make_net, tmp_path):
    recipe = Recipe(epochs=1, batch_size=120, lr=1.0, momentum=0.0, clip_norm=0.01)
    net, before = make_net(), make_net()
    train(net, dataset, replace(recipe, schedule="constant"), tmp_path)
    pairs = zip(net.parameters(), before.parameters(), strict=True)
    moved = torch.cat([(a - b).detach().flatten() for a, b in pairs]).norm().item()
    assert moved == pytest.approx(0.01, rel=1e-3)  # lr times the clipped norm


def test_nan_stops_and_the_checkpoint_stays(dataset, make_net, quick, tmp_path):
    net = make_net()
    steps = 0

    def poison(module, args, output):
        nonlocal steps
        steps += module.training
        return output * float("nan") if steps == 4 + 2 else None  # 4 steps in an epoch

    net.register_forward_hook(poison)
    with pytest.raises(NonFiniteLoss, match="epoch 2, step 2 of 4"):
        train(net, dataset, quick, tmp_path)
    state = torch.load(tmp_path / "last.pt", weights_only=True)["runs"][0]
    assert len(state["rows"]) == 1
    assert all(torch.isfinite(t).all() for t in load_file(tmp_path / "last.safetensors").values())


def test_weights_that_are_not_finite_are_not_saved(dataset, make_net, quick, tmp_path):
    net = make_net()
    steps = 0

    def explode(gradient):
        nonlocal steps
        steps += 1
        return gradient * float("inf") if steps == 2 * 4 else gradient  # the last of epoch 2

    net[0].weight.register_hook(explode)
    with pytest.raises(NonFiniteLoss, match=r"0\.weight .* epoch 2"):
        train(net, dataset, quick, tmp_path)
    assert len(torch.load(tmp_path / "last.pt", weights_only=True)["runs"][0]["rows"]) == 1


def test_distillation_follows_the_teacher(dataset, make_net, quick, tmp_path):
    teacher = make_net()
    train(teacher, dataset, replace(quick, epochs=10), tmp_path / "teacher")
    teacher.train()
    wrong = replace(
        dataset, train=replace(dataset.train, targets=(dataset.train.targets + 1) % 4)
    )  # labels that teach the wrong thing, so that only the teacher can help
    net = make_net(1)
    recipe = replace(quick, epochs=10)
    options = {"teacher": teacher, "distillation": Distillation(2.0, 1.0)}
    start = copy.deepcopy(net)
    history = train(net, build("classify", wrong, **options), recipe, tmp_path / "student")
    assert history.last_value > 0.8
    assert teacher.training and all(p.requires_grad for p in teacher.parameters())
    with pytest.raises(FileExistsError, match=r"distillation\.weight: 1\.0 there, 0.5 now"):
        other = {**options, "distillation": Distillation(2.0, 0.5)}
        train(start, build("classify", wrong, **other), recipe, tmp_path / "student")
    with pytest.raises(FileExistsError, match="teacher: "):
        other = {**options, "teacher": make_net(5)}
        train(start, build("classify", wrong, **other), recipe, tmp_path / "student")
    with pytest.raises(ValueError, match="go together"):
        build("classify", wrong, teacher=teacher)


def test_bfloat16_trains(dataset, make_net, quick, tmp_path):
    seen = []
    net = make_net()

    def note(module, given, output):
        if module.training:
            seen.append(output.dtype)

    net[0].register_forward_hook(note)
    history = train(net, dataset, replace(quick, epochs=8), tmp_path, precision="bf16-mixed")
    assert set(seen) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in net.parameters())
    assert history.last_value > 0.8


def test_the_callers_randomness_is_left_alone(dataset, make_net, quick, tmp_path):
    state = torch.get_rng_state()
    net = make_net()
    train(net, dataset, quick, tmp_path / "a")
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(123)
    other = make_net()
    train(other, dataset, quick, tmp_path / "b")
    assert same(net, other)  # dropout included
    third = make_net()
    train(third, dataset, quick, tmp_path / "c", seed=1)
    assert not same(net, third)


def test_two_processes_take_the_steps_of_one(dataset, tmp_path):
    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(108, 4))

    # of each 33 images slices of 17 and 16, of the last 21 slices of 11 and 10
    recipe = Recipe(epochs=2, batch_size=33, lr=0.05, decay_on="theta", weight_decay=0.01)
    one, two = net(), net()
    alone = train(one, dataset, recipe, tmp_path / "one")
    both = train(two, dataset, recipe, tmp_path / "two", devices=2)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-6
    assert both.last_value == alone.last_value
    assert both.last(part="train_eval") == alone.last(part="train_eval")
    assert both.rows[-1]["train_loss"] == pytest.approx(alone.rows[-1]["train_loss"], rel=1e-5)


def test_tensorboard_writes_events(dataset, make_net, quick, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = train(make_net(), dataset, quick, tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    values = [event.value for event in events.Scalars("accuracy/test")]
    assert values == pytest.approx([row["test_accuracy"] for row in history.rows])


def test_progress_is_shown_or_not(dataset, make_net, quick, tmp_path, capsys):
    train(make_net(), dataset, quick, tmp_path / "a", progress=False)
    assert capsys.readouterr().out == ""
    rows = []
    history = train(make_net(), dataset, quick, tmp_path / "b", progress=rows.append)
    assert tuple(rows) == history.rows
    assert capsys.readouterr().out == ""
    train(make_net(), dataset, quick, tmp_path / "c", progress=True)
    assert "16/16" in capsys.readouterr().out


def test_a_net_of_another_number_of_classes_is_refused(dataset, make_net, quick, tmp_path):
    net = make_net()
    net[-1] = nn.Linear(64, 10)
    with pytest.raises(
        ValueError, match=r"net=Sequential .* 'classify' on 'stripes' takes \(2, 4\)"
    ):
        train(net, dataset, quick, tmp_path)


@pytest.mark.parametrize("options", [{"devices": 0}, {"devices": 17}, {"validation": -1}])
def test_wrong_arguments_leave_no_folder(dataset, make_net, quick, tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        train(make_net(), dataset, quick, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
