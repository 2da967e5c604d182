//! Idempotency keys of all nodes.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use bytes::Bytes;
use redis::{FromRedisValue as _, Value};

use super::{Cluster, millis};
use crate::answer::{Answer, Unavailable};
use crate::apps::App;
use crate::broker::idempotency::{Admission, Digest, Idempotency, NotAdmitted};
use crate::clock;
use crate::config::IdempotencySection;
use crate::lock::lock;
use crate::storage::keys::AppNum;
use crate::storage::redis::names::Partition;
use crate::storage::redis::scripts::ONCE;

/// How long a request may be under way before its key is free again: its node may have died over it.
const UNDER_WAY_MS: u64 = 30_000;

/// What this node has brought into the memory of all, by app, and until when it stays there.
pub(super) struct Brought {
    section: IdempotencySection,
    apps: Mutex<HashMap<AppNum, VecDeque<u32>>>,
}

impl Brought {
    pub(super) fn new(section: &IdempotencySection) -> Self {
        Self {
            section: section.clone(),
            apps: Mutex::default(),
        }
    }

    /// Whether one more of this app fits; it is counted if so.
    fn take(&self, app: AppNum) -> bool {
        let now_s = clock::monotonic_seconds();
        let mut apps = lock(&self.apps);
        let ends = apps.entry(app).or_default();
        while ends.front().is_some_and(|ends_s| *ends_s <= now_s) {
            ends.pop_front();
        }
        let fits = ends.len() < self.section.max_entries;
        if fits {
            ends.push_back(now_s.saturating_add(clock::ceil_seconds(self.section.ttl)));
        }
        fits
    }
}

impl Cluster {
    fn once(&self, app: &App, key: &str) -> String {
        let partition = Partition::of(app.id.as_str(), key);
        self.names.once(partition, &app.id, key)
    }
}

impl Idempotency for Cluster {
    fn admit(&self, app: &App, key: &str, request: Digest) -> Answer<Result<Admission, NotAdmitted>> {
        let Some(link) = self.link.load_full() else {
            return Answer::ready(Err(Unavailable.into()));
        };
        if !self.brought.take(app.num) {
            return Answer::ready(Err(NotAdmitted::TooMany));
        }
        let once = self.once(app, key);
        Answer::later(async move {
            let (digest, time) = (hex::encode(request), UNDER_WAY_MS.to_string());
            let args = [digest.as_bytes(), time.as_bytes()];
            let value = ONCE
                .run(&link.publishing, &[&once], &args)
                .await
                .map_err(|error| {
                    link.failed("idempotency", &error);
                    Unavailable
                })?;
            admission(value)
        })
    }

    fn remember(&self, app: &App, key: &str, request: Digest, answer: Bytes) -> Answer<()> {
        let Some(link) = self.link.load_full() else {
            return Answer::ready(());
        };
        let mut value = hex::encode(request).into_bytes();
        value.push(b':');
        value.extend_from_slice(&answer);
        let mut command = redis::cmd("SET");
        command
            .arg(self.once(app, key))
            .arg(value)
            .arg("PX")
            .arg(millis(self.brought.section.ttl));
        Answer::later(async move {
            if let Err(error) = link.publishing.call(&command).await {
                link.failed("idempotency", &error);
            }
        })
    }

    fn forget(&self, app: &App, key: &str) -> Answer<()> {
        let Some(link) = self.link.load_full() else {
            return Answer::ready(());
        };
        let mut command = redis::cmd("DEL");
        command.arg(self.once(app, key));
        Answer::later(async move {
            if let Err(error) = link.publishing.call(&command).await {
                link.failed("idempotency", &error);
            }
        })
    }

    fn tick(&self) {}
}

fn admission(value: Value) -> Result<Admission, NotAdmitted> {
    let parts = Vec::<Vec<u8>>::from_redis_value(value).unwrap_or_default();
    match &parts[..] {
        [word] if word == b"first" => Ok(Admission::First),
        [word] if word == b"under way" => Err(NotAdmitted::UnderWay),
        [word] if word == b"other" => Err(NotAdmitted::OtherRequest),
        [word, answer] if word == b"again" => Ok(Admission::Again(Bytes::copy_from_slice(answer))),
        _ => Err(Unavailable.into()),
    }
}
