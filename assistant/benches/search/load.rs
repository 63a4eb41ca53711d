//! Clients that ask a server over HTTP, each with one question at a time. Plain threads and sockets: on a small machine the
//! clients use the same cores as the server, so they must be cheap.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::quantiles;

const LOAD_FOR: Duration = Duration::from_secs(10);
const CLIENTS: [usize; 3] = [1, 8, 64];

/// `bodies` are what is posted to `/search` at `address`, in turn.
pub(crate) fn run(address: &str, bodies: &[String]) -> std::io::Result<()> {
    for clients in CLIENTS {
        let until = Instant::now() + LOAD_FOR;
        let per_client = std::thread::scope(|scope| {
            let client = |number: usize| {
                scope.spawn(move || ask(address, bodies.iter().cycle().skip(number * 7), until))
            };
            let started: Vec<_> = (0..clients).map(client).collect();
            let joined = started.into_iter().map(|client| {
                let panicked = |_| Err(std::io::Error::other("a client panicked"));
                client.join().unwrap_or_else(panicked)
            });
            joined.collect::<std::io::Result<Vec<_>>>()
        })?;
        let refused: usize = per_client.iter().map(|(_, refused)| refused).sum();
        let took: Vec<Duration> = per_client.into_iter().flat_map(|(took, _)| took).collect();
        println!(
            "over HTTP, {clients} clients: {:.0} requests/s, {refused} refused, {}",
            took.len() as f64 / LOAD_FOR.as_secs_f64(),
            quantiles(took)
        );
    }
    Ok(())
}

/// How long each answer took, and how many said 429.
fn ask<'a>(
    address: &str,
    bodies: impl Iterator<Item = &'a String>,
    until: Instant,
) -> std::io::Result<(Vec<Duration>, usize)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let (mut took, mut refused) = (Vec::new(), 0);
    for body in bodies {
        let started = Instant::now();
        if started > until {
            break;
        }
        let request = format!(
            "POST /search HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let (status, length) = head(&mut answers)?;
        let mut answer = vec![0; length];
        answers.read_exact(&mut answer)?;
        took.push(started.elapsed());
        match status {
            200 => {}
            429 => refused += 1,
            _ => return Err(std::io::Error::other(String::from_utf8_lossy(&answer))),
        }
    }
    Ok((took, refused))
}

/// Status and length.
fn head(answers: &mut impl BufRead) -> std::io::Result<(u16, usize)> {
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok((status, length));
        }
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest
                .split(' ')
                .next()
                .and_then(|code| code.parse().ok())
                .unwrap_or_default();
        }
        if let Some(rest) = line.strip_prefix("content-length:") {
            length = rest.trim().parse().unwrap_or_default();
        }
    }
}
