//! Owns a date and time as templates show it; never reads a clock.

/// A moment of the civil calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Year of the common era.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Moment {
    /// Python's `strftime` in the C locale, for the codes that chat templates use.
    ///
    /// # Errors
    /// A code that is not among them.
    pub fn format(&self, format: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let code = chars.next().unwrap_or('%');
            out.push_str(&self.field(code).ok_or_else(|| format!("strftime_now does not know `%{code}`"))?);
        }
        Ok(out)
    }

    fn field(&self, code: char) -> Option<String> {
        let two = |number: u8| format!("{number:02}");
        let short = |name: &str| name.chars().take(3).collect::<String>();
        let month = MONTHS.get(usize::from(self.month).checked_sub(1)?)?;
        Some(match code {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year % 100),
            'm' => two(self.month),
            'd' => two(self.day),
            'H' => two(self.hour),
            'I' => two((self.hour + 11) % 12 + 1),
            'M' => two(self.minute),
            'S' => two(self.second),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'B' => (*month).to_owned(),
            'b' => short(month),
            'A' => DAYS.get(self.weekday())?.to_string(),
            'a' => short(DAYS.get(self.weekday())?),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }

    /// Days since Monday, by Sakamoto's method.
    fn weekday(&self) -> usize {
        const SHIFT: [usize; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let month = usize::from(self.month);
        let year = usize::from(self.year) - usize::from(month < 3);
        let shift = SHIFT.get(month.wrapping_sub(1)).copied().unwrap_or(0);
        (year + year / 4 - year / 100 + year / 400 + shift + usize::from(self.day) + 6) % 7
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn dates_are_those_of_python() {
        let moment = Moment { year: 2024, month: 7, day: 26, hour: 0, minute: 5, second: 9 };
        assert_eq!(moment.format("%d %b %Y").unwrap(), "26 Jul 2024");
        assert_eq!(moment.format("%A, %B %d %y %H:%M:%S %I%p 100%%").unwrap(), "Friday, July 26 24 00:05:09 12AM 100%");
        let others = [(2000, 2, 29, "Tue"), (1999, 12, 31, "Fri"), (2026, 1, 1, "Thu"), (2100, 3, 1, "Mon")];
        for (year, month, day, name) in others {
            assert_eq!(Moment { year, month, day, ..moment }.format("%a").unwrap(), name);
        }
        assert_eq!(moment.format("%Q").unwrap_err(), "strftime_now does not know `%Q`");
    }
}
