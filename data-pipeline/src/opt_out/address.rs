//! Owns comparing addresses of texts: the same page in two spellings, the host, what lies below a prefix; never resolves
//! or fetches one.

/// An address in the one spelling that comparisons use: without scheme, user, `www.`, default port and fragment, the host
/// in lower case, percent-escapes decoded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    text: String,
    host_bytes: usize,
}

impl Address {
    /// Reads an address or the beginning of one; what is no address is compared as it is.
    pub fn of(url: &str) -> Self {
        let url = url.trim();
        let rest = match url.find("://") {
            Some(at) if url.get(..at).is_some_and(is_scheme) => url.get(at + 3..).unwrap_or_default(),
            _ => url.strip_prefix("//").unwrap_or(url),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority.rsplit('@').next().unwrap_or(authority);
        let host = host.strip_suffix(":80").or_else(|| host.strip_suffix(":443")).unwrap_or(host);
        let host = host.trim_end_matches('.').to_lowercase();
        let host = host.strip_prefix("www.").unwrap_or(&host);
        let mut text = host.to_owned();
        // An empty path is the root, so that `a.org` is no prefix of `a.organic`.
        text.push_str(if path.starts_with('/') { "" } else { "/" });
        text.push_str(&decoded(path));
        Self { host_bytes: host.len(), text }
    }

    /// The host in lower case.
    pub fn host(&self) -> &str {
        self.text.get(..self.host_bytes).unwrap_or_default()
    }

    /// The whole in its one spelling.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host and every domain above it, the narrowest first: `a.b.org`, `b.org`, `org`.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        let mut rest = Some(self.host());
        std::iter::from_fn(move || {
            let here = rest?;
            rest = here.split_once('.').map(|(_, above)| above);
            Some(here)
        })
    }
}

/// Whether `url` begins with `prefix`, spelling aside. A prefix that is only a host covers that host.
pub fn is_below(url: &str, prefix: &Address) -> bool {
    Address::of(url).as_str().starts_with(prefix.as_str())
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// Percent-escapes as the characters they stand for, where these are UTF-8.
fn decoded(path: &str) -> String {
    if !path.contains('%') {
        return path.to_owned();
    }
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        match escape.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(value) if byte == b'%' => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_has_one_spelling() {
        for other in
            ["http://WWW.Example.org/a", "https://u:p@example.org:443/a#top", "//example.org/a", "example.org/a"]
        {
            assert_eq!(Address::of(other), Address::of("https://example.org/a"), "{other}");
        }
        assert_eq!(
            Address::of("https://ar.wikipedia.org/wiki/%D9%85%D8%BA%D8%B1%D8%A8"),
            Address::of("https://ar.wikipedia.org/wiki/مغرب")
        );
        assert_ne!(Address::of("https://example.org/A"), Address::of("https://example.org/a"));
        assert_eq!(Address::of("https://a.org/50%").as_str(), "a.org/50%");
    }

    #[test]
    fn prefixes_end_at_hosts_and_may_end_anywhere_in_a_path() {
        let below = |url: &str, prefix: &str| is_below(url, &Address::of(prefix));
        assert!(below("https://example.org/a/b", "http://example.org"));
        assert!(below("https://example.org/a/b", "example.org/a"));
        assert!(below("https://example.org?q=1", "example.org"));
        assert!(!below("https://example.organic/a", "https://example.org"));
        assert!(!below("https://sub.example.org/a", "https://example.org"));
        let domains: Vec<String> = Address::of("https://a.b.org/x").domains().map(str::to_owned).collect();
        assert_eq!(domains, ["a.b.org", "b.org", "org"]);
    }
}
