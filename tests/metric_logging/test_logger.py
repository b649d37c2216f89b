import math
import random
from datetime import UTC, datetime, timedelta

import pytest
import torch

from sah.metric_logging import MicroMetricLogger

# -- registered and enabled metrics ----------------------------------------------------


def test_a_metric_can_be_registered_twice_with_the_same_type(configured):
    MicroMetricLogger.register_metric("another", int)
    MicroMetricLogger.register_metric("another", int)
    assert configured(enabled_metrics=["another"]).log("another", 1)


def test_a_metric_cannot_be_registered_with_another_type(registered):
    with pytest.raises(ValueError, match=r"'number'.*float.*int"):
        MicroMetricLogger.register_metric("number", int)
    assert registered["number"] is float


def test_all_enables_every_registered_metric(configured, registered):
    logger = configured(enabled_metrics="all")
    assert len(registered) >= 5
    assert all(logger.log(name, 1.0) for name in registered)


def test_a_list_enables_only_its_names(configured, records):
    logger = configured(enabled_metrics=["number"])
    assert logger.log("number", 1.0)
    assert not logger.log("vector", [1.0])
    logger.flush()
    assert [record["metric"] for record in records()] == ["number"]


def test_an_empty_list_enables_nothing(configured):
    assert not configured(enabled_metrics=[]).log("number", 1.0)


def test_an_unknown_metric_is_an_error_that_lists_the_known_ones(configured, registered):
    with pytest.raises(ValueError, match="numbr") as caught:
        configured(enabled_metrics=["numbr"])
    assert all(name in str(caught.value) for name in registered)


# -- records ---------------------------------------------------------------------------


class Caller:
    def method(self, logger):
        logger.log("number", 1.0)

    def inner(self, logger):
        (lambda: logger.log("number", 1.0))()

    @staticmethod
    def static(logger):
        logger.log("number", 1.0)


def function(logger):
    logger.log("number", 1.0)


def test_a_record_has_time_metric_value_metadata_and_location(configured, records):
    logger = configured()
    before = datetime.now(UTC)
    logger.begin_example("example-7")
    assert logger.log("number", 0.25, {"layer_idx": 3, "step": 17}) is True
    logger.flush()
    (record,) = records()
    assert list(record) == ["timestamp", "metric", "value", "metadata", "location"]
    time_logged = datetime.fromisoformat(record["timestamp"])
    assert time_logged.utcoffset() == timedelta(0)
    assert before <= time_logged <= datetime.now(UTC)
    assert record["metric"] == "number"
    assert record["value"] == 0.25
    assert record["metadata"] == {"example_id": "example-7", "layer_idx": 3, "step": 17}
    assert record["location"] == (
        f"{__name__}.test_a_record_has_time_metric_value_metadata_and_location"
    )


def test_the_location_is_the_function_or_method_that_logged(configured, records):
    logger = configured()
    function(logger)
    Caller().method(logger)
    Caller().inner(logger)
    Caller.static(logger)
    logger.flush()
    assert [record["location"] for record in records()] == [
        f"{__name__}.function",
        f"{__name__}.Caller.method",
        f"{__name__}.Caller.inner",
        f"{__name__}.Caller.static",
    ]


def test_every_record_is_one_line_whatever_the_text_holds(configured, records):
    logger = configured()
    text = 'line\nbreak "quoted" \u2028 漢'
    logger.begin_example(text)
    logger.log("vector", [text], {"note": text})
    logger.flush()
    (record,) = records()
    assert record["value"] == [text]
    assert record["metadata"] == {"example_id": text, "note": text}


def test_the_file_is_appended_to(configured, records):
    for value in (1.0, 2.0):
        logger = configured()
        logger.log("number", value)
        logger.close()
    assert [record["value"] for record in records()] == [1.0, 2.0]


def test_after_close_nothing_is_logged(configured, records):
    logger = configured()
    logger.log("number", 1.0)
    logger.close()
    assert len(records()) == 1
    assert not logger.log("number", 2.0)
    logger.close()
    assert len(records()) == 1


# -- the limit -------------------------------------------------------------------------


def log_examples(logger, *counts):
    """Log 0, 1, … for one example after the other."""
    for name, count in zip("abcdef", counts, strict=False):
        logger.begin_example(name)
        for value in range(count):
            logger.log("number", float(value))
        logger.end_example()
    logger.flush()


