#!/usr/bin/env python3
"""serve_check.py JAZARI HF_DIR FILE.gguf: starts llama.cpp's server on loopback, asks /v1/completions and
/v1/chat/completions, and compares the greedy answers with `jazari generate` on the Hugging Face directory."""
import json
import os
import subprocess
import sys
import urllib.request

import xllamacpp

jazari, folder, gguf = sys.argv[1:4]
with open(f"{folder}/config.json", encoding="utf-8") as file:
    config = json.load(file)
# llama.cpp has no sliding window for Mistral: only the first tokens are the model's.
room = min(config.get("sliding_window") or 64, 64) if config["model_type"] == "mistral" else 64
tokens = 8 if room < 64 else 24
prompts = ["السلام", "wach nta", "ⴰⵣⵓⵍ", "Le Maroc"]


def ask(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def generate(prompt):
    command = [jazari, "generate", folder, "--prompt", prompt, "--max-tokens", str(tokens), "--device", "cpu"]
    text = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    return text[len(prompt) :].removesuffix("\n")


parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.port = os.path.abspath(gguf), 0
parameters.n_ctx, parameters.n_parallel, parameters.warmup = 256, 1, False
server = xllamacpp.Server(parameters)
url = server.listening_address
greedy = {"temperature": 0, "max_tokens": tokens, "model": "jazari"}
failures = 0
for prompt in prompts:
    answer = ask(url, "/v1/completions", {"prompt": prompt, **greedy})["choices"][0]["text"]
    expected = generate(prompt)
    same = answer.strip(" \n\ufffd") == expected.strip(" \n\ufffd")
    failures += not same
    print("ok  " if same else "FAIL", "completion", json.dumps([prompt, answer, expected], ensure_ascii=False))
if os.path.exists(f"{folder}/chat_template.jinja"):
    messages = [{"role": "user", "content": "السلام، كيداير؟"}]
    # The server's tokenizer, and ours, put BOS in front of what it renders.
    rendered = ask(url, "/apply-template", {"messages": messages, "add_generation_prompt": True})["prompt"]
    if room == 64:
        choice = ask(url, "/v1/chat/completions", {"messages": messages, **greedy})["choices"][0]
        answer = choice["message"]["content"] or ""
        expected = generate(rendered)
        same = answer.strip(" \n\ufffd") == expected.strip(" \n\ufffd")
        failures += not same
        print("ok  " if same else "FAIL", "chat", json.dumps([rendered, answer, expected], ensure_ascii=False))
sys.exit(1 if failures else 0)
