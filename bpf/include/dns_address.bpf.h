/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Addresses that answers give, with the name that was asked for: what an end outside the cluster is
 * called. Only of datagrams, and only while user space wants to know.
 */
#pragma once

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "dns_message.bpf.h"
#include "kernel.h"
#include "socket.bpf.h"

/* What is forgotten because more addresses are in use has no name until somebody asks again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct dns_address_key);
	__type(value, struct dns_address);
} dns_addresses SEC(".maps");

/* Not zero: learn them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} dns_learning SEC(".maps");

enum {
	/* Of one answer: more than clients try. Those of aliases come first. */
	DNS_RECORDS = 16,
	/* A name of 255 bytes has at most so many, and most have a handful. */
	DNS_LABELS = 128,
	DNS_POINTER = 0xc0,
	/* Type and class of a question; type, class, time to live and length of a record. */
	DNS_TYPE_CLASS = 4,
	DNS_RECORD = 10,
	DNS_A = 1,
	DNS_AAAA = 28,
};

static __always_inline bool learns_addresses(void)
{
	__u32 zero = 0;
	__u64 *learning = bpf_map_lookup_elem(&dns_learning, &zero);

	return learning && *learning;
}

/* What comes after the name at `offset`; zero if it is none. */
__noinline int skip_name(struct __sk_buff *skb, __u32 offset)
{
	for (int i = 0; i < DNS_LABELS; i++) {
		__u8 length;

		if (bpf_skb_load_bytes(skb, offset, &length, sizeof(length)))
			return 0;
		if ((length & DNS_POINTER) == DNS_POINTER)
			return offset + 2;
		if (length & DNS_POINTER)
			return 0;
		offset += 1 + length;
		if (!length)
			return offset;
	}
	return 0;
}

/* Notes the address of a record; zero if the record does not end. Gives what comes after it. */
__noinline int learn_record(struct __sk_buff *skb, __u32 offset, const struct dns_name_key *name,
			    __u32 netns)
{
	struct dns_address_key key = {.netns = netns};
	struct dns_address value = {};
	__u8 record[DNS_RECORD];
	__u32 type, length;
	__be32 address;

	offset = skip_name(skb, offset);
	if (!name || !offset || bpf_skb_load_bytes(skb, offset, record, sizeof(record)))
		return 0;
	offset += DNS_RECORD;
	type = record[0] << 8 | record[1];
	length = record[8] << 8 | record[9];
	value.name = name->whole;
	value.parent = name->parent;
	if (type == DNS_A && length == sizeof(address)) {
		if (bpf_skb_load_bytes(skb, offset, &address, sizeof(address)))
			return 0;
		map_ipv4(key.address, address);
		bpf_map_update_elem(&dns_addresses, &key, &value, BPF_ANY);
	} else if (type == DNS_AAAA && length == sizeof(key.address)) {
		if (bpf_skb_load_bytes(skb, offset, key.address, sizeof(key.address)))
			return 0;
		bpf_map_update_elem(&dns_addresses, &key, &value, BPF_ANY);
	}
	return offset + length;
}

/* Of the answer at `offset` to a question whose name is known. */
static __always_inline void learn_addresses(struct __sk_buff *skb, __u32 offset,
					    const struct dns_header *header,
					    const struct dns_name_key *name, __u32 netns)
{
	__u32 records = bpf_ntohs(header->answers);

	if (header->questions != bpf_htons(1))
		return;
	offset = skip_name(skb, offset + DNS_HEADER);
	if (!offset)
		return;
	offset += DNS_TYPE_CLASS;
	for (__u32 i = 0; i < DNS_RECORDS && i < records; i++) {
		offset = learn_record(skb, offset, name, netns);
		if (!offset)
			return;
	}
}
