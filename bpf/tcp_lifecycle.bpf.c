/* SPDX-License-Identifier: GPL-2.0 */
/*
 * TCP connections: attempts, failures, connect latency, opens, closes, lifetime; and of every
 * socket, live or closed, its bytes, segments, RTT and what its sending waited for.
 *
 * tcp_state runs at every state change of every TCP socket (ten for a short connection, both ends
 * together) and works on five of them. Where a kernel may leave it out, tcp_state_again sees to
 * what was left out. Opening only leaves a note in the socket's storage; the edge is looked up
 * once, at the close, or before that by tcp_live when user space asks. The iterators run when user
 * space reads them: about a microsecond per socket.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "abi.h"
#include "count.bpf.h"
#include "fallback.bpf.h"
#include "flow.bpf.h"
#include "histogram.bpf.h"
#include "kernel.h"
#include "socket.bpf.h"
#include "tcp_totals.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct tcp_socket);
} tcp_sockets SEC(".maps");

struct tcp_edges {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct tcp_edge_key);
	__type(value, struct tcp_edge);
};
struct tcp_edges tcp_edges_0 SEC(".maps");
struct tcp_edges tcp_edges_1 SEC(".maps");

/* Written by tcp_live only, and emptied by who reads that iterator: one map is enough. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct tcp_state_key);
	__type(value, struct tcp_state_total);
} tcp_states SEC(".maps");

const volatile __u64 tcp_connect_bounds[HISTOGRAM_BOUNDS] = {};
const volatile __u64 tcp_lifetime_bounds[HISTOGRAM_BOUNDS] = {};

static const struct tcp_edge no_edge;
static const struct tcp_state_total no_total;

static __always_inline struct tcp_edge *edge_of(const struct sock *sk, __u32 role)
{
	struct tcp_edge_key key = {};
	struct tcp_edge_key overflow = {};

	key.cgroup = socket_cgroup(sk);
	key.netns = socket_netns(sk);
	key.role = role;
	socket_addresses(&sk->__sk_common, key.local, key.peer);
	overflow.role = role;
	if (second_is_active())
		return entry(&tcp_edges_1, &key, &overflow, &no_edge);
	return entry(&tcp_edges_0, &key, &overflow, &no_edge);
}

/*
 * The error that a connection attempt ended with. What ICMP says while a system call holds the
 * socket, of a SYN that this host's own firewall rejects for example, ends no attempt: it is kept
 * aside, and is gone as soon as the program asks for the socket's error.
 */
static __always_inline int connect_error(const struct tcp_sock *tp, const struct tcp_socket *state)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	int error = sk->sk_err;

	/* Not a plain load: clang would make one of this and of the next, through pointers that the
	 * verifier keeps apart. */
	if (!error)
		error = BPF_CORE_READ(sk, sk_err_soft);
	if (!error && state)
		error = state->connect_error;
	return error;
}

static __always_inline enum tcp_failure failure_of(const struct tcp_sock *tp,
						   const struct tcp_socket *state)
{
	switch (connect_error(tp, state)) {
	case 0:
		/* No SYN was sent: the kernel found no port that was free. */
		return tp->segs_out ? TCP_FAILURE_ABORTED : TCP_FAILURE_NO_LOCAL_PORT;
	case ECONNREFUSED:
		return TCP_FAILURE_REFUSED;
	case ECONNRESET:
		return TCP_FAILURE_RESET;
	case ETIMEDOUT:
		return TCP_FAILURE_TIMEOUT;
	case EHOSTUNREACH:
	case EHOSTDOWN:
		return TCP_FAILURE_HOST_UNREACHABLE;
	case ENETUNREACH:
	case ENETDOWN:
		return TCP_FAILURE_NETWORK_UNREACHABLE;
	case EACCES:
	case EPERM:
		return TCP_FAILURE_PROHIBITED;
	default:
		return TCP_FAILURE_OTHER;
	}
}

/* A socket comes to FIN_WAIT1 or LAST_ACK when its program closes it, or only its direction. */
static __always_inline bool is_let_go(const struct sock *sk, int state)
{
	return state != TCP_ESTABLISHED && state != TCP_CLOSE_WAIT && !sk->sk_socket;
}

static __always_inline enum tcp_end end_of(const struct tcp_sock *tp, int oldstate)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;

	switch (sk->sk_err) {
	case 0:
		return TCP_END_NONE;
	case ECONNRESET:
	case EPIPE:
		return is_let_go(sk, oldstate) ? TCP_END_LATE_RESET : TCP_END_RESET;
	case ETIMEDOUT:
		return TCP_END_TIMEOUT;
	default:
		return TCP_END_OTHER;
	}
}

