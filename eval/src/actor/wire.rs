//! A wire between two namespaces in user space: two TAP devices, and in between delay, jitter and loss,
//! which the kernel would only give with netem.

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
    for (from, to, purpose) in [(&near, &far, "there"), (&far, &near, "back")] {
        let (sender, receiver) = channel();
        let (from, to, live) = (Arc::clone(from), Arc::clone(to), live.clone());
        thread::spawn(move || take(&from, &live, &sender, Random::new(1, purpose)));
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
    queue: &Sender<Frame>,
    mut random: Random,
) -> Result<()> {
    let mut buffer = vec![0; 65_600];
    for number in 0.. {
        let Ok(length) = from.recv(&mut buffer) else {
            // Not up yet.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let settings = live.get();
        if random.unit() < settings.loss {
            continue;
        }
        let delay_ms = settings.delay_ms + settings.jitter_ms * random.unit();
        queue.send(Frame {
            due: Instant::now() + Duration::from_secs_f64(delay_ms.max(0.0) / 1000.0),
            number,
            bytes: buffer[..length].to_vec(),
        })?;
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
