//! The kinds that are accepted, checked and not kept: Namespace and ServiceAccount.
//!
//! Pure: constants.

use super::{
    Area,
    controllers::{API_VERSION, STATUS},
    idle, warned,
};

pub(super) static NAMESPACE: Area = Area {
    api: "Namespace",
    title: Some("Namespace"),
    rows: &[
        API_VERSION,
        warned(
            "kind",
            "a Namespace has no effect and is not kept: a namespace is a part of the names of its objects",
        ),
        idle("metadata", "the name is checked"),
        idle("spec", "a namespace ends with its last object"),
        STATUS,
    ],
    base: None,
};

pub(super) static SERVICE_ACCOUNT: Area = Area {
    api: "ServiceAccount",
    title: Some("ServiceAccount"),
    rows: &[
        API_VERSION,
        warned(
            "kind",
            "a ServiceAccount has no effect and is not kept: there is no API server that a token would be for",
        ),
        idle("metadata", "the name is checked"),
        idle("automountServiceAccountToken", "no token is mounted"),
        warned(
            "imagePullSecrets",
            "Podman ignores it: log in to the registry on each host",
        ),
        idle("secrets", "there are no tokens"),
    ],
    base: None,
};
