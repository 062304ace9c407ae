from dataclasses import replace
from itertools import islice

import pytest
import torch

from weightfold.tasks import as_task
from weightfold.train.domains import Joint
from weightfold.train.domains.batches import DomainBatches


@pytest.fixture
def make(make_dataset, quick):
    def build(sizes, joint, seed=0, epochs=5):
        datasets = {name: make_dataset(name, n, 2) for name, n in sizes.items()}
        feeds = {
            name: as_task(dataset).batches("train", batch_size=quick.batch_size, seed=seed)
            for name, dataset in datasets.items()
        }
        return DomainBatches(feeds, sizes, joint, seed, epochs)

    return build


SIZES = {"a": 64, "b": 160, "c": 5}  # batches of 16: 4, 10 and 1


@pytest.mark.parametrize(
    ("joint", "steps"),
    [
        (Joint(epoch="min"), 1),
        (Joint(epoch="max"), 10),
        (Joint(epoch=7), 7),
        (Joint(sampler="round_robin", epoch="max"), 30),
        (Joint(sampler="round_robin", epoch="min"), 3),
        (Joint(sampler="proportional", epoch=11), 11),
        (Joint(sampler="temperature", temperature=3, epoch="min"), 3),
    ],
)
def test_an_epoch_is_as_long_as_said(make, joint, steps):
    feed = make(SIZES, joint)
    batches = list(feed.epoch(0))
    assert len(batches) == len(feed) == steps
    for batch in batches:
        assert set(batch) == set(SIZES) if joint.sampler == "all" else len(batch) == 1
        for name, (images, labels) in batch.items():
            assert len(images) == len(labels) == min(16, SIZES[name])


def test_round_robin_goes_on_where_the_last_epoch_ended(make):
    feed = make(SIZES, Joint(sampler="round_robin", epoch=4))
    names = [name for index in range(3) for (name,) in feed.turns(index)]
    assert names == ["a", "b", "c"] * 4


@pytest.mark.parametrize(
    ("joint", "chances"),
    [
        (Joint(sampler="proportional", epoch=4000), (64, 160, 5)),
        (Joint(sampler="temperature", temperature=2, epoch=4000), (8, 160**0.5, 5**0.5)),
        (Joint(sampler="temperature", temperature=1e9, epoch=4000), (1, 1, 1)),
    ],
)
def test_domains_are_drawn_in_proportion(make, joint, chances):
    drawn = [name for (name,) in make(SIZES, joint).turns(0)]
    for name, chance in zip(SIZES, chances, strict=True):
        p = chance / sum(chances)
        assert abs(drawn.count(name) / 4000 - p) < 4 * (p * (1 - p) / 4000) ** 0.5


def test_a_shorter_domain_starts_again_reshuffled_and_no_pass_repeats(make):
    feed = make({"long": 64, "short": 32}, Joint(epoch="max"), epochs=2)
    passes = []
    for index in range(2):
        images = [batch["short"][0] for batch in feed.epoch(index)]
        for part in (images[:2], images[2:]):
            passes.append(torch.cat(part).flatten(1))
    rows = [{tuple(row) for row in one.tolist()} for one in passes]
    assert all(one == rows[0] and len(one) == 32 for one in rows)  # whole passes, no repeats
    for i, one in enumerate(passes):
        assert not any(torch.equal(one, other) for other in passes[:i])


def test_batches_depend_on_seed_and_epoch_alone(make):
    joint = Joint(sampler="temperature", temperature=2, epoch=20)
    feed = make(SIZES, joint)
    list(feed.epoch(0))
    again, other = make(SIZES, joint), make(SIZES, joint, seed=1)
    for one, two in zip(feed.epoch(3), again.epoch(3), strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[n][0], two[n][0]) for n in one)
    assert feed.turns(3) != other.turns(3) and feed.turns(3) != feed.turns(4)


def test_the_first_pass_is_that_of_the_domain_alone(make, make_dataset, quick):
    feed = make({"a": 64, "b": 32}, Joint(epoch="max"))
    dataset = make_dataset("a", 64, 2)
    alone = as_task(dataset).batches("train", batch_size=quick.batch_size).epoch(2)
    together = islice((batch["a"] for batch in feed.epoch(2)), 4)
    for (x, y), (u, v) in zip(together, alone, strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "some"}, "sampler='some'; give one of 'all', 'round_robin'"),
        ({"epoch": 0}, "epoch=0: it must be 'min', 'max' or a number"),
        ({"epoch": True}, "epoch=True"),
        ({"temperature": 2}, "temperature=2: it must be none with sampler='all'"),
        ({"sampler": "temperature"}, "temperature=None: it must be given"),
        ({"sampler": "temperature", "temperature": 0}, "temperature=0: it must be a number above"),
        ({"loss_weights": "equal"}, "loss_weights='equal'"),
        ({"loss_weights": {"a": -1.0}}, "loss_weights=.* above 0 for every domain"),
        ({"shared_gradient": "max"}, "shared_gradient='max'; give one of 'sum', 'mean'"),
        ({"head_epochs": -1}, "head_epochs=-1: it must be 0 or more"),
    ],
)
def test_what_contradicts_itself_is_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        replace(Joint(), **options)
