/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Neighbours that did not answer: address resolution that was given up, and known neighbours that
 * did not confirm that they are still there.
 *
 * The hook runs whenever the kernel asks again or gives up, a few times for each neighbour.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "abi.h"
#include "count.bpf.h"
#include "kernel.h"

struct neighbour_failures {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct neighbour_key);
	__type(value, __u64);
};
struct neighbour_failures neighbour_failures_0 SEC(".maps");
struct neighbour_failures neighbour_failures_1 SEC(".maps");

static const struct neighbour_key overflow;
static const __u64 no_count;

SEC("tp_btf/neigh_timer_handler")
int BPF_PROG(neighbour_failed, const struct neighbour *neighbour)
{
	struct neighbour_key key = {};
	const struct net_device *device;
	__u64 *failures;

	if (!neighbour || neighbour->nud_state != NUD_FAILED)
		return 0;
	device = neighbour->dev;
	if (!device)
		return 0;
	key.netns = device->nd_net.net->net_cookie;
	bpf_probe_read_kernel_str(key.interface, sizeof(key.interface), device->name);
	if (second_is_active())
		failures = entry(&neighbour_failures_1, &key, &overflow, &no_count);
	else
		failures = entry(&neighbour_failures_0, &key, &overflow, &no_count);
	if (failures)
		__sync_fetch_and_add(failures, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
