//! The environment's proxies. They are set for a process of their own, because they are read once and by all of it.

use std::env;
use std::process::Command;
use std::time::Duration;

use super::receiver::{Receiver, answer};
use super::{egress, post};

const VARIABLES: [&str; 6] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Says that a process is the second one.
const MARK: &str = "DUNLIN_TEST_BEHIND_PROXY";

#[tokio::test]
async fn proxies_of_the_environment_have_no_effect() {
    if env::var_os(MARK).is_some() {
        return behind_a_proxy().await;
    }
    let proxy = Receiver::answering(answer("299 Proxied", "", "")).await;
    let mut command = Command::new(env::current_exe().unwrap());
    let test = concat!(module_path!(), "::proxies_of_the_environment_have_no_effect");
    let (_crate, test) = test.split_once("::").unwrap();
    command.args([test, "--exact", "--nocapture"]).env(MARK, "1");
    for name in VARIABLES {
        command.env(name, format!("http://{}", proxy.address));
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(proxy.accepted(), 1, "by the client that heeds them, and no other");
}

async fn behind_a_proxy() {
    let receiver = Receiver::answering(answer("200 OK", "", "")).await;
    assert_eq!(post(&egress(), &receiver.url()).await.unwrap().status, 200);
    // The variables are such that a client with the usual settings heeds them.
    let usual = reqwest::Client::builder()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    assert_eq!(usual.post(receiver.url()).send().await.unwrap().status(), 299);
    assert_eq!(receiver.accepted(), 1);
}
