//! Owns sentences with personal data that is nobody's, and sentences with numbers that are none; always the same ones.
//!
//! The values are drawn at random and given valid or wrong checksums; the formats and the sentences are those people
//! write in French, Standard Arabic, Darija and Arabizi. Nothing here was used to write the rules' patterns by machine,
//! but one person knew both, so recall on texts of others will be lower.

use data_pipeline::pii::Kind;

/// A text and what stands in it.
pub struct Sample {
    pub text: String,
    pub expected: Vec<(Kind, String)>,
}

/// SplitMix64 (Steele et al. 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len() as u64) as usize]
    }

    fn digits(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }
}

fn mod97(digits: &str) -> u64 {
    digits.bytes().fold(0, |sum, b| (sum * 10 + u64::from(b - b'0')) % 97)
}

fn rib(random: &mut Random) -> String {
    let bank = random
        .pick(&["007", "011", "013", "021", "022", "101", "145", "164", "181", "190", "225", "230", "310", "350"]);
    let account = format!("{bank}{}{}", random.digits(3), random.digits(16));
    format!("{account}{:02}", 97 - mod97(&format!("{account}00")))
}

fn iban(random: &mut Random) -> String {
    let rib = rib(random);
    // M = 22, A = 10, and the check digits count as 00.
    format!("MA{:02}{rib}", 98 - mod97(&format!("{rib}221000")))
}

fn foreign_iban(random: &mut Random) -> String {
    let (country, value, len) =
        [("FR", "1527", 23), ("ES", "1428", 20), ("DE", "1314", 18), ("BE", "1114", 12)][random.below(4) as usize];
    let account = random.digits(len);
    format!("{country}{:02}{account}", 98 - mod97(&format!("{account}{value}00")))
}

fn card(random: &mut Random) -> String {
    let mut digits = format!("{}{}", random.pick(&["4", "51", "55", "2221"]), random.digits(15));
    digits.truncate(15);
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(i, b)| {
            let value = u32::from(b - b'0') * if i % 2 == 0 { 2 } else { 1 };
            value / 10 + value % 10
        })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

/// Cuts digits into groups of the sizes, joined by a separator.
fn grouped(digits: &str, sizes: &[usize], separator: &str) -> String {
    let mut parts = Vec::new();
    let mut at = 0;
    for size in sizes {
        parts.push(&digits[at..at + size]);
        at += size;
    }
    if at < digits.len() {
        parts.push(&digits[at..]);
    }
    parts.join(separator)
}

fn arabic_digits(text: &str) -> String {
    text.chars().map(|c| c.to_digit(10).map_or(c, |d| char::from_u32(0x660 + d).unwrap())).collect()
}

fn separator(random: &mut Random) -> &'static str {
    random.pick(&[" ", " ", " ", ".", "-", "\u{a0}", "\u{202f}", " - ", "\u{200f} "])
}

fn phone(random: &mut Random) -> String {
    let second = random.pick(&["6", "7", "5", "6", "8"]);
    let rest = random.digits(8);
    let national = format!("0{second}{rest}");
    let by = separator(random);
    let nine = &national[1..];
    match random.below(17) {
        0 | 1 => national,
        2 | 3 => grouped(&national, &[2, 2, 2, 2, 2], by),
        4 => grouped(&national, &[4, 2, 2, 2], by),
        5 => grouped(&national, &[4, 6], random.pick(&["-", " ", "/"])),
        6 => grouped(&national, &[4, 3, 3], by),
        7 => format!("{} {}", &national[..2], grouped(&national[2..], &[2, 2, 2, 2], random.pick(&["-", "."]))),
        8 => format!("+212{nine}"),
        9 => format!("+212 {}", grouped(nine, &[1, 2, 2, 2, 2], by)),
        10 => format!("+212{}{}", random.pick(&["(0)", " (0) ", " (0)"]), grouped(nine, &[1, 2, 2, 2, 2], " ")),
        11 => format!("00212{nine}"),
        12 => format!("00212 {}", grouped(nine, &[3, 2, 2, 2], " ")),
        13 => format!("(+212) {}", grouped(nine, &[3, 6], "-")),
        14 => arabic_digits(&grouped(&national, &[2, 2, 2, 2, 2], random.pick(&["", " "]))),
        15 => format!("212{nine}"),
        _ => format!("+212-{}", grouped(nine, &[3, 3, 3], "-")),
    }
}

