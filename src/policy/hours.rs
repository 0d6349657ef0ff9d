//! Times of the week: `Mon-Fri 08:00-18:00 Europe/Berlin`.
//!
//! Whoever writes such a rule thinks of the clock on a wall, so that is what is asked: the local
//! time in the named zone, on days that are 23 or 25 hours long as on others. The zone has to be
//! named; a rule that means something else on another server is not a rule.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

/// A window that comes back every week.
#[derive(Clone, Debug, PartialEq)]
pub struct Hours {
    /// As the operator wrote it, with single blanks.
    text: String,
    days: [bool; 7],
    from: Time,
    /// Exclusive. Not after `from`: the window ends on the next day.
    until: Time,
    zone: TimeZone,
}

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

impl Hours {
    /// Reads `[DAYS] HH:MM-HH:MM ZONE`, days being `Mon-Fri`, `Sat,Sun` or left out.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, times, zone) = match words.as_slice() {
            [days, times, zone] => (parse_days(days)?, *times, *zone),
            [times, zone] if times.contains(':') => ([true; 7], *times, *zone),
            _ => {
                return Err(format!("\"{text}\" is not of the form \"Mon-Fri 08:00-18:00 Europe/Berlin\""));
            }
        };
        let (from, until) =
            times.split_once('-').ok_or_else(|| format!("\"{times}\" is not of the form \"08:00-18:00\""))?;
        let (from, until) = (parse_time(from)?, parse_time(until)?);
        if from == until && from != Time::midnight() {
            return Err(format!("\"{times}\" begins and ends at the same time"));
        }
        let zone = TimeZone::get(zone)
            .map_err(|_| format!("\"{zone}\" is not a time zone such as \"Europe/Berlin\""))?;
        Ok(Self { text: words.join(" "), days, from, until, zone })
    }

    /// Whether `now` falls into the window.
    #[must_use]
    pub fn contain(&self, now: Timestamp) -> bool {
        let local = now.to_zoned(self.zone.clone());
        let time = local.time();
        if self.from < self.until {
            return self.has(local.weekday()) && self.from <= time && time < self.until;
        }
        // The window runs past midnight and belongs to the day on which it begins.
        (self.has(local.weekday()) && self.from <= time)
            || (self.has(local.weekday().previous()) && time < self.until)
    }

    /// Whether the window is ever open and ever closed; the whole week is no window.
    #[must_use]
    pub fn is_always(&self) -> bool {
        self.from == self.until && self.days == [true; 7]
    }

    fn has(&self, day: Weekday) -> bool {
        self.days.get(usize::try_from(day.to_monday_zero_offset()).unwrap_or(7)).copied().unwrap_or(false)
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse_days(text: &str) -> Result<[bool; 7], String> {
    let place = |name: &str| {
        let name = name.to_ascii_lowercase();
        DAYS.iter()
            .position(|(day, _)| *day == name)
            .ok_or_else(|| format!("\"{name}\" is not a day; write Mon, Tue, Wed, Thu, Fri, Sat or Sun"))
    };
    let mut days = [false; 7];
    for range in text.split(',') {
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (place(first)?, place(last)?),
            None => (place(range)?, place(range)?),
        };
        // `Fri-Mon` goes around the end of the week.
        let length = (last + 7 - first) % 7;
        for day in (first..=first + length).map(|day| day % 7) {
            if let Some(day) = days.get_mut(day) {
                *day = true;
            }
        }
    }
    Ok(days)
}

fn parse_time(text: &str) -> Result<Time, String> {
    let wrong = || format!("\"{text}\" is not a time of day such as 08:00");
    // People write 24:00 for the end of the day.
    if text == "24:00" {
        return Ok(Time::midnight());
    }
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    if hour.len() > 2 || minute.len() != 2 {
        return Err(wrong());
    }
    let (hour, minute) = (hour.parse().map_err(|_| wrong())?, minute.parse().map_err(|_| wrong())?);
    Time::new(hour, minute, 0, 0).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contain(hours: &str, now: &str) -> bool {
        Hours::parse(hours).unwrap().contain(now.parse().unwrap())
    }

    #[test]
    fn hours_are_those_of_the_clock_on_the_wall_there() {
        // Berlin is UTC+1 in January and UTC+2 in July. 2026-01-05 is a Monday.
        let office = "Mon-Fri 08:00-18:00 Europe/Berlin";
        assert!(contain(office, "2026-01-05T07:00:00Z"));
        assert!(!contain(office, "2026-01-05T06:59:59Z"));
        assert!(!contain(office, "2026-01-05T17:00:00Z"));
        assert!(contain(office, "2026-07-06T06:00:00Z"));
        assert!(!contain(office, "2026-01-04T10:00:00Z"), "Sunday");
    }

    #[test]
    fn a_window_past_midnight_belongs_to_the_day_it_begins_on() {
        let night = "Fri 22:00-06:00 UTC";
        assert!(contain(night, "2026-01-09T23:00:00Z"), "Friday night");
        assert!(contain(night, "2026-01-10T05:59:00Z"), "Saturday morning");
        assert!(!contain(night, "2026-01-09T05:00:00Z"), "Friday morning");
        assert!(contain("Sat 18:00-24:00 UTC", "2026-01-10T23:59:00Z"));
        assert!(!contain("Sat 18:00-24:00 UTC", "2026-01-11T00:00:00Z"));
    }

    #[test]
    fn a_range_of_days_may_go_around_the_week() {
        assert!(contain("Sat-Mon 00:00-24:00 UTC", "2026-01-05T10:00:00Z"));
        assert!(!contain("Sat-Mon 00:00-24:00 UTC", "2026-01-06T10:00:00Z"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(Hours::parse("08:00-18:00").unwrap_err().contains("Europe/Berlin"));
        assert!(Hours::parse("08:00-18:00 Europe/Atlantis").unwrap_err().contains("time zone"));
        assert!(Hours::parse("Mon-Foo 08:00-18:00 UTC").unwrap_err().contains("not a day"));
        assert!(Hours::parse("8-18 UTC").unwrap_err().contains("form"));
        assert!(Hours::parse("08:00-08:00 UTC").unwrap_err().contains("same time"));
        assert!(Hours::parse("08:00-25:00 UTC").unwrap_err().contains("time of day"));
    }
}
