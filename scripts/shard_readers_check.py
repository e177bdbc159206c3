"""Reads the shards of a data set as Megatron-LM and as datatrove lay them out, and compares every token.

The layouts are read by code of this file, from their documentation; where the packages themselves are installed, they
read the same files too.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float64, 7: np.float32, 8: np.uint16}


def megatron(prefix):
    """Sequences of PREFIX.bin by PREFIX.idx."""
    index = Path(f"{prefix}.idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00", "magic"
    version, code, count, documents = struct.unpack_from("<QBQQ", index, 9)
    assert version == 1 and documents == count + 1
    at = 34
    lengths = np.frombuffer(index, np.int32, count, at)
    offsets = np.frombuffer(index, np.int64, count, at + 4 * count)
    bounds = np.frombuffer(index, np.int64, documents, at + 12 * count)
    assert len(index) == at + 12 * count + 8 * documents and bounds[-1] == count
    tokens = Path(f"{prefix}.bin").read_bytes()
    return [np.frombuffer(tokens, DTYPES[code], n, o).astype(np.int64) for n, o in zip(lengths, offsets)]


def datatrove(path, width):
    """Documents of a token file by its `.index`."""
    tokens = np.fromfile(path, np.uint16 if width == 2 else np.uint32).astype(np.int64)
    ends = np.fromfile(f"{path}.index", np.uint64).astype(np.int64)
    assert ends[-1] == len(tokens)
    return np.split(tokens, ends[:-1])


def same(a, b):
    assert len(a) == len(b), (len(a), len(b))
    assert all(np.array_equal(x, y) for x, y in zip(a, b))
    return len(a), sum(map(len, a))


def by_package_megatron(prefix, expected):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    data = IndexedDataset(str(prefix), multimodal=False, mmap=True)
    same([np.asarray(data[i]).astype(np.int64) for i in range(len(data))], expected)


def by_package_datatrove(folder, pattern, width, expected):
    from datatrove.utils.dataset import DatatroveFolderDataset

    seq_len = 32
    data = DatatroveFolderDataset(str(folder), seq_len, filename_pattern=pattern, token_size=width)
    flat = np.concatenate(expected)
    for i in range(len(data)):
        found = np.asarray(data[i]["input_ids"]).astype(np.int64)
        assert np.array_equal(found, flat[i * (seq_len + 1) : (i + 1) * (seq_len + 1)]), i
    assert len(data) == len(flat) // (seq_len + 1)


def attempt(name, read, *arguments):
    try:
        read(*arguments)
        return f"{name}: read too"
    except ImportError as error:
        return f"{name}: SKIPPED, {error}"


def main(data, out):
    manifest = json.loads((data / "manifest.json").read_text())
    width = {"uint16": 2, "uint32": 4}[manifest["dtype"]]
    streams, notes = {}, set()
    for shard in manifest["shards"]:
        path = data / f"{shard['name']}.bin"
        documents = datatrove(path, width)
        assert same(megatron(data / shard["name"]), documents) == (shard["documents"], shard["tokens"])
        assert all(d[-1] == manifest["tokenizer"]["eos_id"] for d in documents) or "chat" in manifest
        streams.setdefault((shard["split"], shard["lang"], shard["source"]), []).extend(documents)
        notes.add(attempt("megatron-core", by_package_megatron, data / shard["name"], documents))
        notes.add(attempt("datatrove", by_package_datatrove, data, f"{shard['name']}.bin", width, documents))
    for (split, lang, source), documents in streams.items():
        name = f"{split}-{lang}-{source}"
        same(megatron(out / "megatron" / name), documents)
        same(datatrove(out / "datatrove" / f"{name}.ds", width), documents)
        notes.add(attempt("datatrove", by_package_datatrove, out / "datatrove", f"{name}.ds", width, documents))
    tokens = sum(len(d) for documents in streams.values() for d in documents)
    print(f"{len(manifest['shards'])} shards, {len(streams)} streams, {tokens} tokens: the same in every reader")
    print("\n".join(sorted(notes)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
