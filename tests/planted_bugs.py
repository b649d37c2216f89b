"""Plant realistic bugs in the attention code, one at a time, and see which test notices.

    python tests/planted_bugs.py                                   # the contract grid of maskers
    python tests/planted_bugs.py --tests tests/maskers tests/attention

Each bug is planted in a temporary copy of the tree, so that the tree itself is never changed.
Prints a Markdown table and exits with 1 if a bug goes unnoticed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# As in tests/conftest.py, before transformers is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
CONTRACT_GRID = "tests/maskers/test_contract.py"


@dataclass(frozen=True)
class Bug:
    """An edit that makes the code wrong; `old` stands exactly once in the file."""

    description: str
    file: str
    old: str
    new: str


BUGS = (
    Bug(
        "the local window is one key too long",
        "sah/maskers/local.py",
        "inputs.visible_count - self.tokens",
        "inputs.visible_count - self.tokens - 1",
    ),
    Bug(
        "sinks are counted from the end of the sequence",
        "sah/maskers/sink.py",
        "inputs.visible_rank <= self.tokens",
        "inputs.visible_rank > inputs.visible_count - self.tokens",
    ),
    Bug(
        "left padding counts as the first keys",
        "sah/attention/visibility.py",
        "return self.keys.cumsum(-1)",
        "return torch.ones_like(self.keys).cumsum(-1)",
    ),
    Bug(
        "invisible keys can be selected",
        "sah/attention/mask.py",
        "return self.visible & ~self.selected",
        "return ~self.selected",
    ),
    Bug(
        "a key that is already selected gets the weight of a later sampler",
        "sah/attention/mask.py",
        "added = keys & self.candidates",
        "added = keys & self.visible",
    ),
    Bug(
        "the given mask is changed in place",
        "sah/attention/mask.py",
        "selected=self.selected | added",
        "selected=self.selected.logical_or_(added)",
    ),
    Bug(
        "density is a share of all keys instead of the visible ones",
        "sah/attention/mask.py",
        "self.selected_count / self.visible.sum(-1)",
        "self.selected_count / self.visible.shape[-1]",
    ),
    Bug(
        "a fraction of the visible keys is rounded down",
        "sah/attention/visibility.py",
        "(self.count.double() * fraction - 1e-9).ceil()",
        "(self.count.double() * fraction + 1e-9).floor()",
    ),
    Bug(
        "a fraction of the visible keys is rounded up from floating-point noise",
        "sah/attention/visibility.py",
        "(self.count.double() * fraction - 1e-9)",
        "(self.count.double() * fraction)",
    ),
    Bug(
        "a fraction is one of all keys instead of the visible ones",
        "sah/attention/visibility.py",
        "(self.count.double() * fraction - 1e-9)",
        "(torch.full_like(self.count, self.keys.shape[-1]).double() * fraction - 1e-9)",
    ),
    Bug(
        "keys that tie for the last place exceed the budget",
        "sah/attention/selection.py",
        "tied.cumsum(-1, dtype=torch.int32) <= room",
        "tied.cumsum(-1, dtype=torch.int32) <= room + 1",
    ),
    Bug(
        "OracleTopK spends its budget on keys that are already selected",
        "sah/attention/top_k.py",
        "scores, candidates = self.scores(inputs), mask.candidates",
        "scores, candidates = self.scores(inputs), mask.visible.expand_as(mask.selected)",
    ),
    Bug(
        "OracleTopK ranks by |q·k|",
        "sah/maskers/oracle_top_k.py",
        "inputs.scores",
        "inputs.scores.abs()",
    ),
    Bug(
        "heads that select together add up logits instead of shares of attention",
        "sah/attention/top_k.py",
        ".log_softmax(-1)",
        "",
    ),
    Bug(
        "heads that select together spend their budget on keys that all have selected",
        "sah/attention/top_k.py",
        "candidates = _any_of_set(candidates, sets)",
        "candidates = inputs.visible.expand(-1, sets, -1, -1)",
    ),
    Bug(
        "a unit scores as much as its best key, even if that may not be added",
        "sah/attention/top_k.py",
        "scores.masked_fill(~candidates, -torch.inf)",
        "scores",
    ),
    Bug(
        "a selection serves one step too many",
        "sah/attention/top_k.py",
        "query - first) % self.every",
        "query - first) % (self.every + (self.every > 1))",
    ),
    Bug(
        "a selection outlives its answer",
        "sah/attention/session.py",
        "self._held.clear()\n        self._rewind_evictions()",
        "self._rewind_evictions()",
    ),
    Bug(
        "OracleTopP stops one key before the mass is reached",
        "sah/maskers/oracle_top_p.py",
        "before < self.p",
        "before + ranked < self.p",
    ),
    Bug(
        "OracleTopP ignores the mass that is already selected",
        "sah/maskers/oracle_top_p.py",
        "before = held + ranked",
        "before = ranked",
    ),
    Bug(
        "Quest's upper bound uses the page minimum twice",
        "sah/maskers/quest.py",
        "pages.highest)",
        "pages.lowest)",
    ),
    Bug(
        "Quest spends its budget on keys that are already selected",
        "sah/maskers/quest.py",
        "select_units(self._page_scores(inputs), mask.candidates,",
        "select_units(self._page_scores(inputs), mask.visible.expand_as(mask.selected),",
    ),
    Bug(
        "Quest reads the last page instead of the one that holds the query",
        "sah/maskers/quest.py",
        "own = (inputs.query_position // self.page_size)",
        "own = ((inputs.key.shape[2] - 1 + 0 * inputs.query_position) // self.page_size)",
    ),
    Bug(
        "Quest appends to a page that is already full",
        "sah/maskers/quest.py",
        "room = -self.length % self.page_size",
        "room = self.page_size - self.length % self.page_size",
    ),
    Bug(
        "sampled keys weigh n/b with n the visible keys instead of the candidates",
        "sah/maskers/random_sampling.py",
        "available / budget",
        "inputs.visible_count / budget",
    ),
    Bug(
        "AdaptiveSampling's keys all weigh 1",
        "sah/maskers/adaptive_sampling.py",
        "count / sample.clamp(min=1)",
        "torch.ones_like(count / sample.clamp(min=1))",
    ),
    Bug(
        "AdaptiveSampling draws from the global random generator",
        "sah/attention/inputs.py",
        "torch.rand(heads, keys, generator=generator, device=self.query.device)",
        "torch.rand(heads, keys, device=self.query.device)",
    ),
    Bug(
        "all rows of a batch draw the same random numbers",
        "sah/attention/inputs.py",
        "derive(self.seed, row, self.first_position + column)",
        "derive(self.seed, self.first_position + column)",
    ),
    Bug(
        "random numbers begin anew at each chunk of queries",
        "sah/attention/inputs.py",
        "first_position=self.first_position + start",
        "first_position=self.first_position",
    ),
    Bug(
        "all layers have the same seed",
        "sah/attention/session.py",
        "derive(self.seed, self._example_id, layer)",
        "derive(self.seed, self._example_id)",
    ),
    Bug(
        "MagicPIG's inclusion probability forgets the binomial coefficient",
        "sah/maskers/magic_pig.py",
        "ways = math.comb(self.tables, collisions)",
        "ways = 1",
    ),
    Bug(
        "MagicPIG samples nothing of the keys after the context",
        "sah/maskers/magic_pig.py",
        "mask = mask.add(tables.are_later(inputs.key.shape[2]))",
        "mask = mask.add(tables.are_later(inputs.key.shape[2]) & False)",
    ),
    Bug(
        "MagicPIG hashes keys with their mean and computes angles without it",
        "sah/maskers/magic_pig.py",
        "self.hyperplanes.buckets(centred)",
        "self.hyperplanes.buckets(key.float())",
    ),
    Bug(
        "SOCKET's two halves of the planes are swapped",
        "sah/maskers/socket.py",
        "last.unsqueeze(1) * first",
        "last * first.unsqueeze(1)",
    ),
    Bug(
        "DoubleSparsity swaps the two codes of a byte",
        "sah/maskers/shared/packed_bits.py",
        "codes[:, :, 0::2] | codes[:, :, 1::2] << 4",
        "codes[:, :, 1::2] | codes[:, :, 0::2] << 4",
    ),
    Bug(
        "DoubleSparsity takes the keys of another key-value head",
        "sah/maskers/double_sparsity.py",
        "torch.arange(heads, device=key.device) // (heads // groups)",
        "torch.arange(heads, device=key.device) % groups",
    ),
    Bug(
        "HashAttention uses the networks of layer 0 in every layer",
        "sah/maskers/hash_attention.py",
        "of_layer(tensors, inputs.layer_idx)",
        "of_layer(tensors, 0)",
    ),
    Bug(
        "Loki ranks by the directions of the smallest variance",
        "sah/maskers/loki.py",
        "directions.flip(-1)",
        "directions",
    ),
    Bug(
        "PQCache takes the farthest centroid",
        "sah/maskers/pq_cache.py",
        "part @ self.centroids.transpose(-1, -2)).argmin(-1)",
        "part @ self.centroids.transpose(-1, -2)).argmax(-1)",
    ),
    Bug(
        "PQCache clusters the rows of a batch differently from a row alone",
        "sah/maskers/pq_cache.py",
        "self.centroids = vectors[:, :, :, first]",
        "self.centroids = vectors[-1:, :, :, first].expand_as(vectors[:, :, :, first])",
    ),
    Bug(
        "an index is not rewound to the context",
        "sah/attention/session.py",
        "index.rewind(self.context_rows(layer))",
        "index.rewind(index.length)",
    ),
    Bug(
        "an index is not appended to as the sequence grows",
        "sah/attention/index.py",
        "buffer.append(codes)",
        "buffer.append(torch.zeros_like(codes))",
    ),
    Bug(
        "gathered attention reads the key-value head h % G",
        "sah/attention/gather.py",
        'head.div(heads // groups, rounding_mode="floor")',
        "head.remainder(groups)",
    ),
    Bug(
        "scores are not scaled",
        "sah/attention/inputs.py",
        "products * self.scaling",
        "products * 1.0",
    ),
    Bug(
        "the softmax is computed in half precision",
        "sah/attention/compute.py",
        "share = torch.softmax(scores, dim=-1)",
        "share = torch.softmax(scores.half(), dim=-1).float()",
    ),
    Bug(
        "the gathered path ignores the weights of sampled keys",
        "sah/attention/compute.py",
        "mask.sampled_weight.gather(-1, keys.position).log()",
        "torch.zeros_like(scores)",
    ),
    Bug(
        "a preset's maskers are applied in reverse",
        "sah/attention/methods.py",
        "itertools.islice(maskers.values(), len(first), None)",
        "reversed(list(maskers.values())[len(first) :])",
    ),
)


def copy_of_tree(folder: Path) -> Path:
    """Copy every file that git does not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def first_failure(tree: Path, tests: list[str]) -> str | None:
    """Run the tests of a tree up to the first that fails, and return its name; None if all pass.

    In a fork of this process, which has imported torch and transformers, but never sah.
    """
    log = tree / "planted_bugs.log"
    child = os.fork()
    if child == 0:
        os.chdir(tree)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        sys.path.insert(0, str(tree))
        os.environ["PYTHONPATH"] = str(tree)
        sys.dont_write_bytecode = True
        options = ["-n", "0", "-x", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
        os._exit(pytest.main([*options, *tests]))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", log.read_text(), re.MULTILINE)
    if failed is None:
        raise SystemExit(f"pytest ended with {status} without a failed test:\n{log.read_text()}")
    return failed[1]


def planted(bug: Bug, tree: Path) -> str:
    """Return the text of the bug's file with the bug in it."""
    text = (tree / bug.file).read_text(encoding="utf-8")
    if text.count(bug.old) != 1:
        raise SystemExit(
            f"{bug.file} has the text of the bug {bug.description!r} {text.count(bug.old)} times "
            f"instead of once; bring BUGS up to date: {bug.old}"
        )
    return text.replace(bug.old, bug.new)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", nargs="+", default=[CONTRACT_GRID], metavar="PATH")
    tests = parser.parse_args().tests
    # For the forks.
    import torch  # noqa: F401
    import transformers  # noqa: F401

    console = Console(soft_wrap=True, highlight=False, markup=False)
    noticed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_of_tree(Path(folder))
        broken = {bug: planted(bug, tree) for bug in BUGS}
        if failure := first_failure(tree, tests):
            raise SystemExit(f"{failure} fails without any bug")
        console.print("| bug | noticed by | seconds |\n|---|---|---|")
        for bug, text in broken.items():
            file = tree / bug.file
            correct = file.read_text(encoding="utf-8")
            file.write_text(text, encoding="utf-8")
            started = time.monotonic()
            failure = first_failure(tree, tests)
            seconds = time.monotonic() - started
            file.write_text(correct, encoding="utf-8")
            noticed += failure is not None
            by = f"`{failure}`" if failure else "**no test**"
            console.print(f"| {bug.description} | {by} | {seconds:.0f} |")
    console.print(f"\n{noticed} of {len(BUGS)} noticed by {' '.join(tests)}")
    return 0 if noticed == len(BUGS) else 1


if __name__ == "__main__":
    sys.exit(main())
