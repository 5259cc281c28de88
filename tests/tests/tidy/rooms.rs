//! The rooms of the source tree, and which of the others each may import.

/// The rooms of the gateway, the lowest first, each with those below that it may import. Its tests keep to the same.
pub(super) const GATEWAY: [(&str, &[&str]); 14] = [
    ("clock", &[]),
    ("cluster", &[]),
    ("local", &[]),
    ("config", &[]),
    ("agent_link", &["clock"]),
    ("raft", &["cluster"]),
    ("controllers", &["agent_link", "clock", "cluster", "raft"]),
    (
        "workloads",
        &["agent_link", "clock", "cluster", "local", "raft"],
    ),
    ("context", &["agent_link", "cluster", "local", "raft"]),
    ("pki", &["context", "local"]),
    (
        "membership",
        &[
            "agent_link",
            "clock",
            "cluster",
            "context",
            "controllers",
            "local",
            "raft",
        ],
    ),
    (
        "api",
        &[
            "agent_link",
            "clock",
            "cluster",
            "context",
            "local",
            "membership",
            "pki",
            "raft",
            "workloads",
        ],
    ),
    (
        "simulation",
        &["cluster", "controllers", "raft", "workloads"],
    ),
    (
        "main",
        &[
            "agent_link",
            "api",
            "config",
            "context",
            "controllers",
            "local",
            "membership",
            "pki",
            "raft",
            "workloads",
        ],
    ),
];

/// The same for the agent.
pub(super) const AGENT: [(&str, &[&str]); 15] = [
    ("args", &[]),
    ("dbus", &[]),
    ("durable", &[]),
    ("config", &["durable"]),
    ("notify", &[]),
    ("podman", &[]),
    ("rates", &[]),
    ("systemd", &[]),
    ("ports", &["config"]),
    ("sieve", &["rates"]),
    ("mesh", &["durable", "ports", "rates", "sieve"]),
    ("socket", &["mesh", "ports"]),
    ("api_port", &["ports", "rates", "sieve", "socket"]),
    ("commands", &["args"]),
    (
        "agent",
        &[
            "api_port", "config", "dbus", "mesh", "notify", "podman", "ports", "socket", "systemd",
        ],
    ),
];

/// The same for the supervisor and the code that it shares with the gateway.
pub(super) const QUADLET: [(&str, &[&str]); 14] = [
    ("adopt", &[]),
    ("belongings", &[]),
    ("file_lock", &[]),
    ("health", &[]),
    ("journal_backfill", &[]),
    ("lease", &[]),
    ("manifest", &[]),
    ("repair", &[]),
    ("render", &["belongings", "health", "manifest"]),
    ("podman", &["health", "render"]),
    ("play_lock", &["file_lock", "health", "podman"]),
    (
        "supervisor",
        &[
            "adopt",
            "file_lock",
            "health",
            "journal_backfill",
            "lease",
            "play_lock",
            "podman",
            "render",
            "repair",
        ],
    ),
    ("bin", &[]),
    ("lib", &[]),
];