/*
 * The role of a connection that we did not see open. `bytes_acked` counts the SYN, which only the
 * client sent: exact while nothing is in flight and our FIN is not sent. Otherwise the side with
 * the higher port is taken for the client.
 */
static __always_inline enum tcp_role guess_role(const struct tcp_sock *tp)
{
	const struct sock_common *common = &tp->inet_conn.icsk_inet.sk.__sk_common;
	__u8 state = common->skc_state;

	if ((state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT) && tp->snd_una == tp->snd_nxt)
		return tp->bytes_acked > tp->bytes_sent - tp->bytes_retrans ? TCP_ROLE_CLIENT
									    : TCP_ROLE_SERVER;
	return bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport) > bpf_ntohs(common->skc_dport)
		       ? TCP_ROLE_CLIENT
		       : TCP_ROLE_SERVER;
}

/* Adds how the socket began, unless that was reported. */
static __always_inline void report_opening(struct tcp_socket *state, struct tcp_edge *edge)
{
	__u32 events = state->unreported;
	__u64 latency;

	/* Who gets them out of there reports them: this program or tcp_live. */
	if (events)
		events = __sync_lock_test_and_set(&state->unreported, 0);
	if (events & TCP_EVENT_ATTEMPT)
		__sync_fetch_and_add(&edge->attempts, 1);
	if (!(events & TCP_EVENT_OPENED))
		return;
	__sync_fetch_and_add(&edge->opened, 1);
	if (events & TCP_EVENT_FALLBACK)
		__sync_fetch_and_add(&edge->fallbacks, 1);
	if (!state->connect_ns)
		return;
	latency = state->established_ns - state->connect_ns;
	__sync_fetch_and_add(&edge->connect_ns, latency);
	__sync_fetch_and_add(&edge->connect_slots[histogram_slot(latency, tcp_connect_bounds,
								 TCP_CONNECT_SLOTS) &
						  31],
			     1);
}

static __always_inline void connecting(const struct sock *sk, const struct tcp_sock *tp)
{
	struct tcp_socket *state;

	state = bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state) {
		count_insert_failure();
		return;
	}
	/* A second connect() on a socket goes on with the totals of the first. */
	if (state->role)
		skip_totals(state, tp);
	state->done = TCP_SYN_SENT;
	state->role = TCP_ROLE_CLIENT;
	state->connect_ns = bpf_ktime_get_ns();
	state->established_ns = 0;
	state->connect_error = 0;
	/* connect() is a system call: here the current task is the caller. */
	state->process = bpf_get_current_pid_tgid() >> 32;
	__sync_fetch_and_or(&state->unreported, TCP_EVENT_ATTEMPT);
}

static __always_inline void established(const struct sock *sk, enum tcp_role role)
{
	__u32 events = TCP_EVENT_OPENED;
	struct tcp_socket *state;

	/* An accepted socket is new here, whenever its listener was made. */
	state = bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state) {
		count_insert_failure();
		return;
	}
	state->done = TCP_ESTABLISHED;
	/* Both ends may have sent a SYN: SYN_SENT, SYN_RECV, ESTABLISHED is a client. */
	if (state->role != TCP_ROLE_CLIENT)
		state->role = role;
	state->established_ns = bpf_ktime_get_ns();
	if (state->role == TCP_ROLE_CLIENT && is_fallback(sk, state->process, state->connect_ns))
		events |= TCP_EVENT_FALLBACK;
	__sync_fetch_and_or(&state->unreported, events);
}

static __always_inline void closed(const struct sock *sk, const struct tcp_sock *tp, int oldstate)
{
	struct tcp_socket *state = bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, 0);
	enum tcp_role role = state && state->role ? state->role : guess_role(tp);
	enum tcp_failure failure = TCP_FAILURES;
	enum tcp_end end = end_of(tp, oldstate);
	__u64 now = bpf_ktime_get_ns();
	struct tcp_edge *edge;
	__u64 lifetime;

	if (state)
		state->done = TCP_CLOSE;
	if (oldstate == TCP_SYN_SENT) {
		role = TCP_ROLE_CLIENT;
		failure = failure_of(tp, state);
		flow_ended(sk, tp, state, role, FLOW_FAILED, failure, now);
	} else {
		flow_ended(sk, tp, state, role, FLOW_CLOSED, end, now);
	}
	edge = edge_of(sk, role);
	if (!edge)
		return;
	if (state) {
		report_opening(state, edge);
		report_totals(state, tp, edge);
	}
	if (oldstate == TCP_SYN_SENT) {
		__sync_fetch_and_add(&edge->failures[failure & 15], 1);
		if (state && failure == TCP_FAILURE_REFUSED)
			remember_refusal(sk, state->process, now);
		return;
	}
	__sync_fetch_and_add(&edge->closed[end & 7], 1);
	report_rtt(tp, edge);
	if (!state || !state->established_ns)
		return;
	lifetime = now - state->established_ns;
	__sync_fetch_and_add(&edge->lifetime_ns, lifetime);
	__sync_fetch_and_add(&edge->lifetime_slots[histogram_slot(lifetime, tcp_lifetime_bounds,
								  TCP_LIFETIME_SLOTS) &
						   15],
			     1);
}

