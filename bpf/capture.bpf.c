/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Packets, bytes and packet sizes of network interfaces, as on the wire: a buffer that holds many
 * segments (GSO, GRO) counts as many, each with its headers.
 *
 * Runs for every packet of an interface that user space attaches it to. It only looks: packets go
 * on to whoever is attached behind it.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "count.bpf.h"
#include "frame.bpf.h"
#include "histogram.bpf.h"
#include "kernel.h"

/* User space makes and removes the entries: an interface without one is not counted. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct capture_key);
	__type(value, struct capture_counts);
} capture_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct capture_settings);
} capture_settings SEC(".maps");

/* In bytes. */
const volatile __u64 capture_size_bounds[HISTOGRAM_BOUNDS] = {};

/* One buffer. */
struct buffer {
	struct capture_key key;
	struct headers headers;
	/** On the wire: without what is repeated for each segment. */
	__u32 length;
	/** Payload of each segment but the last; 0 if the buffer is one packet. */
	__u32 segment_size;
};

/* How many of so many packets are in the sample: each is with the same probability, and a buffer of
 * many gives the nearest whole number on one side or the other. */
static __always_inline __u32 sampled(__u32 packets)
{
	__u32 zero = 0;
	struct capture_settings *settings = bpf_map_lookup_elem(&capture_settings, &zero);

	if (!settings)
		return 0;
	if (settings->threshold >> 32)
		return packets;
	return (packets * settings->threshold + bpf_get_prandom_u32()) >> 32;
}

static __always_inline void add_packets(struct capture_count *count, __u32 size, __u32 packets)
{
	__u32 slot = histogram_slot(size, capture_size_bounds, CAPTURE_SLOTS);

	/* The compiler knows; the verifier does not. */
	asm volatile("" : "+r"(slot));
	if (slot < CAPTURE_SLOTS)
		count->slots[slot] += packets;
}

static __always_inline void add_segments(struct capture_count *count, const struct buffer *buffer)
{
	__u32 headers = buffer->headers.length;
	__u32 payload = buffer->length > headers ? buffer->length - headers : 0;
	__u32 segments = (payload + buffer->segment_size - 1) / buffer->segment_size;
	__u32 size = headers + buffer->segment_size;
	__u32 chosen, bytes, last;

	if (segments < 2) {
		segments = 1;
		size = buffer->length;
	}
	chosen = sampled(segments);
	if (!chosen)
		return;
	bytes = buffer->length + (segments - 1) * headers;
	last = bytes - (segments - 1) * size;
	if (chosen == segments || bpf_get_prandom_u32() % segments < chosen) {
		/* The last one, which may be shorter, is among them. */
		add_packets(count, last, 1);
		count->bytes += last;
		chosen--;
	}
	if (chosen) {
		add_packets(count, size, chosen);
		count->bytes += (__u64)chosen * size;
	}
}

static __always_inline void add(const struct buffer *buffer, enum capture_direction direction)
{
	struct capture_counts *counts = bpf_map_lookup_elem(&capture_counts, &buffer->key);
	__u32 protocol = buffer->headers.protocol;

	if (!counts) {
		count_insert_failure();
		return;
	}
	asm volatile("" : "+r"(protocol));
	if (protocol >= CAPTURE_PROTOCOLS)
		return;
	if (buffer->segment_size) {
		add_segments(&counts->by[direction][protocol], buffer);
	} else {
		add_packets(&counts->by[direction][protocol], buffer->length, 1);
		counts->by[direction][protocol].bytes += buffer->length;
	}
}

/* The kernel's own view of what a program is given. The helper that gives the namespace to programs
 * like these is younger than Linux 6.12. */
static __always_inline const struct sk_buff *kernel_buffer(const struct __sk_buff *skb)
{
	return (const struct sk_buff *)skb;
}

static __always_inline __u32 device_netns(const struct net_device *device)
{
	return (__u32)BPF_CORE_READ(device, nd_net.net, net_cookie);
}

static __always_inline void capture_skb(struct __sk_buff *skb, enum capture_direction direction)
{
	const struct sk_buff *kernel = kernel_buffer(skb);
	struct buffer buffer = {};

	buffer.segment_size = skb->gso_size;
	/* SCTP: segments of any size. */
	if (buffer.segment_size == GSO_BY_FRAGS)
		buffer.segment_size = 0;
	if (!buffer.segment_size && !sampled(1))
		return;
	buffer.length = skb->len;
	buffer.key.interface = skb->ifindex;
	buffer.key.netns = device_netns(BPF_CORE_READ(kernel, dev));
	read_skb_headers(skb, kernel, buffer.segment_size, &buffer.headers);
	add(&buffer, direction);
}

SEC("classifier/ingress")
int capture_ingress(struct __sk_buff *skb)
{
	capture_skb(skb, CAPTURE_INGRESS);
	return TC_ACT_UNSPEC;
}

SEC("classifier/egress")
int capture_egress(struct __sk_buff *skb)
{
	capture_skb(skb, CAPTURE_EGRESS);
	return TC_ACT_UNSPEC;
}

/* The segment size of a buffer that the generic hook shows as one frame: there what lies behind the
 * frame is that of the buffer. The driver's own hook, where it is not, is never used. */
static __always_inline __u32 frame_segment_size(const struct xdp_buff *frame)
{
	__u32 shared = bpf_core_type_size(struct skb_shared_info);
	const struct skb_shared_info *info;

	shared = (shared + CACHE_LINE - 1) & ~(CACHE_LINE - 1);
	info = BPF_CORE_READ(frame, data_hard_start) + BPF_CORE_READ(frame, frame_sz) - shared;
	return BPF_CORE_READ(info, gso_size);
}

SEC("xdp")
int capture_xdp(struct xdp_md *frame)
{
	const struct xdp_buff *kernel = (const struct xdp_buff *)frame;
	struct buffer buffer = {};

	buffer.segment_size = frame_segment_size(kernel);
	if (buffer.segment_size == GSO_BY_FRAGS)
		buffer.segment_size = 0;
	if (!buffer.segment_size && !sampled(1))
		return XDP_PASS;
	buffer.length = frame->data_end - frame->data;
	buffer.key.interface = frame->ingress_ifindex;
	buffer.key.netns = device_netns(BPF_CORE_READ(kernel, rxq, dev));
	read_frame_headers(frame, buffer.segment_size, &buffer.headers);
	add(&buffer, CAPTURE_INGRESS);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
