//! Task files: what is read, and what is refused with which words.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use super::*;

const RECORDS: &str = concat!(
    "{\"q\":\"2+2\",\"choices\":[\"3\",\"4\"],\"answer\":1,\"lang\":\"ary\",\"script\":\"Arab\"}\n",
    "{\"q\":\"1+1\",\"choices\":[\"2\",\"5\"],\"answer\":\"0\",\"lang\":\"fra\",\"script\":\"Latn\"}\n",
    "{\"q\":\"0+1\",\"choices\":[\"0\",\"1\"],\"answer\":\"1\"}\n",
);

const TASK: &str = "task: sums\ndataset_path: json\ndataset_kwargs: {data_files: {test: sums.jsonl}}\ntest_split: test\n\
    doc_to_text: \"{{q}} =\"\ndoc_to_choice: choices\ndoc_to_target: answer\n";

fn load(task: &str, options: &TaskOptions) -> Result<Task, EvalError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sums.jsonl"), RECORDS).unwrap();
    fs::write(dir.path().join("base_yaml"), TASK).unwrap();
    fs::create_dir_all(dir.path().join("Sums/easy")).unwrap();
    fs::write(dir.path().join("Sums/easy/test-00000-of-00001.jsonl"), RECORDS).unwrap();
    let path = dir.path().join("task.yaml");
    fs::write(&path, task).unwrap();
    Task::load(&path, &TaskOptions { data: options.data.as_ref().map(|_| dir.path().to_owned()), ..options.clone() })
}

fn refusal(task: &str) -> String {
    load(task, &TaskOptions::default()).unwrap_err().to_string()
}

#[test]
fn fields_templates_and_languages() {
    let task = load(TASK, &TaskOptions::default()).unwrap();
    assert_eq!((task.name.as_str(), task.target_delimiter.as_str(), task.num_fewshot), ("sums", " ", 0));
    assert_eq!(task.metrics, [Metric::Acc, Metric::AccNorm]);
    assert_eq!(
        task.questions[0],
        Question {
            context: "2+2 =".into(),
            choices: vec!["3".into(), "4".into()],
            gold: vec![1],
            language: Some("ary_Arab".into()),
        }
    );
    assert_eq!((task.questions[1].gold.as_slice(), task.questions[2].language.as_ref()), (&[0][..], None));
}

#[test]
fn examples_are_the_first_others_and_include_is_read() {
    let text = "include: base_yaml\nnum_fewshot: 1\ndescription: \"Sums.\\n\"\nmetric_list: [{metric: acc_bytes}]\n";
    let task = load(text, &TaskOptions::default()).unwrap();
    assert_eq!(task.questions[0].context, "Sums.\n1+1 = 2\n\n2+2 =");
    assert_eq!(task.questions[1].context, "Sums.\n2+2 = 4\n\n1+1 =");
    assert_eq!(task.metrics, [Metric::AccBytes]);
    let two = load(text, &TaskOptions { num_fewshot: Some(2), limit: Some(1), ..TaskOptions::default() }).unwrap();
    assert_eq!((two.questions.len(), two.questions[0].context.as_str()), (1, "Sums.\n1+1 = 2\n\n0+1 = 1\n\n2+2 ="));
}

#[test]
fn data_sets_of_the_hub_are_found_in_a_folder() {
    let text = TASK.replace(
        "dataset_path: json\ndataset_kwargs: {data_files: {test: sums.jsonl}}",
        "dataset_path: who/Sums\ndataset_name: easy",
    );
    let options = TaskOptions { data: Some(PathBuf::new()), ..TaskOptions::default() };
    assert_eq!(load(&text, &options).unwrap().questions.len(), 3);
    assert!(refusal(&text).contains("put them into a folder Sums/ and name the folder above with --task-data"));
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let with = |from: &str, to: &str| refusal(&TASK.replace(from, to));
    assert!(with("doc_to_choice: choices", "doc_to_choice: !function utils.f").contains("line 6 names Python code"));
    assert!(with("doc_to_choice: choices", "doc_to_choice: \"{{[q, '']}}\"").contains("question 1: choice 2 is empty"));
    assert!(with("doc_to_choice: choices", "doc_to_choice: [only]").contains("give two or more"));
    assert!(with("doc_to_choice: choices", "doc_to_choice: \"{{q}}\"").contains("must give a list"));
    assert!(with("doc_to_target: answer", "doc_to_target: 7").contains("number 7 (from 0), but there are 2"));
    assert!(with("doc_to_target: answer", "doc_to_target: \"{{q}}\"").contains("which is no choice"));
    assert!(with("{{q}}", "{{missing}}").contains("undefined"));
    assert!(with("test: sums.jsonl", "dev: sums.jsonl").contains("has no split `test`, only dev"));
    assert!(with("test: sums.jsonl", "test: absent.jsonl").contains("absent.jsonl"));
    assert!(refusal(&format!("{TASK}doc_to_txt: x\n")).contains("unknown field `doc_to_txt`"));
    assert!(refusal(&format!("{TASK}output_type: generate_until\n")).contains("only `multiple_choice`"));
    assert!(refusal(&format!("{TASK}metric_list: [{{metric: f1}}]\n")).contains("metric `f1` is not known"));
    assert!(refusal(&format!("{TASK}num_fewshot: 3\n")).contains("3 examples are wanted, the split has 2"));
    assert!(refusal("include: task.yaml\n").contains("include each other"));
    assert!(refusal("task: [\n").contains("task.yaml"));
}

#[test]
fn gold_may_be_a_list_or_the_text_of_a_choice() {
    let gold = |to: &str| {
        let text =
            TASK.replace("doc_to_choice: choices", "doc_to_choice: [la, iyeh]").replace("doc_to_target: answer", to);
        load(&text, &TaskOptions::default()).unwrap().questions[0].gold.clone()
    };
    assert_eq!(gold("doc_to_target: [0, 1]"), [0, 1]);
    assert_eq!(gold("doc_to_target: \"{{'iy' ~ 'eh'}}\""), [1]);
}
