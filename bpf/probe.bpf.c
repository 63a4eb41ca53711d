/* SPDX-License-Identifier: GPL-2.0 */
/*
 * TCP packets that ask for a connection and get none, or that belong to none, and UDP datagrams to
 * ports that nobody has: what scans and floods are made of. An attempt by connect() is known from
 * its socket; this is for those that have no socket here, because they come from elsewhere or from
 * a raw socket.
 *
 * The hook runs for every dropped buffer. All but such packets leave after reading the TCP flags,
 * or the reason.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
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

enum {
	/* Answers that came too late for their socket have such destinations: no service does. */
	FIRST_EPHEMERAL_PORT = 32768,
	PORTS_LENGTH = 4,
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

/* False for what says nothing about scans. */
static __always_inline bool read_probe(const unsigned char *transport, __u8 protocol,
				       bool no_socket, struct probe_key *key)
{
	__u8 header[TCP_FLAGS_OFFSET + 1];
	__u8 flags;

	if (protocol == IPPROTO_UDP) {
		if (!no_socket || bpf_probe_read_kernel(header, PORTS_LENGTH, transport))
			return false;
		key->port = header[2] << 8 | header[3];
		key->kind = PROBE_DATAGRAM;
		return key->port < FIRST_EPHEMERAL_PORT;
	}
	if (protocol != IPPROTO_TCP || bpf_probe_read_kernel(header, sizeof(header), transport))
		return false;
	flags = header[TCP_FLAGS_OFFSET] & ALL_FLAGS;
	key->port = header[2] << 8 | header[3];
	key->kind = kind_of(flags);
	return !is_of_a_connection(flags);
}

static __always_inline int dropped(const struct sk_buff *skb, const struct sock *receiver,
				   bool no_socket)
{
	const unsigned char *network;
	const struct sock *sk;
	struct probe_key key = {};
	struct packet packet = {};

	if (!skb || !skb->protocol)
		return 0;
	if (skb->network_header == 0 || skb->network_header == UNSET_HEADER)
		return 0;
	if (!read_packet(skb, &packet) || !packet.transport)
		return 0;
	network = skb->head + skb->network_header;
	if (!read_probe(network + packet.transport, packet.protocol, no_socket, &key))
		return 0;
	/* The socket that a packet has come to has taken its device away. */
	sk = receiver ? receiver : skb->sk;
	key.netns = packet_netns(skb);
	if (!key.netns && sk)
		key.netns = socket_netns(sk);
	__builtin_memcpy(key.source, packet.source, 16);
	__builtin_memcpy(key.destination, packet.destination, 16);
	count(&key);
	return 0;
}

static __always_inline bool is_no_socket(__u32 reason)
{
	return reason == bpf_core_enum_value(enum skb_drop_reason, SKB_DROP_REASON_NO_SOCKET);
}

/* Linux 6.11 and later: the receiving socket is the fourth argument, and may be NULL. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(probe_dropped, const struct sk_buff *skb, void *location, __u32 reason,
	     const struct sock *receiver)
{
	return dropped(skb, receiver, is_no_socket(reason));
}

/* Linux 5.17 to 6.10: a packet that came to a listener is counted without its place. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(probe_dropped_without_receiver, const struct sk_buff *skb, void *location,
	     __u32 reason)
{
	return dropped(skb, NULL, is_no_socket(reason));
}

/* Before, nothing tells a closed UDP port from other drops. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(probe_dropped_without_reason, const struct sk_buff *skb, void *location)
{
	return dropped(skb, NULL, false);
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
