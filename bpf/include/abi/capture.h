/* SPDX-License-Identifier: GPL-2.0 */
/* What packet capture counts; part of abi.h. */
#pragma once

#include <linux/types.h>

/** As the interface sees it. */
enum capture_direction {
	CAPTURE_INGRESS,
	CAPTURE_EGRESS,
	CAPTURE_DIRECTIONS,
};

enum capture_protocol {
	CAPTURE_TCP,
	CAPTURE_UDP,
	/** Only over IPv4. */
	CAPTURE_ICMP,
	/** Only over IPv6. */
	CAPTURE_ICMPV6,
	/** Other protocols over IP, and what is not IP. */
	CAPTURE_OTHER,
	CAPTURE_PROTOCOLS,
};

enum capture_slots {
	/** +Inf included. */
	CAPTURE_SLOTS = 12,
};

struct capture_key {
	/** Of the namespace that the interface is in: the low half of its cookie. */
	__u32 netns;
	/** Its number there. */
	__u32 interface;
};
_Static_assert(sizeof(struct capture_key) == 8, "padding in a map key");

struct capture_count {
	__u64 bytes;
	/** Packets by size. */
	__u64 slots[CAPTURE_SLOTS];
};

/** Totals of one interface since user space put its entry into the map. */
struct capture_counts {
	struct capture_count by[CAPTURE_DIRECTIONS][CAPTURE_PROTOCOLS];
};

struct capture_settings {
	/** Of 2^32 packets, how many are counted. */
	__u64 threshold;
};
