/* SPDX-License-Identifier: GPL-2.0 */
/* Addresses and protocol of a packet that the kernel holds, wherever it is in its life. */
#pragma once

#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"
#include "socket.bpf.h"

struct packet {
	__u8 source[16];
	__u8 destination[16];
	__u8 protocol;
	/** TCP with SYN set. */
	__u8 syn;
};

/* The parts of the headers that we look at; layouts are those of the wire. */
struct ipv4_header {
	__u8 version_length;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};

struct ipv6_header {
	__be32 version_class_flow;
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__be32 source[4];
	__be32 destination[4];
};

enum {
	UNSET_HEADER = 0xffff,
	IP_FRAGMENT_OFFSET = 0x1fff,
	TCP_FLAGS_OFFSET = 13,
	TCP_FLAG_SYN = 0x02,
	MAX_EXTENSION_HEADERS = 4,
};

/* Hop-by-hop, routing, fragment, destination options. Fills in what follows them. */
static __always_inline __u8 skip_extension_headers(const unsigned char *network, __u32 *length,
						   __u8 next)
{
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		__u8 header[4] = {};

		if (next != 0 && next != 43 && next != 44 && next != 60)
			return next;
		if (bpf_probe_read_kernel(header, sizeof(header), network + *length))
			return next;
		/* Behind a later fragment's header comes data. */
		if (next == 44 && ((header[2] << 8 | header[3]) & 0xfff8))
			return header[0];
		*length += next == 44 ? 8 : (header[1] + 1) * 8;
		next = header[0];
	}
	return next;
}

/* False for what is not IP, or has not got as far as an IP header. */
static __always_inline bool read_packet(const struct sk_buff *skb, struct packet *packet)
{
	__u16 offset = skb->network_header;
	const unsigned char *network = skb->head + offset;
	__u32 length;
	__u8 flags;

	if (offset == 0 || offset == UNSET_HEADER)
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct ipv4_header ip;

		if (bpf_probe_read_kernel(&ip, sizeof(ip), network) || ip.version_length >> 4 != 4)
			return false;
		map_ipv4(packet->source, ip.source);
		map_ipv4(packet->destination, ip.destination);
		packet->protocol = ip.protocol;
		length = (ip.version_length & 15) * 4;
		if (ip.fragment & bpf_htons(IP_FRAGMENT_OFFSET))
			return true;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6_header ip;

		if (bpf_probe_read_kernel(&ip, sizeof(ip), network))
			return false;
		if ((bpf_ntohl(ip.version_class_flow) >> 28) != 6)
			return false;
		__builtin_memcpy(packet->source, ip.source, 16);
		__builtin_memcpy(packet->destination, ip.destination, 16);
		length = sizeof(ip);
		packet->protocol = skip_extension_headers(network, &length, ip.next_header);
	} else {
		return false;
	}
	if (packet->protocol == IPPROTO_TCP &&
	    !bpf_probe_read_kernel(&flags, 1, network + length + TCP_FLAGS_OFFSET))
		packet->syn = !!(flags & TCP_FLAG_SYN);
	return true;
}

/* Zero if the packet has no device, as when a socket already has it. */
static __always_inline __u32 packet_netns(const struct sk_buff *skb)
{
	return (__u32)BPF_CORE_READ(skb, dev, nd_net.net, net_cookie);
}
