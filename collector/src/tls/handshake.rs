//! One handshake, from the client hello to how it ended. Pure: fed with bytes and times.

use super::hello::{self, ClientHello, ServerHello};
use super::names;
use super::record::{Event, Reader};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Completed,
    /// From a closed set: the name of an alert, or what else came in between.
    Failed(&'static str),
}

pub const PLAINTEXT: &str = "plaintext";
const CLOSED: &str = "closed";
const RESET: &str = "reset";
const TIMEOUT: &str = "timeout";
const HIDDEN_ALERT: &str = "encrypted_alert";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    pub alert: &'static str,
    pub level: &'static str,
    pub side: Side,
}

/// Everything that is known once a handshake is over.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub hello: ClientHello,
    pub chosen: Option<ServerHello>,
    pub alerts: Vec<Alert>,
    pub end: End,
    pub duration_ns: u64,
    /// DER, the server's own first. Empty where it cannot be read: from TLS 1.3 on.
    pub certificates: Vec<Vec<u8>>,
}

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const TLS13: u16 = 0x0304;
const FATAL: u8 = 2;
const MAX_ALERTS: usize = 8;
/// An encrypted alert has 19 bytes (11 with the short tags); whatever ends a handshake has more.
const LONGEST_ALERT: usize = 24;
/// A server may still refuse what the client took for a finished handshake.
const REFUSAL_NS: u64 = 1_000_000_000;

#[derive(Default)]
pub struct Handshake {
    client: Direction,
    server: Direction,
    started_ns: u64,
    hello: Option<ClientHello>,
    chosen: Option<ServerHello>,
    certificates: Vec<Vec<u8>>,
    alerts: Vec<Alert>,
    ended: Option<(End, u64)>,
    /// What the server sent first after a handshake of TLS 1.3.
    after: After,
}

#[derive(Default)]
struct Direction {
    reader: Reader,
    has_changed: bool,
    is_finished: bool,
    is_protected: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum After {
    #[default]
    Nothing,
    PerhapsAlert,
    Data,
}

impl Handshake {
    pub fn read(&mut self, side: Side, bytes: &[u8], now_ns: u64) {
        let events = self.direction(side).reader.read(bytes);
        for event in events {
            self.event(side, event, now_ns);
        }
    }

    /// The client has said what it wants.
    pub fn has_begun(&self) -> bool {
        self.hello.is_some()
    }

    /// What began is no TLS.
    pub fn is_refuted(&self) -> bool {
        self.hello.is_none() && self.ended.is_some()
    }

    pub fn server_name(&self) -> Option<&str> {
        self.hello.as_ref()?.server_name.as_deref()
    }

    /// The header of the server's first record behind the handshake.
    pub fn read_after(&mut self, header: &[u8]) {
        if self.after != After::Nothing {
            return;
        }
        self.after = match header {
            [21, ..] => After::PerhapsAlert,
            [_, _, _, 0, low] if usize::from(*low) <= LONGEST_ALERT => After::PerhapsAlert,
            _ => After::Data,
        };
    }

    pub fn close(&mut self, is_reset: bool, now_ns: u64) {
        if self.after == After::PerhapsAlert
            && let Some((End::Completed, at)) = self.ended
        {
            self.hidden_alert(Side::Server);
            self.ended = Some((End::Failed(HIDDEN_ALERT), at));
        }
        self.after = After::Data;
        self.end(End::Failed(if is_reset { RESET } else { CLOSED }), now_ns);
    }

    pub fn time_out(&mut self, now_ns: u64) {
        self.end(End::Failed(TIMEOUT), now_ns);
    }

    /// Nothing that may still come would change the outcome.
    pub fn is_settled(&self, now_ns: u64) -> bool {
        match self.ended {
            None => false,
            Some((End::Failed(_), _)) => true,
            Some((End::Completed, at)) => {
                !self.is_tls13()
                    || self.after == After::Data
                    || now_ns.saturating_sub(at) >= REFUSAL_NS
            }
        }
    }

    pub fn into_outcome(self) -> Option<Outcome> {
        let (end, ended_ns) = self.ended?;
        Some(Outcome {
            hello: self.hello?,
            chosen: self.chosen.filter(|chosen| !chosen.is_retry),
            alerts: self.alerts,
            end,
            duration_ns: ended_ns.saturating_sub(self.started_ns),
            certificates: self.certificates,
        })
    }

    fn event(&mut self, side: Side, event: Event, now_ns: u64) {
        match event {
            Event::Message(kind, body) => self.message(side, kind, &body, now_ns),
            Event::Alert(level, description) => {
                self.alert(side, names::alert(description), names::level(level));
                let is_notice = matches!(description, 0 | 90 | 100);
                if level == FATAL || (self.is_tls13() && !is_notice) {
                    self.end(End::Failed(names::alert(description)), now_ns);
                }
            }
            Event::HiddenAlert if self.ended.is_none() => {
                self.hidden_alert(side);
                self.end(End::Failed(HIDDEN_ALERT), now_ns);
            }
            Event::HiddenAlert => {}
            Event::ChangeCipherSpec => self.direction(side).has_changed = true,
            Event::HiddenMessage => {
                self.direction(side).is_finished = true;
                if self.client.is_finished && self.server.is_finished {
                    self.end(End::Completed, now_ns);
                }
            }
            Event::Protected(length) => self.protected(side, length, now_ns),
            Event::NotTls if side == Side::Server && self.hello.is_some() => {
                self.end(End::Failed(PLAINTEXT), now_ns);
            }
            Event::NotTls => self.end(End::Failed(CLOSED), now_ns),
        }
    }

    fn message(&mut self, side: Side, kind: u8, body: &[u8], now_ns: u64) {
        match (side, kind) {
            // The second one, after a retry, offers nothing new.
            (Side::Client, CLIENT_HELLO) if self.hello.is_none() => {
                self.hello = hello::client_hello(body);
                self.started_ns = now_ns;
            }
            (Side::Server, SERVER_HELLO) => {
                self.chosen = hello::server_hello(body).or(self.chosen.take());
            }
            (Side::Server, CERTIFICATE) if self.certificates.is_empty() => {
                let chain = hello::certificates(body);
                self.certificates = chain.into_iter().map(<[u8]>::to_vec).collect();
            }
            _ => {}
        }
    }

    fn protected(&mut self, side: Side, length: usize, now_ns: u64) {
        self.direction(side).is_protected = true;
        if !self.is_tls13() {
            // Application data: whatever we missed, the handshake is behind us.
            if self.client.has_changed && self.server.has_changed {
                self.end(End::Completed, now_ns);
            }
            return;
        }
        if !(self.client.is_protected && self.server.is_protected) {
            return;
        }
        if side == Side::Client && length <= LONGEST_ALERT {
            self.hidden_alert(Side::Client);
            self.end(End::Failed(HIDDEN_ALERT), now_ns);
        }
        self.end(End::Completed, now_ns);
    }

    /// The first end counts.
    fn end(&mut self, end: End, now_ns: u64) {
        self.ended.get_or_insert((end, now_ns));
    }

    fn hidden_alert(&mut self, side: Side) {
        self.alert(side, names::HIDDEN_ALERT, "unknown");
    }

    fn alert(&mut self, side: Side, alert: &'static str, level: &'static str) {
        if self.alerts.len() < MAX_ALERTS {
            self.alerts.push(Alert { alert, level, side });
        }
    }

    fn is_tls13(&self) -> bool {
        (self.chosen.as_ref()).is_some_and(|chosen| chosen.version >= TLS13)
    }

    fn direction(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}
