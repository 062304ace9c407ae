import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightfold.codec import decode, encode
from weightfold.records import MAX_INT, UNRECORDED


@dataclass(frozen=True)
class Leaf:
    name: str
    value: float | None = None


@dataclass(frozen=True)
class Tree:
    kind: Literal["oak", "elm"]
    leaves: tuple[Leaf, ...]
    pair: tuple[int, float]
    by_seed: Mapping[int, tuple[float, ...]]
    about: Mapping[str, Any] | None
    best: Leaf | None
    source: int | str
    done: bool = False
    cache: dict = field(default_factory=dict, metadata=UNRECORDED)


integers = st.integers(-MAX_INT, MAX_INT)
leaves = st.builds(Leaf, st.text(), st.none() | st.floats(allow_nan=False))
numbers = st.lists(st.floats(allow_nan=False)).map(tuple)
trees = st.builds(
    Tree,
    st.sampled_from(["oak", "elm"]),
    st.lists(leaves).map(tuple),
    st.tuples(integers, st.floats(allow_nan=False)),
    st.dictionaries(integers, numbers),
    st.none() | st.dictionaries(st.text(), integers),
    st.none() | leaves,
    integers | st.text(),
    st.booleans(),
)


@given(trees)
def test_round_trip_through_text(tree):
    assert decode(json.loads(json.dumps(encode(tree))), Tree) == tree


def test_what_is_not_recorded_is_left_out():
    tree = Tree("oak", (), (1, 2.0), {}, None, None, 3, cache={"a": 1})
    assert "cache" not in encode(tree)
    assert decode(encode(tree), Tree).cache == {}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"extra": 1}, "'extra'"),
        ({"done": 1}, "'done' is 1"),
        ({"pair": [1]}, "'pair' has 1 values"),
        ({"pair": [True, 1.0]}, r"'pair\[0\]' is true"),
        ({"leaves": "abc"}, "'leaves' is \"abc\""),
        ({"best": {"value": 1.0}}, "'best'"),
        ({"by_seed": {"x": []}}, "'x'"),
        ({"kind": "fir"}, "'kind' is \"fir\""),
    ],
)
def test_other_values_are_refused(change, named):
    tree = Tree("oak", (), (1, 2.0), {}, None, None, 3)
    with pytest.raises(ValueError, match=named):
        decode({**encode(tree), **change}, Tree)
