from pathlib import Path

import pytest
from hydra.utils import instantiate

from sah.metric_logging import MetricLogging

OPTIONS = sorted(
    path.stem
    for path in (Path(__file__).resolve().parents[2] / "conf" / "metric_logging").glob("*.yaml")
)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_the_group_makes_a_logger(option, compose, path):
    logging = instantiate(compose(f"metric_logging={option}").metric_logging, _convert_="all")
    assert isinstance(logging, MetricLogging)
    assert logging.name == option
    logger = logging.logger(path, seed=0)
    logger.begin_example("one")
    kept = [logger.log("research_attention_recall", 1.0) for _ in range(100)]
    assert any(kept) == (option != "off")
    logger.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling_factor": 1.5}, r"sampling_factor must be in \[0, 1\], got 1.5"),
        ({"sampling_factor": -0.1}, r"sampling_factor must be in \[0, 1\], got -0.1"),
        ({"sampling_factor": float("nan")}, "sampling_factor must be a finite number"),
        ({"sampling_factor": "much"}, "sampling_factor"),
        ({"max_records": -1}, "max_records"),
        ({"max_records": 1.5}, "max_records"),
        ({"max_records": True}, "max_records"),
        ({"flush_every": 0}, "flush_every"),
        ({"flush_interval": 0}, "flush_interval"),
        ({"flush_interval": float("nan")}, "flush_interval"),
        ({"enabled_metrics": ["research_attention_recal"]}, "known are.*research_attention_recall"),
        ({"enabled_metrics": None}, "enabled_metrics"),
        ({"per_head": 1}, "per_head must be true or false, got 1"),
        (
            {"per_head": True, "enabled_metrics": []},
            r"=\[\] has no attention metric; enable one of",
        ),
        (
            {"per_head": True, "enabled_metrics": ["number"]},
            r"\['number'\] has no attention metric",
        ),
        ({"per_head": True, "max_records": 0}, "max_records=0 keeps no record; raise max_records"),
        ({"per_head": True, "sampling_factor": 0.0}, "sampling_factor=0 measures no query; raise"),
        ({"name": 3}, "name"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MetricLogging(**{"name": "name", "enabled_metrics": "all", **settings})


def test_without_enabled_metrics_the_path_is_never_touched(path):
    logging = MetricLogging(name="off", enabled_metrics=[])
    logger = logging.logger(path, seed=0)
    assert not logger.log("number", 1.0)
    logger.close()
    assert not path.parent.exists()
