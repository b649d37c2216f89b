"""`sah match` refuses mistakes with one message, before anything is loaded."""

import pytest

from sah.cli.match import main
from sah.models.tiny import TinyModel


@pytest.fixture
def refused(calls, tmp_path, monkeypatch):
    """Return the message that a command line ends with."""
    monkeypatch.chdir(tmp_path)
    loads = calls(TinyModel, "load")

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "model=tiny", "benchmark=ruler"])
        assert not loads
        assert list(tmp_path.rglob("results.json")) == []
        return str(ended.value.code)

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "memory=0.1"), "'memory' cannot be matched; take resident, density"),
        (("--target", "resident=0"), "--target=resident=0: resident must be a number above 0"),
        (("--target", "resident=nan"), "resident must be a number above 0"),
        (("--target", "density=1.5"), "density must be a number in (0, 1]"),
        (("--target", "density=0.1", "--tolerance", "0"), "--tolerance=0 must be above 0"),
        (("--target", "density=0.1", "--contexts", "0"), "--contexts must be at least 1, got 0"),
        (("--target", "density=0.1"), "give the attentions to match"),
    ],
)
def test_a_wrong_option_is_refused(refused, arguments, message):
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("attention=glob(*)", "attention=glob(*): list the values"),
        ("attention=dense", "dense has no masker and no evictor"),
        ("seed=1.5", "seed=1.5 must be whole numbers"),
        ("benchmark.limit=1,2", "only attention and seed take several values"),
        ("benchmark.limt=1", "benchmark.limt is not a key"),
        ("tracker=)", "tracker=):"),
    ],
)
def test_a_wrong_override_is_refused(refused, override, message):
    attention = () if override.startswith("attention") else ("attention=quest",)
    assert message in refused("--target", "density=0.1", *attention, override)


def test_a_tuning_split_that_does_not_exist_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["--target", "resident=0.3", "attention=knorm", "model=tiny", "benchmark=mock"])
    assert "dataset: benchmark 'mock' has no context of 'mock' left" in str(ended.value.code)
