/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Packets that the kernel dropped, with its reason and the place in its code.
 *
 * The hook runs for every buffer freed as a drop, in any context. Most of those on an idle host are
 * no IP packets and leave after two loads.
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
#include "tunnel.bpf.h"

struct packet_drops {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct packet_drop_key);
	__type(value, struct packet_drop_total);
};
struct packet_drops packet_drops_0 SEC(".maps");
struct packet_drops packet_drops_1 SEC(".maps");

static const struct packet_drop_total no_drops;

/* A segmentation-offload buffer is as many packets as the wire would have seen. */
static __always_inline __u64 packets_in(const struct sk_buff *skb)
{
	const struct skb_shared_info *shared = (void *)(skb->head + skb->end);
	__u16 segments = BPF_CORE_READ(shared, gso_segs);

	return segments ? segments : 1;
}

/* In IP packets; in front of them there may be the header of a link. */
static __always_inline __u64 bytes_in(const struct sk_buff *skb)
{
	/* Offsets from the start of the buffer, of which `data` is what is left to read. */
	__s64 passed = (__s64)skb->network_header - (skb->data - skb->head);
	__s64 bytes = (__s64)skb->len - passed;

	return bytes > 0 ? bytes : skb->len;
}

/*
 * The packet's device, or NULL. A buffer that waits in a socket keeps other things in that place,
 * and what they point to may be anything: a device is what has a namespace that has a loopback
 * device in the same namespace.
 */
static __always_inline const struct net_device *device_of(const struct sk_buff *skb)
{
	const struct net_device *device = skb->dev;
	const struct net *net = BPF_CORE_READ(device, nd_net.net);

	if (!net || BPF_CORE_READ(net, loopback_dev, nd_net.net) != net)
		return NULL;
	return device;
}

/*
 * Of two connections between the same ends, since netfilter may have hidden different senders
 * behind one address.
 */
static __always_inline void sample_ports(struct packet_drop_total *total, const struct sk_buff *skb,
					 const struct packet *packet)
{
	const unsigned char *transport = skb->head + skb->network_header + packet->transport;
	__u16 ports[2] = {};

	if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP)
		return;
	if (!packet->transport || bpf_probe_read_kernel(ports, sizeof(ports), transport))
		return;
	if (!total->first_ports[0])
		__builtin_memcpy(total->first_ports, ports, sizeof(ports));
	__builtin_memcpy(total->latest_ports, ports, sizeof(ports));
}

static __always_inline void drop(const struct sk_buff *skb, __u64 location, __u32 reason,
				 const struct sock *receiver)
{
	struct packet_drop_key overflow = {};
	struct packet_drop_key key = {};
	struct packet packet = {};
	struct packet_drop_total *total;
	const struct net_device *device;
	const struct sock *sk;
	__u64 head;

	if (!read_packet(skb, &packet))
		return;
	/* A number: what is loaded from the buffer directly may not be passed on as one. */
	head = (__u64)BPF_CORE_READ(skb, head);
	key.tunnel = open_tunnel(head + skb->network_header, &packet);
	key.location = location;
	key.reason = reason;
	key.protocol = packet.protocol;
	key.syn = packet.syn;
	__builtin_memcpy(key.source, packet.source, 16);
	__builtin_memcpy(key.destination, packet.destination, 16);

	/* The device first: on a veth, the buffer still belongs to the sender's socket. */
	sk = skb->sk;
	device = device_of(skb);
	if (device) {
		key.netns = BPF_CORE_READ(device, nd_net.net, net_cookie);
		bpf_probe_read_kernel_str(key.interface, sizeof(key.interface), device->name);
	}
	if (receiver) {
		key.netns = socket_netns(receiver);
		if (is_full_socket(receiver))
			key.cgroup = socket_cgroup(receiver);
	} else if (sk) {
		__u32 netns = socket_netns(sk);

		if (!device)
			key.netns = netns;
		if (key.netns == netns && is_full_socket(sk))
			key.cgroup = socket_cgroup(sk);
	}

	if (second_is_active())
		total = entry(&packet_drops_1, &key, &overflow, &no_drops);
	else
		total = entry(&packet_drops_0, &key, &overflow, &no_drops);
	if (!total)
		return;
	__sync_fetch_and_add(&total->packets, packets_in(skb));
	__sync_fetch_and_add(&total->bytes, bytes_in(skb));
	sample_ports(total, skb, &packet);
}

/* Linux 6.11 and later: the receiving socket is the fourth argument, and may be NULL. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(packet_drop, const struct sk_buff *skb, void *location, __u32 reason,
	     const struct sock *receiver)
{
	if (skb && skb->protocol)
		drop(skb, (__u64)location, reason, receiver);
	return 0;
}

/* Linux 5.17 to 6.10. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(packet_drop_without_receiver, const struct sk_buff *skb, void *location, __u32 reason)
{
	if (skb && skb->protocol)
		drop(skb, (__u64)location, reason, NULL);
	return 0;
}

/* Before 5.17: the place, but no reason. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(packet_drop_without_reason, const struct sk_buff *skb, void *location)
{
	if (skb && skb->protocol)
		drop(skb, (__u64)location, 0, NULL);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
