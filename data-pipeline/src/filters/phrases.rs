//! Owns the phrases that stand on pages and not in texts: cookie banners, rights, shop buttons; never judges.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// C4's policy lines and their like in the languages of Moroccan sites. The first is the placeholder of page designers.
pub(super) const PHRASES: [&str; 62] = [
    "lorem ipsum",
    "tous droits réservés",
    "politique de confidentialité",
    "conditions d'utilisation",
    "conditions d’utilisation",
    "conditions générales de vente",
    "utilise des cookies",
    "utilisons des cookies",
    "accepter les cookies",
    "mentions légales",
    "activer javascript",
    "activez javascript",
    "notre newsletter",
    "ajouter au panier",
    "lire la suite",
    "partager sur facebook",
    "suivez-nous sur",
    "laisser un commentaire",
    "plan du site",
    "mot de passe oublié",
    "all rights reserved",
    "privacy policy",
    "terms of use",
    "terms of service",
    "terms and conditions",
    "cookie policy",
    "uses cookies",
    "use cookies",
    "accept cookies",
    "accept all",
    "enable javascript",
    "add to cart",
    "read more",
    "our newsletter",
    "skip to content",
    "share on facebook",
    "leave a comment",
    "powered by wordpress",
    "click here",
    "sign up",
    "log in",
    "todos los derechos reservados",
    "política de privacidad",
    "política de cookies",
    "utiliza cookies",
    "aviso legal",
    "leer más",
    "جميع الحقوق محفوظة",
    "سياسة الخصوصية",
    "شروط الاستخدام",
    "ملفات تعريف الارتباط",
    "الكوكيز",
    "أضف إلى السلة",
    "اقرأ المزيد",
    "إقرأ المزيد",
    "النشرة البريدية",
    "تسجيل الدخول",
    "اتصل بنا",
    "من نحن",
    "خريطة الموقع",
    "شارك على فيسبوك",
    "اترك تعليق",
];

static MATCHER: LazyLock<Option<(AhoCorasick, Vec<usize>)>> = LazyLock::new(|| {
    let matcher = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::LeftmostFirst)
        .kind(Some(AhoCorasickKind::DFA))
        .build(PHRASES)
        .ok()?;
    let words = PHRASES.iter().map(|phrase| crate::words::words(phrase).count()).collect();
    Some((matcher, words))
});

/// Words of a text that lie in such phrases, and how often `lorem ipsum` stands in it.
pub(super) fn count(text: &str) -> (usize, u32) {
    let Some((matcher, words)) = MATCHER.as_ref() else { return (0, 0) };
    matcher.find_iter(text).fold((0, 0), |(sum, lorem), found| match found.pattern().as_usize() {
        0 => (sum, lorem + 1),
        at => (sum + words.get(at).copied().unwrap_or(0), lorem),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found_in_any_case() {
        assert_eq!(count("© 2024 Tous Droits réservés | Lorem IPSUM"), (3, 1));
        assert_eq!(count("جميع الحقوق محفوظة"), (3, 0));
        assert_eq!(count("Le droit de la famille."), (0, 0));
    }
}
