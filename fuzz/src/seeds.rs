//! Owns the first inputs of every target, made from a few rows of the samples; never mutates.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{RecordBatch, StringArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType, Field, Schema};
use data_pipeline::shard::format::{Dtype, megatron_index};
use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

/// Rows taken from each file of the samples.
const ROWS: usize = 4;

/// The seeds of a target; `samples` is the folder of that name.
pub fn seeds(target: &str, samples: &Path) -> Vec<Vec<u8>> {
    let rows = rows(samples);
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let texts: Vec<&str> = rows.iter().filter_map(|row| row["text"].as_str()).collect();
    let text = texts.join("\n\n");
    match target {
        "jsonl" => vec![lines.clone().into_bytes(), [b"\xef\xbb\xbf", lines.as_bytes()].concat()],
        "csv" => vec![csv(&rows).into_bytes()],
        "json_array" => vec![json!(rows).to_string().into_bytes(), serde_json::to_vec_pretty(&rows).unwrap()],
        "parquet" => vec![parquet(&texts)],
        "arrow" => arrow(&texts),
        "warc" => vec![warc(&texts)],
        "html" => vec![page(&texts).into_bytes()],
        "encoding" => {
            let wide = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
            let latin: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap_or(0xc7)).collect();
            vec![text.clone().into_bytes(), wide(u16::to_le_bytes), wide(u16::to_be_bytes), latin]
        }
        "gzip" => vec![gzip(lines.as_bytes()), [gzip(lines.as_bytes()), gzip(lines.as_bytes())].concat()],
        "zstd" => vec![zstd::encode_all(lines.as_bytes(), 3).unwrap()],
        "tokenizer" => tokenizers(),
        "chat_template" => vec![TEMPLATE.as_bytes().to_vec()],
        "config" => vec![CONFIG.as_bytes().to_vec()],
        "manifest" => vec![manifest()],
        "chat" => CHATS.iter().map(|chat| chat.as_bytes().to_vec()).collect(),
        "preference" => PREFERENCES.iter().map(|pair| pair.as_bytes().to_vec()).collect(),
        "table_csv" => vec![csv(&rows).into_bytes()],
        "table_parquet" | "parquet_pages" => vec![nested(&texts)],
        "sidecar" => vec![table(&rows)],
        "shard" => vec![shard(Dtype::Uint16), shard(Dtype::Uint32)],
        "fasttext" => ["each.bin", "softmax.bin", "tree.bin", "pruned.ftz"]
            .map(|name| std::fs::read(samples.join("../data-pipeline/tests/lid").join(name)).unwrap())
            .to_vec(),
        "lid_model" => vec![lid_model()],
        "opt_outs" => vec![OPT_OUTS.as_bytes().to_vec()],
        other => panic!("no target {other}"),
    }
}

fn rows(samples: &Path) -> Vec<Value> {
    let mut rows = Vec::new();
    for name in ["arb_Arab", "ary_Arab", "ary_Latn", "fra_Latn", "zgh_Tfng"] {
        let file = std::fs::read_to_string(samples.join(format!("{name}.jsonl"))).unwrap();
        rows.extend(file.lines().take(ROWS).map(|line| serde_json::from_str(line).unwrap()));
    }
    rows
}

fn csv(rows: &[Value]) -> String {
    let field = |row: &Value, key: &str| format!("\"{}\"", row[key].as_str().unwrap_or_default().replace('"', "\"\""));
    let line = |row: &Value| ["text", "lang", "script", "licence"].map(|key| field(row, key)).join(",") + "\r\n";
    format!("text,lang,script,licence\r\n{}", rows.iter().map(line).collect::<String>())
}

fn parquet(texts: &[&str]) -> Vec<u8> {
    let schema =
        "message m { OPTIONAL BYTE_ARRAY text (UTF8); OPTIONAL group metadata { OPTIONAL BYTE_ARRAY lang (UTF8); } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(WriterProperties::default())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
    for level in [1, 2] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&vec![level; values.len()]), None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    file
}

