use super::*;

/// The YAML of a pod with one container.
fn pod(container: &str) -> Vec<u8> {
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"own"}},"data":{{"a":"b"}}}}
---
{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"web"}},"spec":{{"terminationGracePeriodSeconds":7,
  "initContainers":[{{"name":"init","image":"i"}}],"containers":[{{"name":"app","image":"i",
  "ports":[{{"name":"http","containerPort":8080,"hostPort":80}}],
  "env":[{{"name":"FILE","value":"/ok"}},{{"name":"KEY","valueFrom":{{"secretKeyRef":{{"name":"s","key":"k"}}}}}}],
  {container}}}]}}}}
"#
    )
    .into_bytes()
}

fn only(container: &str) -> ContainerSpec {
    let mut all = read(&pod(container));
    assert_eq!(all.len(), 1, "{container}");
    all.remove(0)
}

#[test]
fn a_probe_gets_the_defaults_of_kubernetes() {
    let spec = only(r#""livenessProbe":{"tcpSocket":{"port":"http"}}"#);
    let second = Duration::from_secs;
    let expected = Probe {
        handler: Handler::Tcp {
            host: None,
            port: 8080,
        },
        initial_delay: second(0),
        period: second(10),
        timeout: second(1),
        success_threshold: 1,
        failure_threshold: 3,
        grace: second(7),
    };
    let all = ContainerSpec {
        name: "web-app".into(),
        startup: None,
        liveness: Some(expected.clone()),
        readiness: None,
        post_start: None,
        pre_stop: None,
        stop_signal: None,
        grace: second(7),
    };
    assert_eq!(spec, all);
    assert!(spec.has_probes());
    let spec = only(
        r#""readinessProbe":{"tcpSocket":{"port":"8081"},"initialDelaySeconds":1,"periodSeconds":2,"timeoutSeconds":3,
            "successThreshold":4,"failureThreshold":5,"terminationGracePeriodSeconds":6}"#,
    );
    let expected = Probe {
        handler: Handler::Tcp {
            host: None,
            port: 8081,
        },
        initial_delay: second(1),
        period: second(2),
        timeout: second(3),
        success_threshold: 4,
        failure_threshold: 5,
        grace: second(6),
    };
    assert_eq!(spec.readiness, Some(expected));
    assert_eq!(
        only(
            r#""livenessProbe":{"tcpSocket":{"port":1},"periodSeconds":0,"timeoutSeconds":0,"failureThreshold":0,
                "successThreshold":0}"#
        )
        .liveness,
        only(r#""livenessProbe":{"tcpSocket":{"port":1}}"#).liveness
    );
}

#[test]
fn handlers_are_ready_to_be_carried_out() {
    let http = |path: &str, tls| {
        Handler::Http(HttpGet {
            host: None,
            port: 8080,
            path: path.into(),
            tls,
            headers: Vec::new(),
        })
    };
    let exec = |words: &[&str]| Handler::Exec(words.iter().map(|&word| word.to_owned()).collect());
    let broken = |words: &str| Handler::Broken(words.to_owned());
    for (handler, expected) in [
        (
            r#""exec":{"command":["cat","$(FILE)","$$(FILE)","$(KEY)","$(NO)","$x$"]}"#,
            exec(&["cat", "/ok", "$(FILE)", "", "$(NO)", "$x$"]),
        ),
        (r#""exec":{"command":[]}"#, broken("exec has no command")),
        (r#""httpGet":{"port":8080}"#, http("/", false)),
        (
            r#""httpGet":{"port":"http","path":"healthz?a=b","scheme":"HTTPS"}"#,
            http("/healthz?a=b", true),
        ),
        (
            r#""httpGet":{"port":"8080","path":"/","scheme":"HTTP","host":"10.0.0.1","httpHeaders":[{"name":"A","value":"1"},
                {"name":"A","value":"2"}]}"#,
            Handler::Http(HttpGet {
                host: Some("10.0.0.1".into()),
                port: 8080,
                path: "/".into(),
                tls: false,
                headers: vec![("A".into(), "1".into()), ("A".into(), "2".into())],
            }),
        ),
        (
            r#""httpGet":{"port":"admin"}"#,
            broken("the container has no port named admin"),
        ),
        (
            r#""tcpSocket":{"port":65536}"#,
            broken("65536 is not a port number"),
        ),
        (
            r#""grpc":{"port":9000}"#,
            Handler::Grpc {
                port: 9000,
                service: String::new(),
            },
        ),
        (
            r#""grpc":{"port":9000,"service":"a.B"}"#,
            Handler::Grpc {
                port: 9000,
                service: "a.B".into(),
            },
        ),
        ("", broken("the probe has no handler")),
    ] {
        let spec = only(&format!(r#""startupProbe":{{{handler}}}"#));
        let probe = spec.startup.map(|probe| probe.handler);
        assert_eq!(probe, Some(expected), "{handler}");
    }
}

#[test]
fn hooks_are_read_as_they_are() {
    for (handler, expected) in [
        (
            r#"{"exec":{"command":["echo","$(FILE)"]}}"#,
            Handler::Exec(vec!["echo".into(), "$(FILE)".into()]),
        ),
        (
            r#"{"sleep":{"seconds":5}}"#,
            Handler::Sleep(Duration::from_secs(5)),
        ),
        (
            r#"{"httpGet":{"port":"http","path":"/bye"}}"#,
            Handler::Http(HttpGet {
                host: None,
                port: 8080,
                path: "/bye".into(),
                tls: false,
                headers: Vec::new(),
            }),
        ),
        (
            r#"{"tcpSocket":{"port":80}}"#,
            Handler::Broken("tcpSocket is not supported as a lifecycle hook".into()),
        ),
        ("{}", Handler::Broken("the hook has no handler".into())),
    ] {
        let text = format!(
            r#""lifecycle":{{"preStop":{handler},"postStart":{handler},"stopSignal":"SIGQUIT"}}"#
        );
        let spec = only(&text);
        assert_eq!(spec.pre_stop, Some(expected.clone()), "{handler}");
        assert_eq!(spec.post_start, Some(expected), "{handler}");
        assert_eq!(spec.stop_signal.as_deref(), Some("SIGQUIT"));
        assert!(!spec.has_probes());
    }
}

#[test]
fn other_files_have_no_containers() {
    assert_eq!(read(b""), []);
    assert_eq!(read(b"kind: Pod"), []);
    assert_eq!(read(br#"{"kind":"Service","metadata":{"name":"a"}}"#), []);
}
