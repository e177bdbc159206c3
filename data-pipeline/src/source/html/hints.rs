//! Owns what names and words tell of a part of a page: its frame, a cookie banner, an opt-out; never touches markup.

/// Elements whose text is never content.
pub(super) fn is_skipped(tag: &[u8]) -> bool {
    matches!(
        tag,
        b"script"
            | b"style"
            | b"noscript"
            | b"template"
            | b"svg"
            | b"math"
            | b"canvas"
            | b"iframe"
            | b"object"
            | b"audio"
            | b"video"
            | b"map"
            | b"select"
            | b"option"
            | b"datalist"
            | b"button"
            | b"textarea"
            | b"label"
            | b"noframes"
            | b"noembed"
            | b"head"
            | b"applet"
            | b"progress"
            | b"meter"
            | b"rp"
    )
}

/// Elements of a page's frame. A `header` belongs to it unless it heads an article.
pub(super) fn is_frame(tag: &[u8], in_content: bool) -> bool {
    matches!(tag, b"nav" | b"footer" | b"aside" | b"dialog" | b"menu") || (tag == b"header" && !in_content)
}

/// Elements that hold the content of a page.
pub(super) fn is_content(tag: &[u8]) -> bool {
    matches!(tag, b"main" | b"article")
}

/// Elements that have no end tag.
pub(super) fn is_void(tag: &[u8]) -> bool {
    matches!(
        tag,
        b"area"
            | b"base"
            | b"br"
            | b"col"
            | b"embed"
            | b"hr"
            | b"img"
            | b"input"
            | b"link"
            | b"meta"
            | b"param"
            | b"source"
            | b"track"
            | b"wbr"
            | b"basefont"
            | b"bgsound"
            | b"frame"
            | b"keygen"
    )
}

/// Elements that do not begin a block of their own.
pub(super) fn is_inline(tag: &[u8]) -> bool {
    matches!(
        tag,
        b"a" | b"abbr"
            | b"acronym"
            | b"b"
            | b"bdi"
            | b"bdo"
            | b"big"
            | b"cite"
            | b"code"
            | b"data"
            | b"del"
            | b"dfn"
            | b"em"
            | b"font"
            | b"i"
            | b"img"
            | b"ins"
            | b"kbd"
            | b"mark"
            | b"q"
            | b"rb"
            | b"ruby"
            | b"rt"
            | b"rp"
            | b"s"
            | b"samp"
            | b"small"
            | b"span"
            | b"strike"
            | b"strong"
            | b"sub"
            | b"sup"
            | b"time"
            | b"tt"
            | b"u"
            | b"var"
            | b"wbr"
            | b"nobr"
            | b"picture"
            | b"source"
            | b"center"
            | b"input"
    )
}

/// Landmark roles of a page's frame.
pub(super) fn is_frame_role(role: &[u8]) -> bool {
    matches!(
        role,
        b"navigation"
            | b"banner"
            | b"contentinfo"
            | b"search"
            | b"complementary"
            | b"dialog"
            | b"alertdialog"
            | b"menu"
            | b"menubar"
            | b"menuitem"
            | b"toolbar"
            | b"tablist"
            | b"button"
            | b"alert"
    )
}

/// Whether a class or an identifier names a part of a page's frame: one of its words is the name of one, or it is so as
/// a whole.
pub(super) fn names_frame(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    // Blog software writes the subjects of an article into its classes.
    if ["category-", "cat-", "tag-", "term-", "topic-", "section-"].iter().any(|subject| lower.starts_with(subject)) {
        return false;
    }
    let whole = matches!(
        lower.as_str(),
        "header"
            | "site-header"
            | "page-header"
            | "main-header"
            | "top"
            | "topbar"
            | "masthead"
            | "tags"
            | "tag-list"
            | "toc"
            | "skip-link"
            | "comment-form"
            | "comment-respond"
            | "reply"
            | "jump-to-nav"
            | "mw-jump-link"
            | "printfooter"
            | "reference"
            | "mw-editsection"
            | "catlinks"
            | "noprint"
            | "navbox"
            | "byline-share"
            | "back-to-top"
    );
    whole || words(name).any(|word| is_frame_word(&word))
}

