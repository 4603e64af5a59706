//! Days and months in UTC, pure.

use tokenbus_protocol::Date;

const DAY: u64 = 24 * 60 * 60;

/// The date at `seconds` of Unix time.
pub(crate) fn date(seconds: u64) -> Date {
    let day = seconds / DAY;
    let (year, month) = month_of(day);
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Date {
        day: narrow(day),
        month: narrow(year * 12 + month - 1),
    }
}

/// Seconds from `seconds` of Unix time until the next day and the next month.
pub(crate) fn left(seconds: u64) -> (u64, u64) {
    let day = seconds / DAY;
    let this = month_of(day);
    // No month has more than 31 days.
    let next = (day + 1..=day + 31)
        .find(|day| month_of(*day) != this)
        .unwrap_or(day + 31);
    ((day + 1) * DAY - seconds, next * DAY - seconds)
}

/// Year and month (from 1) of a day since 1 January 1970. In years that begin in March, the leap day is the last.
fn month_of(day: u64) -> (u64, u64) {
    // 719,468 days lie between 1 March of the year 0 and 1 January 1970; 146,097 days are 400 years.
    let days = day + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // The months from March on have 153 days in each five.
    let month = (5 * day + 2) / 153;
    let year = era * 400 + year;
    if month < 10 {
        (year, month + 3)
    } else {
        (year + 1, month - 9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_are_those_of_the_calendar() {
        for (seconds, day, year, month, left_of_day, left_of_month) in [
            (0, 0, 1970, 1, DAY, 31 * DAY),
            (951_782_399, 11_015, 2000, 2, 1, DAY + 1),
            (951_782_400, 11_016, 2000, 2, DAY, DAY),
            (951_868_800, 11_017, 2000, 3, DAY, 31 * DAY),
            (1_735_689_599, 20_088, 2024, 12, 1, 1),
            (1_735_689_600, 20_089, 2025, 1, DAY, 31 * DAY),
            (4_107_542_399, 47_540, 2100, 2, 1, 1),
        ] {
            let month = year * 12 + month - 1;
            assert_eq!(date(seconds), Date { day, month }, "{seconds}");
            assert_eq!(left(seconds), (left_of_day, left_of_month), "{seconds}");
        }
    }
}