def values_by_example(records):
    found = {}
    for record in records():
        found.setdefault(record["metadata"]["example_id"], []).append(record["value"])
    return found


def test_examples_share_the_records_equally(configured, records):
    logger = configured(max_records=19, flush_every=2)
    logger.divide_records(4)
    log_examples(logger, 200, 3, 4, 200)
    found = values_by_example(records)
    assert {name: len(values) for name, values in found.items()} == {"a": 4, "b": 3, "c": 4, "d": 4}
    assert found["b"] == [0, 1, 2]
    assert found["c"] == [0, 1, 2, 3]


def test_the_kept_records_of_an_example_are_in_order_and_not_the_first(configured, records):
    logger = configured(max_records=20)
    log_examples(logger, 1000, 1000)
    for values in values_by_example(records).values():
        assert values == sorted(set(values))
        assert len(values) == 20
        # Uniform draws: a mean of 500 ± 4 standard deviations of 65.
        assert 240 < sum(values) / 20 < 760
        assert max(values) > 500


def test_which_records_are_kept_depends_on_seed_and_example_only(configured, records, path):
    def kept(*names, seed=1):
        logger = configured(max_records=5, seed=seed)
        for name in names:
            logger.begin_example(name)
            for value in range(50):
                logger.log("number", float(value))
            logger.end_example()
        logger.flush()
        found = values_by_example(records)["b"]
        path.unlink()
        return found

    alone = kept("b")
    assert kept("a", "b") == kept("c", "a", "b") == alone
    assert kept("b", seed=2) != alone


def test_records_of_examples_that_take_turns_stay_apart(configured, records):
    logger = configured(max_records=4)
    logger.divide_records(2)
    one, two = logger.begin_example("one"), logger.begin_example("two")
    for value in range(6):
        for example in (one, two):
            logger.resume_example(example)
            logger.log("number", float(value))
    for example in (one, two):
        logger.resume_example(example)
        logger.end_example()
    logger.flush()
    assert {name: len(values) for name, values in values_by_example(records).items()} == {
        "one": 2,
        "two": 2,
    }


def test_fewer_records_than_examples_leave_none(configured, path):
    logger = configured(max_records=3)
    logger.divide_records(4)
    log_examples(logger, 5, 5, 5, 5)
    assert not path.exists()


def test_a_limit_of_zero_logs_nothing(configured, path):
    logger = configured(max_records=0)
    assert not logger.log("number", 1.0)
    logger.close()
    assert not path.exists()


