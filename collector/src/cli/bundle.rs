//! `runwire-collector bundle`: an archive for whoever helps: what runs here, how it is configured,
//! what it measures and what is wrong. No payload, no environment, no password; also works when the
//! collector does not.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command};
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::config::line;
use super::http::{administration, get};
use super::{configurable, doctor};
use crate::config::{Config, KEYS, Sources, load, mask};

const DIRECTORY: &str = "runwire-bundle";

/// Of the running collector: file in the archive, and path.
const PAGES: [(&str, &str); 6] = [
    ("metrics.txt", "/metrics"),
    ("readyz.json", "/readyz"),
    ("config-in-force.json", "/debug/config"),
    ("state.json", "/debug/state"),
    ("logs.ndjson", "/debug/logs"),
    ("flows.json", "/api/flows?limit=1000"),
];

/// Of the host.
const FILES: [(&str, &str); 7] = [
    ("host/version.txt", "/proc/version"),
    ("host/os-release.txt", "/etc/os-release"),
    ("host/meminfo.txt", "/proc/meminfo"),
    ("host/mounts.txt", "/proc/self/mountinfo"),
    ("host/sockstat.txt", "/proc/net/sockstat"),
    ("host/kptr_restrict.txt", "/proc/sys/kernel/kptr_restrict"),
    (
        "host/unprivileged_bpf_disabled.txt",
        "/proc/sys/kernel/unprivileged_bpf_disabled",
    ),
];

pub(super) fn command() -> Command {
    configurable(Command::new("bundle"))
        .about("Pack what a helper needs to know into a .tar.gz; works without a collector, too")
        .arg(
            Arg::new("output")
                .long("output")
                .short('o')
                .value_name("FILE")
                .value_parser(ValueParser::path_buf())
                .help(
                    "Where to; - is standard output [default: runwire-bundle-<time>.tar.gz here]",
                ),
        )
}

#[expect(clippy::print_stderr, reason = "standard output may be the archive")]
pub fn bundle(
    sources: &Sources,
    config: &Config,
    arguments: &ArgMatches,
) -> anyhow::Result<ExitCode> {
    let path = arguments.get_one::<PathBuf>("output").cloned();
    let path = path.unwrap_or_else(|| format!("{DIRECTORY}-{}.tar.gz", seconds()).into());
    let files = gather(sources, config);
    let to_stdout = path.as_os_str() == "-";
    let archive = pack(&files)?;
    if to_stdout {
        io::stdout().write_all(&archive)?;
    } else {
        // What runs on a host is not for everybody.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        if let Err(error) = file.write_all(&archive) {
            // A part of it helps nobody, and takes the place that is short.
            let _ = fs::remove_file(&path);
            let path = path.display();
            return Err(error).with_context(|| {
                format!("cannot write {path}: name another place with `--output`")
            });
        }
    }
    let missing = files.iter().filter(|file| file.content.is_err()).count();
    eprintln!(
        "{}: {} files{}",
        if to_stdout {
            "standard output".to_owned()
        } else {
            path.display().to_string()
        },
        files.len() - missing,
        match missing {
            0 => String::new(),
            n => format!("; {n} could not be had, contents.txt says why"),
        }
    );
    Ok(ExitCode::SUCCESS)
}

struct Part {
    name: &'static str,
    content: Result<String, String>,
}

fn gather(sources: &Sources, config: &Config) -> Vec<Part> {
    let mut parts = vec![
        Part {
            name: "version.txt",
            content: Ok(format!("runwire-collector {}\n", env!("CARGO_PKG_VERSION"))),
        },
        Part {
            name: "config.yaml",
            content: (load(sources).map_err(|wrong| wrong.to_string())).map(|loaded| {
                let lines = KEYS.iter().map(|key| line(key, &loaded.config) + "\n");
                lines.collect()
            }),
        },
        Part {
            name: "doctor.txt",
            content: Ok(doctor::report(&doctor::checks(config), false)),
        },
    ];
    for (name, path) in PAGES {
        let address = match path.starts_with("/debug/") {
            true => administration(config.listen),
            false => config.listen,
        };
        let content = get(address, path).map_err(|error| format!("{error:#}"));
        parts.push(Part { name, content });
    }
    for (name, path) in FILES {
        let content = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        parts.push(Part { name, content });
    }
    for part in &mut parts {
        part.content = std::mem::replace(&mut part.content, Ok(String::new()))
            .map(|text| mask(&text))
            .map_err(|text| mask(&text));
    }
    let contents = parts.iter().map(|part| match &part.content {
        Ok(text) => format!("{}: {} bytes\n", part.name, text.len()),
        Err(why) => format!("{}: not there: {why}\n", part.name),
    });
    let contents = Part {
        name: "contents.txt",
        content: Ok(contents.collect()),
    };
    parts.insert(0, contents);
    parts
}

fn pack(parts: &[Part]) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for part in parts {
        let Ok(text) = &part.content else {
            continue;
        };
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(seconds());
        let name = format!("{DIRECTORY}/{}", part.name);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}

fn seconds() -> u64 {
    (SystemTime::now().duration_since(UNIX_EPOCH)).map_or(0, |since| since.as_secs())
}
