/* SPDX-License-Identifier: GPL-2.0 */
/* Slots of histograms whose bounds user space chooses. */
#pragma once

#include <linux/types.h>

/*
 * `const volatile __u64 some_bounds[HISTOGRAM_BOUNDS] = {};` is set when the object is loaded:
 * upper bounds in the unit of the value, inclusive as Prometheus wants them, ascending, and after
 * the last one all ones but the sign. No value reaches that, so what is beyond the last bound is
 * +Inf.
 */
#define HISTOGRAM_BOUNDS 32

/*
 * How many bounds are less than `value`: its slot. Five steps and no branch, since the verifier
 * would follow every one. Linux 6.1 does not see by itself that an index stays within the array,
 * and clang, which does, would leave out the masks that say so.
 */
static __always_inline __u32 histogram_slot(__u64 value, const volatile __u64 *bounds, __u32 slots)
{
	__u64 slot = 0;

	for (__u64 step = HISTOGRAM_BOUNDS / 2; step; step /= 2) {
		__u64 at = slot + step - 1;
		__u64 beyond;

		asm volatile("" : "+r"(at));
		/* The sign of the difference: one if the bound is less. */
		beyond = (bounds[at & (HISTOGRAM_BOUNDS - 1)] - value) >> 63;
		slot += beyond * step;
	}
	asm volatile("" : "+r"(slot));
	return slot < slots ? slot : slots - 1;
}
