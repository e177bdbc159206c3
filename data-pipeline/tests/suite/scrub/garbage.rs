//! Owns pages that are no text: navigation, keyword spam, repeated lines, banners, glyph soup, tables, code.

use super::generator::Random;

/// One page of a sort of garbage.
pub struct Garbage {
    pub sort: &'static str,
    pub label: &'static str,
    pub text: String,
}

const FRENCH: &[&str] = &[
    "Accueil",
    "Contact",
    "Produits",
    "Nos services",
    "Actualités",
    "Boutique",
    "Mon compte",
    "Panier",
    "Blog",
    "Galerie",
    "Plan du site",
    "Location voiture",
    "Hôtel Marrakech",
    "Riad Fès",
    "Immobilier Casablanca",
    "Plombier Rabat",
    "Cuisine équipée",
    "Tapis berbère",
    "Crédit auto",
    "Assurance",
    "Emploi",
    "Annonces",
    "Vidéos",
    "Photos",
    "Forum",
    "Météo",
    "Horoscope",
    "Recettes",
];
const ARABIC: &[&str] = &[
    "الرئيسية",
    "اتصل بنا",
    "من نحن",
    "المنتجات",
    "خدماتنا",
    "الأخبار",
    "المدونة",
    "السلة",
    "حسابي",
    "كراء السيارات",
    "فنادق مراكش",
    "عقارات الدار البيضاء",
    "ديكورات",
    "مطابخ",
    "زرابي",
    "وظائف",
    "إعلانات",
    "فيديو",
    "صور",
    "منتدى",
    "الطقس",
    "أبراج",
    "وصفات",
    "رياضة",
    "سياسة",
    "اقتصاد",
    "تقنية",
];
const DARIJA: &[&str] = &[
    "كرا طوموبيل",
    "شري دابا",
    "رخيص بزاف",
    "همزة اليوم",
    "توصيل فابور",
    "جلابة مزيانة",
    "زربية بلدية",
    "سباط رياضي",
    "تيليفون جديد",
    "كاميرا",
    "ساعة",
    "حوايج",
    "صابون بلدي",
    "أركان",
    "عسل حر",
    "فيلا",
    "بارطما",
    "بيع وشرا",
    "فرصة",
    "تخفيض",
    "عطور",
    "نظاظر",
    "شنطة",
    "قفطان",
];
const ARABIZI: &[&str] = &[
    "kra tomobil",
    "chri daba",
    "rkhis",
    "hamza lyoum",
    "tawsil fabor",
    "jellaba zwina",
    "zarbiya",
    "sbat sport",
    "tilifon jdid",
    "camera",
    "montre",
    "7wayj",
    "sabon beldi",
    "argan",
    "3sel",
    "villa",
    "appart",
    "promo",
    "parfum",
    "nadader",
    "caftan",
    "sac",
    "lunettes",
    "bureau",
];
const TIFINAGH: &[&str] = &[
    "ⴰⵙⵏⵓⴱⴳ",
    "ⵜⵉⵏⵖⵎⵉⵙⵉⵏ",
    "ⴰⵎⵢⴰⵡⴰⴹ",
    "ⵜⵉⵡⵍⴰⴼⵉⵏ",
    "ⵉⴼⵉⴷⵢⵓⵜⵏ",
    "ⵜⴰⵣⴷⴰⵢⵜ",
    "ⴰⵏⵔⵎⵉⵙ",
    "ⵜⴰⵏⵎⵎⵉⵔⵜ",
    "ⵉⵙⴼⴽⴰ",
    "ⵜⴰⵙⵏⴰ",
    "ⵉⴷⵍⵉⵙⵏ",
    "ⵉⵎⵔⵙⵉ",
    "ⵜⵓⵔⴰⵔⵜ",
];

fn words(label: &str) -> &'static [&'static str] {
    match label {
        "arb_Arab" => ARABIC,
        "ary_Arab" => DARIJA,
        "ary_Latn" => ARABIZI,
        "zgh_Tfng" => TIFINAGH,
        _ => FRENCH,
    }
}

