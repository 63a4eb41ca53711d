use super::*;

fn read(yaml: &str) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, yaml).unwrap();
    file(&path).map_err(|error| {
        let shown = path.display().to_string();
        error.to_string().replace(&shown, "FILE")
    })
}

#[test]
fn a_file_sets_any_key() {
    let settings =
        read("listen: 0.0.0.0:80\nrunbooks: [a, b]\nprometheus: http://p:9090/\n").unwrap();
    assert_eq!(settings.listen.unwrap().port(), 80);
    assert_eq!(settings.runbooks.unwrap().len(), 2);
    assert_eq!(read("").unwrap(), Settings::default());
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    let message = read("promethius: http://p\n").unwrap_err();
    assert!(
        message.starts_with(
            "the config file FILE has no key `promethius`; did you mean `prometheus`?"
        ),
        "{message}"
    );
    // Its colon stands behind its value.
    let message = read("prometheus http://u:hunter2@p: x\n").unwrap_err();
    assert!(
        message.contains("has no key `prometheus http://p`"),
        "{message}"
    );
}

#[test]
fn a_wrong_value_that_may_hold_a_secret_is_not_shown() {
    for yaml in [
        "prometheus_headers: 'X-Key: hunter2'\n",
        "notify_url: ['https://hooks.example/hunter2']\n",
        "incidents: {url: 'postgres://u:hunter2@db/x'}\n",
        "prometheus: ['http://u:hunter2@prometheus']\n",
    ] {
        let message = read(yaml).unwrap_err();
        assert!(message.contains("has a wrong value"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn a_wrong_value_names_its_key() {
    for (yaml, start) in [
        ("listen: nowhere\n", "`listen` in FILE has a wrong value"),
        ("runbooks: {a: b}\n", "`runbooks` in FILE has a wrong value"),
        (
            "- listen\n",
            "cannot read the config file FILE: it is not a mapping",
        ),
        ("listen: [\n", "cannot read the config file FILE: "),
    ] {
        let message = read(yaml).unwrap_err();
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn a_flag_beats_the_file() {
    let flag = Settings {
        log: Some("debug".into()),
        ..Settings::default()
    };
    let merged = flag.or(read("log: warn\nlisten: 127.0.0.1:1\n").unwrap());
    assert_eq!(merged.log.as_deref(), Some("debug"));
    assert!(merged.listen.is_some());
}

#[test]
fn urls_are_checked() {
    assert_eq!(
        base_url("prometheus", "http://p:9090/").unwrap(),
        "http://p:9090"
    );
    for bad in ["p:9090", "http://", "http://a b", "ftp://p"] {
        let message = base_url("prometheus", bad).unwrap_err().to_string();
        assert!(message.starts_with("`prometheus` is"), "{message}");
    }
}

#[test]
fn edit_distances() {
    for (a, b, distance) in [
        ("", "abc", 3),
        ("kitten", "sitting", 3),
        ("same", "same", 0),
    ] {
        assert_eq!(edit_distance(a, b), distance);
    }
}

#[test]
fn every_key_is_in_the_readme() {
    let readme = include_str!("../../../../README.md");
    let (_, table) = readme.split_once("`runwire-assistant serve`\n").unwrap();
    let table: Vec<&str> = (table.trim_start().lines())
        .take_while(|line| line.starts_with('|'))
        .collect();
    let settings = Settings::augment_args(clap::Command::new(""));
    let mut keys = 0;
    for argument in settings
        .get_arguments()
        .filter(|argument| *argument.get_id() != "config")
    {
        let start = format!(
            "| `{}` | `--{}` | `{}` |",
            argument.get_id(),
            argument.get_long().unwrap(),
            argument.get_env().unwrap().display(),
        );
        assert!(
            table.iter().any(|row| row.starts_with(&start)),
            "the README lacks the row {start}"
        );
        keys += 1;
    }
    assert_eq!(table.len(), keys + 2, "a row is of no key, or one is twice");
}

#[test]
fn what_is_no_url_is_named_without_what_may_be_secret_in_it() {
    for (url, shown) in [
        ("slack", "slack"),
        ("hooks.slack.com/services/hunter2", "hooks.slack.com/…"),
        ("user:hunter2@prometheus:9090", "prometheus:9090"),
        ("ftp://user:hunter2@p/x?hunter2", "ftp://p/…"),
        ("http:/user:hunter@2@p", "p"),
    ] {
        let message = base_url("notify_url", url).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("`notify_url` is \"{shown}\"; give")),
            "{message}"
        );
    }
}
