#!/bin/sh
# Makes in FOLDER what the pages of the guide take for granted: recipes small enough to run in seconds, texts, prepared data,
# finished runs, a base model. `jazari` must be in the PATH.
#   scripts/docs-world.sh FOLDER
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
cd "$1"
cp -R "$root/configs" "$root/samples" "$root/scripts" "$root/docs" .

# Texts: a corpus a language, with the fields that the recipes and tables name.
for file in samples/*.jsonl; do
  mkdir -p "corpora/$(basename "$file" .jsonl)"
  cp "$file" "corpora/$(basename "$file" .jsonl)/data.jsonl"
done
mkdir -p corpora/mediawiki-i18n corpora/darija raw crawl press benchmarks bin
awk '{ sub(/^\{/, "{\"key\": \"message-" (FNR % 40) "\", "); print }' samples/arb_Arab.jsonl samples/fra_Latn.jsonl > corpora/mediawiki-i18n/data.jsonl
sed 's/"jazari-samples"/"some-forum"/; s/"text": "/&Iwa, /' samples/ary_Latn.jsonl > corpora/darija/data.jsonl
mkdir corpora/doda-nc
sed 's/"jazari-samples"/"doda-nc"/' samples/ary_Arab.jsonl > corpora/doda-nc/data.jsonl
cp samples/*.jsonl raw
cp samples/arb_Arab.jsonl press
cp samples/zgh_Tfng.jsonl zgh.jsonl
sed 's/zgh/shi/; s/"Tfng"/"Latn"/' samples/fra_Latn.jsonl | sed 's/"lang": *"fra"/"lang": "shi"/' > shi.jsonl
cp samples/ary_Latn.jsonl arabizi.jsonl
head -n 20 samples/arb_Arab.jsonl > benchmarks/questions.jsonl
cat samples/*.jsonl > dump.jsonl
for copy in corpus pages clean news; do cp dump.jsonl "$copy.jsonl"; done
jazari data normalize dump.jsonl --out dump.jsonl.zst 2> made.log
cp dump.jsonl.zst crawl/a.jsonl.zst
printf 'filters: {}\npii: {}\n' > rules.yaml

# Recipes: the shapes and lengths of the smallest one, the rest as it stands.
sed -i 's/vocab_size: .*/vocab_size: 1024/; /^near:/d' configs/moroccan-data.yaml
sed -i "/eng_Latn\\|spa_Latn/d" configs/darija-lora.yaml
for recipe in configs/moroccan-3m-cpu.yaml configs/darija-lora.yaml configs/ci-sft.yaml configs/ci-dpo.yaml configs/quickstart.yaml; do
  sed -i 's/^max_steps: .*/max_steps: 4/; s/^eval_steps: .*/eval_steps: 4/; s/^save_steps: .*/save_steps: 2/
    s/^warmup_steps: .*/warmup_steps: 1/; s/^sequence_len: 512.*/sequence_len: 64/; s/^base_model: runs.darija-30m/base_model: models\/base/
    /^expect:/,/^[a-z]/{/^expect:/d;/^  /d}' "$recipe"
done
sed 's/^output_dir: .*/output_dir: runs\/first/; s/- path: runs.ci-tiny-data/- path: data\/moroccan/
  s/^global_batch_size: .*/global_batch_size: 32 seq/; s/^micro_batch_size: .*/micro_batch_size: 1/; /^expect:/,$d' \
  configs/ci-tiny.yaml > configs/run.yaml

{
  jazari data prepare configs/moroccan-data.yaml
  jazari train configs/run.yaml
  jazari train configs/run.yaml --set output_dir=runs/darija
  jazari export runs/darija --to hf --out models/base
  for copy in some-hf-folder qwen2 llama; do cp -R models/base "models/$copy"; done
  mkdir -p tokenizers certificates
  cp -R data/moroccan/tokenizer ours
  jazari key new maker
  jazari certify runs/darija --key maker --out certificates/darija.json
  sed "s/^output_dir: .*/output_dir: runs\/new/" configs/run.yaml > configs/train.yaml
} >> made.log 2>&1 || { cat made.log >&2; exit 1; }

# Launchers that are not here: they start what they are given, once. scripts/cluster-check.sh and mpi-check.sh run real ones.
for launcher in srun torchrun mpirun; do
  printf '#!/bin/sh\nwhile [ "$1" != jazari ]; do shift; done\nexec "$@"\n' > "bin/$launcher"
done
printf '#!/bin/sh\nfor word; do case $word in *.sbatch) exec bash -n "$word" ;; esac; done\nexit 1\n' > bin/sbatch
chmod +x bin/*
