//! Times of people: how they are read and written. Always UTC.

use std::time::Duration;

use crate::clock;

const DAY_MS: u64 = 86_400_000;

/// Milliseconds since 1970 of `2026-01-31`, `2026-01-31T18:30:00Z`, or of so long ago: `90s`, `15m`, `24h`, `7d`.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    before(text, clock::unix_millis())
        .or_else(|| date(text))
        .ok_or_else(|| "must be as 2026-01-31, 2026-01-31T18:30:00Z, 90s, 15m, 24h or 7d".to_owned())
}

/// `2026-01-31T18:30:00.123Z`
pub(super) fn show(unix_ms: u64) -> String {
    let (days, in_day) = (unix_ms / DAY_MS, unix_ms % DAY_MS);
    let (year, month, day) = civil(days);
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Days since 1970 in the proleptic Gregorian calendar; month and day begin with 1.
pub(super) fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is last.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// The opposite: year, month and day.
fn civil(days: u64) -> (u64, u64, u64) {
    // As above: from the 1st of March of year 0, in spans of 400 years, which are all alike.
    let days = days + 719_468;
    let (era, in_era) = (days / 146_097, days % 146_097);
    let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let day_of_year = in_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

/// `90s`, `15m`, `24h`, `7d`
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let span = span_ms(text).map(Duration::from_millis);
    span.ok_or_else(|| "must be as 90s, 15m, 24h or 7d".to_owned())
}

fn before(text: &str, now_ms: u64) -> Option<u64> {
    now_ms.checked_sub(span_ms(text)?)
}

fn span_ms(text: &str) -> Option<u64> {
    let unit_ms = match text.chars().last()? {
        's' => 1000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => DAY_MS,
        _ => return None,
    };
    let count: u64 = digits(&text[..text.len() - 1])?.try_into().ok()?;
    count.checked_mul(unit_ms)
}

fn date(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let [year, month, day] = parts(date, '-')?;
    let [hour, minute, second] = parts(time, ':')?;
    let is_time = hour < 24 && minute < 60 && second < 60;
    if !(1970..=9999).contains(&year) || !is_time {
        return None;
    }
    let days = days_since_1970(year, month, day);
    let unix_ms = u64::try_from(((days * 24 + hour) * 60 + minute) * 60 + second).ok()? * 1000;
    // What is no day of the calendar has become another one.
    show(unix_ms).starts_with(date).then_some(unix_ms)
}

fn parts(text: &str, between: char) -> Option<[i64; 3]> {
    let parts: Option<Vec<i64>> = text.split(between).map(digits).collect();
    parts?.try_into().ok()
}

/// A number without a sign that is not longer than any of ours.
fn digits(text: &str) -> Option<i64> {
    let is_number = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, unix_ms, shown) in [
            ("1970-01-01", 0, "1970-01-01T00:00:00.000Z"),
            (
                "1994-11-06T08:49:37Z",
                784_111_777_000,
                "1994-11-06T08:49:37.000Z",
            ),
            ("2000-02-29", 951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (
                "2024-02-29 12:00:00Z",
                1_709_208_000_000,
                "2024-02-29T12:00:00.000Z",
            ),
            ("2024-03-01", 1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (
                "2026-12-31T23:59:59Z",
                1_798_761_599_000,
                "2026-12-31T23:59:59.000Z",
            ),
        ] {
            assert_eq!(parse(text), Ok(unix_ms), "{text}");
            assert_eq!(show(unix_ms), shown);
        }
        assert_eq!(show(1), "1970-01-01T00:00:00.001Z");
    }

    #[test]
    fn ages_count_from_now() {
        for (text, ago_ms) in [
            ("0s", 0),
            ("90s", 90_000),
            ("15m", 900_000),
            ("24h", DAY_MS),
            ("7d", 7 * DAY_MS),
        ] {
            assert_eq!(before(text, 10 * DAY_MS), Some(10 * DAY_MS - ago_ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in [
            "",
            "soon",
            "d",
            "-1d",
            "+1d",
            "1w",
            "999999999d",
            "1ä",
            "2026-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-1-1",
            "1969-12-31",
            "2026-01-31T18:30:00",
            "2026-01-31T24:00:00Z",
            "2026-01-31T18:30Z",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
