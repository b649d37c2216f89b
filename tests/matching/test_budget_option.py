"""Every preset has a budget that scales what it holds or reads, or is refused by name."""

import pytest
from presets import EVICTING, REWRITING, SELECTING

from sah.errors import ConfigurationError
from sah.matching.budget_option import find_budget
from sah.results.identity import resolved


@pytest.fixture
def budget(calibrated, composed):
    def find(*overrides, metric, path=None):
        attention = resolved(composed(*overrides))
        return find_budget(attention, metric, path=path, longest=1024)

    return find


WITHOUT_BUDGET = {"magic_pig", "kivi", "quantised"}


@pytest.mark.parametrize("name", [*EVICTING, *SELECTING])
def test_a_preset_that_reads_a_part_has_a_budget_of_rows_read(budget, name):
    if name in WITHOUT_BUDGET:
        with pytest.raises(ConfigurationError, match=f"{name}: .* has no budget.*--budget {name}="):
            budget(f"attention={name}", metric="rows_read")
        return
    found = budget(f"attention={name}", metric="rows_read")
    assert found.least <= found.value <= found.most


@pytest.mark.parametrize("name", [*EVICTING, *REWRITING])
def test_a_preset_that_holds_less_has_a_budget_of_resident_bytes(budget, name):
    if name in WITHOUT_BUDGET:
        with pytest.raises(ConfigurationError, match=f"{name}: .* has no budget"):
            budget(f"attention={name}", metric="resident")
        return
    found = budget(f"attention={name}", metric="resident")
    assert found.path.startswith(("sparse_attention.evict.", "sparse_attention.rewrite."))


@pytest.mark.parametrize("name", SELECTING)
def test_no_budget_of_a_selector_changes_what_is_resident(budget, name):
    with pytest.raises(ConfigurationError, match=f"{name} has no evictor and no rewriter"):
        budget(f"attention={name}", metric="resident")


def test_the_budget_is_that_of_the_last_masker(budget):
    assert budget("attention=sparse", metric="density").path == (
        "sparse_attention.maskers.oracle_top_k.fraction"
    )
    assert budget("attention=streaming_llm", metric="density").name == "local.tokens"
    assert budget("attention=vattention", metric="density").name == "adaptive_sampling.epsilon"


def test_the_budget_of_a_wrapper_is_that_of_the_evictor_inside(budget):
    assert budget("attention=adakv", metric="resident").name == "adakv.of.fraction"


def test_a_budget_in_tokens_is_searched_in_whole_numbers(budget):
    found = budget(
        "attention=snapkv",
        "sparse_attention.evict.snapkv.tokens=100",
        "sparse_attention.evict.snapkv.fraction=null",
        metric="resident",
    )
    assert found.path == "sparse_attention.evict.snapkv.tokens"
    assert (found.least, found.value, found.most) == (1, 100, 1024)


def test_a_share_that_is_written_as_a_whole_number_is_a_share(budget):
    whole = "sparse_attention.evict.snapkv.fraction=1"
    assert budget("attention=snapkv", whole, metric="resident").most == 1.0


def test_an_attention_that_evicts_and_selects_has_a_budget_for_each(budget):
    both = ("attention=snapkv", "+masker@sparse_attention.maskers.quest=quest")
    assert budget(*both, metric="resident").name == "snapkv.fraction"
    assert budget(*both, metric="rows_read").name == "quest.fraction"


def test_dense_attention_is_refused(budget):
    with pytest.raises(ConfigurationError, match="dense has no masker and no evictor"):
        budget("attention=dense", metric="density")


def test_any_number_of_an_attention_can_be_its_budget(budget):
    for path in ("rewrite.kivi.residual", "sparse_attention.rewrite.kivi.residual"):
        assert budget("attention=kivi", metric="resident", path=path).value == 128


@pytest.mark.parametrize("path", ["evict.snapkv.fractoin", "name", "evict", "dense_layers"])
def test_what_is_not_a_positive_number_cannot_be_a_budget(budget, path):
    with pytest.raises(ConfigurationError, match=f"snapkv: the budget sparse_attention.{path}="):
        budget("attention=snapkv", metric="resident", path=path)