fn cin(random: &mut Random) -> String {
    let letters = random.pick(&[
        "A", "AB", "AE", "BE", "BK", "BJ", "CD", "D", "EE", "F", "G", "HH", "J", "JB", "K", "L", "M", "Q", "T", "W",
        "X", "Z", "ZT",
    ]);
    let count = 5 + random.below(2) as usize;
    let digits = random.digits(count);
    match random.below(8) {
        0 | 1 => format!("{letters} {digits}"),
        2 => format!("{letters}-{digits}"),
        3 => format!("{letters}{digits}").to_lowercase(),
        4 => format!("{letters}{}", arabic_digits(&digits)),
        _ => format!("{letters}{digits}"),
    }
}

fn email(random: &mut Random) -> String {
    let name =
        random.pick(&["sara", "m.elidrissi", "Youssef_92", "contact", "nadia-b", "ali+news", "khadija1987", "o.a"]);
    let host = random.pick(&[
        "gmail.com",
        "hotmail.fr",
        "um5.ac.ma",
        "menara.ma",
        "outlook.com",
        "example.org",
        "Yahoo.fr",
        "mail.co.uk",
    ]);
    match random.below(8) {
        0 => format!("{name} [at] {}", host.replace('.', " [dot] ")),
        1 => format!("{name}(at){host}"),
        _ => format!("{name}@{host}"),
    }
}

fn ip(random: &mut Random) -> String {
    let part = |random: &mut Random| random.below(254) + 1;
    if random.below(5) == 0 {
        let group = |random: &mut Random| format!("{:x}", random.below(0x1_0000));
        return format!("2001:db8:{}::{}:{}", group(random), group(random), group(random));
    }
    format!("{}.{}.{}.{}", 11 + random.below(110), 64 + random.below(190), part(random), part(random))
}

fn url(random: &mut Random) -> String {
    let name = random.pick(&["sara.idrissi", "youssef-b", "amine_92", "nadia"]);
    let site = random.pick(&[
        "https://www.facebook.com/",
        "https://instagram.com/",
        "linkedin.com/in/",
        "https://t.me/",
        "https://x.com/",
        "https://user:pass@host.ma/",
    ]);
    format!("{site}{name}")
}

fn plate(random: &mut Random) -> String {
    let (number, region) = (10_000 + random.below(89_999), 1 + random.below(88));
    let letter = random.pick(&["أ", "ب", "د", "هـ", "و", "ط"]);
    match random.below(6) {
        0 => format!("{number}|{letter}|{region}"),
        1 => format!("{number} {letter} {region}"),
        2 => format!("{number}-{}-{region}", random.pick(&["A", "B", "D", "H"])),
        3 => format!("{region}-{letter}-{number}"),
        _ => format!("{number}-{letter}-{region}"),
    }
}

fn gps(random: &mut Random) -> String {
    let decimals = |random: &mut Random| random.digits(4 + (random.0 % 3) as usize);
    let (lat, lon) = (28 + random.below(7), 2 + random.below(9));
    let (a, b) = (decimals(random), decimals(random));
    match random.below(4) {
        0 => format!("{lat}.{a},-{lon}.{b}"),
        1 => format!("{lat}.{a}° N, {lon}.{b}° W"),
        2 => format!(
            "{lat}°{}'{}.{}\"N {lon}°{}'{}.{}\"W",
            10 + random.below(49),
            10 + random.below(49),
            random.below(9),
            10 + random.below(49),
            10 + random.below(49),
            random.below(9)
        ),
        _ => format!("{lat}.{a}, -{lon}.{b}"),
    }
}

