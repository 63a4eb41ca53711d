/* SPDX-License-Identifier: GPL-2.0 */
/* Slots of exponential histograms. Upper bounds are inclusive, as Prometheus wants them. */
#pragma once

#include <linux/types.h>

static __always_inline __u32 log2_floor(__u64 value)
{
	__u32 result = 0;

	/* No __builtin_clz: the BPF back end of clang 14 cannot lower it. */
	if (value >> 32) {
		value >>= 32;
		result += 32;
	}
	if (value >> 16) {
		value >>= 16;
		result += 16;
	}
	if (value >> 8) {
		value >>= 8;
		result += 8;
	}
	if (value >> 4) {
		value >>= 4;
		result += 4;
	}
	if (value >> 2) {
		value >>= 2;
		result += 2;
	}
	return result + (value > 1);
}

/* The slot of `value` where slot n ends at base << (n << shift): factor 2 for shift 0, 4 for 1. */
static __always_inline __u32 histogram_slot(__u64 value, __u64 base, __u32 shift, __u32 slots)
{
	__u64 quotient = value ? (value - 1) / base : 0;
	__u32 slot = quotient ? 1 + (log2_floor(quotient) >> shift) : 0;

	return slot < slots ? slot : slots - 1;
}