static __always_inline void change(const struct sock *sk, int oldstate, int newstate)
{
	const struct tcp_sock *tp;

	switch (newstate) {
	case TCP_LISTEN:
		bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		return;
	case TCP_ESTABLISHED:
		established(sk, oldstate == TCP_SYN_SENT ? TCP_ROLE_CLIENT : TCP_ROLE_SERVER);
		return;
	case TCP_FIN_WAIT1:
	case TCP_CLOSE_WAIT:
		/* With TCP Fast Open, a server may answer and close, or a client end its request,
		 * before the handshake is complete: a connection that is never ESTABLISHED. */
		if (oldstate == TCP_SYN_RECV)
			established(sk, TCP_ROLE_SERVER);
		return;
	case TCP_SYN_SENT:
		tp = bpf_skc_to_tcp_sock((void *)sk);
		if (tp)
			connecting(sk, tp);
		return;
	case TCP_CLOSE:
		/* SYN_RECV: a handshake that came to nothing, and was never counted as opened. */
		if (oldstate == TCP_LISTEN || oldstate == TCP_SYN_RECV || oldstate == TCP_CLOSE)
			return;
		tp = bpf_skc_to_tcp_sock((void *)sk);
		if (tp)
			closed(sk, tp, oldstate);
		return;
	default:
		/* LISTEN to SYN_RECV among them: the first event of an accepted child. */
		return;
	}
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state, const struct sock *sk, int oldstate, int newstate)
{
	/* SCTP, DCCP and MPTCP come here too. */
	if (sk->sk_protocol == IPPROTO_TCP)
		change(sk, oldstate, newstate);
	return 0;
}

/* Whether tcp_state has worked on a change, or had nothing to do. */
static __always_inline bool is_done(const struct tcp_socket *state, int oldstate, int newstate)
{
	switch (newstate) {
	case TCP_LISTEN:
		return state;
	case TCP_SYN_SENT:
	case TCP_ESTABLISHED:
		return state && state->done == newstate;
	case TCP_FIN_WAIT1:
	case TCP_CLOSE_WAIT:
		return oldstate != TCP_SYN_RECV || (state && state->done == TCP_ESTABLISHED);
	case TCP_CLOSE:
		/* Without storage nothing tells: it counts as lost if it was. */
		return !state || state->done == TCP_CLOSE;
	default:
		return true;
	}
}

/*
 * The kernel runs no program at a tracepoint twice at a time on one CPU, so tcp_state misses the
 * changes that come while it runs there: hardly any before Linux 7, many on 7.3. This one is run
 * for them too. What tcp_state is in the midst of is of another socket, since a socket is locked.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state_again, const struct sock *sk, int oldstate, int newstate)
{
	if (sk->sk_protocol == IPPROTO_TCP &&
	    !is_done(bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, 0), oldstate, newstate))
		change(sk, oldstate, newstate);
	return 0;
}

/*
 * Runs when a socket has an error for its program. The kernel puts what ICMP says about a SYN into
 * the socket's queue of errors first, and tells of that before `sk_err` is set: over IPv4 always,
 * over IPv6 where the program wants such messages. Without, polling shows the program no error that
 * is kept aside either.
 */
SEC("tp_btf/inet_sk_error_report")
int BPF_PROG(tcp_error, const struct sock *sk)
{
	const struct sock_exterr_skb *message;
	struct tcp_socket *state;
	__u8 origin;
	int error;

	if (sk->sk_protocol != IPPROTO_TCP || sk->__sk_common.skc_state != TCP_SYN_SENT)
		return 0;
	error = sk->sk_err;
	if (!error) {
		/* The last of the queue. The control block lies inside `cb`, as elsewhere. */
		message = (const void *)&sk->sk_error_queue.prev->cb;
		origin = BPF_CORE_READ(message, ee.ee_origin);
		if (origin == SO_EE_ORIGIN_ICMP || origin == SO_EE_ORIGIN_ICMP6)
			error = BPF_CORE_READ(message, ee.ee_errno);
	}
	state = bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, 0);
	if (state && error)
		state->connect_error = error;
	return 0;
}

