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
	/** Offset of the transport header from the network header; zero in a later fragment. */
	__u16 transport;
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

enum {
	HEADER_HOP_BY_HOP = 0,
	HEADER_ROUTING = 43,
	HEADER_FRAGMENT = 44,
	HEADER_DESTINATION = 60,
};

static __always_inline bool is_extension_header(__u8 header)
{
	return header == HEADER_HOP_BY_HOP || header == HEADER_ROUTING ||
	       header == HEADER_FRAGMENT || header == HEADER_DESTINATION;
}

/* `units` is the header's second byte. */
static __always_inline __u32 extension_header_length(__u8 header, __u8 units)
{
	return header == HEADER_FRAGMENT ? 8 : (units + 1) * 8;
}

/* Gives what follows the extension headers; `length` becomes zero where nothing of it is here. */
static __always_inline __u8 skip_extension_headers(const unsigned char *network, __u32 *length,
						   __u8 next)
{
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		__u8 header[4] = {};

		if (!is_extension_header(next))
			return next;
		if (bpf_probe_read_kernel(header, sizeof(header), network + *length))
			return next;
		/* Behind a later fragment's header comes data. */
		if (next == HEADER_FRAGMENT && ((header[2] << 8 | header[3]) & 0xfff8)) {
			*length = 0;
			return header[0];
		}
		*length += extension_header_length(next, header[1]);
		next = header[0];
	}
	return next;
}

/* `at` is where the IP header begins, from the network header of the buffer. */
static __always_inline bool read_ip(const unsigned char *network, __u32 at, __be16 protocol,
				    struct packet *packet)
{
	const unsigned char *header = network + at;
	__u32 length;
	__u8 flags;

	packet->transport = 0;
	packet->syn = 0;
	if (protocol == bpf_htons(ETH_P_IP)) {
		struct ipv4_header ip;

		if (bpf_probe_read_kernel(&ip, sizeof(ip), header) || ip.version_length >> 4 != 4)
			return false;
		map_ipv4(packet->source, ip.source);
		map_ipv4(packet->destination, ip.destination);
		packet->protocol = ip.protocol;
		length = (ip.version_length & 15) * 4;
		if (ip.fragment & bpf_htons(IP_FRAGMENT_OFFSET))
			return true;
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6_header ip;

		if (bpf_probe_read_kernel(&ip, sizeof(ip), header))
			return false;
		if ((bpf_ntohl(ip.version_class_flow) >> 28) != 6)
			return false;
		__builtin_memcpy(packet->source, ip.source, 16);
		__builtin_memcpy(packet->destination, ip.destination, 16);
		length = sizeof(ip);
		packet->protocol = skip_extension_headers(header, &length, ip.next_header);
		if (!length)
			return true;
	} else {
		return false;
	}
	packet->transport = at + length;
	if (packet->protocol == IPPROTO_TCP &&
	    !bpf_probe_read_kernel(&flags, 1, header + length + TCP_FLAGS_OFFSET))
		packet->syn = !!(flags & TCP_FLAG_SYN);
	return true;
}

/* False for what is not IP, or has not got as far as an IP header. */
static __always_inline bool read_packet(const struct sk_buff *skb, struct packet *packet)
{
	__u16 offset = skb->network_header;

	if (offset == 0 || offset == UNSET_HEADER)
		return false;
	return read_ip(skb->head + offset, 0, skb->protocol, packet);
}

/* A packet on its way between a socket and the network, as a program of a cgroup sees it. */
struct socket_packet {
	__u8 source[16];
	__u8 destination[16];
	/* Where the transport header begins. */
	__u32 transport;
	__u8 protocol;
};

/* For programs that want none of it: most packets are, and this is the quickest way to tell. */
static __always_inline bool is_tcp(struct __sk_buff *skb)
{
	const struct ipv4_header *ip4 = (void *)(long)skb->data;
	const struct ipv6_header *ip6 = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if ((void *)(ip4 + 1) > end)
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return ip4->protocol == IPPROTO_TCP;
	return ip6->next_header == IPPROTO_TCP;
}

/* What a program of a cgroup sees begins with the network header. Sockets see no fragments. */
static __always_inline bool read_socket_packet(struct __sk_buff *skb, struct socket_packet *packet)
{
	void *start = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		const struct ipv4_header *ip = start;

		if ((void *)(ip + 1) > end || ip->fragment & bpf_htons(IP_FRAGMENT_OFFSET))
			return false;
		map_ipv4(packet->source, ip->source);
		map_ipv4(packet->destination, ip->destination);
		packet->protocol = ip->protocol;
		packet->transport = (ip->version_length & 15) * 4;
		return true;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6_header *ip = start;

		if ((void *)(ip + 1) > end)
			return false;
		__builtin_memcpy(packet->source, ip->source, 16);
		__builtin_memcpy(packet->destination, ip->destination, 16);
		packet->protocol = ip->next_header;
		packet->transport = sizeof(*ip);
		for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
			__u8 header[4];

			if (!is_extension_header(packet->protocol))
				return true;
			if (bpf_skb_load_bytes(skb, packet->transport, header, sizeof(header)))
				return false;
			packet->transport += extension_header_length(packet->protocol, header[1]);
			packet->protocol = header[0];
		}
		return !is_extension_header(packet->protocol);
	}
	return false;
}

/* Zero if the packet has no device, as when a socket already has it. */
static __always_inline __u32 packet_netns(const struct sk_buff *skb)
{
	return (__u32)BPF_CORE_READ(skb, dev, nd_net.net, net_cookie);
}