# -- sampling --------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "block"), [(0.1, 10), (0.25, 4), (0.5, 2)])
def test_each_block_of_an_example_has_one_drawn_item(configured, factor, block):
    logger = configured(sampling_factor=factor)
    for name in "abc":
        logger.begin_example(name)
        numbers = logger.draw(50 * block)
        assert [number // block for number in numbers] == list(range(50))
        # At random places: a model with as many layers is not measured in the same ones.
        assert len({number % block for number in numbers}) == block


@pytest.mark.parametrize("factor", [0.1, 0.3, 0.7])
def test_every_item_is_drawn_with_the_same_probability(configured, factor):
    logger, examples, times = configured(sampling_factor=factor), 2000, [0] * 12
    for name in range(examples):
        logger.begin_example(str(name))
        for number in logger.draw(12):
            times[number] += 1
    tolerance = 4.5 * math.sqrt(examples * factor * (1 - factor))
    assert all(abs(count - examples * factor) < tolerance for count in times), times


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_share_kept_is_the_sampling_factor(configured, factor):
    logger, tries, kept = configured(sampling_factor=factor, seed=5), 2000, 0
    for number in range(tries):
        # Draws within an example and between examples.
        if number % 20 == 0:
            logger.begin_example(f"example-{number}")
        kept += logger.log("number", 1.0)
    # Four standard deviations of a binomial, 0 at both ends; one seed in 16,000 exceeds them.
    tolerance = 4 * math.sqrt(tries * factor * (1 - factor))
    assert abs(kept - tries * factor) <= tolerance


def test_drawing_together_or_one_by_one_is_the_same(configured):
    found = []
    for sizes in ([30], [1] * 30, [7, 1, 20, 2]):
        logger = configured(sampling_factor=0.3)
        logger.begin_example("a")
        begin, numbers = 0, []
        for size in sizes:
            numbers += [begin + number for number in logger.draw(size)]
            begin += size
        found.append(numbers)
    assert found[0] == found[1] == found[2] != []


def test_draws_neither_change_nor_depend_on_the_global_generators(configured):
    def kept():
        logger = configured(sampling_factor=0.5, seed=1)
        outside = [logger.log("number", 1.0) for _ in range(50)]
        logger.begin_example("a")
        return outside, [logger.log("number", 1.0) for _ in range(50)]

    random_state, torch_state = random.getstate(), torch.random.get_rng_state()
    first = kept()
    assert random.getstate() == random_state
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    random.random()
    assert kept() == first
    assert set(first[0]) == set(first[1]) == {True, False}


def test_draws_of_an_example_do_not_depend_on_earlier_examples(configured):
    def kept(*before, seed=1):
        logger = configured(sampling_factor=0.5, seed=seed)
        for example_id, count in before:
            logger.begin_example(example_id)
            for _ in range(count):
                logger.log("number", 1.0)
        logger.begin_example("b")
        return [logger.log("number", 1.0) for _ in range(50)]

    alone = kept()
    assert kept(("a", 7)) == alone
    assert kept(("c", 3), ("a", 20)) == alone
    assert kept(seed=2) != alone


def test_examples_are_drawn_independently(configured):
    logger = configured(sampling_factor=0.5)
    drawn = []
    for example_id in "ab":
        logger.begin_example(example_id)
        drawn.append([logger.log("number", 1.0) for _ in range(50)])
    assert drawn[0] != drawn[1]


def test_a_value_is_computed_only_if_its_record_is_kept(configured):
    calls = []

    def expensive():
        calls.append(1)
        return 1.0

    logger = configured(enabled_metrics=["number"], sampling_factor=0.3, max_records=20)
    kept = [logger.log("number", expensive) for _ in range(500)]
    assert 20 <= sum(kept) == len(calls) < 150
    assert not logger.log("vector", expensive)
    assert not configured(sampling_factor=0.0).log("number", expensive)
    assert not MicroMetricLogger.current().log("number", expensive)
    assert len(calls) == sum(kept)


# -- values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (torch.tensor(0.5), 0.5),
        (torch.tensor([0.5]), 0.5),
        (torch.tensor([[3]]), 3),
        (torch.tensor(True), True),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor([0.5, 1.5]), [0.5, 1.5]),
        (torch.tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor(float("nan")), None),
        ({"a": [1, 2.5, "x", None]}, {"a": [1, 2.5, "x", None]}),
        (float("inf"), None),
        ("text", "text"),
    ],
)
def test_values_are_written_as_json(configured, records, value, written):
    logger = configured(enabled_metrics=["vector"])
    logger.log("vector", value)
    logger.flush()
    (record,) = records()
    assert record["value"] == written
    assert type(record["value"]) is type(written)


def test_tensors_stay_tensors_until_the_flush(configured, records, monkeypatch):
    to_the_host = []
    for name in ("item", "tolist", "__float__", "cpu", "numpy"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda *args, real=real, name=name: (to_the_host.append(name), real(*args))[1],
        )
    logger = configured()
    for value in (0.25, 0.75):
        logger.log("number", torch.tensor(value))
    logger.log("vector", torch.tensor([1.0, 2.0]))
    assert to_the_host == []
    logger.flush()
    assert to_the_host != []
    assert [record["value"] for record in records()] == [0.25, 0.75, [1.0, 2.0]]


def test_records_keep_their_order_across_kinds_of_values(configured, records):
    values = [1.0, torch.tensor(2.0), torch.tensor([3.0, 4.0]), torch.tensor(5), torch.tensor(6.0)]
    logger = configured(enabled_metrics=["vector"])
    for value in values:
        logger.log("vector", value)
    logger.flush()
    assert [record["value"] for record in records()] == [1.0, 2.0, [3.0, 4.0], 5, 6.0]


# -- the current logger ----------------------------------------------------------------


def test_without_an_arm_at_work_the_current_logger_is_disabled(registered):
    assert not any(MicroMetricLogger.current().log(name, 1.0) for name in registered)


def test_the_current_logger_is_the_innermost(configured):
    one, other = configured(), configured()
    with one.as_current():
        assert MicroMetricLogger.current() is one
        with other.as_current():
            assert MicroMetricLogger.current() is other
        assert MicroMetricLogger.current() is one
    with pytest.raises(ZeroDivisionError), other.as_current():
        raise ZeroDivisionError
    assert MicroMetricLogger.current() not in (one, other)
