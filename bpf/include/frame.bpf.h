/* SPDX-License-Identifier: GPL-2.0 */
/* Protocol and length of the headers of a packet on its way through an interface. */
#pragma once

#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "kernel.h"

struct headers {
	/** enum capture_protocol */
	__u32 protocol;
	/** From the first byte of the frame to the payload; only where it is asked for. */
	__u32 length;
};

enum {
	ETHERNET_LENGTH = 14,
	ETHERNET_PROTOCOL = 12,
	VLAN_LENGTH = 4,
	MAX_VLAN_TAGS = 2,
	MAX_IPV6_EXTENSIONS = 8,
	IPV6_LENGTH = 40,
	/* Beyond, we take no more notice of headers. */
	MAX_OFFSET = 1024,
	UDP_LENGTH = 8,
	TCP_LENGTH_BYTE = 12,
};

/* Bytes of a packet: `frame` from its first byte on, `skb` from its network header on. One of them
 * is null. The packet may lie in pieces, so that a buffer cannot be looked at directly. */
struct bytes {
	struct __sk_buff *skb;
	struct xdp_md *frame;
};

static __always_inline bool load(struct bytes from, __u32 offset, void *to, __u32 size)
{
	void *data, *end;

	if (from.skb)
		return !bpf_skb_load_bytes_relative(from.skb, offset, to, size, BPF_HDR_START_NET);
	data = (void *)(long)from.frame->data;
	end = (void *)(long)from.frame->data_end;
	if (offset > MAX_OFFSET)
		return false;
	data += offset;
	if (data + size > end)
		return false;
	__builtin_memcpy(to, data, size);
	return true;
}

static __always_inline bool is_vlan(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

static __always_inline bool is_known(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_IP) || protocol == bpf_htons(ETH_P_IPV6) ||
	       protocol == bpf_htons(ETH_P_ARP) || is_vlan(protocol);
}

/*
 * Tags that the driver has not taken out. Of a frame that a program sends with its own Ethernet
 * header, the protocol is that of the tag while the network header is what follows it: then these
 * four bytes are not a tag, since no protocol that we know follows.
 */
static __always_inline __be16 skip_tags(struct bytes from, __u32 *offset, __be16 protocol)
{
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		__be16 tag[2];
		__u8 version;

		if (!is_vlan(protocol) || !load(from, *offset, tag, sizeof(tag)))
			break;
		if (is_known(tag[1])) {
			protocol = tag[1];
			*offset += VLAN_LENGTH;
			continue;
		}
		version = *(__u8 *)tag >> 4;
		if (version == 4)
			protocol = bpf_htons(ETH_P_IP);
		else if (version == 6)
			protocol = bpf_htons(ETH_P_IPV6);
		break;
	}
	return protocol;
}

/* What follows hop-by-hop options, routing, fragment, destination options and authentication. */
static __always_inline __u8 skip_extensions(struct bytes from, __u32 *offset, __u8 next)
{
	for (int i = 0; i < MAX_IPV6_EXTENSIONS; i++) {
		__u8 header[4];

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_DSTOPTS && next != IPPROTO_AH)
			break;
		if (!load(from, *offset, header, sizeof(header)))
			break;
		if (next == IPPROTO_FRAGMENT) {
			bool later = (header[2] << 8 | header[3]) & 0xfff8;

			*offset += 8;
			next = header[0];
			/* Behind it comes data. */
			if (later)
				break;
			continue;
		}
		*offset += next == IPPROTO_AH ? (header[1] + 2) * 4 : (header[1] + 1) * 8;
		next = header[0];
	}
	return next;
}

/* Moves the offset from the network header, or a tag before it, to the transport header. */
static __always_inline enum capture_protocol read_protocol(struct bytes from, __u32 *offset,
							   __be16 protocol)
{
	__u8 next;

	protocol = skip_tags(from, offset, protocol);
	if (protocol == bpf_htons(ETH_P_IP)) {
		struct {
			__u8 version_length;
			__u8 rest[8];
			__u8 protocol;
		} ip;

		if (!load(from, *offset, &ip, sizeof(ip)))
			return CAPTURE_OTHER;
		*offset += (ip.version_length & 15) * 4;
		next = ip.protocol;
		if (next == IPPROTO_ICMP)
			return CAPTURE_ICMP;
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		if (!load(from, *offset + 6, &next, 1))
			return CAPTURE_OTHER;
		*offset += IPV6_LENGTH;
		next = skip_extensions(from, offset, next);
		if (next == IPPROTO_ICMPV6)
			return CAPTURE_ICMPV6;
	} else {
		return CAPTURE_OTHER;
	}
	if (next == IPPROTO_TCP)
		return CAPTURE_TCP;
	return next == IPPROTO_UDP ? CAPTURE_UDP : CAPTURE_OTHER;
}

static __always_inline __u32 transport_length(bool tcp, __u8 tcp_length_byte)
{
	return tcp ? (tcp_length_byte >> 4) * 4 : UDP_LENGTH;
}

/* Of a tunnel, the headers that each segment gets are those up to the inner transport header. */
static __always_inline __u32 tunnel_headers_length(struct __sk_buff *skb,
						   const struct sk_buff *kernel)
{
	__u32 offset = (__u16)(BPF_CORE_READ(kernel, inner_transport_header) -
			       BPF_CORE_READ(kernel, mac_header));
	const struct skb_shared_info *info =
		(const void *)(BPF_CORE_READ(kernel, head) + BPF_CORE_READ(kernel, end));
	bool tcp = BPF_CORE_READ(info, gso_type) & (SKB_GSO_TCPV4 | SKB_GSO_TCPV6);
	__u8 byte = 0;

	bpf_skb_load_bytes_relative(skb, offset + TCP_LENGTH_BYTE, &byte, 1, BPF_HDR_START_MAC);
	return offset + transport_length(tcp, byte);
}

static __always_inline void read_skb_headers(struct __sk_buff *skb, const struct sk_buff *kernel,
					     bool length, struct headers *headers)
{
	struct bytes from = {.skb = skb};
	__u32 offset = 0;
	__u8 byte = 0;

	headers->protocol = read_protocol(from, &offset, skb->protocol);
	if (!length)
		return;
	if (BPF_CORE_READ_BITFIELD_PROBED(kernel, encapsulation)) {
		headers->length = tunnel_headers_length(skb, kernel);
		return;
	}
	load(from, offset + TCP_LENGTH_BYTE, &byte, 1);
	offset +=
		(__u16)(BPF_CORE_READ(kernel, network_header) - BPF_CORE_READ(kernel, mac_header));
	headers->length = offset + transport_length(headers->protocol == CAPTURE_TCP, byte);
}

static __always_inline void read_frame_headers(struct xdp_md *frame, bool length,
					       struct headers *headers)
{
	struct bytes from = {.frame = frame};
	__u32 offset = ETHERNET_LENGTH;
	__be16 protocol = 0;
	__u8 byte = 0;

	load(from, ETHERNET_PROTOCOL, &protocol, sizeof(protocol));
	headers->protocol = read_protocol(from, &offset, protocol);
	if (!length)
		return;
	load(from, offset + TCP_LENGTH_BYTE, &byte, 1);
	headers->length = offset + transport_length(headers->protocol == CAPTURE_TCP, byte);
}
