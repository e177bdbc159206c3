//! Tests of the main text of web pages.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::blocks::{Page, read_page};
use super::hints::{is_notice, names_frame, robots_opt_out};

fn text(html: &str) -> String {
    read_page(html).text
}

const PARAGRAPHS: [&str; 3] = [
    "فتحت المكتبة البلدية أبوابها صباح يوم الاثنين بعد أشغال دامت سنتين كاملتين، وحضر الافتتاح عدد كبير من سكان الحي.",
    "Le maire a rappelé que l'ouverture avait été retardée par les pluies, et il a remercié les habitants pour leur patience.",
    "ⵜⴰⵙⴷⵍⵉⵙⵜ ⵜⴰⵎⴰⵢⵏⵓⵜ ⵜⵔⵥⵎ ⵉ ⵡⵉⵏⵙⵉⵏⵏ ⵏ ⵜⵎⴷⵉⵏⵜ ⵙ ⵓⵎⴰⵢⵏⵓ ⴷ ⵜⴰⴳⴳⴰⵔⴰ ⵏ ⵓⵙⴳⴳⵯⴰⵙ",
];

fn article(body: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=ar><head><title> خبر  اليوم </title><style>p {{color: red}}</style>\
         <script>var text = '<p>no</p>';</script></head><body class='has-sidebar menu-open'>\
         <header><a href=/>الرئيسية</a> <form><label>Rechercher</label><input name=q></form></header>\
         <nav><ul><li><a href=/a>سياسة</a><li><a href=/b>رياضة</a><li><a href=/c>Économie et société</a></ul></nav>\
         <div id=cookie-banner><p>Nous utilisons des cookies pour améliorer votre expérience. Accepter</p></div>\
         {body}\
         <div class='related-posts'><h3>اقرأ أيضا</h3><a href=/1>خبر آخر طويل عن المدينة القديمة وأسوارها</a></div>\
         <footer><p>جميع الحقوق محفوظة © 2024, une longue phrase de pied de page qui ne dit rien du tout, vraiment.</p></footer>\
         </body></html>"
    )
}

#[test]
fn paragraphs_are_kept_and_the_frame_is_dropped() {
    let body: String = PARAGRAPHS.iter().map(|p| format!("<p>{p}</p>\n")).collect();
    for page in [
        article(&format!("<article><h1>افتتاح المكتبة</h1>{body}</article>")),
        article(&format!("<main><div class=entry-content><h1>افتتاح المكتبة</h1>{body}</div></main>")),
        article(&format!("<div class=content><h1>افتتاح المكتبة</h1><div>{body}</div></div>")),
        article(&format!("<form id=aspnetForm><table><tr><td><h1>افتتاح المكتبة</h1>{body}</td></tr></table></form>")),
    ] {
        assert_eq!(text(&page), format!("افتتاح المكتبة\n\n{}", PARAGRAPHS.join("\n\n")), "{page}");
        assert_eq!(read_page(&page).title, "خبر اليوم");
        assert_eq!(read_page(&page).lang.as_deref(), Some("ar"));
    }
}

#[test]
fn short_lines_between_paragraphs_and_lists_are_kept() {
    let body = format!(
        "<article><p>{}</p><p>قال:</p><blockquote>نعم</blockquote><p>{}</p><ul><li>واحد<li>جوج<li>تلاتة</ul><p>{}</p></article>",
        PARAGRAPHS[0], PARAGRAPHS[1], PARAGRAPHS[2]
    );
    let expected =
        format!("{}\n\nقال:\n\nنعم\n\n{}\n\nواحد\nجوج\nتلاتة\n\n{}", PARAGRAPHS[0], PARAGRAPHS[1], PARAGRAPHS[2]);
    assert_eq!(text(&article(&body)), expected);
}

#[test]
fn a_page_of_short_lines_gives_its_largest_container() {
    let lines = ["ⴰⵣⵓⵍ ⴰ ⵎⵎⵉ", "ⵎⴰⵏⵣⴰⴽⵉⵏ ⴰⵙⵙⴰ", "ⵍⴰⴱⴰⵙ ⴱⵀⵔⴰ", "ⵜⴰⵏⵎⵎⵉⵔⵜ ⵏⵏⴽ"];
    let song = format!("<div class=lyrics>{}</div>", lines.map(|l| format!("{l}<br><br>")).concat());
    assert_eq!(text(&article(&song)), lines.join("\n\n"));
    let song = format!("<div class=lyrics>{}</div>", lines.map(|l| format!("{l}<br/>")).concat());
    assert_eq!(text(&article(&song)), lines.join("\n"));
}

