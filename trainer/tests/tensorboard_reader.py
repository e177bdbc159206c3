#!/usr/bin/env python3
"""Reads event files as TensorBoard does and compares every number with metrics.jsonl.
usage: tensorboard_reader.py METRICS FOLDER..."""
import json, struct, sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TAGS = {"loss": "train/loss", "lr": "train/learning_rate", "grad_norm": "train/grad_norm", "tokens": "train/tokens",
        "tokens_per_second": "speed/tokens_per_second", "mfu": "speed/mfu", "data_wait": "speed/data_wait",
        "memory_bytes": "machine/memory_bytes"}


def single(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


expected = {}
for line in open(sys.argv[1]):
    record = json.loads(line)
    if "loss" in record:
        for key, tag in TAGS.items():
            expected[tag, record["step"]] = single(record[key])
        for name, seen in record["seen"].items():
            expected[f"seen_tokens/{name}", record["step"]] = single(seen["tokens"])
    elif "val" in record:
        expected["val/bits_per_byte", record["step"]] = single(record["val_bpb_all"])
        for name, score in record["val"].items():
            expected[f"val_bits_per_byte/{name}", record["step"]] = single(score["bpb"])
            expected[f"val_loss/{name}", record["step"]] = single(score["loss"])

for folder in sys.argv[2:]:
    events = EventAccumulator(folder, size_guidance={"scalars": 0})
    events.Reload()
    found = {}
    for tag in events.Tags()["scalars"]:
        for scalar in events.Scalars(tag):
            assert (tag, scalar.step) not in found, f"{folder}: {tag} has step {scalar.step} twice"
            found[tag, scalar.step] = scalar.value
    missing = [key for key in expected if key not in found]
    assert not missing, f"{folder}: missing {missing[:5]}"
    wrong = [(key, value, found[key]) for key, value in expected.items() if found[key] != value]
    assert not wrong, f"{folder}: {wrong[:5]}"
    extra = {tag for tag, _ in set(found) - set(expected)} - {"speed/communication", "machine/energy_joules"}
    assert not extra, f"{folder}: {extra}"
    print(f"{folder}: {len(expected)} numbers as in metrics.jsonl")
