"""What the sweeper makes of overrides."""

from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.sah.sweeper import SahSweeper


def test_only_the_last_of_two_overrides_of_a_key_is_expanded():
    """Hydra lists the values of both; these would fill the memory first."""
    parsed = OverridesParser.create().parse_overrides(
        ["seed=range(0,1000000000000)", "seed=1,2", "n=3"]
    )
    assert SahSweeper.split_arguments(parsed, None) == [[["seed=1", "n=3"], ["seed=2", "n=3"]]]