/// One value of a kind as somebody may write it.
fn value(random: &mut Random, kind: Kind) -> String {
    match kind {
        Kind::Email => email(random),
        Kind::Phone => phone(random),
        Kind::Cin => cin(random),
        Kind::Passport => format!("{}{}", random.pick(&["AB", "WX", "KZ", "BE"]), random.digits(7)),
        Kind::Rib => {
            let rib = rib(random);
            match random.below(6) {
                0 => rib,
                1 => grouped(&rib, &[3, 3, 16, 2], separator(random)),
                2 => grouped(&rib, &[4, 4, 4, 4, 4, 4], " "),
                3 => grouped(&rib, &[3, 3, 4, 4, 4, 4, 2], "\u{a0}"),
                4 => arabic_digits(&rib),
                _ => grouped(&rib, &[3, 3, 16, 2], " "),
            }
        }
        Kind::Iban => {
            let iban = if random.below(4) == 0 { foreign_iban(random) } else { iban(random) };
            match random.below(4) {
                0 => iban,
                1 if iban.starts_with("MA") => grouped(&iban, &[4, 3, 3, 16, 2], " "),
                2 => grouped(&iban, &[2, 2, 4, 4, 4], " "),
                _ => iban
                    .as_bytes()
                    .chunks(4)
                    .map(|c| String::from_utf8_lossy(c).into_owned())
                    .collect::<Vec<_>>()
                    .join(" "),
            }
        }
        Kind::Card => {
            let card = card(random);
            if random.below(2) == 0 { card } else { grouped(&card, &[4, 4, 4, 4], random.pick(&[" ", "-"])) }
        }
        Kind::Ip => ip(random),
        Kind::Url => url(random),
        Kind::Handle => format!("@{}", random.pick(&["sara_ma", "YoussefB", "amine.92", "nadia_el", "l3ziz"])),
        Kind::Plate => plate(random),
        Kind::Gps => gps(random),
        Kind::Ice => format!("00{}", random.digits(13)),
        Kind::If => format!("{}{}", 1 + random.below(9), random.digits(7)),
        Kind::Rc => format!("{}{}", 1 + random.below(9), random.digits(5)),
        Kind::Cnss => format!("{}{}", 1 + random.below(9), random.digits(8)),
        Kind::Patente => format!("{}{}", 1 + random.below(9), random.digits(7)),
    }
}

/// Sentences around the number of an identity card, `{}`.
const OF_IDENTITY_CARDS: [&str; 16] = [
    "titulaire de la CIN n° {}, demeurant à Fès",
    "CIN : {}",
    "CIN: {}.",
    "M. Alami, carte nationale d'identité {}",
    "n° CNIE {}",
    "la carte nationale n° {}",
    "رقم البطاقة الوطنية {}",
    "الحامل للبطاقة الوطنية للتعريف رقم {} الساكن بسلا",
    "بطاقة التعريف الوطنية عدد: {}",
    "لاكارط ناسيونال ديالي هي {}",
    "lakart dyali {} sift liya",
    "CIN dyali hiya {}",
    "l7amil l carte nationale {}",
    "C.I.N. : {}",
    "ها رقم البطاقة ديالي {}",
    "identité vérifiée ({}, CIN)",
];

