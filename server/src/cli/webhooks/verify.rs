//! `dunlin webhooks verify`: whether a request that somebody received is ours, and if it does not look so, why.

use std::io::Read as _;

use dunlin_protocol::signature::Secret;

use super::args::VerifyArgs;
use crate::cli::error::CliError;
use crate::cli::out::Out;
use crate::cli::time;
use crate::clock;
use crate::config::ConfigSecret;
use crate::webhooks::sign;

/// Longer than any body that we send.
const MAX_BODY: u64 = 64 << 20;

/// How far off the libraries of Standard Webhooks allow a timestamp to be.
const TOLERANCE_S: u64 = 300;

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";
const PUSHER_SIGNATURE: &str = "x-pusher-signature";

/// A line per signature that can be checked; what is wrong has a hint.
pub(super) fn run(args: &VerifyArgs, out: &mut Out) -> Result<(), CliError> {
    let mut body = Vec::new();
    let mut input = std::io::stdin().take(MAX_BODY);
    input.read_to_end(&mut body).map_err(CliError::Input)?;
    let request = Request {
        headers: &args.header,
        body: &body,
    };
    let checks = checks(args, &request)?;
    let mut wrong = 0;
    for (name, found) in checks {
        match found {
            Ok(()) => out.line(format_args!("ok      {name}")),
            Err(why) => {
                wrong += 1;
                out.line(format_args!("FAILED  {name}: {why}"));
            }
        }
    }
    if let Some(warning) = request.age_warning(clock::unix_seconds()) {
        out.complain(warning);
    }
    match wrong {
        0 => Ok(()),
        wrong => Err(CliError::Unverified(wrong)),
    }
}

type Check = (&'static str, Result<(), String>);

fn checks(args: &VerifyArgs, request: &Request<'_>) -> Result<Vec<Check>, CliError> {
    let app_secret = args.app_secret.as_ref().map(ConfigSecret::to_secret);
    let own_secret = match &args.secret {
        Some(text) => Some(sign::standard_secret(text.expose()).ok_or_else(|| {
            CliError::Usage(
                "--secret must be whsec_ and base64 behind it; the app's goes with --app-secret".to_owned(),
            )
        })?),
        None => None,
    };
    let mut checks = Vec::new();
    let is_standard = own_secret.is_some() || request.header(SIGNATURE).is_some();
    if let (true, Some(secret)) = (is_standard, own_secret.as_ref().or(app_secret.as_ref())) {
        checks.push((SIGNATURE, request.standard(secret)));
    }
    let is_pusher = request.header(PUSHER_SIGNATURE).is_some() || !is_standard;
    if let (true, Some(secret)) = (is_pusher, &app_secret) {
        checks.push((PUSHER_SIGNATURE, request.pusher(secret)));
    }
    Ok(checks)
}

/// As it was received.
struct Request<'a> {
    /// Names in lower case.
    headers: &'a [(String, String)],
    body: &'a [u8],
}

impl Request<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    fn needed(&self, name: &str) -> Result<&str, String> {
        self.header(name)
            .ok_or_else(|| format!("say -H '{name}: …' as the request had it"))
    }

    fn standard(&self, secret: &Secret) -> Result<(), String> {
        let (id, timestamp) = (self.needed(ID)?, self.needed(TIMESTAMP)?);
        let signatures = self.needed(SIGNATURE)?;
        self.any_body(|body| {
            let right = sign::standard_signature(secret, id, timestamp, body);
            signatures.split(' ').any(|signature| signature == right)
        })
    }

    fn pusher(&self, secret: &Secret) -> Result<(), String> {
        let signature = self.needed(PUSHER_SIGNATURE)?;
        self.any_body(|body| secret.verify_hex(&[body], signature))
    }

    /// Whether it is the body that was signed, or would be but for what editors and `echo` put at its end.
    fn any_body(&self, is_signed: impl Fn(&[u8]) -> bool) -> Result<(), String> {
        if is_signed(self.body) {
            return Ok(());
        }
        let trimmed = self.body.trim_ascii_end();
        if trimmed.len() < self.body.len() && is_signed(trimmed) {
            return Err("the body has white space at its end that was not sent".to_owned());
        }
        Err(format!(
            "not of this secret over these {} bytes; is the body as it came, not parsed and written again?",
            self.body.len()
        ))
    }

    fn age_warning(&self, now_unix_s: i64) -> Option<String> {
        let unix_s: u64 = self.header(TIMESTAMP)?.parse().ok()?;
        let now = u64::try_from(now_unix_s).ok()?;
        (now.abs_diff(unix_s) > TOLERANCE_S).then(|| {
            format!(
                "the request is of {}: libraries refuse it now, because it may be somebody's repetition",
                time::show(unix_s.saturating_mul(1000))
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    fn headers(list: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        list.iter().map(owned).collect()
    }

    /// The vector of the specification's own libraries.
    #[test]
    fn a_signature_is_right_over_the_bytes_that_were_sent_and_no_others() {
        let secret = sign::standard_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("it is one");
        let headers = headers(&[
            (ID, "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            (TIMESTAMP, "1614265330"),
            (
                SIGNATURE,
                "v1,b3RoZXI= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ]);
        let request = |body| Request {
            headers: &headers,
            body,
        };
        assert_eq!(request(BODY).standard(&secret), Ok(()));
        let with_line_end = [BODY, b"\n"].concat();
        let why = request(&with_line_end).standard(&secret).unwrap_err();
        assert!(why.contains("white space"), "{why}");
        let why = request(br#"{"test":2432232314}"#).standard(&secret).unwrap_err();
        assert!(why.contains("19 bytes"), "{why}");
        assert!(request(BODY).standard(&Secret::new("other")).is_err());
        let why = request(BODY).pusher(&secret).unwrap_err();
        assert!(why.contains(PUSHER_SIGNATURE), "{why}");
    }

    #[test]
    fn an_old_request_is_warned_about() {
        let headers = headers(&[(TIMESTAMP, "1614265330")]);
        let request = Request {
            headers: &headers,
            body: BODY,
        };
        assert_eq!(request.age_warning(1_614_265_330 + 300), None);
        assert_eq!(request.age_warning(1_614_265_330 - 300), None);
        let warning = request.age_warning(1_614_265_330 + 301).expect("it is old");
        assert!(warning.contains("2021-02-25T15:02:10"), "{warning}");
    }
}
