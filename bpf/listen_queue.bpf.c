/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Accept queues of listening sockets: a full one raises no event, so it is read from the sockets.
 *
 * listeners runs over the listening sockets only, when user space reads its iterator.
 * listen_existing runs over all open files and finds those older than listen_state; of these,
 * listen_in_namespace finds what no program has a file of. Of MPTCP, which a program in Go listens
 * with unless told otherwise, it has another socket's.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "abi.h"
#include "kernel.h"
#include "socket.bpf.h"

/* Which sockets to visit; the value means nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} listening_sockets SEC(".maps");

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(listen_state, const struct sock *sk, int oldstate, int newstate)
{
	if (newstate == TCP_LISTEN && sk->sk_protocol == IPPROTO_TCP)
		bpf_sk_storage_get(&listening_sockets, (void *)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	return 0;
}

SEC("iter/task_file")
int listen_existing(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;

	if (!file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || !bpf_skc_to_tcp_sock(sk) || sk->__sk_common.skc_state != TCP_LISTEN)
		return 0;
	bpf_sk_storage_get(&listening_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	return 0;
}

SEC("iter/tcp")
int listen_in_namespace(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tp;

	if (!common || common->skc_state != TCP_LISTEN)
		return 0;
	tp = bpf_skc_to_tcp_sock(common);
	if (tp)
		bpf_sk_storage_get(&listening_sockets, (struct sock *)tp, 0,
				   BPF_SK_STORAGE_GET_F_CREATE);
	return 0;
}

SEC("iter/bpf_sk_storage_map")
int listeners(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct listener record = {};
	struct sock *sk = ctx->sk;
	struct tcp_sock *tp;
	__u8 no_peer[16];

	if (!sk || sk->__sk_common.skc_state != TCP_LISTEN)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	record.cgroup = socket_cgroup(sk);
	record.cookie = bpf_get_socket_cookie(sk);
	record.netns = socket_netns(sk);
	record.length = sk->sk_ack_backlog;
	record.limit = sk->sk_max_ack_backlog;
	record.drops = sk->sk_drops.counter;
	record.half_open = tp->inet_conn.icsk_accept_queue.qlen.counter;
	record.port = sk->__sk_common.skc_num;
	record.is_v6 = sk->__sk_common.skc_family == AF_INET6;
	socket_addresses(&sk->__sk_common, record.address, no_peer);
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
