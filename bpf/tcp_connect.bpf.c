/* SPDX-License-Identifier: GPL-2.0 */
/*
 * connect() calls on TCP sockets that fail before there is a SYN: no route, a route that drops, no
 * address to come from. The socket changes no state then and no error stays with it, so the result
 * of the system call is the only trace.
 *
 * The hook is that of one system call. While it is there, every other call of the host takes some
 * 35 ns longer: the kernel then takes its slower way out of all of them.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "count.bpf.h"
#include "kernel.h"
#include "socket.bpf.h"

struct tcp_connects {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, struct tcp_connect_key);
	__type(value, __u64);
};
struct tcp_connects tcp_connects_0 SEC(".maps");
struct tcp_connects tcp_connects_1 SEC(".maps");

static const __u64 no_count;

/* The record of the tracepoint; the first eight bytes are not for us. */
struct system_call_exit {
	__u64 reserved;
	__s32 number;
	__s64 result;
};

/* As the program passes it: the layouts are part of the system call. */
struct address {
	__u16 family;
	__be16 port;
	union {
		__be32 v4;
		struct {
			__be32 flow;
			__be32 v6[4];
		};
	};
};

enum {
	SOCK_STREAM = 1,
	S_IFMT = 0170000,
	S_IFSOCK = 0140000,
	IPV4_ADDRESS_LENGTH = 16,
	IPV6_ADDRESS_LENGTH = 24,
};

struct arguments {
	__u32 fd;
	__u32 length;
	const void *address;
};

static __always_inline bool read_arguments(struct arguments *arguments)
{
	struct pt_regs___arm64 *arm64 = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	struct pt_regs___x86 *x86 = (void *)arm64;

	if (bpf_core_field_exists(x86->di)) {
		arguments->fd = BPF_CORE_READ(x86, di);
		arguments->address = (void *)BPF_CORE_READ(x86, si);
		arguments->length = BPF_CORE_READ(x86, dx);
	} else if (bpf_core_field_exists(arm64->orig_x0)) {
		/* The result lies where the first argument was. */
		arguments->fd = BPF_CORE_READ(arm64, orig_x0);
		arguments->address = (void *)BPF_CORE_READ(arm64, regs[1]);
		arguments->length = BPF_CORE_READ(arm64, regs[2]);
	} else {
		return false;
	}
	return true;
}

/* Nothing here can be dereferenced: the verifier does not know what a descriptor leads to. */
static __always_inline const struct sock *socket_of(__u32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd);
	const struct socket *socket;
	const struct sock *sk;
	struct file *file;

	if (fd >= BPF_CORE_READ(table, max_fds) ||
	    bpf_probe_read_kernel(&file, sizeof(file), files + fd) || !file)
		return NULL;
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	if (!sk || BPF_CORE_READ(socket, type) != SOCK_STREAM ||
	    BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return NULL;
	return sk;
}

static __always_inline bool read_peer(const struct arguments *arguments, __u8 *peer)
{
	struct address address = {};

	if (arguments->length < IPV4_ADDRESS_LENGTH ||
	    bpf_probe_read_user(&address, IPV4_ADDRESS_LENGTH, arguments->address))
		return false;
	if (address.family == AF_INET) {
		map_ipv4(peer, address.v4);
		return true;
	}
	if (address.family != AF_INET6 || arguments->length < IPV6_ADDRESS_LENGTH ||
	    bpf_probe_read_user(&address, IPV6_ADDRESS_LENGTH, arguments->address))
		return false;
	__builtin_memcpy(peer, address.v6, 16);
	return true;
}

static __always_inline enum tcp_failure failure_of(__s64 result)
{
	switch (-result) {
	case EINVAL:
		return TCP_FAILURE_INVALID_ROUTE;
	case EADDRNOTAVAIL:
		return TCP_FAILURE_NO_LOCAL_ADDRESS;
	case EHOSTUNREACH:
		return TCP_FAILURE_HOST_UNREACHABLE;
	case ENETUNREACH:
	case ENETDOWN:
		return TCP_FAILURE_NETWORK_UNREACHABLE;
	case EACCES:
	case EPERM:
		return TCP_FAILURE_PROHIBITED;
	case ENOMEM:
	case ENOBUFS:
		return TCP_FAILURE_OTHER;
	default:
		/* In progress or already connected, not a socket, a mistake of the program. */
		return TCP_FAILURES;
	}
}

/*
 * Whether the socket has been in SYN_SENT: such a failure is counted from its states. The first is
 * set just before that state, and cleared when connect() returns the error of an attempt; the
 * second is set when there is a port, and never cleared.
 */
static __always_inline bool has_tried(const struct tcp_sock *tp)
{
	return BPF_CORE_READ(tp, rx_opt.mss_clamp) || BPF_CORE_READ(tp, write_seq);
}

SEC("tp/syscalls/sys_exit_connect")
int tcp_connect(struct system_call_exit *ctx)
{
	struct arguments arguments = {};
	struct tcp_connect_key overflow = {};
	struct tcp_connect_key key = {};
	const struct sock *sk;
	__u64 *counter;

	if (ctx->result >= 0)
		return 0;
	key.failure = failure_of(ctx->result);
	if (key.failure == TCP_FAILURES || !read_arguments(&arguments))
		return 0;
	sk = socket_of(arguments.fd);
	if (!sk || has_tried((const struct tcp_sock *)sk))
		return 0;
	if (!read_peer(&arguments, key.peer))
		return 0;
	key.cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup, kn, id);
	key.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, net_cookie);
	overflow.failure = key.failure;
	if (second_is_active())
		counter = entry(&tcp_connects_1, &key, &overflow, &no_count);
	else
		counter = entry(&tcp_connects_0, &key, &overflow, &no_count);
	if (counter)
		__sync_fetch_and_add(counter, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