/// Sentences around a value, `{}`.
fn sentences(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Email => &[
            "écrivez-moi à {} avant lundi.",
            "راسلني على {} شكرا",
            "المراسلة: {}،",
            "sifet liya email f {} 3afak",
            "Contact : {} ou par courrier",
            "{}",
        ],
        Kind::Phone => &[
            "Vous pouvez me joindre au {} après 18 h.",
            "Tél : {}",
            "Tél./Fax: {}, Casablanca",
            "اتصل بي على الرقم {} من فضلك",
            "الهاتف: {}",
            "عيط ليا ف {} ملي تسالي",
            "3ayet liya f {} mlli tsali",
            "nmrti hiya {} f whatsapp",
            "Le gérant ({}) est absent",
            "مرحبا، {}.",
            "appelez {} ou passez",
            "رقم الهاتف المحمول {} وشكرا",
            "hada rqmi {} khoya",
            "Agence de Fès, avenue Hassan II, {}",
        ],
        Kind::Cin => &OF_IDENTITY_CARDS,
        Kind::Passport => {
            &["passeport n° {}", "titulaire du passeport {}", "جواز السفر رقم {}", "lpaspor dyali {}", "باسبور {} سالا"]
        }
        Kind::Rib => &[
            "RIB : {}",
            "virement sur le compte {} svp",
            "رقم الحساب البنكي {}",
            "sift liya lflous f RIB {}",
            "الحساب: {} ديال التجاري",
        ],
        Kind::Iban => &["IBAN : {}", "IBAN {} BIC BCMAMAMC", "رقم الحساب الدولي {}", "sift l IBAN dyali {} daba"],
        Kind::Card => {
            &["carte {} exp 12/27", "رقم البطاقة البنكية {}", "paiement avec la carte bancaire n° {}.", "visa dyali {}"]
        }
        Kind::Ip => &[
            "connexion depuis l'adresse IP {} hier",
            "عنوان IP: {}",
            "le serveur {} ne répond pas",
            "ping {} makhdamch",
        ],
        Kind::Url => &["mon profil : {}", "شوف الصفحة ديالي {}", "voir {} pour les photos", "dkhol l {} w jawbni"],
        Kind::Handle => &["merci {} pour la photo", "شكرا {} على المعلومة", "{} salam khoya", "RT {} : bravo"],
        Kind::Plate => &[
            "le véhicule immatriculé {} a été vu",
            "السيارة رقم {}",
            "لوحة الترقيم {}",
            "tomobil matricule {} wa9fa",
            "une voiture {} garée",
        ],
        Kind::Gps => &["position GPS : {}", "الإحداثيات {}", "rendez-vous à {}", "lblassa hiya {}"],
        Kind::Ice => &["ICE : {}", "I.C.E. n° {}", "التعريف الموحد للمقاولة {}"],
        Kind::If => &["IF : {}", "Identifiant fiscal n° {}", "التعريف الضريبي {}"],
        Kind::Rc => &["RC : {}", "RC Casablanca n° {}", "السجل التجاري رقم {}"],
        Kind::Cnss => &["CNSS : {}", "affiliation CNSS n° {}", "الضمان الاجتماعي رقم {}"],
        Kind::Patente => &["Patente : {}", "taxe professionnelle n° {}"],
    }
}

