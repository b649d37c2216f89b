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
def test_a_seed_has_63_bits(seed, parts):
    assert 0 <= derive(seed, *parts) < 2**63


@given(one=st.tuples(st.integers(0, 3), PARTS), other=st.tuples(st.integers(0, 3), PARTS))
@settings(max_examples=300, deadline=None)
def test_only_equal_arguments_give_equal_seeds(one, other):
    seeds = [derive(seed, *parts) for seed, parts in (one, other)]
    assert (seeds[0] == seeds[1]) == (one == other)


def test_parts_that_join_to_the_same_text_give_different_seeds():
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


def test_another_process_derives_the_same_seed():
    """Python's built-in hash of a string differs between processes."""
    program = "from sah.seeding import derive; print(derive(3, 'niah', 7, 'ü'))"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(there.stdout) == derive(3, "niah", 7, "ü")


def test_seeds_of_consecutive_numbers_are_unrelated():
    """Over the seeds for 0, 1, 2, …, every bit is set about half of the time."""
    seeds = [derive(0, "example", number) for number in range(1000)]
    for bit in range(63):
        # Six standard deviations of a fair coin.
        assert abs(sum(seed >> bit & 1 for seed in seeds) - 500) < 6 * 1000**0.5 / 2


def test_the_global_generator_is_left_alone():
    state = random.getstate()
    derive(0, "a")
    assert random.getstate() == state