fn is_frame_word(word: &str) -> bool {
    matches!(
        word,
        "nav"
            | "navbar"
            | "navigation"
            | "navi"
            | "menu"
            | "submenu"
            | "megamenu"
            | "footer"
            | "sidebar"
            | "breadcrumb"
            | "breadcrumbs"
            | "cookie"
            | "cookies"
            | "consent"
            | "gdpr"
            | "rgpd"
            | "cmp"
            | "popup"
            | "modal"
            | "lightbox"
            | "overlay"
            | "share"
            | "sharing"
            | "sharedaddy"
            | "addtoany"
            | "social"
            | "socials"
            | "related"
            | "recommended"
            | "recommendations"
            | "newsletter"
            | "subscribe"
            | "subscription"
            | "login"
            | "signin"
            | "signup"
            | "searchform"
            | "searchbox"
            | "pagination"
            | "pager"
            | "widget"
            | "advert"
            | "adverts"
            | "advertisement"
            | "ads"
            | "adsbygoogle"
            | "sponsor"
            | "sponsored"
            | "promo"
            | "toolbar"
            | "copyright"
            | "offcanvas"
            | "dropdown"
            | "ticker"
            | "carousel"
            | "masthead"
            | "colophon"
    )
}

/// The words of a name: `mainNav_bar-2` has "main", "nav" and "bar".
fn words(name: &str) -> impl Iterator<Item = String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut before_lower = false;
    for c in name.chars().take(200) {
        if !c.is_ascii_alphabetic() || (c.is_ascii_uppercase() && before_lower) {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        }
        if c.is_ascii_alphabetic() {
            word.push(c.to_ascii_lowercase());
        }
        before_lower = c.is_ascii_lowercase();
    }
    words.extend((!word.is_empty()).then_some(word));
    words.into_iter()
}

/// Words by which a notice about cookies is known; it needs one of each list.
const COOKIES: [&str; 6] = ["cookie", "كوكيز", "ملفات تعريف الارتباط", "ملفات الارتباط", "الكعكات", "traceurs"];
const ASKING: [&str; 20] = [
    "accept",
    "refus",
    "consent",
    "préférence",
    "paramètre",
    "settings",
    "politique",
    "policy",
    "navigateur",
    "we use",
    "nous utilis",
    "en poursuivant",
    "utilise des",
    "uses ",
    "utiliza",
    "نستخدم",
    "يستخدم",
    "قبول",
    "موافق",
    "سياسة",
];

/// Words of the last lines of pages.
const RIGHTS: [&str; 6] = [
    "©",
    "all rights reserved",
    "tous droits réservés",
    "todos los derechos reservados",
    "جميع الحقوق محفوظة",
    "حقوق النشر",
];

/// Longest notice, in letters.
const NOTICE_LETTERS: usize = 400;
/// Longest line about rights, in letters.
const RIGHTS_LETTERS: usize = 120;

/// Whether a block of text is a cookie banner or a copyright line.
pub(super) fn is_notice(text: &str, letters: usize) -> bool {
    if letters > NOTICE_LETTERS {
        return false;
    }
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    (letters <= RIGHTS_LETTERS && has(&RIGHTS)) || (has(&COOKIES) && has(&ASKING))
}

/// The opt-out that the value of a robots header or tag holds: `noai` and its like, alone or after the name of a robot.
pub(crate) fn robots_opt_out(value: &str) -> Option<&'static str> {
    let tokens = value.split([',', ';', ':', ' ', '\t']).map(str::trim);
    tokens
        .filter_map(|token| match token.to_ascii_lowercase().as_str() {
            "noai" => Some("noai"),
            "noml" => Some("noml"),
            _ => None,
        })
        .next()
}

/// Whether a TDM-Reservation header or tag reserves the rights of text and data mining (1; 0 does not).
pub(crate) fn reserves_mining(value: &str) -> bool {
    value.trim() == "1"
}
