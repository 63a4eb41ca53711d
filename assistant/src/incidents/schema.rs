//! The tables, as steps from an empty database to the present. A step that was published never changes.
//! The types are those that SQLite and PostgreSQL both have.

/// Step n brings version n−1 to version n.
pub(super) const STEPS: [&[&str]; 2] = [FIRST, WHO_ENDED_IT];

const FIRST: &[&str] = &[
    // Times are Unix milliseconds; 0 is «not yet», NEVER is «not due».
    "CREATE TABLE incidents (
        id TEXT PRIMARY KEY,
        group_key TEXT NOT NULL,
        receiver TEXT NOT NULL,
        state TEXT NOT NULL,
        labels TEXT NOT NULL,
        annotations TEXT NOT NULL,
        external_url TEXT NOT NULL,
        truncated BIGINT NOT NULL,
        started_at BIGINT NOT NULL,
        notified_at BIGINT NOT NULL,
        resolved_at BIGINT NOT NULL,
        status TEXT NOT NULL,
        cause TEXT NOT NULL,
        summary TEXT NOT NULL,
        diagnoses BIGINT NOT NULL,
        diagnosed_at BIGINT NOT NULL,
        next_diagnosis BIGINT NOT NULL,
        pause BIGINT NOT NULL,
        claimed_until BIGINT NOT NULL,
        annotation_id BIGINT NOT NULL
    )",
    "CREATE INDEX incidents_due ON incidents (next_diagnosis)",
    "CREATE INDEX incidents_started ON incidents (started_at, id)",
    "CREATE INDEX incidents_group ON incidents (group_key, state)",
    "CREATE INDEX incidents_notified ON incidents (notified_at)",
    "CREATE INDEX incidents_state ON incidents (state, resolved_at)",
    "CREATE TABLE alerts (
        group_key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        starts_at BIGINT NOT NULL,
        incident TEXT NOT NULL,
        ended_at BIGINT NOT NULL,
        ended_seen BIGINT NOT NULL,
        alertname TEXT NOT NULL,
        namespace TEXT NOT NULL,
        labels TEXT NOT NULL,
        annotations TEXT NOT NULL,
        generator_url TEXT NOT NULL,
        PRIMARY KEY (group_key, starts_at, fingerprint)
    )",
    "CREATE INDEX alerts_incident ON alerts (incident)",
    "CREATE TABLE diagnoses (
        incident TEXT NOT NULL,
        number BIGINT NOT NULL,
        made_at BIGINT NOT NULL,
        digest TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (incident, number)
    )",
    "CREATE TABLE feedback (
        incident TEXT NOT NULL,
        given_at BIGINT NOT NULL,
        verdict TEXT NOT NULL,
        failure_mode TEXT NOT NULL,
        comment TEXT NOT NULL
    )",
    "CREATE INDEX feedback_incident ON feedback (incident)",
    // What is to be told elsewhere. A row goes when it was told, or given up.
    "CREATE TABLE deliveries (
        key TEXT PRIMARY KEY,
        incident TEXT NOT NULL,
        target TEXT NOT NULL,
        event TEXT NOT NULL,
        number BIGINT NOT NULL,
        attempts BIGINT NOT NULL,
        made_at BIGINT NOT NULL,
        next_attempt BIGINT NOT NULL,
        claimed_until BIGINT NOT NULL
    )",
    "CREATE INDEX deliveries_due ON deliveries (next_attempt)",
];

const WHO_ENDED_IT: &[&str] = &[
    // When Alertmanager last said of this alert that it fires.
    "ALTER TABLE alerts ADD COLUMN told_at BIGINT NOT NULL DEFAULT 0",
    // Who said that it is over; empty is Alertmanager.
    "ALTER TABLE alerts ADD COLUMN ended_by TEXT NOT NULL DEFAULT ''",
    "UPDATE alerts SET told_at = COALESCE((SELECT notified_at FROM incidents WHERE id = alerts.incident), 0)",
];

/// When something that is not due is due.
pub(super) const NEVER: i64 = i64::MAX;
