/* SPDX-License-Identifier: GPL-2.0 */
/* What bpf/icmp.bpf.c counts. Part of abi.h. */
#pragma once

#include <linux/types.h>

/** Messages of one kind that left a network namespace. */
struct icmp_key {
	__u32 netns;
	/** IP protocol number: ICMP or ICMPv6. */
	__u8 protocol;
	__u8 type;
	__u8 code;
	__u8 reserved;
};
_Static_assert(sizeof(struct icmp_key) == 8, "padding in a map key");

/** Echo requests from one address to one host. */
struct ping_key {
	__u32 netns;
	__u8 source[16];
	__u8 destination[16];
};
_Static_assert(sizeof(struct ping_key) == 36, "padding in a map key");

/** What became of them since the last collection. */
struct ping {
	/** Zero: the answer is to requests of before. */
	__u32 sent;
	/** Answers that came to a socket; to several, several times. */
	__u32 answered;
};
