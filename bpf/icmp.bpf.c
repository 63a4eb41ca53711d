/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ICMP messages that leave a network namespace, by type and code: those of programs and those that
 * the kernel sends by itself, which pass here too, from sockets of its own.
 *
 * What comes in goes to the kernel and to no socket, so there is no such place for it.
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

static const struct icmp_key overflow;
static const __u64 no_count;

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
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
