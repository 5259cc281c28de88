//! Pure: where a redirect leads.

use std::net::IpAddr;

use super::super::spec::path::encoded;

/// A request to a pod, without its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tls: bool,
    pub(super) port: u16,
    /// The path and the query, encoded.
    pub(super) path: String,
}

/// Where a redirect leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// To the pod.
    Pod {
        target: Target,
        /// Whether the redirect names no host.
        is_relative: bool,
    },
    /// To another host.
    Elsewhere,
    /// Nowhere, because the location is not valid.
    Invalid,
}

/// Follows the `Location` of an answer to `from` of the pod with this address.
pub(super) fn follow(from: &Target, address: IpAddr, location: &str) -> Next {
    let location = location.split('#').next().unwrap_or_default();
    let (tls, rest) = match (location.split_once(':'), location.strip_prefix("//")) {
        (_, Some(rest)) => (from.tls, Some(rest)),
        (Some((scheme, rest)), None) if is_scheme(scheme) => {
            let is_https = scheme.eq_ignore_ascii_case("https");
            let is_known = is_https || scheme.eq_ignore_ascii_case("http");
            match rest.strip_prefix("//").filter(|_| is_known) {
                Some(rest) => (is_https, Some(rest)),
                None => return Next::Elsewhere,
            }
        }
        _ => (from.tls, None),
    };
    let Some(rest) = rest else {
        let target = Target {
            path: encoded(&resolved(&from.path, location)),
            ..from.clone()
        };
        return Next::Pod {
            target,
            is_relative: true,
        };
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match host_port(authority, tls) {
        None => Next::Invalid,
        Some((host, port)) if host.parse() == Ok(address) => Next::Pod {
            target: Target {
                tls,
                port,
                path: encoded(path),
            },
            is_relative: false,
        },
        Some(_) => Next::Elsewhere,
    }
}

fn is_scheme(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_part)
}

/// The host, without the brackets of an IPv6 address, and the port.
fn host_port(authority: &str, tls: bool) -> Option<(&str, u16)> {
    let (_, authority) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            authority.split_at(end)
        }
    };
    let port = match port.strip_prefix(':').filter(|port| !port.is_empty()) {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None if port.is_empty() || port == ":" => {
            if tls {
                443
            } else {
                80
            }
        }
        None => return None,
    };
    Some((host, port))
}

/// The path that a relative location stands for.
fn resolved(base: &str, location: &str) -> String {
    let base_path = base.split('?').next().unwrap_or_default();
    if location.is_empty() {
        return base.to_owned();
    }
    if location.starts_with('?') {
        return format!("{base_path}{location}");
    }
    let (path, query) = match location.find('?') {
        Some(at) => location.split_at(at),
        None => (location, ""),
    };
    let folder = match (path.starts_with('/'), base_path.rfind('/')) {
        (false, Some(at)) => &base_path[..=at],
        _ => "",
    };
    let mut parts: Vec<&str> = Vec::new();
    let full = format!("{folder}{path}");
    for part in full.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if matches!(full.rsplit('/').next(), Some("." | "..")) {
        parts.push("");
    }
    let path = parts.join("/");
    format!("/{}{query}", path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_the_pod_or_elsewhere() {
        let from = Target {
            tls: false,
            port: 8080,
            path: "/a/b?c=d".into(),
        };
        let v4: IpAddr = "10.88.0.5".parse().unwrap();
        let v6: IpAddr = "fd00::5".parse().unwrap();
        let pod = |tls, port, path: &str, is_relative| Next::Pod {
            target: Target {
                tls,
                port,
                path: path.into(),
            },
            is_relative,
        };
        for (address, location, expected) in [
            (v4, "/", pod(false, 8080, "/", true)),
            (v4, "/x?y#z", pod(false, 8080, "/x?y", true)),
            (v4, "x", pod(false, 8080, "/a/x", true)),
            (v4, "../x/./y/", pod(false, 8080, "/x/y/", true)),
            (v4, "../../../x/..", pod(false, 8080, "/", true)),
            (v4, "?e=f", pod(false, 8080, "/a/b?e=f", true)),
            (v4, "", pod(false, 8080, "/a/b?c=d", true)),
            (v4, "x:80/y", Next::Elsewhere),
            (v4, "/x:80/y", pod(false, 8080, "/x:80/y", true)),
            (v4, "http://10.88.0.5:9090/x", pod(false, 9090, "/x", false)),
            (v4, "HTTPS://10.88.0.5", pod(true, 443, "/", false)),
            (v4, "//10.88.0.5?q", pod(false, 80, "/?q", false)),
            (v4, "http://u:p@10.88.0.5/", pod(false, 80, "/", false)),
            (v4, "http://10.88.0.5@10.0.0.1/", Next::Elsewhere),
            (v4, "http://127.0.0.1:8080/", Next::Elsewhere),
            (v4, "http://example.org/", Next::Elsewhere),
            (v4, "http:///x", Next::Elsewhere),
            (v4, "ftp://10.88.0.5/", Next::Elsewhere),
            (v4, "http://10.88.0.5:0/", Next::Invalid),
            (v4, "http://10.88.0.5:port/", Next::Invalid),
            (v4, "http://[fd00::5/", Next::Invalid),
            (v6, "http://[fd00::5]:81/x", pod(false, 81, "/x", false)),
            (v6, "http://[fd00::6]/x", Next::Elsewhere),
            (v6, "http://[fd00::5]x/", Next::Invalid),
        ] {
            assert_eq!(follow(&from, address, location), expected, "{location}");
        }
    }
}
