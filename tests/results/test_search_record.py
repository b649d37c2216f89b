"""The record of a search: what an earlier start wrote, and which searches belong to results."""

from dataclasses import replace

from sah.results.search_record import SEARCHES, Search, Trial, record_trials, searches_with


def trials(*names):
    return [
        Trial(parameters={"pages": name}, value=len(name) / 2, directory=f"m/a/b/{name}")
        for name in names
    ]


SEARCH = Search(name="pages", objective="score", direction="maximize")


def record(root, *names, search=SEARCH):
    record_trials(root, search.name, replace(search, trials=trials(*names)))


def read(root, *names):
    found = searches_with([root / "m/a/b" / name for name in names])
    return {one.name: [trial.directory[-1] for trial in one.trials] for one in found}


def test_what_was_recorded_is_read_back(tmp_path):
    record(tmp_path, "x", "y")
    (found,) = searches_with([tmp_path / "m/a/b/x"])
    assert found == replace(SEARCH, trials=trials("x", "y"))


def test_a_search_that_starts_again_keeps_the_trials_after_its_first_batch(tmp_path):
    record(tmp_path, "x", "y", "z")
    record(tmp_path, "x")
    assert read(tmp_path, "x") == {"pages": ["x", "y", "z"]}


def test_a_search_that_goes_another_way_replaces_the_earlier_trials(tmp_path):
    record(tmp_path, "x", "y", "z")
    record(tmp_path, "x", "z")
    assert read(tmp_path, "x") == {"pages": ["x", "z"]}


def test_only_searches_of_the_given_experiments_are_found(tmp_path):
    record(tmp_path, "x", "y")
    record(tmp_path, "z", search=replace(SEARCH, name="budget"))
    assert read(tmp_path, "y") == {"pages": ["x", "y"]}
    assert read(tmp_path, "y", "z").keys() == {"pages", "budget"}
    assert read(tmp_path, "other") == {}
    assert read(tmp_path / "elsewhere", "x") == {}


def test_a_damaged_record_is_left_out_with_a_warning(tmp_path, caplog):
    record(tmp_path, "x")
    damaged = tmp_path / SEARCHES / "damaged.json"
    damaged.write_text('{"name": "half')
    assert read(tmp_path, "x") == {"pages": ["x"]}
    assert str(damaged) in caplog.text
    record_trials(tmp_path, "damaged", replace(SEARCH, name="new", trials=trials("x")))
    assert read(tmp_path, "x").keys() == {"pages", "new"}
