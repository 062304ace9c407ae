import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import weightfold as wf
from weightfold.data.disturb import disturb
from weightfold.probes.finding import write_finding
from weightfold.probes.memory import ExampleLedger
from weightfold.probes.models import fresh
from weightfold.train.loop import NonFiniteLoss
from weightfold.train.recipe import Recipe
from weightfold.train.seeding import mixed_seed
from weightfold.train.together import Run, fit_together

RECIPE = Recipe(epochs=6, batch_size=16, lr=0.05, schedule="constant", crop_padding=0, flip=False)


@pytest.fixture(scope="module")
def found(data, network):
    return wf.example_ledger(network, data, recipe=RECIPE, seeds=range(5), progress=False)


def test_it_tells_what_the_networks_say(found, data, network):
    """Trained again one by one and asked after the last epoch, they agree with the ledger."""
    for name, each in found.correctness.items():
        now = disturb(data, name)
        assert each.right.shape == (5, 7, 80)
        assert np.array_equal(each.labels, now.train.targets.numpy())
        assert np.array_equal(
            each.labels_changed, (now.train.targets != data.train.targets).numpy()
        )
        for seed in (0, 3):
            net = fresh(network, seed)
            right = [_right(net, now)]
            fit_together({"one": Run(net, now, seed)}, RECIPE, device="cpu")
            right.append(_right(net, now))
            # Side by side and alone differ by rounding only, which may turn a close decision.
            agree = each.right[seed][[0, 6]] == np.stack(right)
            assert agree[0].all() and agree[1].mean() > 0.97


def _right(net, samples):
    with torch.no_grad():
        logits = net.eval()(samples.normalize(samples.train.inputs))
    return (logits.argmax(dim=1) == samples.train.targets).numpy()


def test_runs_differ_in_weights_and_share_the_noise(found):
    true, noise = found.correctness["true"], found.correctness["random-labels"]
    assert len({run.tobytes() for run in true.right[:, 0]}) == 5
    assert not true.labels_changed.any() and noise.labels_changed.sum() > 40
    totals = {t.condition: t for t in found.totals}
    assert totals["true"].kept_in_all > totals["random-labels"].kept_in_all
    assert totals["true"].dispersion > totals["random-labels"].dispersion


def test_finding_files_and_record(found, tmp_path):
    page = write_finding(found, tmp_path, title="blobs").read_text(encoding="utf-8")
    assert page.count("Claim. ") == len(found.verdicts) == 3
    assert "Right after the first epoch and ever after" in found.headline
    assert len(found.rows()) == 2 * 5 * 7
    record = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert record.pop("probe") == "example-ledger"
    read = ExampleLedger.from_record(record)
    assert read == found and not read.correctness
    with pytest.raises(ValueError, match="no correctness"):
        read.save(tmp_path)
    assert (tmp_path / "example-ledger.png").stat().st_size > 20_000


def test_saved_ledger(found, tmp_path):
    found.save(tmp_path / "new")
    with np.load(tmp_path / "new" / "ledger.npz", allow_pickle=False) as arrays:
        packed = arrays["random-labels/right"]
        right = np.unpackbits(packed, axis=2, count=80).astype(bool)
        assert np.array_equal(right, found.correctness["random-labels"].right)
        assert np.array_equal(arrays["true/first_learnt"], found.correctness["true"].first_learnt)
        assert arrays["true/seeds"].tolist() == [0, 1, 2, 3, 4]
    with (tmp_path / "new" / "examples.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 160
    last = found.correctness["random-labels"].right[:, 1, 79].sum()
    assert int(rows[-1]["runs_right_after_epoch_1"]) == last
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["examples.csv", "ledger.npz"]


class Stop(BaseException):
    pass


def test_a_stopped_call_goes_on_and_groups_do_not_matter(data, network, found, tmp_path):
    def ask(progress):
        return wf.example_ledger(
            network,
            data,
            recipe=RECIPE,
            seeds=range(5),
            folder=tmp_path,
            together=2,
            progress=progress,
        )

    def stop(now):
        if now.completed > 1.5:
            raise Stop

    with pytest.raises(Stop):
        ask(stop)
    again = ask(False)
    for name, each in found.correctness.items():
        # Groups of 2, 2 and 1 round otherwise than one of 5.
        assert (again.correctness[name].right == each.right).mean() > 0.97
    assert ask(False).totals == again.totals


@pytest.mark.parametrize("together", [1, 3])
def test_partial_noise_and_failed_runs(data, network, together):
    bad = mixed_seed("drawn anew", 1) % 2**31

    def sometimes(seed):
        net = network(seed)
        # Of one seed the first loss is infinite already.
        if seed == bad:
            torch.nn.init.constant_(net[0].weight, 1e38)
        return net

    found = wf.example_ledger(
        sometimes,
        data,
        conditions=("gaussian",),
        fraction=0.5,
        recipe=replace(RECIPE, epochs=3),
        seeds=(0, 1, 2),
        together=together,
        progress=False,
    )
    assert found.totals[0].seeds == (0, 2) and found.totals[0].inputs_changed == 40
    assert any(note.startswith("gaussian, seed-1: left out, the loss is") for note in found.notes)
    with pytest.raises(NonFiniteLoss, match="no run came to its end"):
        wf.example_ledger(sometimes, data, recipe=RECIPE, seeds=(1,), progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": ()}, "seeds="),
        ({"seeds": (1, 1)}, "each once"),
        ({"conditions": ("noise",)}, "give some of true, random-labels"),
        ({"conditions": ()}, "conditions="),
        ({"fraction": 2.0}, "fraction=2.0"),
    ],
)
def test_bad_arguments_are_refused(data, network, arguments, message):
    with pytest.raises(ValueError, match=message):
        wf.example_ledger(network, data, progress=False, **arguments)
