//! Times and numbers as people read them.

use std::time::Duration;

use jiff::Timestamp;

/// `45 s`, `15 min`, `1 h 30 min`, `2 d`
#[must_use]
pub(in crate::web) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, _) if duration < Duration::from_secs(1) => format!("{} ms", duration.as_millis()),
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) if m < 10 && s > 0 => format!("{m} min {s} s"),
        (0, 0, m, _) => format!("{m} min"),
        (0, h, 0, _) => format!("{h} h"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, 0, ..) => format!("{d} d"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

/// `3 min ago`, `in 12 min`
#[must_use]
pub(in crate::web) fn relative(at: Timestamp, now: Timestamp) -> String {
    let passed = now.duration_since(at);
    if passed.is_negative() {
        format!("in {}", duration(passed.unsigned_abs()))
    } else if passed.unsigned_abs() < Duration::from_secs(1) {
        "now".to_owned()
    } else {
        format!("{} ago", duration(passed.unsigned_abs()))
    }
}

/// `2026-11-22 14:06:05 UTC`
#[must_use]
pub(in crate::web) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `1,234,567`
#[must_use]
pub(in crate::web) fn number(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `712 bytes`, `48.2 KiB`, `3.1 MiB`
#[must_use]
pub(in crate::web) fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
    let of = |unit: u64| count as f64 / unit as f64;
    match count {
        1 => "1 byte".to_owned(),
        0..10_000 => format!("{} bytes", number(count)),
        10_000..1_048_576 => format!("{:.1} KiB", of(1 << 10)),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", of(1 << 20)),
        _ => format!("{:.1} GiB", of(1 << 30)),
    }
}

/// `1 line`, `3 lines`
#[must_use]
pub(in crate::web) fn count(count: usize, one: &str, many: &str) -> String {
    format!("{} {}", number(count as u64), if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_precise_as_their_size_deserves() {
        let said = |seconds| duration(Duration::from_secs(seconds));

        assert_eq!(duration(Duration::from_millis(12)), "12 ms");
        assert_eq!(said(45), "45 s");
        assert_eq!(said(95), "1 min 35 s");
        assert_eq!(said(900), "15 min");
        assert_eq!(said(5400), "1 h 30 min");
        assert_eq!(said(2 * 86_400 + 3600), "2 d 1 h");
    }

    #[test]
    fn numbers_have_commas_and_sizes_have_units() {
        assert_eq!(number(1_234_567_u64), "1,234,567");
        assert_eq!(number(123_u64), "123");
        assert_eq!(bytes(1), "1 byte");
        assert_eq!(bytes(9_999), "9,999 bytes");
        assert_eq!(bytes(49_357), "48.2 KiB");
        assert_eq!(count(1, "line", "lines"), "1 line");
    }
}
