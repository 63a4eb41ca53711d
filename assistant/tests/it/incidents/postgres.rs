//! A real PostgreSQL in a folder of its own, reached over a socket in it.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

pub(super) struct Server {
    child: Child,
    pub(super) url: String,
    folder: TempDir,
}

impl Server {
    /// The same server, by a way on which the first connection that says `word` falls silent: it stays open, and nothing comes
    /// through any more.
    pub(super) async fn silent_after(&self, word: &'static str) -> String {
        let socket = self.folder.path().join("data/.s.PGSQL.5432");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_first = Arc::new(AtomicBool::new(true));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                let is_first = Arc::clone(&is_first);
                tokio::spawn(pass_on(client, server, word, is_first));
            }
        });
        format!("postgres://runwire@{address}/postgres")
    }
}

async fn pass_on(
    client: TcpStream,
    server: UnixStream,
    word: &'static str,
    is_first: Arc<AtomicBool>,
) {
    let (mut asked, mut to_client) = client.into_split();
    let (mut answered, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut answered, &mut to_client).await });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = asked.read(&mut buffer).await {
        let mut windows = buffer[..count].windows(word.len());
        if windows.any(|said| said == word.as_bytes()) && is_first.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if to_server.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None`, said aloud, where it is not installed.
pub(super) fn start() -> Option<Server> {
    let Some(programs) = programs() else {
        skipped("postgresql is not installed");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let user = user();
    if let Some((uid, gid)) = user {
        chown(&data, Some(uid), Some(gid)).unwrap();
    }
    let made = command(&programs.join("initdb"), user)
        .args([
            "--no-sync",
            "--auth=trust",
            "--username=runwire",
            "--encoding=UTF8",
            "--locale=C",
            "-D",
        ])
        .arg(&data)
        .current_dir(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let child = command(&programs.join("postgres"), user)
        .arg("-D")
        .arg(&data)
        .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
        .arg(&data)
        .current_dir(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server {
        child,
        url: format!("postgres:///postgres?host={}&user=runwire", data.display()),
        folder,
    };
    let started = Instant::now();
    loop {
        let ready = Command::new(programs.join("pg_isready"))
            .arg("-h")
            .arg(&data)
            .output();
        if ready.is_ok_and(|ready| ready.status.success()) {
            return Some(server);
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "postgres does not start"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Debian keeps them beside each other by version.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .find(|folder| folder.join("initdb").exists())
}

/// PostgreSQL refuses to run as root.
fn user() -> Option<(u32, u32)> {
    let id = |which: &str, name: Option<&str>| -> Option<u32> {
        let output = Command::new("id").arg(which).args(name).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    if id("-u", None)? != 0 {
        return None;
    }
    Some((id("-u", Some("postgres"))?, id("-g", Some("postgres"))?))
}

fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

#[expect(clippy::print_stdout, reason = "a skipped test must say so")]
fn skipped(reason: &str) {
    println!("skipped: {reason}");
}
