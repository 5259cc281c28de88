//! Values for users, roles and the audit log.

use beemesh_protocol::{
    HostId,
    state::{Access, AuditContext, AuditRecord, Authority, Change, Origin, UserRecord, UserRole},
};

pub(crate) fn origin() -> Origin {
    Origin {
        host: HostId([1; 32]),
        who: "alice".into(),
        from: "192.0.2.7:40112".into(),
    }
}

pub(crate) fn changes() -> [Change; 6] {
    let put = |replaced| Change::PutAuthority {
        authority: authority(),
        replaced,
    };
    let [viewer, deployer, admin] = users().map(Change::PutUser);
    let revoke = Change::RevokeUser {
        user: "alice".into(),
    };
    [
        put(None),
        put(Some([2; 32])),
        viewer,
        deployer,
        admin,
        revoke,
    ]
}

pub(crate) fn records() -> [Access; 2] {
    let audit = AuditRecord {
        index: 9,
        at_ms: 8,
        origin: origin(),
        what: "manifest applied".into(),
        name: "web".into(),
        context: None,
    };
    let full = Access {
        authority: Some(authority()),
        users: users().into(),
        audit: vec![audit],
    };
    [Access::default(), full]
}

/// An audit record in the form of 0.3.0.
pub(crate) fn audited() -> Access {
    let [_, full] = records();
    let audit = full.audit.into_iter().map(|record| AuditRecord {
        context: Some(AuditContext {
            detail: "zone=a".into(),
            host_name: "h1".into(),
        }),
        ..record
    });
    Access {
        audit: audit.collect(),
        ..Access::default()
    }
}

fn authority() -> Authority {
    Authority {
        certificate: vec![0x30, 0x82],
        key: [3; 32],
        sealed: vec![1, 2, 3],
    }
}

fn users() -> [UserRecord; 3] {
    [UserRole::Viewer, UserRole::Deployer, UserRole::Admin].map(|role| UserRecord {
        name: "alice".into(),
        role,
        certificate: [5; 32],
        made_ms: 8,
        expires_ms: 1_800_000_000_000,
    })
}
