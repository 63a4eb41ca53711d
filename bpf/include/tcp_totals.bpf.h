/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a TCP socket has sent and received, and how much of that was not reported yet.
 *
 * The set_state program (at close) and the iterator (while the socket lives) may look at one socket
 * at the same time on two CPUs. Each moves the socket's «reported» value forward by compare and
 * swap and reports exactly the step it made, so nothing is lost and nothing counted twice.
 */
#pragma once

#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "histogram.bpf.h"
#include "kernel.h"

/* What we keep per socket. The kernel frees it with the socket. */
struct tcp_socket {
	__u64 connect_ns;
	__u64 established_ns;
	__u64 bytes_sent;
	__u64 bytes_received;
	__u32 segments_sent;
	__u32 segments_received;
	__u32 data_segments_sent;
	__u32 data_segments_received;
	__u32 dsacks;
	__u32 reorderings;
	__u32 busy;
	__u32 receive_window_limited;
	__u32 send_buffer_limited;
	/** enum tcp_role */
	__u32 role;
	/** enum tcp_event, or-ed: what happened and is not in its edge yet. */
	__u32 unreported;
	/** While it connects: the last error that the kernel learnt of, as a number above zero. */
	__u32 connect_error;
	/** The process that called connect(). */
	__u32 process;
	/** The last state that was worked on: SYN_SENT, ESTABLISHED or CLOSE. */
	__u32 done;
};

/* In microseconds, as the kernel keeps them. */
const volatile __u64 tcp_rtt_bounds[HISTOGRAM_BOUNDS] = {};
const volatile __u64 tcp_min_rtt_bounds[HISTOGRAM_BOUNDS] = {};

enum tcp_event {
	TCP_EVENT_ATTEMPT = 1,
	TCP_EVENT_OPENED = 2,
	TCP_EVENT_FALLBACK = 4,
};

enum { REPORT_RETRIES = 4 };

static __always_inline __u64 advance64(__u64 *reported, __u64 now)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < REPORT_RETRIES; i++) {
		__u64 seen = *(volatile __u64 *)reported;

		if ((__s64)(now - seen) <= 0)
			return 0;
		if (__sync_val_compare_and_swap(reported, seen, now) == seen)
			return now - seen;
	}
	return 0;
}

static __always_inline __u32 advance32(__u32 *reported, __u32 now)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < REPORT_RETRIES; i++) {
		__u32 seen = *(volatile __u32 *)reported;

		if ((__s32)(now - seen) <= 0)
			return 0;
		if (__sync_val_compare_and_swap(reported, seen, now) == seen)
			return now - seen;
	}
	return 0;
}

/*
 * Payload that the peer has acknowledged. `bytes_acked` counts our SYN and FIN too, `bytes_sent`
 * counts what was sent again: the smaller one is right.
 */
static __always_inline __u64 bytes_delivered(const struct tcp_sock *tp)
{
	__u64 original = tp->bytes_sent - tp->bytes_retrans;
	__u64 acknowledged = tp->bytes_acked;

	return acknowledged < original ? acknowledged : original;
}

/* `bytes_received` counts the peer's FIN. */
static __always_inline __u64 bytes_received(const struct tcp_sock *tp)
{
	unsigned long flags = tp->inet_conn.icsk_inet.sk.__sk_common.skc_flags;

	return tp->bytes_received - ((flags >> SOCK_DONE) & 1);
}

/* Ticks in one of the three sending states, the current spell included. */
static __always_inline __u32 chronograph(const struct tcp_sock *tp, __u32 type)
{
	__u32 ticks = tp->chrono_stat[type];

	if (BPF_CORE_READ_BITFIELD(tp, chrono_type) == type + 1)
		ticks += (__u32)bpf_jiffies64() - tp->chrono_start;
	return ticks;
}

enum { CHRONO_BUSY, CHRONO_RECEIVE_WINDOW, CHRONO_SEND_BUFFER };

static __always_inline __u32 busy_ticks(__u32 busy, __u32 window, __u32 buffer)
{
	/* The kernel stops the busy clock while it runs one of the others. */
	return busy + window + buffer;
}