#[test]
fn text_comes_out_as_a_reader_sees_it() {
    let page =
        format!("<p>{} a&amp;b &eacute;t&eacute; &#x2d30;&nbsp;x <b>g</b>ras<br>\n ligne  deux</p>", PARAGRAPHS[0]);
    assert_eq!(text(&page), format!("{} a&b été ⴰ\u{a0}x gras\nligne deux", PARAGRAPHS[0]));
    let hidden = format!(
        "<p>{}<span style='display: none'> non</span><script>no()</script><template>no</template> oui</p>\
         <p hidden>{}</p><div aria-hidden=true>{}</div>",
        PARAGRAPHS[1], PARAGRAPHS[0], PARAGRAPHS[2]
    );
    assert_eq!(text(&hidden), format!("{} oui", PARAGRAPHS[1]));
}

#[test]
fn pages_without_text_have_none() {
    for page in ["", "<html></html>", "<nav><a href=/>Accueil</a></nav>", "plain", "<p>ok</p>", "<script>x", "<!-- <p>"]
    {
        assert_eq!(text(page), "", "{page}");
    }
}

#[test]
fn a_frame_of_class_names_alone_does_not_empty_a_page() {
    let page = format!("<div class=widget><div id=modal-content><p>{}</p></div></div>", PARAGRAPHS[1]);
    assert_eq!(text(&page), PARAGRAPHS[1]);
}

#[test]
fn pages_of_common_software() {
    let [a, b, c] = PARAGRAPHS;
    let wiki = format!(
        "<body class='mediawiki skin-vector'><div id=mw-navigation><p>{b}</p></div><div id=content class=mw-body role=main>\
         <div id=mw-content-text><div id=toc class=toc><ul><li><a href=#a>1 Histoire</a></ul></div>\
         <p>{a}<sup class=reference><a href=#1>[1]</a></sup></p><h2><span class=mw-headline>Histoire</span>\
         <span class=mw-editsection>[<a href=/e>modifier</a>]</span></h2><p>{b}</p>\
         <div class=navbox><a href=/>x</a> {c}</div></div><div id=catlinks class=catlinks>Catégories : <a>x</a></div></div>"
    );
    assert_eq!(text(&wiki), format!("{a}\n\nHistoire\n\n{b}"));
    let blog = format!(
        "<div id=page><div id=sidebar-1 class=widget-area><div class=widget><p>{c}</p></div></div>\
         <div class='post hentry category-social tag-cookies'><h2 class=entry-title>Titre</h2><div class=entry-content>\
         <p>{a}</p><p>{b}</p></div><div class=sharedaddy>Partager sur Facebook</div></div>\
         <div id=comments><ol><li><p>{c}</p></li></ol></div></div>"
    );
    assert_eq!(text(&blog), format!("Titre\n\n{a}\n\n{b}\n\n{c}"));
}

#[test]
fn unclosed_and_misnested_markup_is_read() {
    let [a, b, c] = PARAGRAPHS;
    assert_eq!(text(&format!("<title>t</title><p>{a}<p>{b}<div>{c}")), format!("{a}\n\n{b}\n\n{c}"));
    assert_eq!(text(&format!("<b><p>{a}</b></p></div></div><p>{b}</p></nav>{c}")), format!("{a}\n\n{b}\n\n{c}"));
    assert_eq!(text(&format!("<a href=x>lien<p>{a}</p>")), a);
    let deep = "<div>".repeat(100_000) + a + &"</div>".repeat(100_000);
    assert_eq!(text(&deep), a);
    let deep = "<span><b>".repeat(100_000) + a;
    assert_eq!(text(&deep), a);
}

#[test]
fn opt_outs_are_found() {
    let page = |head: &str| read_page(&format!("<html><head>{head}</head><body><p>{}</p>", PARAGRAPHS[0]));
    assert_eq!(page("<meta name=robots content='noindex, NoAI'>").opt_out, Some("noai"));
    assert_eq!(page("<META CONTENT=\"noimageai,noai\" NAME=\"ROBOTS\">").opt_out, Some("noai"));
    assert_eq!(page("<meta name=tdm-reservation content=1>").opt_out, Some("tdm-reservation"));
    for free in ["", "<meta name=robots content='noindex, nofollow'>", "<meta name=tdm-reservation content=0>"] {
        assert_eq!(page(free).opt_out, None, "{free}");
    }
    assert_eq!(robots_opt_out("otherbot: noai"), Some("noai"));
    assert_eq!(robots_opt_out("max-snippet: 20, index"), None);
    assert_eq!(read_page("").opt_out, Page::default().opt_out);
}

#[test]
fn names_and_notices_of_the_frame() {
    for frame in ["main-nav", "siteFooter", "cookie_notice", "header", "sidebar-1", "SocialShare", "menu"] {
        assert!(names_frame(frame), "{frame}");
    }
    for content in ["article-body", "entry-header", "post-content", "canvas", "menuisier", "content", "comments"] {
        assert!(!names_frame(content), "{content}");
    }
    assert!(is_notice("نستخدم ملفات تعريف الارتباط. أوافق", 30));
    assert!(!is_notice("Je mange un cookie au chocolat", 25));
}