const BANNERS: &[&str] = &[
    "Ce site utilise des cookies pour améliorer votre expérience.",
    "Tous droits réservés © 2024.",
    "Politique de confidentialité",
    "Conditions d'utilisation",
    "Abonnez-vous à notre newsletter !",
    "Mentions légales",
    "Activez JavaScript pour continuer.",
    "جميع الحقوق محفوظة © 2024",
    "سياسة الخصوصية",
    "شروط الاستخدام",
    "All rights reserved.",
    "Privacy policy",
    "Terms of use",
    "Accept all cookies",
    "Lire la suite",
    "Ajouter au panier",
    "اقرأ المزيد",
    "تسجيل الدخول",
    "Leave a comment",
];

fn page(random: &mut Random, sort: &'static str, label: &'static str) -> String {
    let list = words(label);
    let many = |random: &mut Random, count: usize, between: &str| {
        (0..count).map(|_| random.pick(list).to_owned()).collect::<Vec<_>>().join(between)
    };
    match sort {
        "navigation lines" => many(random, 60, "\n"),
        "navigation bars" => {
            let bar = random.pick(&[" | ", " » ", " > ", " • "]);
            many(random, 60, bar)
        }
        "keyword spam" => {
            let phrase = many(random, 2, " ");
            (0..25).map(|_| format!("{phrase} {}", random.pick(list))).collect::<Vec<_>>().join(", ")
        }
        "keyword list" => many(random, 70, ", "),
        "repeated lines" => {
            let lines: Vec<String> = (0..3).map(|_| format!("{}.", many(random, 6, " "))).collect();
            (0..40).map(|_| lines[random.below(3) as usize].clone()).collect::<Vec<_>>().join("\n")
        }
        "repeated paragraph" => format!("{}\n\n", many(random, 20, " ")).repeat(6),
        "banners" => (0..30).map(|_| random.pick(BANNERS).to_owned()).collect::<Vec<_>>().join("\n"),
        "glyph soup" => {
            let word = |random: &mut Random| -> String {
                (0..3 + random.below(5)).filter_map(|_| char::from_u32(0x180 + random.below(0xd0) as u32)).collect()
            };
            (0..70).map(|_| word(random)).collect::<Vec<_>>().join(" ")
        }
        "symbols" => (0..80).map(|_| random.pick(&["★", "►", "♥", "☎", "✓", "●", "№", "□□□", "⇒", "ok", "15"]).to_owned()).collect::<Vec<_>>().join(" "),
        "number table" => (0..25).map(|_| format!("{} {} {} {}", random.below(9999), random.below(99), random.below(99_999), random.pick(list))).collect::<Vec<_>>().join("\n"),
        "random letters" => {
            let word = |random: &mut Random| -> String { (0..2 + random.below(9)).map(|_| char::from(b'a' + random.below(26) as u8)).collect() };
            (0..90).map(|_| word(random)).collect::<Vec<_>>().join(" ")
        }
        "code" => (0..20).map(|i| format!("function f{i}(a, b) {{ if (a > {i}) {{ return b[{i}]; }} else {{ x.y = a; }} }}")).collect::<Vec<_>>().join("\n"),
        "hashtags" => (0..60).map(|_| format!("#{}", random.pick(list).replace(' ', "_"))).collect::<Vec<_>>().join(" "),
        "lorem ipsum" => "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore magna aliqua. ".repeat(4),
        _ => String::new(),
    }
}

/// Sorts of pages.
pub const SORTS: &[&str] = &[
    "navigation lines",
    "navigation bars",
    "keyword spam",
    "keyword list",
    "repeated lines",
    "repeated paragraph",
    "banners",
    "glyph soup",
    "symbols",
    "number table",
    "random letters",
    "code",
    "hashtags",
    "lorem ipsum",
];

/// Pages of every sort in five languages.
pub fn pages(each: usize) -> Vec<Garbage> {
    let mut random = Random::new(7);
    let mut all = Vec::new();
    for sort in SORTS {
        for label in ["fra_Latn", "arb_Arab", "ary_Arab", "ary_Latn", "zgh_Tfng"] {
            for _ in 0..each {
                all.push(Garbage { sort, label, text: page(&mut random, sort, label) });
            }
        }
    }
    all
}
