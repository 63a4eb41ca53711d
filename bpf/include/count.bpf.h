/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Counting into maps that user space empties.
 *
 * Every such map exists twice. Programs write to the one that `active` names; user space changes
 * `active`, waits until no program can still be using the other one, and empties that at leisure.
 * So no addition is lost between reading an entry and deleting it, and no addition is seen twice.
 */
#pragma once

#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} active SEC(".maps");

/* What did not fit even into the overflow entry, or went there because the map was full. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} insert_failures SEC(".maps");

static __always_inline bool second_is_active(void)
{
	__u32 zero = 0;
	__u32 *which = bpf_map_lookup_elem(&active, &zero);

	return which && *which;
}

static __always_inline void count_insert_failure(void)
{
	__u32 zero = 0;
	__u64 *failures = bpf_map_lookup_elem(&insert_failures, &zero);

	if (failures)
		__sync_fetch_and_add(failures, 1);
}

/*
 * The entry of `key`, made from `empty` if need be. In a full map, the entry of `overflow`, which
 * user space has put there beforehand.
 */
static __always_inline void *entry(void *map, const void *key, const void *overflow,
				   const void *empty)
{
	void *value = bpf_map_lookup_elem(map, key);

	if (value)
		return value;
	bpf_map_update_elem(map, key, empty, BPF_NOEXIST);
	/* Also after a failure: another CPU may have made the entry in between. */
	value = bpf_map_lookup_elem(map, key);
	if (value)
		return value;
	count_insert_failure();
	return bpf_map_lookup_elem(map, overflow);
}
