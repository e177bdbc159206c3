//! Owns the labels that stand beside numbers, in French, Arabic, Darija, Arabizi, English and Spanish: which kind of
//! number the words around a place announce; never decides alone.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

use super::run::is_hidden;
use super::scan::char_at;

/// What a label announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Phone = 0,
    Cin,
    /// "la carte", "identité": enough for a number with the letters of a Moroccan region.
    MaybeCin,
    Passport,
    Ice,
    If,
    Rc,
    Cnss,
    Patente,
    Plate,
    Gps,
    Ip,
    /// A number of something else: an article, a law, a reference.
    Other,
    /// A word that makes the next number its own only when "n°" follows: "commande n° 12".
    Thing,
    /// Something that has versions and sections: 1.2.3.4 is no address.
    Version,
    /// "n°", "numéro", "رقم", "عدد".
    Number,
}

const NUM_LABELS: usize = 16;
/// Bytes of text before a number in which its label is looked for.
const BEFORE_BYTES: usize = 96;
/// Bytes of text after a number in which its label is looked for.
const AFTER_BYTES: usize = 56;

/// Labels in folded form (see [`fold`]); `|` separates them, `_` stands for a space, that is the edge of a word. Labels
/// in capitals must be in capitals in the text (`IF` is not `if`).
const LABELS: [(Label, &str); 22] = [
    (
        Label::Phone,
        "_tel_|_tele_|_telephone|_telephon|_phone_|_phones_|_cell_|_gsm_|_mobile_|_mob_|_portable_|_fax_|_telecopie|\
         _whatsapp_|_whatsap_|_watsapp_|_watsap_|_wtsp_|_wtsap_|_wats_|_whats_|_viber_|_sms_|_appelez_|_appeler_|_appelle_|\
         _appel_|_contactez_|_contacter_|_contact_|_contacte_|_call_|_joindre_|_joignable_|_standard_|_telefono_|\
         _llamar_|_movil_",
    ),
    (
        Label::Phone,
        "هاتف|تليفون|تلفون|تيليفون|تلفن|جوال|محمول|نقال|بورطابل|فاكس|واتساب|واتس|اتصل|اتصال|للتواصل|تواصل|عيط|صوني|نمره|\
         نمرت|النمر|ⵜⵉⵍⵉⴼⵓⵏ|ⵜⵉⵍⵉⴼⵓ",
    ),
    (
        Label::Phone,
        "_nmra_|_nemra_|_namra_|_noumra_|_nimra_|_nmrti_|_nmerti_|_numirou_|_nmira_|_nnmra_|_lnmra_|_3ayt|_3ayet|_3iyt|\
         _3iyet|_3eyt|_3eyet|_3yet|_t3ayet|_tssal_|_ttasl_|_tasl_|_sonni_|_soni_|_tilifoun|_tilifun|_telifoun|_tilfoun|\
         _tilefoun|_portabl_|_lportable_",
    ),
    (
        Label::Cin,
        "_cin_|_cine_|_ncin_|_lcni_|_cnie_|_cni_|_lcin_|_lacin_|_nicn_|_carte_nationale|_carte_nat_|_carte_d_identit|_carte_identit|\
         _piece_d_identit|_cart_national|_carte_national|_identite_nationale|_national_id|_identity_card|_id_card_|\
         _carta_nacional|_documento_nacional|_titulaire_de_la_carte|_lacarte_nat|_la_carte_nat",
    ),
    (
        Label::Cin,
        "البطاقه الوطني|البطاقه_الوطني|بطاقه وطني|بطاقه_وطني|بطاقه_التعريف|بطاقه_تعريف|البطاقه_التعريف|رقم_البطاقه|رقم_بطاق|\
         بطاقته_الوطني|بطاقتي_الوطني|بطاقتها_الوطني|بطاقتك_الوطني|لاكارط|لاكارت|لا_كارط|كارط_ناسيونال|كارت_ناسيونال|\
         لكارط|_ب_ت_و_|_بتو_|البطاقه_ديال|التعريف_الوطني|الرقم_الوطني|رقم_وطني|الهويه_الوطني|ⵜⴰⴽⴰⵕⴹⴰ",
    ),
    (
        Label::Cin,
        "_lakart|_lakarte|_lacarte_|_lkart|_lkarta_|_la_kart|_lacart_|_kart_na|_cart_na|_btaqa|_btaka|_bita9a|_bi6a9a|_b6a9a|\
         _bta9a|_beta9a|_bitaqa|_betaqa|_bitaka|_lbitaka|_lbita9a|_lbta9a|_lbi6a9a|_lbtaqa|_lbitaqa|_carta_dyal",
    ),
    (Label::MaybeCin, "_la_carte_|_carte_|_identite_|_identity_|هويه|بطاقه|بطاقت|_karta_"),
    (
        Label::Passport,
        "passeport|passport|_paspor|_pasport|_lpaspor|_basbor|_baspor|_pasaporte|جواز|باسبور|پاسپور|باصبور",
    ),
    (Label::Ice, "_ICE_|_ice_n_|identifiant_commun|التعريف_الموحد|المعرف_الموحد|الموحد_للمقاول"),
    (
        Label::If,
        "_IF_|identifiant_fiscal|identification_fiscal|_id_fiscal|التعريف_الضريبي|التعريف_الجبائي|المعرف_الضريبي|\
         المعرف_الجبائي|الرقم_الضريبي",
    ),
    (Label::Rc, "_RC_|_RCS_|registre_de_commerce|registre_du_commerce|السجل_التجاري|سجل_تجاري|التجاري_رقم"),
    (Label::Cnss, "_cnss_|securite_sociale|الضمان_الاجتماعي|ضمان_اجتماعي|الضمان"),
    (
        Label::Patente,
        "patente|taxe_professionnelle|_TP_|الضريبه_المهني|الرسم_المهني|البتانتا|الباتانتا|الباتنتا|lpatenta",
    ),
    (
        Label::Plate,
        "immatricul|_plaque_|matricule|_vehicule|_voiture|_auto_|_camion|_moto_|carte_grise|_berline_|_dacia_|_clio_|\
         _taxi_|_logan_|_car_|_vehicle|_license_plate|matri9|_matricul|tomobil|tonobil|_blaka_|_plaka_",
    ),
    (
        Label::Plate,
        "سيار|طوموبيل|طونوبيل|لوحه|الترقيم|ترقيم|مرقم|شاحنه|دراجه|مركبه|ناقله|ماتريكول|ماتريكيل|لاماتريك|البلاكه|بلاكه|طاكسي",
    ),
    (
        Label::Gps,
        "_gps_|latitude|longitude|_lat_|_lon_|_lng_|_long_|coordonnee|coordinate|localisation|_location_|_position_|_geo_|\
         احداثي|الموقع|موقعي|خط_العرض|خط_الطول|_coordenadas_|_ubicacion_|_blasti_|_lblassa_|_bloka|البلاصه",
    ),
    (
        Label::Ip,
        "_ip_|_ipv4_|_ipv6_|_serveur|_server|_host_|_hote_|_ping_|_ssh_|_dns_|_sirver|الخادم|السيرفر|سيرفر|_adresse_|_address_|عنوان",
    ),
    (
        Label::Other,
        "_ref_|_refs_|_reference_|_references_|_article_|_articles_|_art_|_isbn_|_issn_|_ean_|_sku_|_upc_|_gtin_|_code_|\
         _codes_|_barcode|_serie_|_serial_|_facture_|_factures_|_invoice_|_lot_|_modele_|_model_|_version_|phabricator|\
         wikidata|_bug_|_bugs_|_task_|_ticket_|_tickets_|_issue_|_item_|_loi_|_lois_|_decret_|_dahir_|_arrete_|_law_|_doi_|\
         _arxiv_|_pmid_|_rfc_|_vol_|_flight_|_commit_|_tache_|_circulaire_|_bulletin_|_page_|_pages_|_element_|_entite_|\
         _prix_|_price_|_id_|_ids_|_imei_|_uuid_|_hash_",
    ),
    (
        Label::Other,
        "مرجع|فاتور|القانون|قانون|ظهير|مرسوم|الماده|_ماده|الفصل|مقال|الرمز|_رمز|كود|تسلسلي|الطبعه|صفحه|قرار|ثمن|الثمن|سعر|تذكره|مهمه|\
         رحله|_taman_|_tamane_|الجريده",
    ),
    (
        Label::Thing,
        "_commande_|_commandes_|_order_|_dossier_|_colis_|_suivi_|_tracking_|_produit_|_product_|_client_|_compte_|طلبي|\
         _طلب_|الطلب|ملف|منتج|المنتوج|منتوج|سلعه|تتبع|طرد|_commanda_|_lkomand",
    ),
    (
        Label::Version,
        "_version_|_versions_|_ver_|_v_|_release_|_build_|_firmware_|_kernel_|_driver_|_section_|_chapitre_|\
         _paragraphe_|_chapter_|_alinea_|_mise_a_jour_|_update_|_app_|الاصدار|اصدار|نسخ|تحديث|_noskha",
    ),
    (Label::Number, "_n_|_no_|_nr_|_num_|_numero_|_numeros_|_number_|رقم|عدد|_nmra_|_ra9m_|_raqm_|_ra9em_|_raqem_"),
];

