//! The role that each route requires.
//!
//! Pure, except for [`authorize`], which reads the caller's user. A local caller may use every route. A remote user may
//! use the routes of the role in the present replicated state, so a change of the role takes effect at the next
//! request.

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};
use beemesh_protocol::state::UserRole;

use super::{ApiError, Shared, remote::Remote, request::Caller};

/// Which remote users may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Every user from this role on.
    Role(UserRole),
    /// No remote user, because the route concerns only the host itself.
    Local,
}

/// The requirement of a route. An unknown route requires the highest role.
pub(super) fn needs(method: &Method, route: &str) -> Needs {
    let reads = method == Method::GET || method == Method::HEAD;
    let role = match route {
        "/v1/join" | "/v1/recovery" | "/v1/key" => return Needs::Local,
        // The Secrets are in it, and a token is membership.
        "/v1/backup" | "/v1/tokens" | "/v1/users" => UserRole::Admin,
        "/healthz"
        | "/v1/workloads"
        | "/v1/workloads/{name}"
        | "/v1/workloads/{name}/logs"
        | "/v1/workloads/{name}/revisions"
        | "/v1/manifests"
        | "/v1/hosts"
        | "/v1/policy"
        | "/v1/hosts/{name}"
        | "/v1/status"
        | "/v1/events"
            if reads =>
        {
            UserRole::Viewer
        }
        "/v1/apply"
        | "/v1/workloads/{name}"
        | "/v1/workloads/{name}/rollout"
        | "/v1/manifests/{name}" => UserRole::Deployer,
        _ => UserRole::Admin,
    };
    Needs::Role(role)
}

/// Adds the [`Caller`] to a request of the remote API, or refuses it.
pub(super) async fn authorize(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(remote) = request.extensions().get::<Remote>().copied() else {
        return ApiError::internal("a request without a caller").into_response();
    };
    let Some(user) = remote.user(&shared.gateway) else {
        return ApiError::forbidden("the certificate was revoked or has expired")
            .hint("an administrator can issue a new certificate with `beemesh user create`")
            .into_response();
    };
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str).to_owned();
    if let Err(refused) = check(user.role, request.method(), &route, request.uri().path()) {
        tracing::warn!(user = %user.name, from = %remote.from, method = %request.method(), %route, "refused");
        return refused.into_response();
    }
    request.extensions_mut().insert(Caller::User {
        name: user.name,
        from: remote.from,
    });
    next.run(request).await
}

/// `path` is what was asked for, by this route.
fn check(role: UserRole, method: &Method, route: &str, path: &str) -> Result<(), ApiError> {
    let needed = match needs(method, route) {
        Needs::Role(needed) if needed <= role => return Ok(()),
        Needs::Role(needed) => needed,
        Needs::Local => {
            return Err(ApiError::forbidden(format!(
                "{method} {path} is possible only on the host itself"
            )));
        }
    };
    let name = UserRole::name;
    Err(ApiError::forbidden(format!(
        "{method} {path} needs the role {}, and you have {}",
        name(needed),
        name(role)
    ))
    .hint("an administrator can change the role with `beemesh user create NAME --role ROLE`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documentation lists every route. The test tries each of them with each role.
    #[test]
    fn each_route_of_the_documentation_is_for_whom_it_says() {
        let page = include_str!("../../../docs/api.md");
        let mut count = 0;
        for line in page.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let Some((method, path)) = cells[1].trim_matches('`').split_once(' ') else {
                continue;
            };
            let method: Method = method.parse().unwrap();
            let route = path.replace("NAME", "{name}").replace("ID", "{id}");
            let expected = match cells[2] {
                "viewer" => Needs::Role(UserRole::Viewer),
                "deployer" => Needs::Role(UserRole::Deployer),
                "admin" => Needs::Role(UserRole::Admin),
                "the host" => Needs::Local,
                other => panic!("{line}: {other}"),
            };
            assert_eq!(needs(&method, &route), expected, "{line}");
            for role in [UserRole::Viewer, UserRole::Deployer, UserRole::Admin] {
                let may = matches!(expected, Needs::Role(needed) if needed <= role);
                assert_eq!(
                    check(role, &method, &route, path).is_ok(),
                    may,
                    "{role:?} {line}"
                );
            }
            count += 1;
        }
        assert!(count >= 25, "{count} routes found");
    }

    #[test]
    fn what_is_not_known_is_for_administrators() {
        for (method, route) in [
            (Method::GET, "/v1/new"),
            (Method::POST, "/v1/workloads"),
            (Method::PUT, "/v1/hosts/{name}"),
            (Method::GET, ""),
        ] {
            assert_eq!(
                needs(&method, route),
                Needs::Role(UserRole::Admin),
                "{route}"
            );
        }
    }
}
