//! The guarded way out against real sockets. Receivers are at 127.0.0.2, which stands for the Internet: it is the one
//! address of this machine that the tests' rules let through.

mod canary;
mod proxies;
mod receiver;
mod refused;
mod sending;
mod tls;
mod tricks;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;

use super::resolver::Lookup;
use super::{Egress, EndpointUrl, Failure, Guard, Received};
use crate::lock::lock;

/// Stands for the Internet.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Far more than any exchange here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Rules that let [`OUTSIDE`] through and nothing else of this machine.
fn rules() -> Arc<Guard> {
    Arc::new(Guard::new(vec![OUTSIDE.into()], Vec::new(), Vec::new()))
}

fn egress() -> Egress {
    Egress::new(rules(), Vec::new()).unwrap()
}

/// Of which every name has these addresses: the first ones at the first lookup, the last ones for ever.
fn egress_where_names_are(answers: &[&[&str]]) -> Egress {
    egress_under(rules(), answers)
}

fn egress_under(rules: Arc<Guard>, answers: &[&[&str]]) -> Egress {
    let answers: VecDeque<Vec<IpAddr>> = answers
        .iter()
        .map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect())
        .collect();
    let answers = Mutex::new(answers);
    let lookup: Lookup = Arc::new(move |_| {
        let mut answers = lock(&answers);
        let answer = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        };
        Box::pin(async move { answer.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)) })
    });
    Egress::with_lookup(rules, Vec::new(), lookup).unwrap()
}

async fn post(egress: &Egress, url: &str) -> Result<Received, Failure> {
    post_within(egress, url, PATIENCE).await
}

async fn post_within(egress: &Egress, url: &str, time: Duration) -> Result<Received, Failure> {
    let url = EndpointUrl::parse(url, egress.guard()).unwrap();
    let body = Bytes::from_static(b"{\"events\":[]}");
    egress.post(&url, HeaderMap::new(), body, time).await
}
