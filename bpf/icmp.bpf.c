/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ICMP messages that leave a network namespace, by type and code: those of programs and those that
 * the kernel sends by itself, which pass here too, from sockets of its own. And hosts that somebody
 * pings, with those that answer.
 *
 * What comes in goes to the kernel and to no socket, so there is no such place for it; but answers
 * to pings go to the socket that asked. The program for these runs for every packet that comes to a
 * socket, and leaves after looking at its protocol.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "count.bpf.h"
#include "kernel.h"
#include "packet.bpf.h"
#include "socket.bpf.h"

struct icmp_sent {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct icmp_key);
	__type(value, __u64);
};
struct icmp_sent icmp_sent_0 SEC(".maps");
struct icmp_sent icmp_sent_1 SEC(".maps");

struct pings {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct ping_key);
	__type(value, struct ping);
};
struct pings pings_0 SEC(".maps");
struct pings pings_1 SEC(".maps");

static const struct icmp_key overflow;
static const struct ping_key overflow_ping;
static const struct ping no_ping;
static const __u64 no_count;

enum {
	ICMP_ECHO_REPLY = 0,
	ICMP_ECHO_REQUEST = 8,
	ICMPV6_ECHO_REQUEST = 128,
	ICMPV6_ECHO_REPLY = 129,
};

static __always_inline struct ping *ping_of(const struct ping_key *key)
{
	if (second_is_active())
		return entry(&pings_1, key, &overflow_ping, &no_ping);
	return entry(&pings_0, key, &overflow_ping, &no_ping);
}

SEC("cgroup_skb/egress")
int icmp_egress(struct __sk_buff *skb)
{
	struct socket_packet packet = {};
	struct bpf_sock *sk = skb->sk;
	struct icmp_key key = {};
	__u64 *messages;
	__u8 kind[2];

	if (is_tcp(skb) || !sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	/* Raw sockets may have any number. */
	if (!sk || sk->protocol == IPPROTO_UDP)
		return 1;
	if (!read_socket_packet(skb, &packet))
		return 1;
	if (packet.protocol != IPPROTO_ICMP && packet.protocol != IPPROTO_ICMPV6)
		return 1;
	if (bpf_skb_load_bytes(skb, packet.transport, kind, sizeof(kind)))
		return 1;
	/* The context is the kernel's own sk_buff; reading it this way needs CAP_PERFMON. */
	key.netns = BPF_CORE_READ((struct sk_buff *)skb, sk, __sk_common.skc_net.net, net_cookie);
	key.protocol = packet.protocol;
	key.type = kind[0];
	key.code = kind[1];
	if (second_is_active())
		messages = entry(&icmp_sent_1, &key, &overflow, &no_count);
	else
		messages = entry(&icmp_sent_0, &key, &overflow, &no_count);
	if (messages)
		__sync_fetch_and_add(messages, 1);
	if (kind[0] ==
	    (packet.protocol == IPPROTO_ICMP ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST)) {
		struct ping_key ends = {.netns = key.netns};
		struct ping *ping;

		__builtin_memcpy(ends.source, packet.source, 16);
		__builtin_memcpy(ends.destination, packet.destination, 16);
		ping = ping_of(&ends);
		if (ping)
			__sync_fetch_and_add(&ping->sent, 1);
	}
	return 1;
}

/* Without extension headers: nobody answers a ping with them. */
static __always_inline bool is_icmp(struct __sk_buff *skb)
{
	const struct ipv4_header *ip4 = (void *)(long)skb->data;
	const struct ipv6_header *ip6 = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if ((void *)(ip4 + 1) > end)
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return ip4->protocol == IPPROTO_ICMP;
	return ip6->next_header == IPPROTO_ICMPV6;
}

SEC("cgroup_skb/ingress")
int icmp_ingress(struct __sk_buff *skb)
{
	struct socket_packet packet = {};
	struct ping_key ends = {};
	struct ping *ping;
	__u8 kind;

	if (!is_icmp(skb) || !read_socket_packet(skb, &packet))
		return 1;
	if (bpf_skb_load_bytes(skb, packet.transport, &kind, sizeof(kind)))
		return 1;
	if (kind != (packet.protocol == IPPROTO_ICMP ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY))
		return 1;
	ends.netns = BPF_CORE_READ((struct sk_buff *)skb, sk, __sk_common.skc_net.net, net_cookie);
	/* Seen from who asked. */
	__builtin_memcpy(ends.source, packet.destination, 16);
	__builtin_memcpy(ends.destination, packet.source, 16);
	ping = ping_of(&ends);
	if (ping)
		__sync_fetch_and_add(&ping->answered, 1);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
