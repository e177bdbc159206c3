//! Owns the chat templates that come with the program; never renders them.
//!
//! The formats are those of ChatML, Llama 3 and Mistral; the templates are written for this project. All mark what the
//! assistant writes, the end of its turn included, and begin with BOS where the tokenizer has one.

/// Turns between `<|im_start|>ROLE` and `<|im_end|>`.
const CHATML: &str = "\
{%- if bos_token is defined and bos_token %}{{ bos_token }}{% endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
";

/// Turns between `<|start_header_id|>ROLE<|end_header_id|>` and `<|eot_id|>`.
const LLAMA3: &str = "\
{%- if bos_token is defined and bos_token %}{{ bos_token }}{% endif %}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}
    {%- else %}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
";

/// Questions between `[INST]` and `[/INST]`, answers up to EOS; a system message goes before the first question.
const MISTRAL: &str = "\
{%- if bos_token is defined and bos_token %}{{ bos_token }}{% endif %}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {%- if not loop.first %}{{ raise_exception('a system message must be the first') }}{% endif %}
        {%- set ns.system = message['content'] + '\\n\\n' %}
    {%- elif message['role'] == 'user' %}
        {{- '[INST] ' + ns.system + message['content'] + ' [/INST]' }}
        {%- set ns.system = '' %}
    {%- else %}
        {%- generation %}{{ ' ' + message['content'] | trim + eos_token }}{% endgeneration %}
    {%- endif %}
{%- endfor %}
";

/// Names and sources.
pub const BUILTIN_TEMPLATES: [(&str, &str); 3] = [("chatml", CHATML), ("llama3", LLAMA3), ("mistral", MISTRAL)];

/// The source of the template of this name.
pub fn builtin_template(name: &str) -> Option<&'static str> {
    BUILTIN_TEMPLATES.iter().find(|(known, _)| *known == name).map(|(_, source)| *source)
}
