//! Every node's exposition on one port: `GET /NUMBER`.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use super::template::Template;

pub(crate) struct Nodes {
    pub(crate) address: SocketAddr,
}

struct Shared {
    healthy: Template,
    broken: Template,
    /// The number of the broken node.
    which: usize,
    started: Instant,
}

impl Nodes {
    /// Until this program ends.
    pub(crate) fn serve(healthy: Template, broken: Template, which: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            healthy,
            broken,
            which,
            started: Instant::now(),
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                // A scraper that went away is its own affair.
                thread::spawn(move || drop(shared.answer(&stream)));
            }
        });
        Ok(Self { address })
    }
}

impl Shared {
    fn answer(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let path = line.split(' ').nth(1).unwrap_or_default();
            let number = path.trim_start_matches('/').parse().unwrap_or_default();
            while !line.trim().is_empty() {
                line.clear();
                reader.read_line(&mut line)?;
            }
            let template = match number == self.which {
                true => &self.broken,
                false => &self.healthy,
            };
            let body = template.text(number, self.started.elapsed().as_secs_f64());
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.as_bytes())?;
        }
    }
}
