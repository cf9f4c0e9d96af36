//! The Date of answers (RFC 9110 section 6.6.1): a text that is made once a second at most.
//!
//! Pure; whoever makes one reads the clock.

use std::time::SystemTime;

/// Bytes of an IMF-fixdate.
const DATE_BYTES: usize = 29;

/// One second as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date([u8; DATE_BYTES]);

impl Date {
    /// The second that `time` is in.
    #[must_use]
    pub fn at(time: SystemTime) -> Self {
        let mut text = [b' '; DATE_BYTES];
        // The crate takes the years 1970 to 9999 and panics on others, which a clock set wrong can tell.
        let year_10000 = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(253_402_300_799);
        let time = time.clamp(SystemTime::UNIX_EPOCH, year_10000);
        for (to, from) in text.iter_mut().zip(httpdate::fmt_http_date(time).bytes()) {
            *to = from;
        }
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_sample_of_the_rfc_and_the_ends_of_time() {
        let at = |seconds| Date::at(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(784_111_777).as_bytes(), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(0).as_bytes(), b"Thu, 01 Jan 1970 00:00:00 GMT");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Date::at(before), at(0));
        assert_eq!(at(253_402_300_799).as_bytes(), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(at(u32::MAX.into()), at(u64::from(u32::MAX)));
        assert_eq!(at(300_000_000_000), at(253_402_300_799));
    }
}
