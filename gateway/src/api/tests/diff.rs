//! Tests of `diff=true` through the API.

use super::*;

const SECRET: &str =
    "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {word: sesame}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_the_content_of_objects() {
    let serving = Serving::start().await;
    let line = "POST /v1/apply?dryRun=true&diff=true&name=mine";
    let (status, new) = serving.ask(line, POD).await;
    assert_eq!((status, &new["dryRun"]), (200, &json!(true)), "{new}");
    let object = &new["objects"][0];
    assert_eq!(
        (&object["kind"], &object["action"], &object["before"]),
        (&json!("Pod"), &json!("created"), &Value::Null),
        "{new}"
    );
    let text = object["after"].as_str().unwrap();
    assert!(
        text.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n"),
        "{text}"
    );
    let (_, none) = serving.ask("GET /v1/manifests", "").await;
    assert_eq!(none, json!({"manifests": []}));

    let both = format!("{POD}---\n{SECRET}");
    let (status, applied) = serving.ask("POST /v1/apply?name=mine", &both).await;
    assert_eq!(status, 200, "{applied}");
    assert_eq!(applied["objects"][0].get("before"), None, "{applied}");
    let other = POD.replace("x:1", "x:2");
    let line = format!("{line}&prune=true");
    let (status, changed) = serving.ask(&line, &other).await;
    assert_eq!(
        (status, &changed["index"]),
        (200, &applied["index"]),
        "{changed}"
    );
    let [pod, secret] = &changed["objects"].as_array().unwrap()[..] else {
        panic!("{changed}")
    };
    assert_eq!(pod["before"].as_str(), Some(text), "{changed}");
    let after = text.replace("x:1", "x:2");
    assert_eq!(pod["after"].as_str(), Some(after.as_str()), "{changed}");
    assert_eq!(
        (&secret["action"], &secret["after"]),
        (&json!("removed"), &Value::Null)
    );
    let before = secret["before"].as_str().unwrap();
    assert!(
        before.contains("\n  word: hmac-sha256:") && !before.contains("sesame"),
        "{before}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_is_refused_as_the_apply_would_be() {
    let serving = Serving::start().await;
    let (status, refused) = serving.ask("POST /v1/apply?diff=true", POD).await;
    let message = refused["error"]["message"].as_str().unwrap();
    assert_eq!(status, 400, "{refused}");
    assert!(
        message.starts_with("diff=true needs dryRun=true"),
        "{message}"
    );
    let user = format!("{POD}    envFrom: [{{configMapRef: {{name: none}}}}]\n");
    let line = "POST /v1/apply?dryRun=true&diff=true";
    let (status, refused) = serving.ask(line, &user).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (422, &json!("invalid")),
        "{refused}"
    );
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let (status, none) = serving.ask(line, namespace).await;
    assert_eq!((status, &none["objects"]), (200, &json!([])), "{none}");
    let (_, none) = serving.ask("GET /v1/manifests", "").await;
    assert_eq!(none, json!({"manifests": []}));
}
