"""Small fastText models with the answers of the reference, for data-pipeline/tests/lid.rs (pip install fasttext-wheel numpy<2)."""
import json, pathlib, random
import fasttext

here = pathlib.Path(__file__).parent
WORDS = {
    "ary_Latn": "wach bghit dyal kayn ghadi bzaf hadchi mzyan",
    "fra_Latn": "les nous avons être c'est demain école dans",
    "ary_Arab": "واش بغيت ديال كاين غادي بزاف هادشي مزيان",
    "zgh_Tfng": "ⴰⵣⵓⵍ ⵜⴰⵎⴰⵣⵉⵖⵜ ⴰⵎⴰⵏ ⵉⵎⴰⵣⵉⵖⵏ ⵜⴰⵎⵓⵔⵜ ⵏ ⴷ ⵙ",
}
random.seed(7)
lines = []
for i in range(400):
    label = random.choice(["ary_Latn", "ary_Latn", "ary_Latn", "fra_Latn", "fra_Latn", "ary_Arab", "zgh_Tfng"])
    lines.append(f"__label__{label} " + " ".join(random.choices(WORDS[label].split(), k=5)))
(here / "train.txt").write_text("\n".join(lines) + "\n")
texts = ["wach kayn dyal", "demain à l'école", "واش هادشي ديال", "ⴰⵣⵓⵍ ⴰⵎⴰⵏ", "unseen слова", "bghit l'école demain", ""]
cases = {}
for name, args in {
    "softmax": dict(loss="softmax", minn=2, maxn=4, bucket=1200, wordNgrams=2),
    "tree": dict(loss="hs", minn=0, maxn=0, bucket=50, wordNgrams=1),
    "each": dict(loss="ova", minn=3, maxn=3, bucket=200, wordNgrams=1),
}.items():
    model = fasttext.train_supervised(str(here / "train.txt"), dim=6, epoch=15, lr=0.5, thread=1, seed=1, verbose=0, **args)
    files = {f"{name}.bin": model}
    for file in list(files):
        model.save_model(str(here / file))
        cases[file] = [[t, {l: float(p) for p, l in model.f.predict(t + "\n", 4, -1.0, "strict")}] for t in texts]
    if name == "softmax":
        model.quantize(input=str(here / "train.txt"), retrain=False, cutoff=300, dsub=4, qnorm=True)
        model.save_model(str(here / "pruned.ftz"))
        cases["pruned.ftz"] = [[t, {l: float(p) for p, l in model.f.predict(t + "\n", 4, -1.0, "strict")}] for t in texts]
(here / "fasttext.json").write_text(json.dumps(cases, ensure_ascii=False, indent=0))
(here / "train.txt").unlink()
