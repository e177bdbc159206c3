"""Reads the shards of a data set as Megatron-LM and as datatrove lay them out, and compares every token: by code of this
file, from the documented layouts, and by the packages themselves where they are installed."""

import json, struct, sys
from pathlib import Path

import numpy as np

CODES = {4: np.int32, 8: np.uint16}  # of Megatron; ids stay below 2^31, where uint32 and int32 are the same bytes
SEQ_LEN = 32


def megatron(prefix):
    index = Path(f"{prefix}.idx").read_bytes()
    version, code, count, bounds = struct.unpack_from("<QBQQ", index, 9)
    assert (index[:9], version, bounds) == (b"MMIDIDX\x00\x00", 1, count + 1), "head"
    assert len(index) == 34 + 12 * count + 8 * bounds, "length"
    lengths, offsets = np.frombuffer(index, np.int32, count, 34), np.frombuffer(index, np.int64, count, 34 + 4 * count)
    tokens = Path(f"{prefix}.bin").read_bytes()
    return [np.frombuffer(tokens, CODES[code], n, o) for n, o in zip(lengths, offsets)]


def datatrove(path, width):
    tokens, ends = np.fromfile(path, f"<u{width}"), np.fromfile(f"{path}.index", "<u8").astype(int)
    assert ends[-1] == len(tokens), "ends"
    return np.split(tokens, ends[:-1])


def megatron_package(prefix, width):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    data = IndexedDataset(str(prefix), multimodal=False, mmap=True)
    return [np.array(data[i]) for i in range(len(data))]  # copies: the views die with the map


def datatrove_package(path, width):
    from datatrove.utils.dataset import DatatroveFolderDataset

    data = DatatroveFolderDataset(str(path.parent), SEQ_LEN, filename_pattern=path.name, token_size=width)
    rows = np.concatenate([np.asarray(data[i]["input_ids"]) for i in range(len(data))] or [np.zeros(0)])
    tokens = np.fromfile(path, f"<u{width}")
    assert len(tokens) - len(rows) <= SEQ_LEN, "rows"
    return datatrove(path, width) if np.array_equal(rows, tokens[: len(rows)]) else []


data, out = Path(sys.argv[1]), Path(sys.argv[2])
manifest = json.loads((data / "manifest.json").read_text())
width, streams, readers = {"uint16": 2, "uint32": 4}[manifest["dtype"]], {}, {}


def compare(name, read, place, expected):
    try:
        found = read(place, width)
    except ImportError as error:
        return readers.setdefault(name, f"SKIPPED ({error})")
    assert len(found) == len(expected) and all(map(np.array_equal, found, expected)), f"{name}: {place}"
    readers[name] = "the same"


for shard in manifest["shards"]:
    path = data / f"{shard['name']}.bin"
    documents = datatrove(path, width)
    assert (len(documents), sum(map(len, documents))) == (shard["documents"], shard["tokens"])
    places = [("megatron layout", lambda p, _: megatron(p), data / shard["name"]), ("datatrove package", datatrove_package, path)]
    for name, read, place in [*places, ("megatron package", megatron_package, data / shard["name"])]:
        compare(name, read, place, documents)
    streams.setdefault(f"{shard['split']}-{shard['lang']}-{shard['source']}", []).extend(documents)
for name, documents in streams.items():
    compare("converted to megatron", lambda p, _: megatron(p), out / "megatron" / name, documents)
    compare("converted to datatrove", datatrove, out / "datatrove" / f"{name}.ds", documents)
print(f"{len(manifest['shards'])} shards, {sum(s['tokens'] for s in manifest['shards'])} tokens")
for name, verdict in readers.items():
    print(f"{name}: {verdict}")
