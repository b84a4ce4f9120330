"""Chat templates: rendered as Hugging Face does, and rewritten so that minijinja with lists of parts says the same."""

from __future__ import annotations

import pytest
from kobako.pipeline.errors import UnsupportedModel
from kobako.pipeline.templates import PROBES, as_parts, portable, render, render_minijinja

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = """{% for message in messages %}
  {% if message['role'] == 'user' %}
<|user|>
{{ message['content'] }}{{ eos_token }}
  {% else %}
    <|other|> {{ message.content.strip() }}
{# a comment #}
  {% endif %}
{% endfor %}
{% if add_generation_prompt %}<|assistant|>
{% endif %}
"""
LLAMA2 = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set prefix = messages[0]['content'] + '\n\n' -%}{%- set rest = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}{%- set rest = messages -%}
{%- endif -%}
{%- for message in rest -%}
    {{ '<start_of_turn>' + message['role'] + '\n' + (prefix if loop.first else "") }}
    {{- message['content'] | trim }}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
QWEN3 = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>' + message.role + '\n<think>\n\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""  # noqa: E501
FAMILIES = {"chatml": CHATML, "zephyr": ZEPHYR, "gemma": GEMMA, "llama3": LLAMA3, "phi3": PHI3, "qwen3": QWEN3}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("template", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("probe", PROBES)
def test_portable_says_the_same_everywhere(template: str, probe: list[dict[str, str]]) -> None:
    expected = render(template, probe, SPECIAL)
    rewritten = portable(template, SPECIAL)
    # the engine passes no special tokens: they must have become part of the template
    assert render_minijinja(rewritten, as_parts(probe), {}) == expected
    assert render(rewritten, probe, {}) == expected


def test_ends_of_strings_are_compared_by_slices() -> None:
    template = (
        "{% if messages[0].content.startswith('ab\\n') and not messages[0]['content'].endswith('z') %}yes{% endif %}"
    )
    for content, said in (("ab\nc", "yes"), ("ab\ncz", ""), ("a", ""), ("", "")):
        message = [{"role": "user", "content": content}]
        assert render(template, message, {}) == said
        assert render_minijinja(portable(template), as_parts(message), {}) == said


def test_the_original_fails_where_portable_does_not() -> None:
    with pytest.raises(UnsupportedModel, match="template engine fails"):
        render_minijinja(CHATML, as_parts(PROBES[0]), {})


def test_a_refused_role_stays_refused_and_does_not_forbid_the_rest() -> None:
    rewritten = portable(LLAMA2, SPECIAL)
    assert render_minijinja(rewritten, as_parts(PROBES[0]), {}) == '<s>[INST] Tell me "why". [/INST]'
    with pytest.raises(UnsupportedModel):
        render_minijinja(rewritten, PROBES[2], {})


def test_several_parts_are_joined() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}]
    whole = [{"role": "user", "content": "a b"}]
    assert render_minijinja(portable(CHATML), parts, {}) == render(CHATML, whole, {})


def test_whitespace_rules_of_hugging_face_are_kept_without_its_settings() -> None:
    expected = render(ZEPHYR, PROBES[1], SPECIAL)
    assert "\n  <|user|>" not in expected
    assert render_minijinja(ZEPHYR.replace(".strip()", "|trim"), PROBES[1], SPECIAL) != expected
    assert render_minijinja(portable(ZEPHYR, SPECIAL), PROBES[1], {}) == expected


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ messages[0]['content'].split('e')[0] }}", "no method named split"),
        ("{% for message in messages %}{{ message['content'] }}", "cannot be parsed|cannot be rendered|refuses every"),
        ("{{ raise_exception('never') }}", "refuses every conversation"),
    ],
)
def test_what_cannot_be_made_safe_is_refused(template: str, reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        portable(template)


def test_the_sandbox_holds() -> None:
    with pytest.raises(UnsupportedModel):
        render("{{ ''.__class__.__mro__[1].__subclasses__() }}", PROBES[0], {})
    with pytest.raises(UnsupportedModel):
        render("{{ messages.append(1) }}", list(PROBES[0]), {})


def test_tojson_and_the_clock_are_offered() -> None:
    assert render("{{ messages[0]['content'] | tojson }}", [{"content": "<é>"}], {}) == '"<é>"'
    assert render("{{ strftime_now('%Y') }}", PROBES[0], {}).isdigit()
