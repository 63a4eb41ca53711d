/* SPDX-License-Identifier: GPL-2.0 */
/* What bpf/neighbour.bpf.c counts. Part of abi.h. */
#pragma once

#include <linux/types.h>

/** Neighbours behind one interface. */
struct neighbour_key {
	__u32 netns;
	/** The interface's name. */
	__u8 interface[16];
};
_Static_assert(sizeof(struct neighbour_key) == 20, "padding in a map key");