/// Pages of all kinds: dictionaries, delta encodings, lists, Zstandard.
fn nested(texts: &[&str]) -> Vec<u8> {
    let schema = "message m { REQUIRED BYTE_ARRAY instruction (UTF8); REQUIRED BYTE_ARRAY output (UTF8); REQUIRED INT64 n; OPTIONAL group tags (LIST) \
        { REPEATED group list { OPTIONAL BYTE_ARRAY element (UTF8); } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_column_encoding("instruction".into(), Encoding::DELTA_BYTE_ARRAY)
        .set_column_dictionary_enabled("instruction".into(), false)
        .set_compression(parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default()))
        .set_writer_version(parquet::file::properties::WriterVersion::PARQUET_2_0)
        .build();
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
    for _ in ["instruction", "output"] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    let numbers: Vec<i64> = (0..texts.len() as i64).collect();
    column.typed::<Int64Type>().write_batch(&numbers, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let definitions = vec![3; values.len()];
    column.typed::<ByteArrayType>().write_batch(&values, Some(&definitions), Some(&vec![0; values.len()])).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    file
}

/// The table of documents of a shard, as `data_pipeline::shard::sidecar` lays it out.
fn table(rows: &[Value]) -> Vec<u8> {
    let strings = ["id", "language", "script", "source", "licence"];
    let strings: String = strings.iter().map(|name| format!("REQUIRED BYTE_ARRAY {name} (STRING); ")).collect();
    let schema = format!(
        "message document {{ {strings} OPTIONAL BYTE_ARRAY url (STRING); REQUIRED INT64 bytes; REQUIRED INT64 tokens; \
         OPTIONAL DOUBLE quality; }}"
    );
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(WriterProperties::default())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let values: Vec<ByteArray> = (0..rows.len()).map(|n| ByteArray::from(format!("{n:032x}").into_bytes())).collect();
    for levels in [None, None, None, None, None, Some(vec![1; rows.len()])] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, levels.as_deref(), None).unwrap();
        column.close().unwrap();
    }
    for _ in 0..2 {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&vec![5; rows.len()], None, None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<DoubleType>().write_batch(&[], Some(&vec![0; rows.len()]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    file
}

fn shard(dtype: Dtype) -> Vec<u8> {
    let lengths = [3, 2, 4];
    let mut bytes = vec![u8::from(dtype == Dtype::Uint32), lengths.len() as u8, 9];
    megatron_index(dtype, &lengths, |part| bytes.extend_from_slice(part));
    [3_u64, 5, 9].iter().for_each(|end| bytes.extend_from_slice(&end.to_le_bytes()));
    dtype.write(&[1, 2, 3, 4, 5, 6, 7, 8, 9], &mut bytes);
    bytes
}

/// A payload of a small model.
fn lid_model() -> Vec<u8> {
    let header = json!({
        "provenance": {"sources": [["ary_Latn", "doda", 3]]},
        "scripts": [{"script": "Latn", "labels": ["ary_Latn", "fra_Latn"], "scale": 0.1, "sharpness": [1.0, 1.0, 1.0],
                     "bias": [0.0, 0.5], "markers": []}],
    });
    let (header, lists) = (header.to_string(), "[ary_Latn a]\nwakha\nbzaf\n");
    let mut bytes = Vec::new();
    for part in [header.as_bytes(), lists.as_bytes()] {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes.extend_from_slice(&3_u32.to_le_bytes());
    bytes.extend_from_slice(&[3, 0x90, 0x05, 7, 10, 20, 30, 5, 0xf0, 9]);
    bytes
}

fn arrow(texts: &[&str]) -> Vec<Vec<u8>> {
    let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, true)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(texts.to_vec()))]).unwrap();
    let mut seeds = Vec::new();
    for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let mut writer = FileWriter::try_new_with_options(Vec::new(), &schema, options.clone()).unwrap();
        writer.write(&batch).unwrap();
        seeds.push(writer.into_inner().unwrap());
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
        writer.write(&batch).unwrap();
        seeds.push(writer.into_inner().unwrap());
    }
    seeds
}

