/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Segments that TCP sends again. The sums equal the kernel's RetransSegs. By kind: `fast` equals
 * TCPFastRetrans; a tail loss probe is one of TCPLossProbes, which counts those of new data too;
 * `timeout` is TCPSlowStartRetrans and what the timer itself sends (TCPTimeouts counts that with
 * what came to nothing, and with SYNs).
 *
 * Those of full size are told besides: where the path takes only smaller ones and nobody says so,
 * it is these that never arrive (RFC 4821, 7.7).
 *
 * Both hooks run once per retransmitted buffer, which may hold many segments. Since Linux 6.17 the
 * first also runs where the kernel wanted to send one again and could not.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "abi.h"
#include "count.bpf.h"
#include "kernel.h"
#include "socket.bpf.h"

struct tcp_retransmits {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct tcp_retransmit_key);
	__type(value, __u64);
};
struct tcp_retransmits tcp_retransmits_0 SEC(".maps");
struct tcp_retransmits tcp_retransmits_1 SEC(".maps");

static const __u64 no_count;

static __always_inline void count(const struct tcp_retransmit_key *key, __u64 segments)
{
	struct tcp_retransmit_key overflow = {};
	__u64 *counter;

	overflow.kind = key->kind;
	if (second_is_active())
		counter = entry(&tcp_retransmits_1, key, &overflow, &no_count);
	else
		counter = entry(&tcp_retransmits_0, key, &overflow, &no_count);
	if (counter)
		__sync_fetch_and_add(counter, segments);
}

/* Errors of attempts that came to nothing before the kernel counted them: the buffer still waits in
 * the device's queue, the peer has no room, there is no route, there is no memory. With any other
 * error it is counted, though it may have got no further than a firewall. */
static __always_inline bool was_not_sent(int error)
{
	return error == -EBUSY || error == -EAGAIN || error == -EINVAL || error == -ENOMEM ||
	       error == -EHOSTUNREACH;
}

/* Macros of the kernel, so BTF does not tell them. */
enum {
	/** In `icsk_pending`: the timer for a tail loss probe. */
	ICSK_TIME_LOSS_PROBE = 5,
	/** In `sacked`: taken for lost. */
	TCPCB_LOST = 4,
};

/*
 * What recovery sends again, it has marked as lost before; the probe asks whether it is. The timer
 * alone does not tell: recovery may begin while it is set.
 */
static __always_inline enum retransmit_kind kind_of(const struct tcp_sock *tp,
						    const struct tcp_skb_cb *control)
{
	const struct inet_connection_sock *connection = &tp->inet_conn;

	if (connection->icsk_inet.sk.__sk_common.skc_state == TCP_SYN_SENT)
		return RETRANSMIT_SYN;
	if (BPF_CORE_READ_BITFIELD(connection, icsk_ca_state) == TCP_CA_Loss)
		return RETRANSMIT_TIMEOUT;
	if (connection->icsk_pending == ICSK_TIME_LOSS_PROBE &&
	    !(BPF_CORE_READ(control, sacked) & TCPCB_LOST))
		return RETRANSMIT_TAIL_LOSS_PROBE;
	return RETRANSMIT_FAST;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tcp_retransmit, const struct sock *sk, const struct sk_buff *skb)
{
	struct tcp_retransmit_key key = {};
	const struct tcp_skb_cb *control;
	const struct tcp_sock *tp;
	__u16 segments;

	if (!sk || !skb)
		return 0;
	/* The third argument is new in 6.17. The load is dead code where it is missing. */
	if (bpf_core_field_exists(((struct trace_event_raw_tcp_retransmit_skb *)0)->err) &&
	    was_not_sent((int)ctx[2]))
		return 0;
	tp = bpf_skc_to_tcp_sock((void *)sk);
	if (!tp)
		return 0;
	/* The control block lies inside `cb`, so its type is not known to the verifier. */
	control = (const struct tcp_skb_cb *)&skb->cb;
	segments = BPF_CORE_READ(control, tcp_gso_segs);

	key.cgroup = socket_cgroup(sk);
	key.netns = socket_netns(sk);
	socket_addresses(&sk->__sk_common, key.local, key.peer);
	key.kind = kind_of(tp, control);
	count(&key, segments ? segments : 1);
	/* A path that takes less than the MSS need not take what is a little shorter. */
	if (key.kind == RETRANSMIT_TIMEOUT && tp->mss_cache &&
	    skb->len >= tp->mss_cache - tp->mss_cache / 8) {
		key.kind = RETRANSMIT_FULL_SIZED;
		count(&key, skb->len > tp->mss_cache ? skb->len / tp->mss_cache : 1);
	}
	return 0;
}

SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(tcp_retransmit_synack, const struct sock *sk, const struct request_sock *request)
{
	struct tcp_retransmit_key key = {};

	if (!sk || !request)
		return 0;
	/* The listener says whose it is, the request who the peer is. */
	key.cgroup = socket_cgroup(sk);
	key.netns = socket_netns(sk);
	socket_addresses(&request->__req_common, key.local, key.peer);
	key.kind = RETRANSMIT_SYNACK;
	count(&key, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
