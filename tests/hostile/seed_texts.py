"""Valid texts that the fuzzer changes: settings, rows, templates, parts of tokenizers."""

from __future__ import annotations

import gzip

from tests.runtime.tiny_tokenizer import CHAT

EVALUATIONS = (
    b'{"run": "a", "rows": "b", "records": [{"step": 0, "seconds": 0.0, "loss": 2.5}, {"step": 3, '
    b'"seconds": 1.5, "loss": 0.5, "accuracy": 0.75, "score": null, "took_s": 0.1}], '
    b'"kept_step": 3, "version": 1}',
    b'{"run": "", "rows": "", "records": []}',
)
PEFT_CONFIGS = (
    b'{"peft_type": "LORA", "r": 2, "lora_alpha": 16, "target_modules": ["q"], "bias": "none", '
    b'"base_model_name_or_path": "owner/m", "use_dora": false, "rank_pattern": {}}',
    b'{"peft_type": "LORA", "r": 2, "lora_alpha": 0.5, "use_rslora": true, "bias": null, '
    b'"modules_to_save": null, "alora_invocation_tokens": [3], '
    b'"init_lora_weights": "gaussian", "alpha_pattern": {}}',
)

WORDPIECE = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
    "vocab": {"[UNK]": 0, "a": 1, "##b": 2},
}
UNIGRAM = {
    "type": "Unigram",
    "unk_id": 0,
    "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0]],
    "byte_fallback": False,
}
PROCESSOR = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "a", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"a": {"id": "a", "ids": [0], "tokens": ["a"]}},
}
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
CALLS = [
    *MESSAGES,
    {"role": "user", "content": "look"},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look"}}]},
    {"role": "tool", "content": "seen"},
    {"role": "assistant", "content": "<think>so</think>seen"},
]
CHATS = (
    CHAT.encode(),
    b"{% set ns = namespace(s='a') %}{% for i in range(3) %}{% set ns.s = ns.s ~ i %}{% endfor %}"
    b"{{ ns.s }}{% for m in messages %}{{ m.content | trim }}{% endfor %}",
    b"{% macro say(m) %}{{ '%s' | format(m['content']) }}{% endmacro %}"
    b"{% for m in messages %}{{ say(m) }}{{ m.content.split(' ')[0].replace('y', 'z') }}"
    b"{{ m | tojson(indent=2) }}{{ m.content * 2 }}{% endfor %}{{ 2 ** 3 }}",
    b"{% for m in messages if m.role != 'system' %}{% if loop.last %}{{ m.content }}{% endif %}"
    b"{% generation %}{{ m['content'].center(9) }}{% endgeneration %}{% endfor %}",
)
ROWS = (
    b'{"text": "the film", "label": 0}\n{"text": "very good", "label": 1}\n',
    b'{"prompt": "a", "completion": " b"}\n{"prompt": "c", "completion": " d", "label": 1}\n',
    b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n',
    b'{"instruction": "do", "input": "x", "output": "y"}\r\n\n',
)
CHOICES = (
    b'{"text": "the film", "choices": ["good", "bad"], "label": 0}\n'
    b'{"text": "very", "choices": [" a", "b", "great"], "answer": "b"}\n'
)
CONFIGS = (
    b'{"method": "zo-sgd", "lr": 0.5, "steps": 3, "batch_size": "auto", "rollback": true}',
    b'{"created_by": "edgezo", "max-time": 5.0, "average": 0, "seed": 18446744073709551615}',
)
ARRAYS = (
    b'[{"text": "the film", "label": 0},\n {"text": "very [\\"] good"}]',
    b'[{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}]',
    b'[{"prompt": [{"role": "user", "content": "q"}], "system": "s", "history": [["a", "b"]],'
    b' "completion": [{"role": "assistant", "content": "a"}]}]',
)
TABLES = (b'text,label\n"the ""film""",0\r\na,\n', b"\xef\xbb\xbfprompt,completion\na,b\n")
PACKED = tuple(gzip.compress(text, mtime=0) for text in ROWS)
SAVED = (b'{"_data_files": [{"filename": "rows"}], "_split": "train", "splits": ["train"]}',)
