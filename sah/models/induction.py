"""A Llama with weights set by hand: it answers RULER's needle tasks exactly, at any length."""

# V vocabulary, H query heads, D head dimension

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sah.content import content_of_fields
from sah.errors import ModelLoadingError, ModelNotFound
from sah.models.hub import resolve_device_and_dtype
from sah.paths import installed_folder
from sah.validation import check_types

if TYPE_CHECKING:
    from transformers import LlamaConfig

    from sah.models.language_model import LanguageModel
    from sah.models.loading.outline import ModelOutline
    from sah.models.prompts import PromptEncoder

# What stands between a key and its value: in RULER's needles and in its answer prefixes, in a JSON
# object and in the question of key-value retrieval. Each is one token, and all have one code.
_LINKS = (
    " is: ",
    " mentioned in the provided text is",
    " mentioned in the provided text are",
    '": "',
    '"\nCorresponding value:',
)
# An answer ends where the copied value does. The first is the end-of-sequence token.
_ENDS = ("<end>", ".", ",", ";", '"', "\n")
# Splits a text into links, words with the space or hyphen before them, and hexadecimal digits by
# three. Anything else is a piece of one character.
_PIECES = rf"{'|'.join(map(re.escape, _LINKS))}|[ -]?[A-Za-z]{{1,30}}\b|-?[0-9a-f]{{1,3}}|.|\n"
# Frequent words, and those of RULER's prompts. They and the words of RULER's keys are tokens; other
# words are spelled with shorter tokens. The ids of these are below 1,024, so that their codes are
# far from that of the links.
_COMMON = (
    "The One What special magic number numbers mentioned uuid word words text hidden within "
    "following grass green sky blue sun yellow Here There back again VAR variable assigned value "
    "the of and to a in that is was he for it with as his on be at by I this had not are but from "
    "or have an they which one you were all her she there would their we him been has when who "
    "will no more if out so up said what its about than into them can only other some these two "
    "may first then do any my now our me unto shall thou thy thee ye upon And God Lord"
)

_REACH = 4
"""Earlier tokens that each token remembers: one for each query head."""
_KEY_VALUE_HEADS = 2
_BITS = 15
"""Signs in the code of a token: enough for 32,768 tokens."""
_POSITION_PAIRS = 6
"""Rotary pairs with the highest frequencies, which compare positions; the others compare codes."""
_HEAD_DIM = 2 * _POSITION_PAIRS + _REACH * _BITS
_MOST_TOKENS = 131_072

