"""Makes templates-golden.json: what Jinja2, set up as transformers does, renders for many templates.

    pip install jinja2==3.1.6 && python generate_templates.py

The templates use what those of published model families use; they are written anew for this file.
"""
import json
import random
import sys

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    """transformers' `generation`, which changes no text."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENVIRONMENT = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
ENVIRONMENT.filters["tojson"] = tojson
ENVIRONMENT.globals["raise_exception"] = raise_exception
ENVIRONMENT.globals["strftime_now"] = lambda form: __import__("datetime").datetime.now().strftime(form)


def render(case):
    """The text of a case, or the error."""
    variables = {"tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>"}
    variables |= {"messages": case["messages"], "add_generation_prompt": case.get("add_generation_prompt", False)}
    try:
        text = ENVIRONMENT.from_string(case["template"]).render(**variables | case.get("variables", {}))
        text.encode("utf-8")
        return text, None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


FAMILIES = {
    "llama-2": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}
{% else %}{% set rest = messages %}{% set system = false %}{% endif %}{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
{% if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}
{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}
{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama-3": """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}""",
    "llama-3.1": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined and false %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system message comes out first. #}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\\n\\n"}}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary}.' }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there is none!") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {{- "Given the following functions, answer with JSON.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- "<|python_tag|>" + tool_call.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' ~ arg_val ~ '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
                {%- endfor %}
            {{- ")" }}
        {%- else  %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + tool_call.name + '", "parameters": ' }}
            {{- tool_call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
            {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "chatml-generation": """{% for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>
{% endgeneration %}{% else %}{{ message.content }}<|im_end|>
{% endif %}{% endfor %}""",
    "qwen-2.5": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n{\\"name\\": <function-name>}<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "qwen-3": """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}""",
    "gemma-3": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
""",
    "phi-3": """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "deepseek-r1": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<|User|>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is none %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls']%}{%- if not ns.is_first %}{{'<|Assistant|><|tool_calls_begin|>' + tool['type'] + '<|tool_sep|>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments']|tojson + '\\n' + '```'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + tool['function']['name']}}{%- endif %}{%- endfor %}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{%- if ns.is_tool %}{{message['content'] + '<|end|>'}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<|Assistant|>' + content + '<|end|>'}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<|outputs_begin|>' + message['content']|string}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n' + message['content']|string}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<|outputs_end|>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<|Assistant|><think>\\n'}}{% endif %}""",
    "smollm-3": """{%- if enable_thinking is not defined -%}
{%- set enable_thinking = true -%}
{%- endif -%}
{%- set reasoning_mode = "/think" if enable_thinking else "/no_think" -%}
{{- "<|im_start|>system\\n" -}}
{%- if messages[0].role == "system" -%}
  {%- set system_message = messages[0].content -%}
  {%- if "/no_think" in system_message -%}
    {%- set reasoning_mode = "/no_think" -%}
  {%- elif "/think" in system_message -%}
    {%- set reasoning_mode = "/think" -%}
  {%- endif -%}
  {%- set custom_instructions = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{{- "## Metadata\\n\\nReasoning Mode: " + reasoning_mode + "\\n\\n" -}}
{%- if custom_instructions -%}{{- custom_instructions + "\\n\\n" -}}{%- endif -%}
{%- set ns = namespace(xml_tool_string="<tools>\\n") -%}
{%- for tool in (tools or [])[:] -%}
  {%- set ns.xml_tool_string = ns.xml_tool_string ~ (tool | string) ~ "\\n" -%}
{%- endfor -%}
{{- ns.xml_tool_string + "</tools>" -}}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "assistant" -%}
        {% generation %}
        {{ "<|im_start|>assistant\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {% endgeneration %}
    {%- elif message.role != "system" -%}
        {{ "<|im_start|>" + message.role + "\\n" + content + "<|im_end|>\\n" }}
    {%- endif -%}
{%- endfor -%}""",
    "command-r": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% elif false == true %}{% set loop_messages = messages %}{% set system_message = 'You are Coral.' %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}
{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
{%- if basic_type_map[json_spec.type] is defined %}
    {{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
    {{- "List[" +  json_to_python_type(json_spec['items']) + "]"}}
{%- elif json_spec.type == "object" %}
    {{- "Dict[str, " + json_to_python_type(json_spec.additionalProperties) + ']'}}
{%- elif json_spec.type is iterable %}
    {{- "Union[" }}
    {%- for t in json_spec.type %}
      {{- json_to_python_type({"type": t}) }}
      {%- if not loop.last %}
        {{- "," }}
    {%- endif %}
    {%- endfor %}
    {{- "]" }}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}
{%- if system_message != false %}<|SYSTEM|>{{ system_message }}{% endif %}
{%- for tool in tools or [] %}{% if loop.index0 != 0 %}{{ '\\n\\n' }}{% endif %}
{{'```python\\ndef ' + tool.function.name + '('}}{% for param_name, param_fields in tool.function.parameters.properties.items() %}{% if loop.index0 != 0 %}{{ ', '}}{% endif %}{{param_name}}: {% if not param_name in tool.function.parameters.required %}{{'Optional[' + json_to_python_type(param_fields) + '] = None'}}{% else %}{{ json_to_python_type(param_fields) }}{% endif %}{% endfor %}{{ ') -> List[Dict]:\\n    \\"\\"\\"'}}{{ tool.function.description }}{{ '\\"\\"\\"\\n```' }}{% endfor %}
{%- for message in loop_messages %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|USER|>' + content.strip() + '<|END|>' }}{% elif message['role'] == 'assistant' %}{{ '<|CHATBOT|>' + (content or '').strip() + '<|END|>' }}{% elif message.role|lower == 'tool' %}{{ '\\nTOOL: ' ~ content }}{% endif %}{% endfor %}""",
    "granite": """{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set system_message = "Knowledge Cutoff Date: April 2024." %}{%- if tools and documents %}{%- set system_message = system_message + " Tools and documents." %}{%- elif tools %}{%- set system_message = system_message + " Tools." %}{%- elif documents %}{%- set system_message = system_message + " Documents." %}{%- endif %}{%- if 'citations' in controls and documents %}{%- set system_message = system_message + '\\n\\nCite.' %}{%- endif %}{%- set loop_messages = messages %}{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\\n' }}
{%- if tools %}{{- '<|start_of_role|>tools<|end_of_role|>' }}{{- tools | tojson(indent=4) }}{{- '<|end_of_text|>\\n' }}{%- endif %}
{%- if documents %}{%- for document in documents %}{{- 'Document ' + loop.index0 | string + '\\n' }}{{- document['text'] }}{%- if not loop.last %}{{- '\\n\\n'}}{%- endif%}{%- endfor %}{%- endif %}
{%- for message in loop_messages %}{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' ~ message['content'] + '<|end_of_text|>\\n' }}{%- if loop.last and add_generation_prompt %}{{- '<|start_of_role|>assistant' }}{%- if controls %}{{- ' ' + controls | tojson()}}{%- endif %}{{- '<|end_of_role|>' }}{%- endif %}{%- endfor %}""",
    "hermes-tools": """{%- macro type_of(spec) %}{% if spec.type == 'array' %}list[{{ type_of(spec['items']) }}]{% else %}{{ {'string': 'str', 'integer': 'int'}.get(spec.type, 'Any') }}{% endif %}{%- endmacro %}
{%- for tool in tools or [] %}
{%- if tool.function is defined %}{% set tool = tool.function %}{% endif %}
{{- '{"name": "' + tool.name + '", "description": "' }}{{ tool.name + '(' }}
{%- for param_name, param_fields in tool.parameters.properties|items %}{{- param_name + ": " + type_of(param_fields) }}{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endfor %}{{- ")" }}
{%- for name, fields in tool.parameters.properties|dictsort(reverse=true) %}
        {{ name }}({{ fields.type|default('any', true) }}): {{ fields.description | default('no description') | indent(12) }}{% endfor %}
{{ tool.parameters.required|default([], boolean=true)|join(', ') }}{%- endfor %}
{%- for message in messages %}{{ message.role|title }}: {{ message.content }}
{% endfor %}""",
    "gpt-oss-like": """{%- macro render_type(param_spec, required_params, is_nullable=false) -%}
    {%- if param_spec.type == "array" -%}
        {%- if param_spec['items'] -%}{{- render_type(param_spec['items'], required_params) + "[]" }}{%- else -%}any[]{%- endif -%}
        {%- if is_nullable -%}{{- " | null" -}}{%- endif -%}
    {%- elif param_spec.oneOf -%}
        {%- for variant in param_spec.oneOf -%}{{- render_type(variant, required_params) -}}{%- if not loop.last %}{{- " | " }}{% endif -%}{%- endfor -%}
    {%- elif param_spec.type == "string" -%}
        {%- if param_spec.enum -%}{{- '"' + param_spec.enum|join('" | "') + '"' -}}{%- else -%}{{- "string" }}{%- endif -%}
    {%- elif param_spec.type == "object" -%}
        {{- "{\\n" }}{%- for name, prop in param_spec.properties.items() -%}{{ name }}{%- if name not in (param_spec.required or []) -%}{{- "?" }}{%- endif -%}{{- ": " }}{{ render_type(prop, param_spec.required or []) }}{%- if not loop.last -%}{{- ", " }}{%- endif -%}{%- endfor -%}{{- "}" }}
    {%- else -%}{{- param_spec.type }}{%- endif -%}
{%- endmacro -%}
{%- set developer = namespace(text='') -%}
{%- for tool in tools or [] -%}{%- set developer.text = developer.text + '// ' + tool.function.description + '\\ntype ' + tool.function.name + ' = (_: ' + render_type(tool.function.parameters, []) + ') => any;\\n' -%}{%- endfor -%}
{{- "<|start|>developer<|message|>" + developer.text + "<|end|>" -}}
{%- for message in messages -%}{%- if 'tool_calls' in message and message.tool_calls -%}{%- set call = message.tool_calls[-1].function -%}{{- "<|start|>assistant to=functions." ~ call.name ~ "<|message|>" ~ (call.arguments if call.arguments is string else call.arguments|tojson) ~ "<|call|>" }}{%- else -%}{{- "<|start|>" ~ message.role ~ "<|message|>" ~ message.content ~ "<|end|>" }}{%- endif -%}{%- endfor -%}""",
    "role-aliases": """{% set roles = {'user': 'Human', 'assistant': 'Bot'} %}{% for m in messages if m.role in roles %}{{ loop.index }}/{{ loop.length }}.{{ roles[m.role] }}:{{ m['content']|replace('\\n', ' ')|truncate(12, true) }}{{ ';' if not loop.last }}{% else %}nobody{% endfor %}|{{ messages|map(attribute='role')|unique|join('+') }}|{{ messages|groupby('role')|map('first')|join }}|{{ (messages|selectattr('role', 'eq', 'user')|first).content }}""",
}

TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "The weather.\nOf a place.", "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "Where <b>"}, "days": {"type": "array", "items": {"type": "integer"}}, "unit": {"type": "string", "enum": ["C", "F"]}}, "required": ["place"]}}},
    {"type": "function", "function": {"name": "summe", "description": "Größe & \"Maß\"", "parameters": {"type": "object", "properties": {"x": {"type": ["number", "string"]}, "y": {"type": "object", "properties": {}, "additionalProperties": {"type": "boolean"}}}, "required": []}}},
]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "id": "abc123def", "function": {"name": "weather", "arguments": {"place": "Köln", "days": [1, 2.5, None, True], "é": {}}}}]}
CONVERSATIONS = [
    ([{"role": "user", "content": "Hello"}], {}),
    ([{"role": "system", "content": "Be brief. /no_think"}, {"role": "user", "content": "  What is\nthe sea?  "}], {"enable_thinking": False}),
    ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello \"you\" <b>'x'</b>"}, {"role": "user", "content": "Ünïcode 😀 e\u0301 & more\\n"}], {"controls": {"length": "long"}}),
    ([{"role": "user", "content": "Weather?"}, CALL, {"role": "tool", "content": "{\"t\": 20}", "tool_call_id": "abc123def"}, {"role": "assistant", "content": "Warm."}], {"tools": TOOLS}),
    ([{"role": "system", "content": [{"type": "text", "text": "S"}]}, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " what? "}]}], {"documents": [{"title": "T", "text": "D"}], "tools": TOOLS[:1]}),
    ([{"role": "assistant", "content": "Out of turn"}], {}),
    ([], {}),
]

