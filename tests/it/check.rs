//! `voxgate check` and `voxgate config`: what an operator is told of each mistake in a corpus of broken
//! files, and what an editor makes of the schema.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::world::{self, free_port, project, run};

fn voxgate(args: &[&str], folder: &Path, env: &[(String, String)]) -> Output {
    let mut command = world::voxgate();
    command.args(args).current_dir(folder);
    command.envs(env.iter().cloned()).stdin(Stdio::null()).output().unwrap()
}

fn corpus() -> Vec<PathBuf> {
    let folder = project().join("tests/broken_configs");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    assert!(files.len() >= 40, "{}", files.len());
    files
}

/// What the first line of a file sets: `# env: NAME=value`.
fn environment(file: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    let set =
        text.lines().next().and_then(|line| line.strip_prefix("# env: ")).and_then(|set| set.split_once('='));
    set.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect()
}

#[test]
fn each_mistake_is_named_with_its_line_and_its_cure() {
    for file in corpus() {
        let name = file.file_name().unwrap().to_str().unwrap();
        let (folder, env) = (file.parent().unwrap(), environment(&file));
        let done = voxgate(&["check", "--config", name], folder, &env);
        let told = String::from_utf8(done.stderr).unwrap();
        assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(1), b"".as_slice()), "{name}: {told}");
        assert!(!told.contains("hunter2"), "a secret: {told}");

        let json = voxgate(&["check", "--json", "--config", name], folder, &env);
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert!(!json.to_string().contains("hunter2"), "a secret: {json}");
        let problems = json["problems"].as_array().unwrap();
        assert_eq!(json["valid"], false);
        assert!(told.ends_with(&format!(
            "voxgate: {name}: {} problem{}\n",
            problems.len(),
            if problems.len() == 1 { "" } else { "s" }
        )));
        for problem in problems {
            let (why, help) = (problem["why"].as_str().unwrap(), problem["help"].as_str().unwrap());
            assert!(
                told.contains(&format!("error: {why}\n")) && told.contains(&format!("help: {help}\n")),
                "{told}"
            );
            let place = match (&problem["line"], problem["environment"].as_str()) {
                (Value::Null, Some(variable)) => format!("{variable}="),
                (Value::Null, None) => format!("--> {name}"),
                (line, _) => format!("--> {name}:{line}:{}", problem["column"]),
            };
            assert!(told.contains(&place), "{place} is not in {told}");
        }
        insta::with_settings!({prepend_module_to_snapshot => false, snapshot_path => "../broken_configs/told", omit_expression => true}, {
            insta::assert_snapshot!(name.trim_end_matches(".toml"), told);
        });
    }
}

#[test]
fn a_sound_file_is_valid() {
    let done = voxgate(&["check"], project(), &[]);
    let told = String::from_utf8(done.stdout).unwrap();
    assert_eq!(
        (done.status.code(), told.as_str()),
        (Some(0), "gateway.toml: valid; mode echo, listening on 0.0.0.0:8080\n")
    );
    let done = voxgate(&["check", "--json"], project(), &[]);
    let json: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(json, json!({"config": "gateway.toml", "valid": true, "problems": []}));
}

/// What `run` would not start with, `check` names in the same words.
#[test]
fn an_apology_that_is_no_sound_is_found_before_the_start() {
    let folder = std::env::temp_dir().join(format!("voxgate-apology-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("gateway.toml"), "[dialogue]\napology_audio = \"sorry.wav\"\n").unwrap();
    std::fs::write(folder.join("sorry.wav"), "Sorry, something went wrong.").unwrap();
    let why = "[dialogue] apology_audio = \"sorry.wav\" cannot be played: text instead of audio";
    for command in ["check", "run"] {
        let done = voxgate(&[command], &folder, &[("PORT".to_owned(), free_port().to_string())]);
        let told = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.code() == Some(1) && told.contains(why), "{command}: {told}");
    }
    std::fs::write(folder.join("sorry.wav"), [0x90; 1600]).unwrap();
    let done = voxgate(&["check"], &folder, &[]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn what_holds_is_shown_with_its_origin_and_reads_as_the_same() {
    let env = [("EOU_MS".to_owned(), "600".to_owned())];
    let done = voxgate(&["config", "print"], project(), &env);
    let shown = String::from_utf8(done.stdout).unwrap();
    assert!(shown.contains("# EOU_MS (environment)") && shown.contains("# gateway.toml:"), "{shown}");
    let folder = std::env::temp_dir().join(format!("voxgate-print-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("gateway.toml"), &shown).unwrap();
    let again = voxgate(&["config", "print"], &folder, &[]);
    let values = |text: &str| {
        text.lines()
            .map(|line| line.rsplit_once("  # ").map_or(line, |(v, _)| v).trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&shown), values(std::str::from_utf8(&again.stdout).unwrap()));
    let broken = voxgate(&["config", "print", "--config", "turn"], &folder, &[]);
    assert_eq!(broken.status.code(), Some(1));
    let _ = std::fs::remove_dir_all(folder);
}

/// A judge of JSON Schema that is not ours.
#[test]
fn an_editor_accepts_what_is_sound_and_marks_what_is_not() {
    let schema = std::env::temp_dir().join(format!("voxgate-schema-{}.json", std::process::id()));
    std::fs::write(&schema, voxgate(&["config", "schema"], project(), &[]).stdout).unwrap();
    let judge = |files: &[&str]| {
        let done =
            run("python", &[&["tests/services/judge_schema.py", schema.to_str().unwrap()], files].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    assert_eq!(judge(&["gateway.toml"]), json!([null]));
    let wrong = [
        "key_misspelt",
        "key_in_wrong_table",
        "key_outside_any_table",
        "key_unknown",
        "table_misspelt",
        "table_misspelt_inside",
        "table_unknown",
        "table_is_a_number",
        "table_is_a_list",
        "number_is_a_string",
        "number_too_small",
        "number_too_large",
        "number_with_a_point",
        "flag_is_a_number",
        "flag_is_a_word",
        "duration_without_unit",
        "duration_is_a_number",
        "duration_with_odd_unit",
        "word_misspelt",
        "word_unknown",
        "word_of_a_later_version",
        "list_is_a_string",
        "secret_is_a_list",
        "secret_key_misspelt",
    ];
    let files = wrong.map(|name| format!("tests/broken_configs/{name}.toml"));
    let judged = judge(&files.each_ref().map(String::as_str));
    for (file, said) in files.iter().zip(judged.as_array().unwrap()) {
        assert!(said.is_string(), "{file} is accepted");
    }
    let _ = std::fs::remove_file(schema);
}

#[test]
fn every_help_fits_a_screen_and_ends_in_an_example() {
    let commands: [&[&str]; 8] = [
        &[],
        &["run"],
        &["check"],
        &["doctor"],
        &["call"],
        &["config"],
        &["config", "print"],
        &["config", "schema"],
    ];
    for command in commands {
        let done = voxgate(&[command, &["--help"]].concat(), project(), &[]);
        let help = String::from_utf8(done.stdout).unwrap();
        assert!(help.lines().count() <= 60, "{command:?}: {} lines", help.lines().count());
        let example = help.rfind("Example").unwrap_or_else(|| panic!("{command:?}: {help}"));
        assert!(help[example..].contains("voxgate") && help[example..].lines().count() <= 4, "{help}");
    }
}