static __always_inline struct tcp_state_total *total_of(const struct tcp_state_key *key)
{
	struct tcp_state_total *total = bpf_map_lookup_elem(&tcp_states, key);

	if (total)
		return total;
	if (bpf_map_update_elem(&tcp_states, key, &no_total, BPF_NOEXIST))
		count_insert_failure();
	return bpf_map_lookup_elem(&tcp_states, key);
}

static __always_inline struct tcp_state_total *state_total(const struct sock *sk, __u32 state)
{
	struct tcp_state_key key = {};

	key.cgroup = socket_cgroup(sk);
	key.netns = socket_netns(sk);
	key.state = state;
	return total_of(&key);
}

SEC("iter/bpf_sk_storage_map")
int tcp_live(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct tcp_socket *state = ctx->value;
	struct sock *sk = ctx->sk;
	struct tcp_state_total *total;
	struct tcp_sock *tp;
	struct tcp_edge *edge;
	__u32 tcp_state;
	int half_open;

	if (!state || !sk)
		return 0;
	tcp_state = sk->__sk_common.skc_state;
	/* What a closed socket still had to report, tcp_state has reported. */
	if (tcp_state == TCP_CLOSE)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	/* Before anything is counted, as this may be another try for the same socket. A listener
	 * has no role, nor has what is just being taken into view. */
	if (state->role && !flow_lives(ctx->meta->seq, sk, tp, state))
		return 0;
	total = state_total(sk, tcp_state);
	if (total)
		total->sockets++;
	if (tcp_state == TCP_LISTEN) {
		/* Half-open connections are request sockets, known to their listener alone. */
		half_open = tp->inet_conn.icsk_accept_queue.qlen.counter;
		if (total && half_open > 0)
			total->half_open += half_open;
		return 0;
	}
	if (total)
		total->unread_bytes += unread_bytes(tp);
	/* It is just being taken into view. */
	if (!state->role)
		return 0;
	edge = edge_of(sk, state->role);
	if (!edge)
		return 0;
	report_opening(state, edge);
	if (report_totals(state, tp, edge))
		report_rtt(tp, edge);
	return 0;
}

/* Takes a socket into view that we did not see open: from here on, what it does is counted. */
static __always_inline void adopt(struct sock *sk, const struct tcp_sock *tp, __u32 tcp_state)
{
	struct tcp_socket *state;

	if (tcp_state == TCP_CLOSE || bpf_sk_storage_get(&tcp_sockets, sk, 0, 0))
		return;
	state = bpf_sk_storage_get(&tcp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state || tcp_state == TCP_LISTEN)
		return;
	state->role = tcp_state == TCP_SYN_SENT ? TCP_ROLE_CLIENT : guess_role(tp);
	skip_totals(state, tp);
}

/* Sockets that are older than the programs above, or that were in no process's hands before. */
SEC("iter/task_file")
int tcp_existing(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct tcp_sock *tp;
	struct socket *socket;
	struct sock *sk;

	if (!file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		adopt(sk, tp, sk->__sk_common.skc_state);
	return 0;
}

/*
 * A closed socket that waits for the peer's FIN shrinks to a time-wait one too. Nobody counts those
 * apart, and no event says when they go on to TIME_WAIT.
 */
static __always_inline void count_shrunk(const struct sock_common *common)
{
	const struct inet_timewait_sock *socket = (const struct inet_timewait_sock *)common;
	struct tcp_state_key key = {};
	struct tcp_state_total *total;

	if (BPF_CORE_READ(socket, tw_substate) != TCP_FIN_WAIT2)
		return;
	key.netns = BPF_CORE_READ(common, skc_net.net, net_cookie);
	key.state = TCP_STATE_SHRUNK_FIN_WAIT2;
	total = total_of(&key);
	if (total)
		total->sockets++;
}

/* Those of one namespace, also where no program has them: not accepted yet, or closed already. */
SEC("iter/tcp")
int tcp_in_namespace(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tp;

	if (!common)
		return 0;
	if (common->skc_state == TCP_TIME_WAIT) {
		count_shrunk(common);
		return 0;
	}
	tp = bpf_skc_to_tcp_sock(common);
	if (tp)
		adopt((struct sock *)tp, tp, tp->inet_conn.icsk_inet.sk.__sk_common.skc_state);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
