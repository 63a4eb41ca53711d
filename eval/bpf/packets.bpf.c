/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the collector is compared with in `runwire-eval bench`: an agent that sends a record of
 * every packet of every socket to user space, and wakes it, as agents that look at packets do by
 * default. And a program that does nothing, whose time is what measuring takes.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct record {
	__u64 time_ns;
	__u64 cookie;
	__u32 length;
	__u32 outgoing;
	/* The headers of the network and of the transport. */
	__u8 headers[40];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} records SEC(".maps");

/* What the ring had no room for. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline void report(struct __sk_buff *skb, __u32 outgoing)
{
	struct record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	__u32 zero = 0;
	__u64 *count;

	if (!record) {
		count = bpf_map_lookup_elem(&lost, &zero);
		if (count)
			__sync_fetch_and_add(count, 1);
		return;
	}
	record->time_ns = bpf_ktime_get_ns();
	record->cookie = bpf_get_socket_cookie(skb);
	record->length = skb->len;
	record->outgoing = outgoing;
	if (bpf_skb_load_bytes(skb, 0, record->headers, sizeof(record->headers)))
		record->headers[0] = 0;
	bpf_ringbuf_submit(record, 0);
}

SEC("cgroup_skb/egress")
int packet_egress(struct __sk_buff *skb)
{
	report(skb, 1);
	return 1;
}

SEC("cgroup_skb/ingress")
int packet_ingress(struct __sk_buff *skb)
{
	report(skb, 0);
	return 1;
}

SEC("tp_btf/inet_sock_set_state")
int empty(void *context)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
