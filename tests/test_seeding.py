import random
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from sah.seeding import derive

PARTS = st.lists(
    st.integers() | st.text(max_size=5) | st.text("\x1f:a1strin", max_size=8), max_size=4
).map(tuple)


@given(seed=st.integers(), parts=PARTS)
@settings(max_examples=100, deadline=None)
def test_a_seed_is_a_whole_number_of_63_bits(seed, parts):
    assert 0 <= derive(seed, *parts) < 2**63


@given(one=st.tuples(st.integers(0, 3), PARTS), other=st.tuples(st.integers(0, 3), PARTS))
@settings(max_examples=300, deadline=None)
def test_only_equal_arguments_give_equal_seeds(one, other):
    seeds = [derive(seed, *parts) for seed, parts in (one, other)]
    assert (seeds[0] == seeds[1]) == (one == other)


def test_parts_that_look_alike_joined_are_different():
    found = {
        derive(0, "a", "b"),
        derive(0, "ab"),
        derive(0, "b", "a"),
        derive(0, "a", "b", ""),
        derive(0, "a\x1fstr:b"),
        derive(0, 1),
        derive(0, "1"),
        derive(1),
        derive(0),
    }
    assert len(found) == 9


def test_another_process_derives_the_same():
    """Python's own hash of a string differs from process to process."""
    program = "from sah.seeding import derive; print(derive(3, 'niah', 7, 'ü'))"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(there.stdout) == derive(3, "niah", 7, "ü")


def test_neighbours_are_unrelated():
    """Of seeds for 0, 1, 2 and so on, every bit is set about half of the time."""
    seeds = [derive(0, "example", number) for number in range(1000)]
    for bit in range(63):
        # Six standard deviations of a fair coin.
        assert abs(sum(seed >> bit & 1 for seed in seeds) - 500) < 6 * 1000**0.5 / 2


def test_global_generators_stay_as_they_are():
    state = random.getstate()
    derive(0, "a")
    assert random.getstate() == state
