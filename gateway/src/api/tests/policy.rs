//! Tests of the policy through the API.

use super::*;

const LOOSE: &str = "hostNetwork: true\nhostPaths: [/srv:ro]\n";

fn of_host(pod: &str) -> String {
    pod.replace("spec:\n", "spec:\n  hostNetwork: true\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_refuses_before_anything_is_proposed_and_is_set_and_shown() {
    let serving = Serving::start().await;
    let (status, safe) = serving.ask("GET /v1/policy", "").await;
    assert_eq!((status, &safe["version"]), (200, &json!(0)), "{safe}");
    assert_eq!(safe["rules"]["hostPaths"], json!([]), "{safe}");

    let before = serving.ask("GET /v1/status", "").await.1["applied"].clone();
    for line in ["POST /v1/apply", "POST /v1/apply?dryRun=true"] {
        let (status, refused) = serving.ask(line, &of_host(POD)).await;
        let problems = refused["error"]["problems"].as_array().unwrap();
        let [problem] = &problems[..] else {
            panic!("{refused}")
        };
        assert_eq!((status, &problem["line"]), (422, &json!(5)), "{refused}");
        assert_eq!(problem["field"], "spec.hostNetwork", "{refused}");
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("`hostNetwork: false`"), "{message}");
    }
    let after = serving.ask("GET /v1/status", "").await.1["applied"].clone();
    assert_eq!(before, after, "nothing reached the log");

    let (status, wrong) = serving
        .ask("PUT /v1/policy", "hostNetwork: 1\nnope: 2\n")
        .await;
    let problems = wrong["error"]["problems"].as_array().unwrap();
    assert_eq!(
        (status, problems.len(), &problems[1]["line"]),
        (422, 2, &json!(2)),
        "{wrong}"
    );
    for (query, expected, version) in [
        ("?ifVersion=1", 409, 0),
        ("?ifVersion=0", 200, 1),
        ("?ifVersion=0", 200, 1),
    ] {
        let (status, set) = serving.ask(&format!("PUT /v1/policy{query}"), LOOSE).await;
        assert_eq!(status, expected, "{set}");
        let (_, shown) = serving.ask("GET /v1/policy", "").await;
        assert_eq!(shown["version"], json!(version), "{shown}");
    }
    let (_, shown) = serving.ask("GET /v1/policy", "").await;
    let document = shown["document"].as_str().unwrap();
    assert!(
        document.contains("\nhostPaths: [\"/srv:ro\"]\n"),
        "{document}"
    );
    let (status, applied) = serving.ask("POST /v1/apply", &of_host(POD)).await;
    assert_eq!(status, 200, "{applied}");

    let (status, set) = serving.ask("PUT /v1/policy", "{}").await;
    assert_eq!((status, &set["version"]), (200, &json!(2)), "{set}");
    let (status, refused) = serving.ask("POST /v1/apply", &of_host(POD)).await;
    assert_eq!(
        status, 422,
        "what it has already is checked, too: {refused}"
    );
    let (_, running) = serving.ask("GET /v1/workloads/web", "").await;
    assert_eq!(running["revision"], 1, "{running}");
}

/// While the policy changes back and forth, the policy before each applied manifest in the log allows it.
#[tokio::test(flavor = "multi_thread")]
async fn no_manifest_slips_in_between_two_policies() {
    let serving = Serving::start().await;
    let change = async {
        let mut sets = vec![(0, false)];
        for round in 0..20 {
            let loose = round % 2 == 0;
            let document = if loose { LOOSE } else { "hostNetwork: false\n" };
            let (status, set) = serving.ask("PUT /v1/policy", document).await;
            assert_eq!(status, 200, "{set}");
            sets.push((set["index"].as_u64().unwrap(), loose));
        }
        sets
    };
    let apply = async {
        let mut applied = Vec::new();
        for round in 0..100 {
            let pod = of_host(POD).replace("name: web", &format!("name: web{round}"));
            let (status, answer) = serving.ask("POST /v1/apply", &pod).await;
            match status {
                200 => applied.push(answer["index"].as_u64().unwrap()),
                // Every check was followed by a change of the policy before the commit.
                409 => assert!(
                    answer.to_string().contains("apply the manifest again"),
                    "{answer}"
                ),
                _ => assert_eq!(status, 422, "{answer}"),
            }
        }
        applied
    };
    let (sets, applied) = tokio::join!(change, apply);
    for index in applied {
        let (set, loose) = sets.iter().rfind(|(set, _)| *set < index).unwrap();
        assert!(loose, "applied at {index} under the policy of {set}");
    }
}