# Each frequency is about a tenth of the one before it. For offsets up to _MOST_TOKENS the mean
# cosine of the position pairs is at least 0.04 below that of the right offset, and the pairs that
# compare codes turn by at most 0.2.
_ROPE_THETA = 10.0 ** (_HEAD_DIM // 2 - 1)
# Logit of the right offset, and of one sign: any other key is at least 20 below.
_POSITION_LOGIT = 500.0
_SIGN_LOGIT = 10.0
# The current token counts this often: a link is more than any word before the key, such as the
# " and" of a list of keys in place of the needle's " for".
_CURRENT_WEIGHT = 3.0

# The residual stream: the token's code, a one, the codes of the tokens before it, the code found.
_CODE = slice(0, _BITS)
_ONE = _BITS
_BEFORE = [slice(_BITS * place + 1, _BITS * (place + 1) + 1) for place in range(1, _REACH + 1)]
_FOUND = slice(_BEFORE[-1].stop, _BEFORE[-1].stop + _BITS)
_HIDDEN = 96


@dataclass(frozen=True, kw_only=True)
class InductionModel:
    """Two layers that copy what followed the last four tokens where they occurred before.

    A stock Llama with the induction circuit of arXiv:2209.11895. The embedding of a token is a code
    of 15 signs.

    - Layer 0: query head h attends to the token h + 1 places before, whatever the tokens are, by
      the rotary pairs of high frequency, and copies its code. Each token then knows the four
      before it.
    - Layer 1: every head compares the last four tokens, the current one included, with the four
      before each key, attends to the key where most signs agree (those of the current token count
      three times), and copies its code. The other rotary pairs hardly turn, so that the distance
      does not matter. All four heads do the same.
    - The MLPs are zero. The logits compare the copied code with the codes of all tokens.

    So a question about a key is answered by the value of its needle, token by token, and the answer
    ends at the punctuation after it. Two properties of the tokenizer make four tokens enough:

    - The words that RULER's keys are made of are single tokens, as are three hexadecimal digits.
    - The phrases between a key and its value are single tokens with the same code: " is: " in the
      needle and " mentioned in the provided text is" at the end of the prompt.

    niah_single_* and niah_multikey_* score 1 by construction, as does key-value retrieval with
    UUIDs. (Four tokens of different UUIDs agree by chance in about one of 5,000 samples of
    niah_multikey_3 at 32k.) niah_multiquery scores .25: the answer is the value of the last key.
    The four equal matches of niah_multivalue are averaged, which usually gives none of the four
    values. Answers of other tasks are meaningless.
    """

    name: str = "induction"
    max_tokens: int = _MOST_TOKENS
    """Longest sequence; at most 131,072."""
    dtype: str = "auto"
    """auto (bfloat16 on a GPU, float32 on a CPU), or a torch name such as float16."""
    device: str = "auto"
    """auto (the first GPU, else the CPU), or a torch name such as cuda:1."""
    content: Mapping[str, Any] | None = None
    """Version of wonderwords, whose words are tokens, as composed; another one is refused. None:
    nothing is checked."""

    def __post_init__(self) -> None:
        check_types(self)
        resolve_device_and_dtype(self.device, self.dtype)
        if not 1 <= self.max_tokens <= _MOST_TOKENS:
            raise ValueError(
                f"model.max_tokens must be in [1, {_MOST_TOKENS}], where this model tells "
                f"positions apart, got {self.max_tokens}"
            )

    def known_max_tokens(self) -> int:
        """Return the configured limit."""
        return self.max_tokens

    def prompts(self) -> "PromptEncoder":
        """Make only the tokenizer.

        Raises:
            ModelLoadingError: if wonderwords is not the version that the experiment was composed
                for.
            ModelNotFound: if wonderwords is not installed.
        """
        from sah.models.prompts import PromptEncoder

        composed = (self.content or {}).get("packages")
        now = content_of_fields({}, ["pypi:wonderwords"]).get("packages")
        if composed is not None and now != composed:
            raise ModelLoadingError(
                f"the words of model={self.name} have changed since the experiment was composed "
                f"(they were {composed}, now they are {now}); run it again to measure the new "
                "model, or restore the old version"
            )
        return PromptEncoder(_tokenizer(), self.max_tokens)

    def fetch(self) -> str:
        """Download nothing, as the model is made in memory."""
        return f"{self.name} is made in memory"

    def load(self) -> "LanguageModel":
        """Make the model and its tokenizer."""
        from transformers import LlamaForCausalLM

        from sah.models.gate_memory import require_measurable
        from sah.models.language_model import LanguageModel

        device, dtype = resolve_device_and_dtype(self.device, self.dtype)
        prompts = self.prompts()
        tokenizer = prompts.tokenizer
        # transformers draws initial weights from the global generator; its state is restored.
        with torch.random.fork_rng(devices=[]):
            model: Any = LlamaForCausalLM(self._config(tokenizer))
        _set_weights(model, _codes(tokenizer))
        loaded = LanguageModel(model.to(device, dtype), prompts)
        require_measurable(loaded)
        return loaded

    def outline(self, dtype: torch.dtype) -> "ModelOutline":
        """Make the model without weights."""
        from transformers import LlamaForCausalLM

        from sah.models.loading.outline import ModelOutline

        return ModelOutline.of(LlamaForCausalLM, self._config(_tokenizer()), dtype)

    def _config(self, tokenizer: Any) -> "LlamaConfig":
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=_HIDDEN,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=_REACH,
            num_key_value_heads=_KEY_VALUE_HEADS,
            head_dim=_HEAD_DIM,
            max_position_embeddings=self.max_tokens,
            rope_parameters={"rope_type": "default", "rope_theta": _ROPE_THETA},
            bos_token_id=None,
            eos_token_id=tokenizer.convert_tokens_to_ids([_written(end) for end in _ENDS]),
        )


@torch.no_grad()
def _set_weights(model: Any, codes: Tensor) -> None:
    """Set all weights; the norms are the identity for tokens whose codes are all known."""
    for weight in model.parameters():
        weight.zero_()
    model.model.embed_tokens.weight[:, _CODE] = codes
    model.model.embed_tokens.weight[:, _ONE] = 1.0
    model.lm_head.weight[:, _FOUND] = codes * _SIGN_LOGIT
    first, second = model.model.layers
    first.input_layernorm.weight.fill_(_root_mean_square(_CODE.stop + 1))
    second.input_layernorm.weight.fill_(_root_mean_square(_BEFORE[-1].stop))
    model.model.norm.weight.fill_(_root_mean_square(_FOUND.stop))
    _attend_to_offsets(first.self_attn, model.model.rotary_emb.inv_freq[:_POSITION_PAIRS])
    _attend_to_matches(second.self_attn)


