//! A wire between two namespaces in user space: two TAP devices, and in between delay, loss and all that
//! real wires do to packets, which the kernel would only give with netem.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::Live;
use crate::netns;
use crate::seed::Random;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    near: End,
    far: End,
    /// One way, in either direction.
    #[serde(default)]
    delay_ms: f64,
    /// Up to this much more, drawn for every frame; more than the gap between frames reorders them.
    #[serde(default)]
    jitter_ms: f64,
    /// Share of the frames that vanish, in either direction.
    #[serde(default)]
    loss: f64,
    /// Share of the frames from the node that vanish, besides `loss`.
    #[serde(default)]
    loss_from: f64,
    /// Share of the frames to the node that vanish, besides `loss`.
    #[serde(default)]
    loss_to: f64,
    /// Share of the frames that vanish of those with a piece of an IP packet that is not its first.
    #[serde(default)]
    loss_of_pieces: f64,
    /// Share of the frames that `reorder_ms` longer are on their way, so that later ones overtake them.
    #[serde(default)]
    reorder: f64,
    #[serde(default = "default_reorder")]
    reorder_ms: f64,
    /// Share of the frames that arrive twice.
    #[serde(default)]
    duplicate: f64,
    /// Share of the frames that arrive with one bit changed, behind the IP header.
    #[serde(default)]
    corrupt: f64,
    /// Speed in each direction; 0 is as fast as it goes.
    #[serde(default)]
    rate_kbit: f64,
    /// What may wait for its turn at that speed; more is lost.
    #[serde(default = "default_queue")]
    queue_bytes: f64,
    /// Bigger IP packets vanish without a word; 0 takes all.
    #[serde(default)]
    mtu: usize,
    /// How fast frames are taken from the devices; behind that their own queues fill. 0 is at once.
    #[serde(default)]
    frames_per_second: f64,
}

fn default_reorder() -> f64 {
    10.0
}

fn default_queue() -> f64 {
    100_000.0
}

const ETHERNET_HEADER: usize = 14;
/// Ethernet and the longer of the two IP headers, without options.
const HEADERS: usize = ETHERNET_HEADER + 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    FromNode,
    ToNode,
}

impl Settings {
    fn loss(&self, direction: Direction, frame: &[u8]) -> [f64; 3] {
        let one_way = match direction {
            Direction::FromNode => self.loss_from,
            Direction::ToNode => self.loss_to,
        };
        let of_pieces = if is_later_piece(frame) {
            self.loss_of_pieces
        } else {
            0.0
        };
        [self.loss, one_way, of_pieces]
    }
}

/// Whether the frame holds a piece of an IP packet, and not its first.
fn is_later_piece(frame: &[u8]) -> bool {
    const FRAGMENT_HEADER: u8 = 44;
    let offset = match (frame.get(12..14), frame.get(ETHERNET_HEADER..HEADERS + 4)) {
        (Some([0x08, 0x00]), Some(ip)) => u16::from_be_bytes([ip[6], ip[7]]) << 3,
        (Some([0x86, 0xdd]), Some(ip)) if ip[6] == FRAGMENT_HEADER => {
            u16::from_be_bytes([ip[42], ip[43]]) & !7
        }
        _ => 0,
    };
    offset != 0
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    namespace: String,
    device: String,
}

pub(super) fn run(live: &Live<Settings>) -> Result<()> {
    let settings = live.get();
    let near = Arc::new(open(&settings.near)?);
    let far = Arc::new(open(&settings.far)?);
    for (from, to, direction, purpose) in [
        (&near, &far, Direction::FromNode, "there"),
        (&far, &near, Direction::ToNode, "back"),
    ] {
        let (sender, receiver) = channel();
        let (from, to, live) = (Arc::clone(from), Arc::clone(to), live.clone());
        thread::spawn(move || take(&from, &live, direction, &sender, Random::new(1, purpose)));
        thread::spawn(move || give(&to, &receiver));
    }
    loop {
        thread::park();
    }
}

fn open(end: &End) -> Result<SyncDevice> {
    netns::inside(&end.namespace, || {
        DeviceBuilder::new()
            .name(&end.device)
            .layer(Layer::L2)
            .inherit_enable_state()
            .build_sync()
            .with_context(|| {
                format!(
                    "cannot make the TAP device {} in {}",
                    end.device, end.namespace
                )
            })
    })
}

struct Frame {
    due: Instant,
    number: u64,
    bytes: Vec<u8>,
}

impl Ord for Frame {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl PartialOrd for Frame {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Frame {}

fn take(
    from: &SyncDevice,
    live: &Live<Settings>,
    direction: Direction,
    queue: &Sender<Frame>,
    mut random: Random,
) -> Result<()> {
    let mut buffer = vec![0; 65_600];
    let mut line_free = Instant::now();
    for number in 0.. {
        let Ok(length) = from.recv(&mut buffer) else {
            // Not up yet.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let settings = live.get();
        if settings.frames_per_second > 0.0 {
            thread::sleep(Duration::from_secs_f64(1.0 / settings.frames_per_second));
        }
        if settings.mtu > 0 && length > settings.mtu + ETHERNET_HEADER {
            continue;
        }
        if settings
            .loss(direction, &buffer[..length])
            .iter()
            .any(|share| random.unit() < *share)
        {
            continue;
        }
        let now = Instant::now();
        let mut due = now;
        if settings.rate_kbit > 0.0 {
            let bytes_per_second = settings.rate_kbit * 125.0;
            let waiting = line_free.saturating_duration_since(now).as_secs_f64() * bytes_per_second;
            if waiting > settings.queue_bytes {
                continue;
            }
            line_free =
                line_free.max(now) + Duration::from_secs_f64(length as f64 / bytes_per_second);
            due = line_free;
        }
        let mut delay_ms = settings.delay_ms + settings.jitter_ms * random.unit();
        if random.unit() < settings.reorder {
            delay_ms += settings.reorder_ms;
        }
        due += Duration::from_secs_f64(delay_ms.max(0.0) / 1000.0);
        let mut bytes = buffer[..length].to_vec();
        if length > HEADERS && random.unit() < settings.corrupt {
            let last = length as u64 - 1;
            let hit = random.between(HEADERS as u64, last);
            bytes[usize::try_from(hit)?] ^= 0x10;
        }
        let copies = if random.unit() < settings.duplicate {
            2
        } else {
            1
        };
        for copy in 0..copies {
            queue.send(Frame {
                due,
                number: 2 * number + copy,
                bytes: bytes.clone(),
            })?;
        }
    }
    bail!("the wire is worn out")
}

fn give(to: &SyncDevice, queue: &Receiver<Frame>) {
    let mut waiting = BinaryHeap::new();
    loop {
        let pause = waiting
            .peek()
            .map_or(Duration::from_secs(1), |Reverse(frame): &Reverse<Frame>| {
                frame.due.saturating_duration_since(Instant::now())
            });
        if pause.is_zero() {
            if let Some(Reverse(frame)) = waiting.pop() {
                // A device that is down loses frames, as a real one does.
                let _ = to.send(&frame.bytes);
            }
            continue;
        }
        match queue.recv_timeout(pause) {
            Ok(frame) => waiting.push(Reverse(frame)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
