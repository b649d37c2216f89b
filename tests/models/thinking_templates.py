"""Chat templates of models that think, for the tests of thoughts."""

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MENTIONS = CHAT + "{# a reply is split at </think> #}"
OPENS = CHAT + "{% if add_generation_prompt %}<think>\n{% endif %}"
CLOSES = CHAT + "{% if add_generation_prompt %}<think>\n\n</think>\n\n{% endif %}"
GPT_OSS = CHAT + "{# <|channel|>analysis<|message|> #}"
