"""Makes the golden values of this folder with Python's sentencepiece and Jinja2.

    pip install sentencepiece jinja2 && python generate.py

trained.model was trained by `monet tokenizer train` on the Corpus folder; llama.model is
data/tokenizer.model.v1 of PyPI's mistral-common (Apache-2.0), a Llama tokenizer of 32,000 pieces.
"""
import json
import random
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox
import sentencepiece

HARD = [
    "", " ", "  ", "   leading spaces", "trailing spaces   ", "a  b   c    d", "Hello, world!", "\t\ttabs\tand more",
    "carriage\rreturn", "null\0inside", "\x01\x02\x1b[31mred\x7f\x80\x9f", "naïve café façade", "cafe\u0301 e\u0301\u0323",
    "😀", "👩‍👩‍👧‍👦 family", "🇩🇪🇯🇵 flags", "👍🏽 skin tone", "日本語のテキスト", "中文字符,标点。", "한국어 문장입니다", "עברית וערבית العربية",
    "ไทยภาษา", "हिन्दी देवनागरी", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕞𝕒𝕥𝕙", "▁", "▁▁▁ meta ▁space", "<s>", "</s> <unk> <0x0A>", "<|im_start|>user",
    "\u200b\u200d\ufeffzero width", "\u2028line\u2029paragraph\u0085next", "\u00a0no-break\u3000ideographic", "12345 67890 3.14159",
    "def f(x):\n    return x ** 2\n", "line one\nline two\n\n\nline five", "\n", "\n\n\n", "ﬁ ligature Å ﷺ", "\ud7ff\ue000\uffff\U0010ffff",
    "z\u0361a\u0308\u0315\u031a\u0346lgo", "A" * 300, "=" * 77, "ab" * 200, "https://example.org/a?b=c&d=%20#x", "MiXeD CaSe iDentifierName_with9Digits",
    "\\n \\t \\\\ \"quotes\" 'single' `back`", "½ ² ³ ① ⅷ", "ß ẞ İ ı ſ", "The quick brown fox jumps over the lazy dog. " * 5,
]
LONG = [("The sea is wide and the sky is blue. ", 2800), ("x", 100_000), ("語", 33_000), ("a1 ", 33_334)]


def tokenizers() -> dict:
    result = {}
    generator = random.Random(5)
    for name in ["trained", "llama"]:
        processor = sentencepiece.SentencePieceProcessor(model_file=name + ".model")
        strings = []
        for text in HARD:
            ids = processor.encode(text)
            strings.append({"text": text, "ids": ids, "decoded": processor.decode(ids)})
        long = []
        for unit, count in LONG:
            ids = processor.encode(unit * count)
            # A whole list would be most of a megabyte: its length, ends and a checksum say as much.
            checksum = 0
            for identifier in ids:
                checksum = (checksum * 31 + identifier) % 1_000_000_007
            long.append({"unit": unit, "repeat": count, "tokens": len(ids), "first": ids[:20], "checksum": checksum})
        sequences = []
        for length in [1, 2, 3, 5, 8, 40]:
            for _ in range(12):
                ids = [generator.randrange(3, processor.vocab_size()) for _ in range(length)]
                if generator.random() < 0.5:
                    ids = [i if generator.random() < 0.4 else generator.randrange(3, 259) for i in ids]
                sequences.append({"ids": ids, "decoded": processor.decode(ids)})
        result[name] = {"strings": strings, "long": long, "sequences": sequences}
    return result


TEMPLATES = {
    "llama-2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "chatml-default-system": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "zephyr": (
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
    ),
    "features": (
        "{#- a comment -#}\n{%- set ns = namespace(found=false, count=0) -%}\n{%- for m in messages -%}\n"
        "  {%- if m.role == 'system' -%}{%- set ns.found = true -%}{%- endif -%}\n  {%- set ns.count = ns.count + 1 -%}\n"
        "{%- endfor -%}\n{{ 'system' if ns.found else 'none' }} {{ ns.count }} {{ messages | length }}\n"
        "{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }} {{ m['role'] | upper }}: "
        "{{ m.content | trim }}{% if not loop.last %}, {% endif %}{% endfor %}\n"
        "{{ messages[-1].content[:3] }}{{ messages[-1]['content'] | tojson }}{{ tools is defined }}"
        "{{ 'a' in 'cat' and not ('b' in ['c']) or false }}{{ (1 + 2) * 3 - 4 // 2 % 5 }}{{ \"x\" ~ 1 ~ none }}"
    ),
}
CONVERSATIONS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "  What is the sea?  "}],
    [
        {"role": "user", "content": "Hi\nthere"}, {"role": "assistant", "content": "Hello \"you\" <b>'x'</b>"},
        {"role": "user", "content": "Ünïcode 😀 & more\\n"},
    ],
    [{"role": "assistant", "content": "Out of turn"}],
    [],
]


class RaisedError(Exception):
    pass


def templates() -> list:
    def raise_exception(message):
        raise RaisedError(message)

    def tojson(value, **options):
        return json.dumps(value, ensure_ascii=False, **options)

    # As transformers sets it up.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    cases = []
    for name, source in TEMPLATES.items():
        template = environment.from_string(source)
        for messages in CONVERSATIONS:
            for prompt in [False, True]:
                try:
                    text = template.render(
                        messages=messages, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>",
                        tools=None, documents=None)
                    outcome = {"text": text}
                except RaisedError as error:
                    outcome = {"raises": str(error)}
                except jinja2.UndefinedError:
                    outcome = {"raises": ""}
                cases.append({"template": name, "messages": messages, "add_generation_prompt": prompt, **outcome})
    return [TEMPLATES, cases]


if __name__ == "__main__":
    with open("tokenizers.json", "w", encoding="utf-8") as file:
        json.dump(tokenizers(), file, ensure_ascii=False, separators=(",", ":"))
    sources, cases = templates()
    with open("templates.json", "w", encoding="utf-8") as file:
        json.dump({"templates": sources, "cases": cases}, file, ensure_ascii=False, indent=1)
    sys.exit(0)