/// Sentences with numbers that are not personal; `9` is a random digit, `A` a random capital.
const INNOCENT: [&str; 58] = [
    "voir la tâche T699999 sur Phabricator",
    "l'entité Q199999 de Wikidata",
    "loi n° 09-08 du 18 février 2009",
    "القانون رقم 1.02.202 صادر في 12 من جمادى الأولى 1423",
    "dahir n° 1-58-250 du 21 safar 1378 (6 septembre 1958)",
    "ظهير شريف رقم 1.99.210",
    "l'article 999 du code de commerce",
    "المادة 499 من مدونة الأسرة",
    "le 15/06/2019 à 14:30",
    "du 01-06-2018 au 05-07-2019",
    "en 1956, 1961, 1975, 1999 et 2011",
    "un budget de 06 250 000 dirhams",
    "بمبلغ 9.999.999,99 درهم",
    "12 999 999 999 DH",
    "la version 10.2.9.9 du logiciel",
    "الإصدار 5.9.9.9 متاح",
    "v2.9.13.100",
    "paragraphe 4.2.1.9",
    "réf. 0699999999",
    "référence 06999999",
    "article n° 0699999999",
    "ISBN 978-9954-99-999-9",
    "facture n° 0599999999",
    "commande n° 0799999999",
    "مرجع 0699999999",
    "code-barres 6111999999999",
    "le vol AT799999",
    "rfc 9999 page 12",
    "12:30:45.999",
    "entre 05 06 07 08 et 10",
    "tableau : 05 12 13 14 15 16 17",
    "9 999 999 habitants",
    "99,99 % de 999 999",
    "2^64 = 18446744073709551616",
    "n° 999999999999999999999999",
    "id 4111999999999999",
    "https://site.ma/p/0699999999.html",
    "IMG_0699999999.jpg",
    "le bug 699999 de Firefox",
    "Bulletin officiel n° 5999 du 7 juillet 2005",
    "الجريدة الرسمية عدد 5999 بتاريخ 3 جمادى",
    "page 999-999",
    "température de 35.5, 36.6 et 37.7",
    "les scores 0.9999, 0.9998",
    "@param nom le nom",
    "@media (max-width: 999px)",
    "%@ fichiers",
    "std::vec::Vec",
    "h 12:05 et 13:09",
    "https://www.facebook.com/groups/999999",
    "+99 % de hausse",
    "+212 est l'indicatif du Maroc",
    "composez le 15 ou le 19",
    "AA99999 n'est pas sa référence de colis n° 99999999",
    "circulaire 06.2018.99",
    "SKU 05999999-99",
    "2019-06-05 12:00:00",
    "8.8.8.8",
];

/// Everything that is generated.
pub fn samples(per_kind: usize) -> Vec<Sample> {
    let mut random = Random::new(20_26);
    let mut all = Vec::new();
    for kind in Kind::ALL {
        for at in 0..per_kind {
            let value = value(&mut random, kind);
            let sentence = sentences(kind)[at % sentences(kind).len()];
            all.push(Sample { text: sentence.replace("{}", &value), expected: vec![(kind, value)] });
        }
    }
    for at in 0..per_kind * 4 {
        let pattern = INNOCENT[at % INNOCENT.len()];
        all.push(Sample { text: fill(&mut random, pattern), expected: Vec::new() });
    }
    for _ in 0..per_kind {
        all.push(wrong_checksum(&mut random));
        all.push(letter(&mut random));
    }
    all
}

fn fill(random: &mut Random, pattern: &str) -> String {
    pattern.chars().map(|c| if c == '9' { char::from(b'0' + random.below(10) as u8) } else { c }).collect()
}

/// A bank account or card with one wrong digit.
fn wrong_checksum(random: &mut Random) -> Sample {
    let (label, mut digits) = match random.below(3) {
        0 => ("RIB : ", rib(random)),
        1 => ("IBAN ", iban(random)),
        _ => ("carte ", card(random)),
    };
    let at = 4 + random.below(10) as usize;
    let digit = (digits.as_bytes()[at] - b'0' + 1 + random.below(8) as u8) % 10;
    digits.replace_range(at..=at, &digit.to_string());
    Sample { text: format!("{label}{digits}"), expected: Vec::new() }
}

/// Several kinds in one text.
fn letter(random: &mut Random) -> Sample {
    let kinds = [Kind::Phone, Kind::Email, Kind::Cin, Kind::Rib, Kind::Phone, Kind::Iban];
    let mut expected = Vec::new();
    let mut text = String::from("Bonjour, suite à votre demande du 05/06/2021 (loi n° 31-08), voici : ");
    for _ in 0..3 {
        let kind = kinds[random.below(6) as usize];
        let value = value(random, kind);
        let label = match kind {
            Kind::Phone => random.pick(&["tél ", "الهاتف ", "GSM : "]),
            Kind::Email => random.pick(&["e-mail ", "البريد "]),
            Kind::Cin => random.pick(&["CIN ", "البطاقة الوطنية رقم "]),
            Kind::Rib => "RIB ",
            _ => "IBAN ",
        };
        text.push_str(&format!("{label}{value} ; "));
        expected.push((kind, value));
    }
    text.push_str("cordialement.");
    Sample { text, expected }
}
