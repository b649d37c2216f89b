"""Both ways to sum table look-ups, against the definition written out."""

import pytest
import torch
from torch.testing import assert_close

from sah.maskers.shared.lookup import (
    LookUpPlaces,
    sum_of_looked_up_rows,
    sum_of_lookups,
)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
@pytest.mark.parametrize(("count", "entries"), [(1, 2), (2, 64), (7, 5)])
def test_scores_are_sums_of_the_entries_of_a_key_s_codes(
    count: int, entries: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(count)
    tables = torch.randn(2, 3, count, 4, entries, generator=generator)
    codes = torch.randint(entries, (2, 3, count, 11), generator=generator).to(dtype)
    expected = torch.zeros(2, 3, 4, 11)
    for b, g, t, k in torch.cartesian_prod(*map(torch.arange, codes.shape)).tolist():
        expected[b, g, :, k] += tables[b, g, t, :, int(codes[b, g, t, k])]
    assert_close(sum_of_lookups(tables, codes), expected)

    stacked = tables.flatten(0, 1).permute(3, 0, 1, 2).contiguous()  # C N T S
    by_key = codes.flatten(0, 1).transpose(1, 2)  # N K T
    # Places for more heads than are looked up serve a part of them, too.
    for heads in (6, 8):
        places = LookUpPlaces.of(heads, count, 11, torch.device("cpu"))
        looked_up = sum_of_looked_up_rows(stacked, by_key, places)  # N K S
        assert_close(looked_up.transpose(1, 2).unflatten(0, (2, 3)), expected)
