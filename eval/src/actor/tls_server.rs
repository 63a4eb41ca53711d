//! A TLS server: OpenSSL's own, with the certificate and the rules of the moment, or one that speaks clear text.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use super::{Live, unspecified};
use crate::scenario::Family;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    family: Family,
    port: u16,
    /// Where the lab's certificates are.
    #[serde(default)]
    certificates: PathBuf,
    #[serde(default)]
    certificate: Certificate,
    /// The only version spoken, as OpenSSL writes it: `tls1_2`. Empty: all.
    #[serde(default)]
    version: String,
    /// Whether clients must show a certificate.
    #[serde(default)]
    ask_client: bool,
    /// Speaks HTTP without TLS.
    #[serde(default)]
    plaintext: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Certificate {
    #[default]
    Good,
    Expired,
    OtherName,
    UnknownCa,
}

impl Certificate {
    fn stem(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Expired => "expired",
            Self::OtherName => "other",
            Self::UnknownCa => "unknown",
        }
    }
}

pub(super) fn run(live: &Live<Settings>) -> Result<()> {
    loop {
        let settings = live.get();
        if settings.plaintext {
            speak_clear_text(&settings, live)?;
            continue;
        }
        let mut server = start(&settings)?;
        while *live.get() == *settings {
            thread::sleep(Duration::from_millis(50));
            if let Some(status) = server.try_wait()? {
                bail!("openssl s_server ended by itself: {status}");
            }
        }
        kill(Pid::from_raw(i32::try_from(server.id())?), Signal::SIGTERM)?;
        server.wait()?;
    }
}

fn start(settings: &Settings) -> Result<Child> {
    let file = |name: &str| settings.certificates.join(name).display().to_string();
    let stem = settings.certificate.stem();
    // By way of this program, so that the kernel ends it with us.
    let mut command = Command::new("/proc/self/exe");
    command.args(["supervise", "--", "openssl", "s_server", "-quiet", "-www"]);
    command.args(["-accept", &settings.port.to_string()]);
    command.arg(match settings.family {
        Family::Ipv4 => "-4",
        Family::Ipv6 => "-6",
    });
    command.args(["-cert", &file(&format!("{stem}.pem"))]);
    command.args(["-key", &file(&format!("{stem}.key"))]);
    if !settings.version.is_empty() {
        command.arg(format!("-{}", settings.version));
    }
    if settings.ask_client {
        command.args(["-Verify", "1", "-verify_return_error"]);
        command.args(["-CAfile", &file("ca.pem")]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run openssl")
}

fn speak_clear_text(settings: &Settings, live: &Live<Settings>) -> Result<()> {
    let address = SocketAddr::new(unspecified(settings.family), settings.port);
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    while *live.get() == *settings {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        // What the client makes of it is the client's to report.
        let _ = stream.read(&mut [0; 2048]);
        let _ = stream.write_all(
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    }
    Ok(())
}
