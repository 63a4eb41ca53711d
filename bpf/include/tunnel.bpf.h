/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The packet inside a packet, where a tunnel carries it in the clear: VXLAN (RFC 7348), Geneve
 * (RFC 8926), IP in IP (RFC 2003, RFC 2473, RFC 4213), GRE (RFC 2784, RFC 2890).
 */
#pragma once

#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "kernel.h"
#include "packet.bpf.h"

enum {
	/* As registered, and what Linux takes where nobody says which. */
	VXLAN_PORT = 4789,
	VXLAN_PORT_OF_LINUX = 8472,
	GENEVE_PORT = 6081,
	UDP_HEADER_LENGTH = 8,
	VXLAN_HEADER_LENGTH = 8,
	VXLAN_FLAG_VNI = 0x08,
	GENEVE_HEADER_LENGTH = 8,
	/* Of the first two bytes: version, then options in units of four bytes. */
	GENEVE_VERSION = 0xc0,
	GENEVE_OPTIONS = 0x3f,
	GRE_HEADER_LENGTH = 4,
	/* Each is a field of four bytes more, where set. */
	GRE_CHECKSUM = 0x8000,
	GRE_KEY = 0x2000,
	GRE_SEQUENCE = 0x1000,
	/* Routing (RFC 1701) and versions other than zero, such as that of PPTP. */
	GRE_NOT_OURS = 0x4007,
	ETHERNET_HEADER_LENGTH = 14,
	ETHERNET_PROTOCOL_OFFSET = 12,
	ETH_P_TEB = 0x6558,
};

/*
 * Leaves what is in no tunnel that we know as it is. `network_header` is its address.
 *
 * Global, so that the verifier looks at it once: inside its callers, what it leaves behind makes
 * them take seconds to load.
 */
__noinline __u8 open_tunnel(__u64 network_header, struct packet *packet)
{
	const unsigned char *network = (void *)network_header;
	struct packet inner = {};
	__be16 protocol = 0;
	__u8 tunnel;
	__u32 at;

	if (!packet || !packet->transport)
		return NO_TUNNEL;
	at = packet->transport;
	if (packet->protocol == IPPROTO_UDP) {
		__be16 port = 0;
		__u8 header[4] = {};

		if (bpf_probe_read_kernel(&port, sizeof(port), network + at + 2))
			return NO_TUNNEL;
		at += UDP_HEADER_LENGTH;
		if (port == bpf_htons(VXLAN_PORT) || port == bpf_htons(VXLAN_PORT_OF_LINUX)) {
			if (bpf_probe_read_kernel(header, sizeof(header), network + at) ||
			    !(header[0] & VXLAN_FLAG_VNI))
				return NO_TUNNEL;
			tunnel = TUNNEL_VXLAN;
			at += VXLAN_HEADER_LENGTH;
			protocol = bpf_htons(ETH_P_TEB);
		} else if (port == bpf_htons(GENEVE_PORT)) {
			if (bpf_probe_read_kernel(header, sizeof(header), network + at) ||
			    header[0] & GENEVE_VERSION)
				return NO_TUNNEL;
			tunnel = TUNNEL_GENEVE;
			at += GENEVE_HEADER_LENGTH + (header[0] & GENEVE_OPTIONS) * 4;
			__builtin_memcpy(&protocol, header + 2, sizeof(protocol));
		} else {
			return NO_TUNNEL;
		}
	} else if (packet->protocol == IPPROTO_GRE) {
		__be16 header[2] = {};
		__u16 flags;

		if (bpf_probe_read_kernel(header, sizeof(header), network + at))
			return NO_TUNNEL;
		flags = bpf_ntohs(header[0]);
		if (flags & GRE_NOT_OURS)
			return NO_TUNNEL;
		tunnel = TUNNEL_GRE;
		at += GRE_HEADER_LENGTH;
		at += flags & GRE_CHECKSUM ? 4 : 0;
		at += flags & GRE_KEY ? 4 : 0;
		at += flags & GRE_SEQUENCE ? 4 : 0;
		protocol = header[1];
	} else if (packet->protocol == IPPROTO_IPIP) {
		tunnel = TUNNEL_IP;
		protocol = bpf_htons(ETH_P_IP);
	} else if (packet->protocol == IPPROTO_IPV6) {
		tunnel = TUNNEL_IP;
		protocol = bpf_htons(ETH_P_IPV6);
	} else {
		return NO_TUNNEL;
	}
	if (protocol == bpf_htons(ETH_P_TEB)) {
		if (bpf_probe_read_kernel(&protocol, sizeof(protocol),
					  network + at + ETHERNET_PROTOCOL_OFFSET))
			return NO_TUNNEL;
		at += ETHERNET_HEADER_LENGTH;
	}
	if (!read_ip(network, at, protocol, &inner))
		return NO_TUNNEL;
	*packet = inner;
	return tunnel;
}
