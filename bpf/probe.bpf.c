/* SPDX-License-Identifier: GPL-2.0 */
/*
 * TCP packets that ask for a connection and get none, or that belong to none: what scans and floods
 * are made of. An attempt by connect() is known from its socket; this is for those that have no
 * socket here, because they come from elsewhere or from a raw socket.
 *
 * The hook runs for every dropped buffer. All but such packets leave after reading the TCP flags.
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

struct probes {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct probe_key);
	__type(value, __u64);
};
struct probes probes_0 SEC(".maps");
struct probes probes_1 SEC(".maps");

static const __u64 no_count;

enum {
	FLAG_FIN = 0x01,
	FLAG_SYN = 0x02,
	FLAG_RST = 0x04,
	FLAG_PSH = 0x08,
	FLAG_ACK = 0x10,
	FLAG_URG = 0x20,
	ALL_FLAGS = 0x3f,
};

static __always_inline void count(const struct probe_key *key)
{
	struct probe_key overflow = {};
	__u64 *counter;

	if (second_is_active())
		counter = entry(&probes_1, key, &overflow, &no_count);
	else
		counter = entry(&probes_0, key, &overflow, &no_count);
	if (counter)
		__sync_fetch_and_add(counter, 1);
}

static __always_inline enum probe_kind kind_of(__u8 flags)
{
	switch (flags) {
	case FLAG_SYN:
	case FLAG_SYN | FLAG_PSH:
		return PROBE_SYN;
	case 0:
		return PROBE_NULL;
	case FLAG_FIN:
		return PROBE_FIN;
	case FLAG_FIN | FLAG_PSH | FLAG_URG:
		return PROBE_XMAS;
	case FLAG_SYN | FLAG_FIN:
		return PROBE_SYN_FIN;
	default:
		return PROBE_OTHER;
	}
}

/* What every connection's packets have is neither a first SYN nor odd. */
static __always_inline bool is_of_a_connection(__u8 flags)
{
	if ((flags & (FLAG_SYN | FLAG_FIN)) == (FLAG_SYN | FLAG_FIN))
		return false;
	return flags & (FLAG_ACK | FLAG_RST);
}

static __always_inline int dropped(const struct sk_buff *skb, const struct sock *receiver)
{
	const unsigned char *transport;
	const struct sock *sk;
	struct probe_key key = {};
	struct packet packet = {};
	__u8 header[TCP_FLAGS_OFFSET + 1];

	if (!skb || !skb->protocol)
		return 0;
	if (skb->network_header == 0 || skb->network_header == UNSET_HEADER)
		return 0;
	if (!read_packet(skb, &packet) || packet.protocol != IPPROTO_TCP || !packet.transport)
		return 0;
	transport = skb->head + skb->network_header + packet.transport;
	if (bpf_probe_read_kernel(header, sizeof(header), transport))
		return 0;
	if (is_of_a_connection(header[TCP_FLAGS_OFFSET] & ALL_FLAGS))
		return 0;
	/* The socket that a packet has come to has taken its device away. */
	sk = receiver ? receiver : skb->sk;
	key.netns = packet_netns(skb);
	if (!key.netns && sk)
		key.netns = socket_netns(sk);
	key.kind = kind_of(header[TCP_FLAGS_OFFSET] & ALL_FLAGS);
	key.port = header[2] << 8 | header[3];
	__builtin_memcpy(key.source, packet.source, 16);
	__builtin_memcpy(key.destination, packet.destination, 16);
	count(&key);
	return 0;
}

/* Linux 6.11 and later: the receiving socket is the fourth argument, and may be NULL. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(probe_dropped, const struct sk_buff *skb, void *location, __u32 reason,
	     const struct sock *receiver)
{
	return dropped(skb, receiver);
}

/* Before, a packet that came to a listener is counted without its place. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(probe_dropped_without_receiver, const struct sk_buff *skb, void *location)
{
	return dropped(skb, NULL);
}

SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(probe_half_open, const struct sock *sk, const struct request_sock *request)
{
	struct probe_key key = {};

	if (!sk || !request)
		return 0;
	key.netns = socket_netns(sk);
	key.kind = PROBE_HALF_OPEN;
	key.port = sk->__sk_common.skc_num;
	/* The request's local end is the listener. */
	socket_addresses(&request->__req_common, key.destination, key.source);
	count(&key);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