fn page(texts: &[&str]) -> String {
    let paragraphs: String =
        texts.iter().map(|text| format!("<p class=x>{text} &amp; <a href='/'>{text}</a><br>\n")).collect();
    format!(
        "<!DOCTYPE html><html lang=ar><head><meta charset=utf-8><meta name=robots content='index'><title>x</title>\
         <script>var a = '<p>';</script></head><body><nav><ul><li>a<li>b</ul></nav><article><h1>x</h1>{paragraphs}\
         <table><tr><td>a<td>b</table></article><footer>c</footer></body></html>"
    )
}

fn warc(texts: &[&str]) -> Vec<u8> {
    let record = |kind: &str, mime: &str, content: &str| {
        format!(
            "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://example.org/\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n\
             Content-Type: {mime}\r\nContent-Length: {}\r\n\r\n{content}\r\n\r\n",
            content.len()
        )
    };
    let http = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nX-Robots-Tag: all\r\n\r\n{}",
        page(texts)
    );
    let info = record("warcinfo", "application/warc-fields", "software: x\r\n");
    let plain = record("conversion", "text/plain", &texts.join("\n"));
    [info, record("response", "application/http; msgtype=response", &http), plain].concat().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tokenizers() -> Vec<Vec<u8>> {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let bpe = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": {"type": "NFC"}, "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "l": 2, "al": 3, "s": 4}, "merges": ["a l"]},
    });
    let unigram = json!({
        "version": "1.0", "added_tokens": [], "post_processor": null,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁", -1.0], ["a", -2.0], ["▁a", -2.5]]},
    });
    vec![bpe.to_string().into_bytes(), unigram.to_string().into_bytes()]
}

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[{{ loop.index }}] \
    {{ message.content | trim }}{% else %}{{ message['content'].strip() + '\\n' }}{% endif %}{% endfor %}\
    {% macro f(x) %}{{ x | tojson }}{% endmacro %}{{ f([1, 'a']) }}{% set ns = namespace(n=0) %}";

const CONFIG: &str = r#"{"output_dir": "out", "sources": [{"path": "in", "format": "jsonl", "lang": "ary_Arab",
    "fields": {"text": "body", "id": "meta.id"}, "encoding": "windows-1256", "exclude": ["*.x"]}],
    "allow_licences": ["MIT", "CC-BY-*"], "validation": {"fraction": 0.02, "min_documents": 2},
    "tokenizer": {"train": {"vocab_size": 1000, "temperature": 0.3}}, "limits": {"max_record_bytes": 1000}, "seed": 1}"#;

fn manifest() -> Vec<u8> {
    let file = |bytes: u64| json!({"bytes": bytes, "blake3": "00".repeat(32)});
    let counts = json!({"documents": 2, "tokens": 10, "text_bytes": 40});
    let manifest = json!({
        "format": "jazari-tokens", "version": 1, "dtype": "uint16",
        "tokenizer": {"sha256": "11".repeat(32), "vocab_size": 300, "bos_id": 0, "eos_id": 1, "pad_id": null,
                      "files": {"tokenizer.json": file(5)}},
        "token_bytes": file(600), "seed": 3, "config_digest": "cc",
        "languages": {"ary_Arab": counts}, "licences": {"MIT": counts},
        "shards": [{"name": "shard-00000", "split": "train", "lang": "ary_Arab", "source": "doda", "documents": 2,
                    "tokens": 10, "text_bytes": 40,
                    "files": {"bin": file(20), "bin.index": file(16), "idx": file(34 + 24 + 24), "parquet": file(900)}}],
    });
    [serde_json::to_vec_pretty(&manifest).unwrap(), b"\n".to_vec()].concat()
}

const CHATS: [&str; 4] = [
    r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "salam"}, {"role": "assistant", "content": "labas"}], "lang": "ary_Latn"}"#,
    r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
    r#"{"instruction": "a", "input": "b", "output": "c"}"#,
    r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}]}"#,
];

const PREFERENCES: [&str; 2] = [
    r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#,
    r#"{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}"#,
];

const OPT_OUTS: &str = "# a list\nid: 00112233445566778899aabbccddeeff\nurl: https://example.org/a/\ndomain: example.com\n\
    source: doda\n{\"url_prefix\": \"example.net/b\"}\n{\"id\": \"x\", \"domain\": \"a.b\"}\n";
