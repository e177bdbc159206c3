"""The steps of compare_pipeline.py in datatrove and in the Python binding of `tokenizers`, run in a virtual environment that
has them. usage: pipeline_peers.py STEP CORPUS OUT TASKS [TOKENIZER]"""
import pathlib, sys

STEP, CORPUS, OUT, TASKS = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4])
TOKENIZER = sys.argv[5] if len(sys.argv) > 5 else None


def run(name, *pipeline, tasks=TASKS):
    # Forked, because the time of workers that a server of forks starts is lost to whoever waits for this process.
    from datatrove.executor import LocalPipelineExecutor
    LocalPipelineExecutor(pipeline=list(pipeline), tasks=tasks, workers=min(tasks, TASKS), logging_dir=str(OUT / "logs" / name), start_method="fork").run()


def reader():
    from datatrove.pipeline.readers import JsonlReader
    return JsonlReader(CORPUS, glob_pattern="*.jsonl")


def writer(name="written"):
    from datatrove.pipeline.writers import JsonlWriter
    return JsonlWriter(str(OUT / name), compression=None)


def filters():
    # The tokenizer of words by white space and Latin punctuation: the ones for other languages cost more or need models.
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    run("filters", reader(), GopherRepetitionFilter(language="ary"), GopherQualityFilter(language="ary"), FineWebQualityFilter(language="ary"), writer())


def pii():
    from datatrove.pipeline.formatters import PIIFormatter
    run("pii", reader(), PIIFormatter(), writer())


def exact():
    from datatrove.pipeline.dedup import exact_dedup as e
    config = e.ExactDedupConfig(content_getter=lambda document: document.text)
    run("sign", reader(), e.ExactDedupSignature(str(OUT / "sigs"), config=config, finder_workers=TASKS))
    run("find", e.ExactFindDedups(str(OUT / "sigs"), str(OUT / "dups"), config=config))
    run("drop", reader(), e.ExactDedupFilter(str(OUT / "dups"), config=config), writer())


def minhash():
    from datatrove.pipeline.dedup import minhash as m
    config = m.MinhashConfig(num_buckets=14, hashes_per_bucket=8)
    run("sign", reader(), m.MinhashDedupSignature(str(OUT / "sigs"), config=config, language="ary"))
    run("buckets", m.MinhashDedupBuckets(str(OUT / "sigs"), str(OUT / "buckets"), config=config), tasks=14)
    run("cluster", m.MinhashDedupCluster(str(OUT / "buckets"), str(OUT / "remove"), config=config), tasks=1)
    run("drop", reader(), m.MinhashDedupFilter(str(OUT / "remove")), writer())


def tokens():
    from datatrove.pipeline.tokens import DocumentTokenizer
    run("tokens", reader(), DocumentTokenizer(str(OUT / "ds"), tokenizer_name_or_path=TOKENIZER, eos_token="<|end_of_text|>"))


def train():
    import json
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    texts = (json.loads(line)["text"] for path in sorted(pathlib.Path(CORPUS).glob("*.jsonl")) for line in open(path))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=32768, show_progress=False))
    tokenizer.save(str(OUT / "tokenizer.json"))


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    if STEP == "read":
        run("read", reader(), writer())
    else:
        {"filters": filters, "pii": pii, "exact": exact, "minhash": minhash, "tokens": tokens, "train": train}[STEP]()