struct Matcher {
    automaton: AhoCorasick,
    labels: Vec<Label>,
}

static MATCHER: LazyLock<Option<Matcher>> = LazyLock::new(|| {
    let mut patterns: Vec<String> = Vec::new();
    let mut labels = Vec::new();
    for (label, list) in LABELS {
        for pattern in list.split('|') {
            let pattern = pattern.replace('_', " ");
            let shouted = shout(&pattern);
            if shouted != pattern {
                patterns.push(shouted);
                labels.push(label);
            }
            patterns.push(pattern);
            labels.push(label);
        }
    }
    // The labels are constants; a test builds the automaton.
    let automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&patterns).ok()?;
    Some(Matcher { automaton, labels })
});

/// The pattern as [`fold`] leaves it when its words are in capitals: short ones stay so.
fn shout(pattern: &str) -> String {
    let words = pattern.split(' ').map(|word| {
        let short = (2..=MAX_CAPITALS).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase());
        if short { word.to_ascii_uppercase() } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Longest word in capitals that keeps them when text is folded.
const MAX_CAPITALS: usize = 4;

/// The labels around a place.
#[derive(Debug, Default)]
pub(super) struct Context {
    folded: String,
    /// Where the last match of each label ends in `folded`, 0 for none (or, after a place, where the first one begins,
    /// counted from the end so that larger is nearer too).
    near: [usize; NUM_LABELS],
}

impl Context {
    /// The labels that end before the byte `at`.
    pub fn before(text: &str, at: usize) -> Context {
        let from = floor(text, at.saturating_sub(BEFORE_BYTES));
        let mut context = Context::default();
        fold(text.get(from..at).unwrap_or_default(), &mut context.folded);
        if let Some(matcher) = MATCHER.as_ref() {
            for found in matcher.automaton.find_overlapping_iter(&context.folded) {
                if let Some(near) =
                    matcher.labels.get(found.pattern().as_usize()).and_then(|l| context.near.get_mut(*l as usize))
                {
                    *near = (*near).max(found.end());
                }
            }
        }
        context
    }

    /// The labels that begin after the byte `at`.
    pub fn after(text: &str, at: usize) -> Context {
        let to = floor(text, at.saturating_add(AFTER_BYTES).min(text.len()));
        let mut context = Context::default();
        fold(text.get(at..to).unwrap_or_default(), &mut context.folded);
        let len = context.folded.len();
        if let Some(matcher) = MATCHER.as_ref() {
            for found in matcher.automaton.find_overlapping_iter(&context.folded) {
                if let Some(near) =
                    matcher.labels.get(found.pattern().as_usize()).and_then(|l| context.near.get_mut(*l as usize))
                {
                    *near = (*near).max(len.saturating_sub(found.start()));
                }
            }
        }
        context
    }

    /// Whether a label is there at all.
    pub fn has(&self, label: Label) -> bool {
        self.nearness(label) > 0
    }

    /// How near a label is: larger is nearer, 0 is absent.
    pub fn nearness(&self, label: Label) -> usize {
        self.near.get(label as usize).copied().unwrap_or(0)
    }

    /// Whether `label` is there and none of `others` is nearer.
    pub fn is_nearest(&self, label: Label, others: &[Label]) -> bool {
        let own = self.nearness(label);
        own > 0 && others.iter().all(|other| self.nearness(*other) <= own)
    }

    /// Whole words between a label before the place and the place.
    pub fn words_between(&self, label: Label) -> usize {
        let end = self.nearness(label);
        if end == 0 {
            return usize::MAX;
        }
        self.folded.get(end..).unwrap_or_default().split_whitespace().count()
    }

    /// Whether the word right before the place announces a number of something else: a reference, an article, an order
    /// when "n°" stands between.
    pub fn is_other(&self) -> bool {
        let others = [Label::Phone, Label::Cin, Label::Passport];
        if others
            .iter()
            .any(|label| self.nearness(*label) > self.nearness(Label::Other).max(self.nearness(Label::Thing)))
        {
            return false;
        }
        let numbered = self.words_between(Label::Number) <= 2;
        self.words_between(Label::Other) <= 2 || (numbered && self.words_between(Label::Thing) <= 3)
    }
}

/// The start of the character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Writes a text for the search of labels: lower case without accents, vowel signs and characters that do not show,
/// Arabic letter variants folded, everything else a single space, a space at both ends. Dots inside `C.I.N.` go. Words of
/// 2 to 4 capitals stay in capitals.
fn fold(text: &str, out: &mut String) {
    out.clear();
    out.push(' ');
    let (mut at, mut word) = (0, out.len());
    while let Some(c) = char_at(text, at) {
        at += c.len_utf8();
        let c = plain(c);
        match c {
            Some(c) if c.is_alphanumeric() => out.push(c),
            None => {}
            // A letter with a dot: the next one joins it.
            Some('.') if out.len() == word + 1 && char_at(text, at).is_some_and(char::is_alphabetic) => {
                word = out.len();
            }
            Some(_) => {
                end_word(out);
                word = out.len();
            }
        }
    }
    end_word(out);
}

/// Ends the word that is being written: short ones in capitals stay, others become lower case.
fn end_word(out: &mut String) {
    if out.ends_with(' ') {
        return;
    }
    let start = out.rfind(' ').map_or(0, |at| at + 1);
    let word = out.get(start..).unwrap_or_default();
    let capitals = (2..=MAX_CAPITALS).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_uppercase());
    if !capitals && word.bytes().any(|b| b.is_ascii_uppercase()) {
        let lower = word.to_ascii_lowercase();
        out.truncate(start);
        out.push_str(&lower);
    }
    out.push(' ');
}

/// A character as labels are written, `None` for one that is left out.
fn plain(c: char) -> Option<char> {
    Some(match c {
        'é' | 'è' | 'ê' | 'ë' => 'e',
        'É' | 'È' | 'Ê' | 'Ë' => 'E',
        'à' | 'â' | 'ä' | 'á' => 'a',
        'À' | 'Â' | 'Á' => 'A',
        'î' | 'ï' | 'í' => 'i',
        'ô' | 'ö' | 'ó' => 'o',
        'ù' | 'û' | 'ü' | 'ú' => 'u',
        'ç' => 'c',
        'أ' | 'إ' | 'آ' | 'ٱ' => 'ا',
        'ى' | 'ی' => 'ي',
        'ة' => 'ه',
        'ک' => 'ك',
        'ھ' => 'ه',
        '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}' => return None,
        c if is_hidden(c) => return None,
        c => c,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folded(text: &str) -> String {
        let mut out = String::new();
        fold(text, &mut out);
        out
    }

    #[test]
    fn folding() {
        assert_eq!(folded("C.I.N. n°"), " CIN n ");
        assert_eq!(folded("La Carte Nationale d'Identité"), " la carte nationale d identite ");
        assert_eq!(folded("رقم البِطاقـة الوطنيّة :"), " رقم البطاقه الوطنيه ");
        assert_eq!(folded("fin.Tél: IF If TÉL"), " fin tel IF if TEL ");
        assert_eq!(folded(""), " ");
    }

    #[test]
    fn every_label_is_in_folded_form_and_found() {
        assert!(MATCHER.is_some());
        for (label, list) in LABELS {
            for pattern in list.split('|') {
                let text = pattern.replace('_', " ");
                assert_eq!(folded(&text).trim(), text.trim(), "{pattern}");
                let context = Context::before(&text, text.len());
                assert!(context.has(label), "{pattern}");
            }
        }
        for label in [Label::Phone, Label::Number] {
            assert!((label as usize) < NUM_LABELS);
        }
    }

    #[test]
    fn the_nearest_label_counts() {
        let check = |text: &str, label, others: &[Label]| Context::before(text, text.len()).is_nearest(label, others);
        assert!(check("passeport, CIN n° ", Label::Cin, &[Label::Passport, Label::Other]));
        assert!(!check("CIN, passeport n° ", Label::Cin, &[Label::Passport, Label::Other]));
        assert!(!check("if ", Label::If, &[]) && check("IF : ", Label::If, &[]));
        assert!(Context::before("article n° ", 12).is_other());
        assert!(Context::before("commande n° ", 13).is_other());
        assert!(!Context::before("Pour passer commande : ", 23).is_other());
        assert!(!Context::before("réf. 12, tél. ", 16).is_other());
        assert!(Context::after(" (CIN)", 0).has(Label::Cin));
    }
}
