//! Compiles `bpf/packets.bpf.c`, the agent that `bench` compares the collector with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

/// As in the collector's build: older ones make objects that some kernels refuse.
const CLANGS: [&str; 3] = ["clang-19", "clang-16", "clang"];

fn main() -> io::Result<()> {
    let variable = |name| env::var(name).map_err(io::Error::other);
    let source = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("bpf/packets.bpf.c");
    let object = PathBuf::from(variable("OUT_DIR")?).join("packets.bpf.o");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-env-changed=CLANG");

    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    let clangs = env::var("CLANG").map_or(CLANGS.map(str::to_owned).into(), |clang| vec![clang]);
    for clang in clangs {
        let compiled = Command::new(&clang)
            // v4 and later have instructions that Linux 6.1 does not know.
            .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-c"])
            // Where Debian has `asm/types.h`, which the BPF target does not look for by itself.
            .arg(format!("-I/usr/include/{architecture}-linux-gnu"))
            .arg(&source)
            .arg("-o")
            .arg(&object)
            .status();
        match compiled {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => {
                let file = source.display();
                let message =
                    format!("{clang} cannot compile {file} ({status}): install libbpf-dev");
                return Err(io::Error::other(message));
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(
        "cannot run clang: install clang-19 (or clang-16), or set CLANG",
    ))
}