/* Takes the socket's totals as reported, without reporting them. */
static __always_inline void skip_totals(struct tcp_socket *state, const struct tcp_sock *tp)
{
	__u32 window = chronograph(tp, CHRONO_RECEIVE_WINDOW);
	__u32 buffer = chronograph(tp, CHRONO_SEND_BUFFER);

	state->bytes_sent = bytes_delivered(tp);
	state->bytes_received = bytes_received(tp);
	state->segments_sent = tp->segs_out;
	state->segments_received = tp->segs_in;
	state->data_segments_sent = tp->data_segs_out;
	state->data_segments_received = tp->data_segs_in;
	state->dsacks = tp->dsack_dups;
	state->reorderings = tp->reord_seen;
	state->busy = busy_ticks(chronograph(tp, CHRONO_BUSY), window, buffer);
	state->receive_window_limited = window;
	state->send_buffer_limited = buffer;
}

static __always_inline void move32(__u32 *to, __u32 *reported, __u32 now)
{
	__u32 step = advance32(reported, now);

	if (step)
		__sync_fetch_and_add(to, step);
}

static __always_inline bool move64(__u64 *to, __u64 *reported, __u64 now)
{
	__u64 step = advance64(reported, now);

	if (step)
		__sync_fetch_and_add(to, step);
	return step;
}

static __always_inline void move_ticks(__u64 *to, __u32 *reported, __u32 now)
{
	__u32 step = advance32(reported, now);

	if (step)
		__sync_fetch_and_add(to, step);
}

/*
 * Adds what was not reported yet. True if the peer has acknowledged data since: only then is the
 * round-trip time a new one.
 */
static __always_inline bool report_totals(struct tcp_socket *state, const struct tcp_sock *tp,
					  struct tcp_edge *edge)
{
	__u32 window = chronograph(tp, CHRONO_RECEIVE_WINDOW);
	__u32 buffer = chronograph(tp, CHRONO_SEND_BUFFER);
	__u32 busy = busy_ticks(chronograph(tp, CHRONO_BUSY), window, buffer);
	bool sent = move64(&edge->bytes_sent, &state->bytes_sent, bytes_delivered(tp));

	move64(&edge->bytes_received, &state->bytes_received, bytes_received(tp));
	move32(&edge->segments_sent, &state->segments_sent, tp->segs_out);
	move32(&edge->segments_received, &state->segments_received, tp->segs_in);
	move32(&edge->data_segments_sent, &state->data_segments_sent, tp->data_segs_out);
	move32(&edge->data_segments_received, &state->data_segments_received, tp->data_segs_in);
	move32(&edge->dsacks, &state->dsacks, tp->dsack_dups);
	move32(&edge->reorderings, &state->reorderings, tp->reord_seen);
	move_ticks(&edge->busy, &state->busy, busy);
	move_ticks(&edge->receive_window_limited, &state->receive_window_limited, window);
	move_ticks(&edge->send_buffer_limited, &state->send_buffer_limited, buffer);
	return sent;
}

/* What the program has not read of what came in. A FIN takes a place but is no payload. */
static __always_inline __u32 unread_bytes(const struct tcp_sock *tp)
{
	unsigned long flags = tp->inet_conn.icsk_inet.sk.__sk_common.skc_flags;
	__s32 bytes = tp->rcv_nxt - tp->copied_seq;

	if (bytes > 0 && (flags >> SOCK_DONE) & 1)
		bytes--;
	return bytes > 0 ? bytes : 0;
}

static __always_inline void report_rtt(const struct tcp_sock *tp, struct tcp_edge *edge)
{
	__u32 smoothed = tp->srtt_us >> 3;
	__u32 minimum = tp->rtt_min.s[0].v;
	__u32 slot;

	if (!smoothed)
		return;
	slot = histogram_slot(smoothed, tcp_rtt_bounds, TCP_RTT_SLOTS);
	__sync_fetch_and_add(&edge->rtt_slots[slot & 31], 1);
	__sync_fetch_and_add(&edge->rtt_us, smoothed);
	/* All ones until the first measurement. */
	if (minimum == ~0U)
		return;
	slot = histogram_slot(minimum, tcp_min_rtt_bounds, TCP_RTT_SLOTS);
	__sync_fetch_and_add(&edge->min_rtt_slots[slot & 31], 1);
	__sync_fetch_and_add(&edge->min_rtt_us, minimum);
}
