"""Trainings as runs: their test examples, their teachers and their nonlinear twins."""

import torch
from safetensors.torch import load_file

import weightfold as wf
from weightfold.lab.run import run
from weightfold.lab.training import Training, net_of
from weightfold.tasks.distillation import Distillation
from weightfold.train import Recipe

QUICK = Recipe(epochs=1, batch_size=32, lr=0.05, schedule="constant", crop_padding=0, flip=False)
PLAIN = Training("digitnet", "ck,rate=2", "digits,limit=64", QUICK, test_limit=50)


def test_a_training_is_tested_on_the_examples_it_keeps(tmp_path):
    history = run(PLAIN, tmp_path, progress=False)
    assert (50 * history.last_value) % 1 < 1e-9
    assert Training("digitnet", "ck,rate=2", "digits,limit=64", QUICK).key != PLAIN.key


def test_settings_of_before_keep_their_hash():
    plain = Training("digitnet", "ck,rate=2", "digits,limit=64", QUICK)
    assert not {"test_limit", "twin", "task"} & plain.settings.keys()


def test_it_starts_from_its_trained_nonlinear_twin(tmp_path):
    twin = Training("digitnet", "ck,rate=2,nonlinear=true", "digits,limit=64", QUICK)
    begun = Training("digitnet", "ck,rate=2", "digits,limit=64", QUICK, twin=twin)
    (seed0, seed1) = begun.over((0, 1))
    assert (seed1.twin.seed, seed1.before) == (1, seed1.twin)
    run(seed0, tmp_path, progress=False)
    trained = load_file(tmp_path / seed0.twin.folder / "last.safetensors")
    data = wf.data.load("digits,limit=64")
    task = wf.tasks.build("classify", data)
    source = net_of(seed0.twin, task)
    source.load_state_dict(trained)
    start = wf.linear_from_twin(net_of(seed0, task), source)
    other = tmp_path / "by hand"
    wf.fit(start, data, QUICK, folder=other, seed=0, progress=False)
    ours = load_file(tmp_path / seed0.folder / "last.safetensors")
    for name, tensor in load_file(other / "last.safetensors").items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)


def test_one_teacher_teaches_every_seed():
    taught = Training(
        "digitnet", "compact", "digits", QUICK, distillation=Distillation(), teacher=PLAIN
    )
    assert {one.teacher for one in taught.over((0, 1, 2))} == {PLAIN}
    assert taught.before is PLAIN
    assert taught.on("digits", "mnist").teacher.data == "mnist,limit=64"
