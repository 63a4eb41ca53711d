/* SPDX-License-Identifier: GPL-2.0 */
/*
 * RST segments sent by this host, with the kernel's reason where it gives one, and received, with
 * what they met: a reset itself says no reason.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "abi.h"
#include "count.bpf.h"
#include "kernel.h"
#include "packet.bpf.h"
#include "socket.bpf.h"

struct tcp_resets {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct tcp_reset_key);
	__type(value, __u64);
};
struct tcp_resets tcp_resets_0 SEC(".maps");
struct tcp_resets tcp_resets_1 SEC(".maps");

static const __u64 no_count;

static __always_inline void count(const struct tcp_reset_key *key)
{
	struct tcp_reset_key overflow = {};
	__u64 *counter;

	overflow.direction = key->direction;
	overflow.reason = RESET_REASON_UNKNOWN;
	if (second_is_active())
		counter = entry(&tcp_resets_1, key, &overflow, &no_count);
	else
		counter = entry(&tcp_resets_0, key, &overflow, &no_count);
	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* The socket is NULL for a closed port, the packet NULL where the socket itself gives up. */
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(tcp_send_reset, const struct sock *sk, const struct sk_buff *skb)
{
	struct tcp_reset_key key = {};
	struct packet packet = {};

	key.direction = RESET_SENT;
	key.reason = RESET_REASON_UNKNOWN;
	/* The third argument is new in 6.10. The load is dead code where the type is missing. */
	if (bpf_core_type_exists(enum sk_rst_reason))
		key.reason = (__u32)ctx[2];
	if (sk) {
		key.netns = socket_netns(sk);
		if (is_full_socket(sk))
			key.cgroup = socket_cgroup(sk);
		socket_addresses(&sk->__sk_common, key.local, key.peer);
		/* A listener answers in its own name, but has no peer. */
		if (skb && sk->__sk_common.skc_state == TCP_LISTEN && read_packet(skb, &packet)) {
			__builtin_memcpy(key.local, packet.destination, 16);
			__builtin_memcpy(key.peer, packet.source, 16);
		}
	} else if (skb && read_packet(skb, &packet)) {
		key.netns = packet_netns(skb);
		__builtin_memcpy(key.local, packet.destination, 16);
		__builtin_memcpy(key.peer, packet.source, 16);
	}
	count(&key);
	return 0;
}

/*
 * An open connection is at rest behind our answer when both sides have spoken, we last, and nothing
 * waits to be sent: HAProxy ends its connections to servers so in health. Where something still
 * waits, the client has broken off an answer that was on its way. Times are in jiffies; what came
 * in and what went out in the same one is taken for a question and its answer. Whether the answer
 * has arrived is not known: the acknowledgement in the reset is not looked at. Nobody has spoken
 * where a load balancer checks that a port is open.
 */
static __always_inline enum reset_met met_while_open(const struct sock *sk)
{
	const struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk);
	bool is_all_sent;

	if (!tp)
		return RESET_MET_CONNECTION;
	is_all_sent = tp->snd_nxt == tp->write_seq;
	if (!tp->data_segs_out && !tp->bytes_received && is_all_sent)
		return RESET_MET_UNUSED;
	if (!tp->data_segs_out || !tp->bytes_received ||
	    (__s32)(tp->lsndtime - tp->inet_conn.icsk_ack.lrcvtime) < 0)
		return RESET_MET_CONNECTION;
	return is_all_sent ? RESET_MET_ANSWERED : RESET_MET_ANSWERING;
}

static __always_inline enum reset_met met_by(const struct sock *sk)
{
	switch (sk->__sk_common.skc_state) {
	case TCP_SYN_SENT:
	case TCP_SYN_RECV:
		return RESET_MET_CONNECT;
	case TCP_ESTABLISHED:
		return met_while_open(sk);
	case TCP_CLOSE_WAIT:
		return RESET_MET_CLOSED_PEER;
	default:
		/* Who has ended only its own direction waits for the other, as for an answer. */
		return sk->sk_socket ? RESET_MET_CONNECTION : RESET_MET_CLOSED;
	}
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(tcp_receive_reset, const struct sock *sk)
{
	struct tcp_reset_key key = {};

	if (!sk)
		return 0;
	key.direction = RESET_RECEIVED;
	key.reason = met_by(sk);
	key.netns = socket_netns(sk);
	if (is_full_socket(sk))
		key.cgroup = socket_cgroup(sk);
	socket_addresses(&sk->__sk_common, key.local, key.peer);
	count(&key);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
