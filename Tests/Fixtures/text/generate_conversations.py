#!/usr/bin/env python3
"""Tokens and assistant masks of conversations, as transformers' apply_chat_template gives them.

    monet init --preset nano-vd --tokenizer Tests/Fixtures/text/trained.model --out TOKENIZER
    python3 Tests/Fixtures/text/generate_conversations.py TOKENIZER

Each template is written with {% generation %} marks, by which transformers knows what the assistant says. `plain` is the
same without marks. transformers 5.24 was used.
"""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import PreTrainedTokenizerFast

TEMPLATES = {
    "llama-2": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'system' %}<<SYS>> {{ m.content }} <</SYS>> {% else %}"
    "{% generation %} {{ m.content }} {{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}",
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>\\n' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>\\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "zephyr": "{% for m in messages %}{{ '<|' + m.role + '|>\\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + eos_token }}{% endgeneration %}{{ '\\n' }}{% else %}{{ m.content + eos_token + '\\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
    "alpaca": "{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n"
    "{% elif m.role == 'assistant' %}### Response:\n{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{{ '\\n\\n' }}"
    "{% else %}{{ m.content }}\n\n{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}",
}
CONVERSATIONS = [
    [("user", "What is a shark?"), ("assistant", "A large fish.")],
    [("system", "Be brief."), ("user", "Hello, wörld — 你好 🦈?"), ("assistant", "Grüße! 🦈🦈"), ("user", "again"),
     ("assistant", "  twice,\n\nwith lines  ")],
    [("user", "Count."), ("assistant", "1 2 3"), ("user", "more"), ("assistant", "4 5 6"), ("user", "and then?")],
    [("user", "[INST] tricky </s> text"), ("assistant", "x")],
    [("user", ""), ("assistant", "an answer to nothing")],
]


def main():
    tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
    cases = []
    for name, template in TEMPLATES.items():
        tokenizer.chat_template = template
        plain = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        for turns in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in turns]
            got = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            cases.append({"name": name, "template": template, "plain": plain, "messages": messages,
                          "ids": list(got["input_ids"]), "mask": list(got["assistant_masks"])})
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "conversations-golden.json")
    with open(path, "w") as out:
        json.dump(cases, out, ensure_ascii=True, indent=0)
        out.write("\n")


if __name__ == "__main__":
    main()