def _root_mean_square(signs: int) -> float:
    return float((signs / _HIDDEN) ** 0.5)


def _attend_to_offsets(attention: Any, frequencies: Tensor) -> None:
    """Let each head h copy the code of the token h + 1 places before."""
    query, key, value, output = _by_head(attention)
    cosine, sine = (
        slice(0, _POSITION_PAIRS),
        slice(_HEAD_DIM // 2, _HEAD_DIM // 2 + _POSITION_PAIRS),
    )
    key[:, cosine, _ONE] = 1.0
    value[:, _CODE, _CODE] = torch.eye(_BITS)
    for head in range(_REACH):
        # Turned back, so that the product with the key is largest at that offset.
        angles = frequencies * -(head + 1)
        scale = _POSITION_LOGIT / _POSITION_PAIRS * _HEAD_DIM**0.5
        query[head, cosine, _ONE] = angles.cos() * scale
        query[head, sine, _ONE] = angles.sin() * scale
        output[_BEFORE[head], head, _CODE] = torch.eye(_BITS)


def _attend_to_matches(attention: Any) -> None:
    """Let all heads copy the code of the key whose earlier tokens equal the query's last ones."""
    query, key, value, output = _by_head(attention)
    half = _HEAD_DIM // 2
    compared = [*range(_POSITION_PAIRS, half), *range(half + _POSITION_PAIRS, _HEAD_DIM)]
    last, before = (
        [number for part in parts for number in range(part.start, part.stop)]
        for parts in ([_CODE, *_BEFORE[:-1]], _BEFORE)
    )
    query[:, compared, last] = _SIGN_LOGIT * _HEAD_DIM**0.5
    query[..., _CODE] *= _CURRENT_WEIGHT
    key[:, compared, before] = 1.0
    value[:, _CODE, _CODE] = torch.eye(_BITS)
    output[_FOUND, :, _CODE] = torch.eye(_BITS)[:, None] / _REACH


def _by_head(attention: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return views of the projections: q, k and v as [heads, D, hidden], o as [hidden, H, D]."""
    query, key, value = (
        projection.weight.view(-1, _HEAD_DIM, _HIDDEN)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return query, key, value, attention.o_proj.weight.view(_HIDDEN, -1, _HEAD_DIM)


def _codes(tokenizer: Any) -> Tensor:
    """Return the code of each token: the bits of its id as signs; all links are 15 times 1."""
    ids = torch.arange(len(tokenizer))
    links = tokenizer.convert_tokens_to_ids([_written(link) for link in _LINKS])
    ids[links] = 2**_BITS - 1
    return torch.where(ids[:, None] >> torch.arange(_BITS) & 1 == 1, 1.0, -1.0)  # V, _BITS


def _written(text: str) -> str:
    """Return the text of a token as a byte-level vocabulary writes it."""
    return text.replace(" ", "Ġ").replace("\n", "Ċ")


@cache
def _tokenizer() -> Any:
    """Return a tokenizer of bytes, links, hexadecimal digits and RULER's words, without template.

    Each piece is spelled with the longest tokens from the left, so that no text is lost.
    """
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    digits = "0123456789abcdef"
    groups = ["".join(group) for size in (1, 2, 3) for group in product(digits, repeat=size)]
    known = [*_COMMON.split(), *sorted(set(re.findall("[A-Za-z]+", _words_of_keys())))]
    tokens = [
        "<end>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        *map(_written, _LINKS),
        *(_written(before + word) for word in known for before in (" ", "-", "")),
        *(before + group for group in groups for before in ("-", "")),
    ]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    assert len(vocabulary) < 2**_BITS
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="<end>", continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")  # type: ignore[no-untyped-call]


def _words_of_keys() -> str:
    """Return the word lists that RULER's keys are drawn from."""
    folder = installed_folder("wonderwords")
    if folder is None:
        raise ModelNotFound(
            "the package wonderwords, whose words model=induction knows, is not installed; run "
            "`pip install wonderwords`"
        )
    files = (folder / "assets" / f"{kind}list.txt" for kind in ("adjective", "noun"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
