"""What tests/mutations.py does, with fewer mutations."""

import pytest

from mutation.harness import attack
from mutations import formats

COUNT = 200


@pytest.mark.parametrize("name", formats())
def test_mutations_are_refused_by_name_or_harmless(name, tmp_path):
    tally = attack(formats()[name], tmp_path / "work", COUNT)
    assert tally.total() == COUNT and tally["refused"] > 0
