/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Records for the flow table: one when a connection ends, and one at each pass of an iterator while
 * it lives.
 *
 * Ring records wake nobody: a wake-up would cost more than all else that is done for a short
 * connection. User space looks twice a second. What finds the ring full is counted.
 */
#pragma once

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>

#include "abi.h"
#include "kernel.h"
#include "socket.bpf.h"
#include "tcp_totals.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} flow_records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} flow_records_lost SEC(".maps");

/* Ticks since data was sent or received. */
static __always_inline __u32 idle_ticks(const struct tcp_sock *tp)
{
	__u32 now = bpf_jiffies64();
	__u32 sent = now - tp->lsndtime;
	__u32 received = now - tp->inet_conn.icsk_ack.lrcvtime;

	return sent < received ? sent : received;
}

static __always_inline void fill_flow(struct flow_record *record, const struct sock *sk,
				      const struct tcp_sock *tp, const struct tcp_socket *state,
				      __u32 role, __u64 now)
{
	record->cookie = bpf_get_socket_cookie((void *)sk);
	record->cgroup = socket_cgroup(sk);
	record->netns = socket_netns(sk);
	record->established_ns = state ? state->established_ns : 0;
	record->started_ns =
		state && state->connect_ns ? state->connect_ns : record->established_ns;
	record->now_ns = now;
	record->bytes_sent = bytes_delivered(tp);
	record->bytes_received = bytes_received(tp);
	record->segments_sent = tp->segs_out;
	record->segments_received = tp->segs_in;
	record->idle = idle_ticks(tp);
	socket_addresses(&sk->__sk_common, record->local, record->peer);
	/* `skc_num` is zero again by the time a socket is closed. */
	record->local_port = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
	record->peer_port = bpf_ntohs(sk->__sk_common.skc_dport);
	record->role = role;
	record->phase = FLOW_LIVE;
	record->state = sk->__sk_common.skc_state;
	record->reason = 0;
}

static __always_inline void flow_ended(const struct sock *sk, const struct tcp_sock *tp,
				       const struct tcp_socket *state, __u32 role,
				       enum flow_phase phase, __u32 reason, __u64 now)
{
	struct flow_record *record;
	__u32 zero = 0;
	__u64 *lost;

	record = bpf_ringbuf_reserve(&flow_records, sizeof(*record), 0);
	if (!record) {
		lost = bpf_map_lookup_elem(&flow_records_lost, &zero);
		if (lost)
			__sync_fetch_and_add(lost, 1);
		return;
	}
	fill_flow(record, sk, tp, state, role, now);
	record->phase = phase;
	record->reason = reason;
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* False if the iterator has no room: the kernel will come back for this socket. */
static __always_inline bool flow_lives(struct seq_file *seq, const struct sock *sk,
				       const struct tcp_sock *tp, const struct tcp_socket *state)
{
	struct flow_record record = {};

	fill_flow(&record, sk, tp, state, state->role, bpf_ktime_get_ns());
	return bpf_seq_write(seq, &record, sizeof(record)) == 0;
}
