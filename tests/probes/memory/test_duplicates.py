from collections import Counter, defaultdict

import torch
from hypothesis import given
from hypothesis import strategies as st

from weightfold.probes.memory.duplicates import contradictions, first_equal


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=30))
def test_equal_points_and_the_labels_they_contradict(pairs):
    x = torch.tensor([[a, 0] for a, _ in pairs], dtype=torch.uint8)
    y = torch.tensor([b for _, b in pairs])
    values = [a for a, _ in pairs]
    assert first_equal(x).tolist() == [values.index(a) for a in values]
    labels = defaultdict(Counter)
    for a, b in pairs:
        labels[a][b] += 1
    wrong = sum(sum(c.values()) - max(c.values()) for c in labels.values())
    assert contradictions(x, y) == contradictions(x.double(), y) == wrong


def test_zero_has_no_sign():
    assert first_equal(torch.tensor([[0.0], [1.0], [-0.0]])).tolist() == [0, 1, 0]
