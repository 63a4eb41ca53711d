//! Compiles `bpf/*.bpf.c` with clang, and turns `bpf/include/abi.h` into Rust types.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// Tried in this order unless the environment names one. Older ones make objects that some kernels
/// refuse.
const CLANGS: [&str; 3] = ["clang-19", "clang-16", "clang"];

fn main() -> anyhow::Result<()> {
    // Of this build, not of the one that compiled this script: a target directory may be copied.
    let package = env::var_os("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR")?;
    let sources = Path::new(&package).join("../bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    // The directory, not its files, so that a new file is noticed too.
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-env-changed=CLANG");

    let clang = find_clang()?;
    for file in sources.read_dir().context("cannot read bpf/")? {
        let source = file?.path();
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        if let Some(stem) = name
            .strip_suffix(".c")
            .filter(|stem| stem.ends_with(".bpf"))
        {
            compile(&clang, &source, &out.join(format!("{stem}.o")))?;
        }
    }
    generate_types(&sources.join("include/abi.h"), &out.join("abi.rs"))
}

fn find_clang() -> anyhow::Result<String> {
    let runs = |clang: &str| {
        let version = Command::new(clang).arg("--version").output();
        version.is_ok_and(|version| version.status.success())
    };
    if let Ok(clang) = env::var("CLANG") {
        ensure!(
            runs(&clang),
            "cannot run `{clang}`: CLANG must name a clang"
        );
        return Ok(clang);
    }
    CLANGS
        .into_iter()
        .find(|clang| runs(clang))
        .map(str::to_owned)
        .context("cannot run clang: install clang-19 (or clang-16), or set CLANG")
}

fn compile(clang: &str, source: &Path, object: &Path) -> anyhow::Result<()> {
    let include = source.with_file_name("include");
    let output = Command::new(clang)
        // v4 and later have instructions that Linux 6.1 does not know.
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-c"])
        .args(["-Wall", "-Wextra", "-Wno-unused-parameter"])
        .arg("-I")
        .arg(include)
        .args(architecture_headers())
        .arg(source)
        .arg("-o")
        .arg(object)
        .output()
        .with_context(|| format!("cannot run `{clang}`"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "cannot compile {} (are clang and libbpf-dev installed?)\n{messages}",
            source.display()
        );
    }
    for line in messages.lines() {
        println!("cargo::warning={line}");
    }
    Ok(())
}

/// Where Debian has `asm/types.h`, which the BPF target does not look for by itself: of this machine, or of a cross compiler.
fn architecture_headers() -> Option<String> {
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").ok()?;
    let directories = [
        format!("/usr/include/{architecture}-linux-gnu"),
        format!("/usr/{architecture}-linux-gnu/include"),
    ];
    let found = directories
        .iter()
        .find(|it| Path::new(it).join("asm").is_dir())?;
    Some(format!("-I{found}"))
}

fn generate_types(header: &Path, to: &Path) -> anyhow::Result<()> {
    bindgen::Builder::default()
        .header(header.to_string_lossy())
        .allowlist_file(".*/abi(/.*)?\\.h")
        .prepend_enum_name(false)
        .layout_tests(true)
        .parse_callbacks(Box::new(PlainBytes))
        .generate()
        .context("cannot turn abi.h into Rust (is libclang installed?)")?
        .write_to_file(to)
        .context("cannot write abi.rs")
}

/// Lets every type be read from and written as bytes; refuses to compile what has padding.
#[derive(Debug)]
struct PlainBytes;

impl bindgen::callbacks::ParseCallbacks for PlainBytes {
    fn add_derives(&self, info: &bindgen::callbacks::DeriveInfo<'_>) -> Vec<String> {
        match info.kind {
            bindgen::callbacks::TypeKind::Struct => ["FromBytes", "IntoBytes", "Immutable"]
                .map(|name| format!("::zerocopy::{name}"))
                .into(),
            _ => Vec::new(),
        }
    }
}
