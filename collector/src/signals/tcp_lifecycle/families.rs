//! The metric families of [`super::TcpLifecycle`].

use crate::export::{Buckets, Counter, EDGE, Gauge, Histogram, OWNER, Registry};
use crate::k8s::CLUSTER;

pub(super) struct Families {
    pub(super) connect_attempts: Counter,
    pub(super) connect_failures: Counter,
    pub(super) connect_fallbacks: Counter,
    pub(super) connect_duration: Histogram,
    pub(super) connections_opened: Counter,
    pub(super) connections_closed: Counter,
    pub(super) connection_duration: Histogram,
    pub(super) connections: Gauge,
    pub(super) rtt: Histogram,
    pub(super) min_rtt: Histogram,
    pub(super) unread_bytes: Gauge,
    pub(super) half_open: Gauge,
    pub(super) segments_sent: Counter,
    pub(super) segments_received: Counter,
    pub(super) data_segments_sent: Counter,
    pub(super) data_segments_received: Counter,
    pub(super) dsacks: Counter,
    pub(super) reordering_events: Counter,
    pub(super) bytes_sent: Counter,
    pub(super) bytes_received: Counter,
    pub(super) zone_bytes: Counter,
    pub(super) busy: Counter,
    pub(super) receive_window_limited: Counter,
    pub(super) send_buffer_limited: Counter,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Self {
        // No more of them than there are slots in `abi.h`.
        let rtt = || Buckets::exponential(25e-6, 2.0, 17);
        Self {
            connect_attempts: connect_attempts(registry),
            connect_failures: connect_failures(registry),
            connect_fallbacks: registry.counter(
                "tcp_connect_fallbacks",
                "TCP connections opened right after the same program was refused at that port over the other family, which is the label",
                &[EDGE, &["family"]],
            ),
            connect_duration: registry.histogram(
                "tcp_connect_duration_seconds",
                "Time from SYN to an open TCP connection, at the client",
                &[EDGE],
                Buckets::exponential(50e-6, 2.0, 18),
            ),
            connections_opened: registry.counter(
                "tcp_connections_opened",
                "TCP connections opened, as seen by the end that is the role",
                &[EDGE, &["role"]],
            ),
            connections_closed: registry.counter(
                "tcp_connections_closed",
                "Open TCP connections that ended, as seen by the end that is the role",
                &[EDGE, &["role", "error"]],
            ),
            connection_duration: registry.histogram(
                "tcp_connection_duration_seconds",
                "Life of a TCP connection, from open to closed",
                &[EDGE, &["role"]],
                Buckets::exponential(1e-3, 4.0, 12),
            ),
            connections: registry.gauge(
                "tcp_connections",
                "TCP sockets in a state",
                &[OWNER, &["state"]],
            ),
            unread_bytes: registry.gauge(
                "tcp_unread_bytes",
                "TCP payload received that the program has not read yet",
                &[OWNER],
            ),
            half_open: registry.gauge(
                "tcp_half_open_connections",
                "TCP handshakes at a listener that are not complete",
                &[OWNER],
            ),
            rtt: registry.histogram(
                "tcp_rtt_seconds",
                "Smoothed round-trip time of a socket, whenever its data were acknowledged and when it closes",
                &[EDGE],
                rtt(),
            ),
            min_rtt: registry.histogram(
                "tcp_min_rtt_seconds",
                "Least round-trip time of a socket, whenever its data were acknowledged and when it closes",
                &[EDGE],
                rtt(),
            ),
            segments_sent: registry.counter(
                "tcp_segments_sent",
                "TCP segments sent, those without data included",
                &[EDGE],
            ),
            segments_received: registry.counter(
                "tcp_segments_received",
                "TCP segments received, those without data included, counted at the receiver",
                &[EDGE],
            ),
            data_segments_sent: registry.counter(
                "tcp_data_segments_sent",
                "TCP segments with data sent, those sent again included",
                &[EDGE],
            ),
            data_segments_received: registry.counter(
                "tcp_data_segments_received",
                "TCP segments with data received, counted at the receiver",
                &[EDGE],
            ),
            dsacks: registry.counter(
                "tcp_dsacks",
                "Segments that the receiver reported to have got twice, counted at the sender",
                &[EDGE],
            ),
            reordering_events: registry.counter(
                "tcp_reordering_events",
                "Times that a sender found its segments to have arrived out of order",
                &[EDGE],
            ),
            bytes_sent: registry.counter(
                "tcp_bytes_sent",
                "TCP payload sent and acknowledged, counted at the sender",
                &[EDGE],
            ),
            // Without Kubernetes nobody knows of zones.
            zone_bytes: registry.for_signal(CLUSTER).counter(
                "tcp_zone_bytes",
                "TCP payload from one zone to another or within one, both directions counted at the server",
                &[&["src_zone", "dst_zone", "crossing"]],
            ),
            bytes_received: registry.counter(
                "tcp_bytes_received",
                "TCP payload received, counted at the receiver",
                &[EDGE],
            ),
            busy: registry.counter(
                "tcp_busy_seconds",
                "Time in which a sender had data that was not acknowledged or not sent",
                &[EDGE],
            ),
            receive_window_limited: registry.counter(
                "tcp_receive_window_limited_seconds",
                "Time in which a sender waited for room at the receiver",
                &[EDGE],
            ),
            send_buffer_limited: registry.counter(
                "tcp_send_buffer_limited_seconds",
                "Time in which a sender was held up by its own buffer",
                &[EDGE],
            ),
        }
    }
}

pub(in crate::signals) fn connect_attempts(registry: &Registry) -> Counter {
    registry.counter(
        "tcp_connect_attempts",
        "TCP connections that a client began to open",
        &[EDGE],
    )
}

pub(in crate::signals) fn connect_failures(registry: &Registry) -> Counter {
    registry.counter(
        "tcp_connect_failures",
        "TCP connections that were not opened; family is that of the address that was asked for",
        &[EDGE, &["reason", "family"]],
    )
}