# Expressions, of x, s, d, n and items.
VARIABLES = {
    "x": 7, "f": 2.5, "s": "Hello, wörld", "n": None, "t": True, "e": "", "d": {"b": 1, "a": [1, 2.0, None], "items": 3, "C": {"k": "v"}},
    "l": [3, 1, 2], "words": ["pear", "Apple", "fig", "apple"], "people": [{"name": "Ann", "age": 30, "city": "Ulm"}, {"name": "bob", "age": 4}, {"name": "Cy", "age": 30, "city": "ulm"}],
    "q": "it's \"q\"\n\t\\ \u00a0\u200b\x00é\u2028😀", "big": 9223372036854775807, "small": -9223372036854775808, "multi": "one\r\ntwo\n\n three\x0bfour\u2028five\n", "acute": "e\u0301",
}
EXPRESSIONS = r"""
d|tojson ~ d|tojson(indent=2) ~ d|tojson(true) ~ d|tojson(indent=4, sort_keys=true)
d|tojson(separators=(',', ':')) ~ d|tojson(separators=['; ', '= '], indent='\t') ~ []|tojson(indent=2) ~ {}|tojson(indent=2) ~ [[]]|tojson(indent=0)
q|tojson ~ q|tojson(ensure_ascii=true) ~ "\x7f\x08\x0c"|tojson
[1e16, 0.1, 1e-5, 1.5e300, 123456789012345678.0, 1e22, -0.0, 5e-324, 9007199254740994.0, 0.0001]
[1e16, 0.1, 1e-5, true, none, 1, 'x']|tojson
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
{1: 'a', true: 'b', 1.0: 'c', '1': 'd'}
missing|tojson
[missing]|tojson
namespace(a=1)|tojson
l|map('string')|tojson
(1, [2])|tojson
[n, t, x, f, s, e, d, l, (1,), (), (1, 2), {}, []]
q
[q, "'", '"', '\'"', 'é', '\x7f\xad']
[missing, n]
missing ~ '|' ~ n ~ '|' ~ t
missing.a
missing['a']
missing + 1
1 + missing
missing == other_missing
missing != none
missing is defined
missing is undefined or true
missing|length
missing|list
missing|join(',')
missing|default('x') ~ n|default('y') ~ n|default('z', true) ~ e|default('w', boolean=true) ~ missing|d ~ missing|default(default_value='v')
n|default
missing()
missing < 1
not missing
missing in [1]
'a' in missing
d.missing.a
d.items
d['items'] ~ d.b ~ d.get('b') ~ d.get('zz') ~ d.get('zz', 5) ~ d.missing ~ d['b']
d.items()|list ~ d.keys() ~ d.values() ~ d.items()
d.keys()|list ~ d|list ~ d|length ~ d.keys()|length
d.update({})
d.pop('b')
l.append(4)
l.copy() ~ l.index(2) ~ l.count(1)
l.index(99)
l[0] ~ l[-1] ~ l[5] ~ l['a'] ~ l[true]
l[1:] ~ l[:-1] ~ l[::-1] ~ l[::2] ~ l[5:] ~ l[-2:] ~ l[2:0:-1] ~ l[:]
s[0] ~ s[-1] ~ s[50] ~ s[1:5] ~ s[::-1] ~ s[:-3] ~ s[8:9]
s[-9223372036854775808:9223372036854775807:-9223372036854775808]
l[::9223372036854775807] ~ l[::-9223372036854775807]
l[::0]
n[1:]
missing[1:]
x[0]
(1, 2)[0]
d.C.k ~ d['C']['k'] ~ d.a.0 ~ d.a[1]
1 + 2 * 3 - 4 // 2 % 5 ** 2
2 ** 3 ** 2 ~ ' ' ~ -2 ** 2 ~ ' ' ~ 2 ** -1
7 // 2 ~ -7 // 2 ~ 7 % -3 ~ -7 % 3 ~ 7.5 // 2 ~ -7.5 % 2 ~ 7 / 2 ~ 6 / 2
7 // -2 ~ ' ' ~ -0.0 // 1 ~ ' ' ~ 5.5 % -2 ~ ' ' ~ 1e300 * 10
1 / 0
1 // 0
1 % 0
1.0 % 0
big + 1
small - 1
-small
small // -1
small % -1
small|abs
big * big
2 ** 64
true + 1 ~ true * 3 ~ -true ~ +true
'a' + 1
1 + 'a'
'a' * 3 ~ 3 * 'ab' ~ [1] * 2 ~ 'a' * -1 ~ (1,) * 2
[1] + [2] ~ (1,) + (2,)
[1] + (2,)
'1' ~ 2 + 3 ~ 4
1 + 2 ~ 3
'a' ~ 'b' * 2 ~ 1 - 1
-x|abs
-3|abs ~ -f|round ~ (-3)|abs
not x is none
not (x == 7) or not false
x is not none and x is not defined
x is number and f is float and t is boolean and t is number and t is not integer
x is divisibleby 7
x is divisibleby(2) ~ x is odd ~ x is even ~ 4 is even
x is in [1, 7] ~ x is in(l) ~ (x is eq 7) ~ x is gt 3 ~ x is lessthan(3)
x is sameas none
n is sameas none
's' is string ~ s is mapping ~ d is mapping ~ l is sequence ~ d is iterable ~ n is iterable ~ x is iterable
s is lower ~ 'abc' is lower ~ 'ABC' is upper ~ '1' is upper
s is callable ~ range is callable ~ namespace is defined ~ missing is callable
'upper' is filter ~ 'nope' is filter ~ 'odd' is test
x is nothing
x|nothing
'a' if false
'a' if t else 'b' if n else 'c'
('a' if n else 'b') ~ ('a' if x > 3)
1 < 2 < 3 ~ (1 < 3 < 2) ~ (3 > 2 >= 2 != 1)
1 == 1.0 ~ (1 == true) ~ ('1' == 1) ~ ([1, 2] == [1.0, 2]) ~ ((1,) == [1]) ~ ({'a': 1} == {'a': true})
'a' < 'b' ~ ('Z' < 'a') ~ ([1, 2] < [1, 3]) ~ ('é' > 'z') ~ ('' < 'a')
1 < 'a'
n < 1
[1] < [none]
9007199254740993 == 9007199254740992.0
x in l ~ (x not in l) ~ ('b' in d) ~ ('H' in s) ~ ('' in s) ~ (1 in [true]) ~ (2 in range(3))
1 in s
none in d
acute == 'é' ~ acute|length ~ ('e' in acute) ~ acute.replace('e', 'o') ~ {'é': 1, 'é': 2}|length
acute[0] ~ acute.startswith('e') ~ acute.split('e') ~ acute|upper ~ acute.find('́')
'ß'.upper() ~ 'ΑΣ ΣΑΣ'.lower() ~ 'ǆ'.title() ~ 'ﬁx'.capitalize() ~ 'İ'.lower()|length
"they're o'neil's x1y a-b".title() ~ "they're (some) a-b <c {d [e"|title ~ 'hELLO wORLD'|capitalize
s.upper() ~ s.lower() ~ s|upper ~ s|lower ~ s.swapcase is defined
'  x y '.strip() ~ '|' ~ '  x '.lstrip() ~ '|' ~ ' x  '.rstrip() ~ '|' ~ 'xxaxx'.strip('x') ~ 'abcxcba'.strip('abc') ~ '\u00a0\x1ca\u200b'.strip()|length
'  x '|trim ~ '--x-'|trim('-') ~ '||' ~ 5|trim ~ n|trim
'a,b,,c'.split(',') ~ ' a  b c '.split() ~ 'a b c d'.split(' ', 2) ~ 'a b  c d '.split(none, 1) ~ 'a,b,c'.split(',', maxsplit=1) ~ ''.split() ~ ''.split(',')
'a,b,c'.rsplit(',', 1) ~ ' a b c '.rsplit(maxsplit=1) ~ 'aXXbXXc'.rsplit('XX') ~ 'aaa'.rsplit('aa', 1)
'a'.split('')
multi.splitlines() ~ multi.splitlines(true) ~ multi.splitlines(keepends=true)
multi|indent ~ multi|indent(2, true) ~ multi|indent('>', blank=true) ~ multi|indent(width=1, first=true, blank=true) ~ ''|indent
s.startswith('Hell') ~ s.startswith(('x', 'H')) ~ s.endswith('d') ~ s.endswith(()) ~ s.startswith('w', 7) ~ s.startswith('H', 0, 1)
s.startswith(1)
s.find('l') ~ s.rfind('l') ~ s.find('ö') ~ s.find('zz') ~ s.index('w') ~ s.count('l') ~ s.find('') ~ s.count('') ~ s.find('l', 4) ~ s.rfind('')
s.index('zz')
s.replace('l', 'L') ~ s.replace('l', '', 1) ~ 'abc'.replace('', '-') ~ 'abc'.replace('', '-', 2) ~ 'aaa'.replace('aa', 'b') ~ 'aé'.replace('é', '')
s|replace('l', 'L') ~ s|replace('l', 'L', 1) ~ 'aaa'|replace('a', 'b', count=2) ~ 123|replace(2, 'x')
s.partition(',') ~ s.partition('zz') ~ s.rpartition('l') ~ 'x'.rpartition('z')
'abc'.removeprefix('a') ~ 'abc'.removesuffix('c') ~ 'abc'.removeprefix('b')
', '.join(words) ~ '-'.join('abc') ~ ''.join([])
','.join([1])
'5'.zfill(3) ~ '-5'.zfill(4) ~ 'a'.center(4, '*') ~ 'ab'.center(5) ~ 'x'.ljust(3) ~ 'x'.rjust(3, '.') ~ 'x'|center(4)
'12'.isdigit() ~ '1a'.isalnum() ~ 'ab'.isalpha() ~ ' '.isspace() ~ 'aB'.islower() ~ 'AB'.isupper() ~ '²'.isdigit() ~ '½'.isnumeric() ~ '½'.isdecimal() ~ ''.isdigit()
'{} {}'.format(1, 'b') ~ '{1}{0}{1}'.format('a', 'b') ~ '{a}'.format(a=5) ~ '{{}}'.format()
'%s-%d-%s' % (1, 2, 'x') ~ '%s' % 'y' ~ '%.2f' % 3.14159 ~ '%05d|%5d|%-5d' % (42, 42, 42) ~ '100%%' % ()
'%s, %s!'|format('Hi', 'you') ~ '%.1f'|format(2.25)
'%d' % 'x'
'%s %s' % 'x'
l|sort ~ l|sort(reverse=true) ~ words|sort ~ words|sort(case_sensitive=true) ~ words|sort(false, true)
people|sort(attribute='age')|map(attribute='name')|list ~ people|sort(attribute='age,name', reverse=true)|map(attribute='name')|join(' ')
[1, 'a']|sort
people|map(attribute='city', default='?')|list ~ people|map(attribute='city')|list ~ words|map('upper')|list ~ words|map('replace', 'p', 'P')|join(',') ~ [[1, 2]]|map(attribute='0')|list
words|map('nope')|list
words|map|list
words|map(attribute='x', extra=1)|list
people|selectattr('city')|map(attribute='name')|list ~ people|selectattr('age', 'gt', 5)|list|length ~ people|rejectattr('city', 'defined')|map(attribute='name')|join ~ people|rejectattr('city')|list|length
l|select('odd')|list ~ l|reject('odd')|list ~ l|select('>', 1)|list ~ [0, 1, '', 'a']|select|list ~ words|reject('equalto', 'fig')|list ~ l|select('divisibleby', num=2)|list
people|groupby('age')|list
people|groupby('city', default='none')|map(attribute='grouper')|list ~ people|groupby('age')|map(attribute='list')|map('length')|list
words|unique|list ~ words|unique(true)|list ~ people|unique(attribute='age')|map(attribute='name')|list
l|sum ~ people|sum(attribute='age') ~ [0.1, 0.2]|sum ~ l|sum(start=10) ~ [[1], [2]]|sum(start=[]) ~ []|sum
['a']|sum
l|min ~ l|max ~ words|min ~ words|max(case_sensitive=true) ~ people|max(attribute='age') ~ []|max
l|first ~ l|last ~ 'abc'|first ~ 'abc'|last ~ []|first ~ d|first ~ d|last
l|batch(2)|list ~ l|batch(2, 'x')|list ~ [1, 2, 3, 4, 5, 6, 7]|slice(3)|list ~ l|slice(2, fill_with=0)|list
l|length ~ s|length ~ d|count ~ range(5)|length ~ (1, 2)|length
5|length
n|length
l|join ~ l|join(', ') ~ l|join(d='-') ~ people|join(', ', attribute='name') ~ 'abc'|join('.') ~ d|join(',') ~ l|join(1)
l|reverse|list ~ 'abc'|reverse ~ (1, 2)|reverse|list ~ d|reverse|list
l|map('string')
l|reverse
l|select('odd')|length
l|map('int')|first ~ l|map('int')|reverse
d|dictsort ~ d|dictsort(true) ~ {'b': 1, 'A': 3}|dictsort(by='value') ~ {'b': 1, 'A': 3}|dictsort(reverse=true) ~ {'b': 1, 'A': 3}|dictsort(true)
d|items|list ~ missing|items|list
l|items|list
'42'|int ~ '4.7'|int ~ 'x'|int ~ 'x'|int(5) ~ '0x1F'|int(base=16) ~ '101'|int(0, 2) ~ f|int ~ -2.5|int ~ n|int ~ t|int ~ ' 12 '|int ~ '1_000'|int ~ '1e3'|int ~ ''|int ~ '-7'|int
missing|int
'4.5'|float ~ '1e3'|float ~ 'x'|float ~ 'x'|float(1.5) ~ 3|float ~ t|float ~ n|float ~ '.5'|float ~ ' 5. '|float
f|round ~ 2.675|round(2) ~ 3.5|round ~ 4.5|round ~ 42|round ~ 42.55|round(1, 'floor') ~ 42.5|round(method='ceil') ~ 7|round(1, 'floor') ~ -0.5|round ~ 1.0|round(2) ~ -0.4|round(0, 'ceil')
f|abs ~ x|abs ~ t|abs
s|truncate(5) ~ s|truncate(8, true, '') ~ 'foo bar baz qux'|truncate(9, leeway=0) ~ 'foo bar baz qux'|truncate(9, true, leeway=0) ~ 'foo bar'|truncate(3, false, '', 0)
s|wordcount ~ 'a-b c_d é 1'|wordcount
s|urlencode ~ 'a/b c?d=é&'|urlencode
'<a href="x">\'&'|e ~ '<b>'|escape ~ '<b>'|safe ~ '<i>'|forceescape ~ [1]|string ~ n|string
s|attr('upper') is defined ~ d|attr('b') is defined
s|upper(1)
s|replace('a')
s|trim(x=1)
l|join(sep=',')
range(3) ~ range(3)|list ~ range(1, 10, 3)|list ~ range(5, 0, -2)|list ~ range(0)|list ~ range(2, 5)[1] ~ range(3)|sum
range(100001)
range(1, 2, 0)
range('a')
dict(a=1, b=2) ~ dict({'x': 1}, y=2) ~ dict([('k', 'v')]) ~ {'a': 1, 'b': 2, 'a': 3} ~ {}
{[1]: 2}
{missing: 2}
raise_exception('stop')
"a" 'b' "\x41\u00e9\n\t\\\'\101\q" 'c'
'\é' ~ 'a\
b'
0x1F ~ 0b101 ~ 0o17 ~ 1_000 ~ 1e3 ~ 1.5e-7 ~ 1_0.0_1 ~ 007
007
1.e5
'a'.upper
'a'|
1 +
(1
1)
[1, 2,] ~ (1, 2,) ~ {'a': 1,} ~ () ~ (1,) ~ (1)
1, 2
1, 'a',
true ~ True ~ false ~ False ~ none ~ None
x == 7 and 'yes' or 'no'
n or e or 'last' ~ (x and s)
not not x
[x, not x, -x, +x, x == 7, x and 0]
x.real
x.foo ~ n.foo ~ f.foo ~ l.foo ~ s.foo
s.__class__
d._x ~ ({'_x': 1})._x
d['C'].k.upper() ~ s.split(',')[1].strip()[0]
words[0].upper()[::-1]|lower|capitalize
[words, l]|map('first')|list ~ [d]|map(attribute='C.k')|list
lipsum()
cycler(1)
loop
loop.index
self
s.encode()
s.isidentifier()
d.fromkeys([1])
'a' is defined('b')
x is divisibleby
x is none is none
x is eq(7) is true
""".strip("\n").replace("a\\\nb", "a\0b").split("\n")
STATEMENTS = [
    "{% for i in range(3) %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.depth0 }}{{ loop.cycle('a', 'b') }}{{ loop.changed(i // 2) }};{% endfor %}",
    "{% for i in l if i > 1 %}{{ i }}{{ loop.index }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{% else %}none{% endfor %}",
    "{% for i in l if i > 9 %}{{ i }}{% else %}none{% endfor %}{% for i in [] %}x{% else %}e{% endfor %}{% for i in missing %}x{% else %}m{% endfor %}",
    "{% for i in l %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% else %}E{% endfor %}|{% for i in l %}{% break %}{% else %}E{% endfor %}|{% for i in l %}{% if loop.index == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% break %}", "{% for i in l %}{% macro f() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for a, b in ['xy', [1, 2]] %}{{ a }}{{ b }}{% endfor %}{% for (a, b), c in [[(1, 2), 3]] %}{{ a + b + c }}{% endfor %}",
    "{% for a, b in [[1]] %}{{ a }}{% endfor %}", "{% for a, in [[1]] %}{{ a }}{% endfor %}", "{% for x in 5 %}{% endfor %}", "{% for x in none %}{% endfor %}",
    "{% for c in 'añ' %}[{{ c }}]{% endfor %}{% for k in d %}{{ k }}{% endfor %}",
    "{% for i in [[1, [2, [3]]], 4] recursive %}{{ loop.depth }}{% if i is iterable %}({{ loop(i) }}){% else %}{{ i }}{% endif %}{% endfor %}",
    "{% for i in l %}{{ loop(i) }}{% endfor %}", "{% for loop in l %}{% endfor %}", "{% for i in l %}{% set loop = 1 %}{% endfor %}", "{% set loop = 1 %}{{ loop }}",
    "{% set y = 1 %}{% for i in l %}{{ y }}{% set y = y + i %}{{ y }} {% endfor %}{{ y }}",
    "{% for i in l %}{{ i }}{% endfor %}{{ i }}|{% if true %}{% set z = 5 %}{% endif %}{{ z }}",
    "{% if false %}{% set x = 5 %}{% endif %}{{ x }}{% if true %}{% set x = 6 %}{% endif %}{{ x }}",
    "{% for i in l %}{% if loop.first %}{% set w = i %}{% endif %}{{ w }}{% endfor %}",
    "{% set ns = namespace(a=1, b=[]) %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.zz }}{{ ns }}{% set ns.b = ns.b + [1] %}{{ ns.b }}{{ ns['a'] }}",
    "{% set ns = namespace(found=false) %}{% for i in l if not ns.found %}{{ i }}{% if i == 1 %}{% set ns.found = true %}{% endif %}{% endfor %}",
    "{% set ns = namespace(found=false) %}{% for i in l if not ns.found %}{{ i }}{{ loop.last }}{% if i == 1 %}{% set ns.found = true %}{% endif %}{% endfor %}",
    "{% set ns = namespace({'k': 1}, z=2) %}{{ ns.k + ns.z }}{% set ns.a, ns.b = 1, 2 %}{{ ns.a }}{{ ns.b }}", "{% set d.x = 1 %}", "{% set nope.x = 1 %}", "{% set x.y.z = 1 %}", "{% set d['x'] = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = b, a %}{{ a }}{{ b }}{% set (a, b) = 'xy' %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}", "{% set a, b = 1 %}", "{% set true = 1 %}", "{% set 1 = 1 %}", "{% set %}",
    "{% set v %}a{{ x }}\n b{% endset %}[{{ v }}]{% set v | upper | replace('A', 'z') %}ab{% set q = 1 %}{% endset %}[{{ v }}{{ q }}]{{ v is string }}",
    "{% macro f(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }};{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(1, c=5) }}{{ f() }}{{ f(b=1, a=2) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(z=2) }}", "{% macro f(a=1, b) %}{% endmacro %}", "{% macro f(a, a) %}{% endmacro %}",
    "{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, k=4) }}{{ f(*[1, 2], **{'z': 3}) }}",
    "{% macro f(x) %}{{ x }}{{ y }}{% set y = 9 %}{{ y }}{% endmacro %}{% set y = 1 %}{{ f(0) }}{% set y = 2 %}{{ f(0) }}{{ y }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "{{ f() }}{% macro f() %}x{% endmacro %}", "{% macro f() %}{{ i }}{% endmacro %}{% for i in l %}{{ f() }}|{% endfor %}",
    "{% for i in l %}{% macro g(y) %}{{ i }}{{ y }}{% endmacro %}{{ g(1) }} {% endfor %}{{ g is defined }}",
    "{% macro f(x=x) %}{{ x }}{% endmacro %}{{ f() }}{{ f is callable }}{{ f(1)|upper }}",
    "{% macro box(t) %}<{{ t }}>{{ caller('k') }}</{{ t }}>{% endmacro %}{% call(v) box('b') %}in {{ v }} {{ x }}{% endcall %}{% call box('c') %}{% endcall %}",
    "{% macro box(t) %}<{{ t }}>{{ caller('k') }}{% endmacro %}{% call(v) box('b') %}in {{ v }} {{ x }}{% endcall %}", "{% macro m() %}{{ caller is defined }}{{ caller() }}{% endmacro %}{{ m() }}", "{% macro m() %}{% endmacro %}{% call m() %}{% endcall %}", "{% call x %}{% endcall %}",
    "{% filter upper %}a{{ x }}b{% endfilter %}{% filter replace('a', 'b')|upper %}aaa{% endfilter %}{% filter indent(2) %}a\nb{% endfilter %}", "{% filter nope %}{% endfilter %}",
    "{% with a = 1, b = x %}{{ a }}{{ b }}{% set x = 0 %}{{ x }}{% endwith %}{{ a }}{{ x }}{% with %}{{ x }}{% endwith %}{% with x = 2, y = x %}{{ x }}{{ y }}{% endwith %}",
    "{% generation %}a{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}", "{% print x, s %}", "{% do x %}", "{% include 'a' %}", "{% block a %}{% endblock %}", "{% extends 'a' %}", "{% import 'a' as b %}", "{% autoescape true %}{% endautoescape %}", "{% nothing %}", "{% endif %}", "{% if x %}", "{% for x in l %}{% endif %}", "{% if x %}{% else %}{% else %}{% endif %}", "{{ x", "{% if x", "{# a", "{% raw %}a", "{{ x }", "{{ }}", "{% %}", "{% if %}{% endif %}",
    "{% if n %}a{% elif e %}b{% elif x %}c{% else %}d{% endif %}{% if x, %}t{% endif %}{% if () %}{% else %}f{% endif %}", "{% if false %}{{ x|nothing }}{{ x is nothing }}{% endif %}ok", "{{ (x|nothing) if false else 'ok' }}", "{% for i in [] %}{{ i|nothing }}{% endfor %}", "{% if false %}{% for i in [] %}{{ i|nothing }}{% endfor %}{% endif %}",
    "  {% if x %}  \n  a\n  {% endif %}  \nb", "  {%+ if x %}\n  a\n  {%- endif +%}\nb\n", "a  {%- if x -%}  b  {%- endif -%}  c", "a \n {{- x -}} \n b", "{{ x }}\n\n", "{{ x }}\n{{ x }}\n", "a\r\nb\rc\n\r\nd{{ '\r\n' }}\r\n", "{# c #}\na {# c -#}  \n b {#- c #} c\n  {# d #}\ne {#+ f +#}\ng",
    "{% raw %}{{ x }}{% if %}{# #}{% endraw %}|  {%- raw -%}  {{ a }}  {%- endraw -%}  |\n  {% raw %}\n r\n  {% endraw %}\ns", "{%raw%}a{%endraw%}{%-  raw  %} b {%  endraw  -%} c", "a{% raw %}\n{% endraw %}\nb", "\n\n{% if x %}\n\nx\n{% endif %}\n", "{%if x%}{%for i in l%}{{i}}{%endfor%}{%endif%}", "{%- set y = 1 -%}\n\n {{ y }} {%- set z = 2 %}\n{{ z }}\n  {%- if y %}\n    t\n  {%- endif %}\n", "\t{% if x %}\n\t\ta{# c #}\n\t{% endif %}\n\u00a0{% if x %}b{% endif %}", "a{% if x %}\r\n  b{% endif %}\r\n c",
    "{{ '{{' }}{{ '%}' }}{{ {'a': {'b': 1}}.a.b }}{{ {'a': {'b': 1}} }}", "{{ '}}' ~ \"{#\" }} } }} {{ 1 }}%}", "{{-1}}{{- 1 }}{{+1}}", "{{ x -}}\n a {{ - x }}", "{% if x: %}a{% endif %}", "{% if x: %}a{% else: %}b{% endif %}", "{{ x }}{{ y }} {% set y=3 %}{{ y }}",
    "{{ messages|length }}{{ tools is none }}{{ tools is defined }}{{ documents is none }}{{ date_string is defined }}{{ add_generation_prompt }}{{ bos_token }}",
    "{% set g = l|map('string') %}{% for i in g %}{{ i }}{% endfor %}{% for i in g %}{{ i }}{% endfor %}{{ 'yes' if g }}", "{% for i in l|map('string') %}{{ i }}{{ loop.last }}{{ loop.length }}{% endfor %}", "{% for i in l|reverse %}{{ i }}{{ loop.revindex }}{{ loop.nextitem }}{% endfor %}",
    "{{ é }}", "{{ x!y }}", "{{ x ? y }}", "{{ 'a'; 'b' }}", "{{ x.1a }}", "{{ l.0 }}{{ [[1, 2]].0.1 }}", "{{ x | upper | lower }}{{ (x | string) + 's' }}", "{{ x|default(1)|string|length }}", "{% set f = s.upper %}{{ f() }}", "{{ s.split }}", "{{ f(x }}",
    "{% for i in range(2) %}{% for j in range(2) %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}", "{% for i in l %}{% set x = i %}{% set v %}{{ x }}{% if i == 1 %}{% continue %}{% endif %}!{% endset %}{{ v }}{% endfor %}{{ x }}",
    "{% for p in people %}{% with q = p.name %}{{ q }}{% set q = 1 %}{% endwith %}{% endfor %}{% for g in people|groupby('age') %}{{ g.grouper }}:{{ g.list|length }}{{ g[0] }} {% endfor %}", "{% for a, g in people|groupby('age') %}{{ a }}{{ g|map(attribute='name')|join('/') }};{% endfor %}",
]


def cases():
    random.seed(3)
    result = []
    for template in FAMILIES.values():
        for messages, variables in CONVERSATIONS:
            prompt = random.random() < 0.5
            result.append({"template": template, "messages": messages, "variables": variables, "add_generation_prompt": prompt})
    for expression in EXPRESSIONS:
        expression = expression.replace("\0", "\\\n")
        result.append({"template": "{{ " + expression + " }}", "messages": [], "variables": VARIABLES})
    for template in STATEMENTS:
        result.append({"template": template, "messages": CONVERSATIONS[0][0], "variables": VARIABLES})
    return result


def main():
    golden = []
    for case in cases():
        text, _ = render(case)
        golden.append(case | ({"error": True} if text is None else {"text": text}))
    for case in golden:
        # The variables of expressions are kept once.
        if case.get("variables") is VARIABLES:
            del case["variables"]
    with open("templates-golden.json", "w", encoding="utf-8") as file:
        file.write('{"variables": ' + json.dumps(VARIABLES, ensure_ascii=False) + ',\n"cases": [\n')
        file.write(",\n".join(json.dumps(case, ensure_ascii=False) for case in golden) + "\n]}\n")


if __name__ == "__main__":
    sys.exit(main())
