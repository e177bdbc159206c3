//! Owns web addresses that name a person: with a user in them, or of a personal page on a social network; never opens one.

use super::kind::Kind;
use super::scan::{Scan, token_before};

/// Networks whose first path part is a user, by the end of the host name, and a fixed part that must come before the name.
#[rustfmt::skip]
const NETWORKS: [(&str, &str); 19] = [
    ("facebook.com", ""), ("fb.com", ""), ("fb.me", ""), ("instagram.com", ""), ("twitter.com", ""), ("x.com", ""),
    ("threads.net", "@"), ("tiktok.com", "@"), ("youtube.com", "@"), ("youtube.com", "user/"), ("youtube.com", "c/"),
    ("youtube.com", "channel/"), ("snapchat.com", "add/"), ("linkedin.com", "in/"), ("t.me", ""), ("telegram.me", ""),
    ("messenger.com", "t/"), ("m.me", ""), ("medium.com", "@"),
];

/// First parts of paths that are pages of the network itself.
const PAGES: [&str; 58] = [
    "share",
    "sharer",
    "sharer.php",
    "share.php",
    "groups",
    "pages",
    "watch",
    "hashtag",
    "search",
    "explore",
    "p",
    "intent",
    "home",
    "login",
    "login.php",
    "signup",
    "policies",
    "policy",
    "help",
    "about",
    "privacy",
    "terms",
    "legal",
    "business",
    "ads",
    "tr",
    "plugins",
    "events",
    "photo",
    "photo.php",
    "story.php",
    "reel",
    "reels",
    "tv",
    "stories",
    "i",
    "settings",
    "feed",
    "playlist",
    "dialog",
    "v2",
    "download",
    "joinchat",
    "s",
    "widgets",
    "status",
    "developers",
    "marketplace",
    "gaming",
    "messages",
    "permalink.php",
    "video.php",
    "videos",
    "oauth",
    "security",
    "careers",
    "blog",
    "en",
];

/// Largest part of an address that is looked at.
const MAX_ADDRESS: usize = 2048;

/// Bytes that end an address in running text.
fn ends_address(b: u8) -> bool {
    b <= b' ' || b"\"<>`{}|\\^".contains(&b) || !b.is_ascii()
}

impl Scan<'_> {
    /// An address with a scheme: its `://` is at `at`. Taken when a user stands before the host.
    pub fn authority(&mut self, at: usize) -> Option<usize> {
        let bytes = self.text.as_bytes().get(at + 3..)?;
        let len = bytes.iter().take(MAX_ADDRESS).take_while(|b| !ends_address(**b) && !b"/?#".contains(b)).count();
        let authority = self.text.get(at + 3..at + 3 + len)?;
        let (user, host) = authority.rsplit_once('@')?;
        let scheme = token_before(self.text, at, |b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if user.is_empty() || !host.contains(|c: char| c.is_ascii_alphanumeric()) || scheme.is_empty() {
            return None;
        }
        let end = self.address_end(at);
        self.push(Kind::Url, at - scheme.len(), end)
    }

    /// Where the address around `at` ends, punctuation of the sentence left out.
    fn address_end(&self, at: usize) -> usize {
        let bytes = self.text.as_bytes().get(at..).unwrap_or_default();
        let len = bytes.iter().take(MAX_ADDRESS).take_while(|b| !ends_address(**b)).count();
        let token = self.text.get(at..at + len).unwrap_or_default();
        at + token.trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']', '\'', '*']).len()
    }

    /// What a slash stands in: the personal page of a social network when a known host ends here.
    pub fn slash(&mut self, at: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        // Host names of the list end in "com", "me" or "net".
        let last = bytes.get(at.checked_sub(1)?)?;
        if !b"mMeEtT".contains(last) {
            return None;
        }
        let host = token_before(self.text, at, |b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        let lower = host.to_ascii_lowercase();
        let path_end = self.address_end(at);
        let path = self.text.get(at + 1..path_end).unwrap_or_default();
        let is_personal = NETWORKS.iter().any(|(network, fixed)| {
            let named = lower.strip_suffix(network).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            named && path.strip_prefix(fixed).is_some_and(is_user)
        });
        if !is_personal {
            return None;
        }
        let mut start = at - host.len();
        for scheme in ["https://", "http://"] {
            if self.text.get(..start).is_some_and(|head| head.ends_with(scheme)) {
                start -= scheme.len();
                break;
            }
        }
        self.push(Kind::Url, start, path_end)
    }
}

/// Whether the first part of a path is the name of a user.
fn is_user(path: &str) -> bool {
    if path.starts_with("profile.php?id=") || path.starts_with("people/") {
        return true;
    }
    let first = path.split(['/', '?', '#', '&']).next().unwrap_or_default();
    let name = !first.is_empty() && first.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    name && first.len() >= 2 && !PAGES.contains(&first.to_ascii_lowercase().as_str())
}
