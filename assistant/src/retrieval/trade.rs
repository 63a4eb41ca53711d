//! What an error's name and a port say to one who knows them: words that a runbook may use where a log line does not.

/// Names of errors, and what the C library says for them (errno(3), strerror(3)).
const ERRORS: &[(&str, &str)] = &[
    ("eacces", "permission denied"),
    ("eaddrinuse", "address already in use"),
    ("eaddrnotavail", "cannot assign requested address"),
    ("eagain", "resource temporarily unavailable"),
    ("econnaborted", "software caused connection abort"),
    ("econnrefused", "connection refused"),
    ("econnreset", "connection reset by peer"),
    ("edquot", "disk quota exceeded"),
    ("ehostdown", "host is down"),
    ("ehostunreach", "no route to host"),
    ("eio", "input/output error"),
    ("emfile", "too many open files"),
    ("emsgsize", "message too long"),
    ("enetdown", "network is down"),
    ("enetunreach", "network is unreachable"),
    ("enfile", "too many open files in system"),
    ("enobufs", "no buffer space available"),
    ("enoent", "no such file or directory"),
    ("enomem", "cannot allocate memory"),
    ("enospc", "no space left on device"),
    ("eperm", "operation not permitted"),
    ("epipe", "broken pipe"),
    ("erofs", "read-only file system"),
    ("estale", "stale file handle"),
    ("etimedout", "connection timed out"),
];

/// Ports that mean one thing wherever containers run (IANA's registry, and Kubernetes' own).
const PORTS: &[(u16, &str)] = &[
    (22, "ssh"),
    (25, "smtp"),
    (53, "dns"),
    (123, "ntp"),
    (179, "bgp"),
    (389, "ldap"),
    (443, "https"),
    (636, "ldap"),
    (2049, "nfs"),
    (2379, "etcd"),
    (2380, "etcd"),
    (3306, "mysql"),
    (4789, "vxlan"),
    (5432, "postgresql"),
    (5672, "rabbitmq"),
    (6379, "redis"),
    (6443, "apiserver"),
    (7946, "memberlist"),
    (8472, "vxlan"),
    (9042, "cassandra"),
    (9090, "prometheus"),
    (9092, "kafka"),
    (9093, "alertmanager"),
    (9100, "exporter"),
    (9200, "elasticsearch"),
    (10250, "kubelet"),
    (10257, "controller-manager"),
    (10259, "scheduler"),
    (27017, "mongodb"),
];

/// Words that a question implies and does not have.
pub(super) fn implied(question: &str) -> String {
    let question = question.to_lowercase();
    let mut words = Vec::new();
    for (name, phrase) in ERRORS {
        let is_named = question
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| word == *name);
        if is_named {
            words.push(*phrase);
        } else if question.contains(phrase) {
            words.push(*name);
        }
    }
    for word in ports(&question).filter_map(|port| {
        PORTS
            .iter()
            .find(|(known, _)| *known == port)
            .map(|(_, word)| *word)
    }) {
        words.push(word);
    }
    words.join(" ")
}

/// The numbers behind the colon of `10.96.0.10:53` and `db.shop:5432`, not of a time of day.
fn ports(question: &str) -> impl Iterator<Item = u16> {
    question.match_indices(':').filter_map(|(colon, _)| {
        let host = question[..colon]
            .rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | ']')))
            .next()?;
        if host.chars().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let digits = question[colon + 1..]
            .split(|c: char| !c.is_alphanumeric())
            .next()?;
        digits.parse().ok()
    })
}

#[test]
fn what_an_error_line_means_becomes_words() {
    for (question, words) in [
        ("dial tcp 10.96.0.10:53: i/o timeout", "dns"),
        (
            "connect ECONNREFUSED db.shop:5432",
            "connection refused postgresql",
        ),
        ("write: No space left on device", "enospc"),
        ("at 10:53 it broke, 3:53pm, :53", ""),
        ("level=error: eiopolis", ""),
    ] {
        assert_eq!(implied(question), words, "{question}");
    }
}
