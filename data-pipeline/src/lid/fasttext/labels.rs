//! Owns what the labels of fastText models mean here: ISO 639-3 language and ISO 15924 script; never judges a text.

/// ISO 639-1 codes, each followed by the ISO 639-3 code of the language that models mean by it.
const SHORT_CODES: &str = "aaaar ababk afafr akaka amamh anarg ararb asasm avava ayaym azaze babak bebel bgbul bhbho bibis \
    bmbam bnben bobod brbre bsbos cacat ceche chcha cocos crcre csces cuchu cvchv cycym dadan dedeu \
    dvdiv dzdzo eeewe elell eneng eoepo esspa etest eueus fafas ffful fifin fjfij fofao frfra fyfry \
    gagle gdgla glglg gngrn guguj gvglv hahau heheb hihin hrhrv hthat huhun hyhye iaina idind ieile \
    igibo ioido isisl itita iuiku jajpn jvjav kakat kgkon kikik kkkaz klkal kmkhm knkan kokor kskas \
    kukur kvkom kwcor kykir lalat lbltz lglug lilim lnlin lolao ltlit lvlav mgmlg mimri mkmkd mlmal \
    mnmon mrmar msmsa mtmlt mymya nenep nlnld nnnno nonor nvnav nynya ococi ojoji omorm orori ososs \
    papan plpol pspus ptpor quque rmroh rnrun roron rurus rwkin sasan scsrd sdsnd sesme sgsag shhbs \
    sisin skslk slslv smsmo snsna sosom sqsqi srsrp ssssw stsot susun svswe swswa tatam tetel tgtgk \
    ththa titir tktuk tltgl tntsn toton trtur tstso tttat twtwi tytah uguig ukukr ururd uzuzb veven \
    vivie vovol wawln wowol xhxho yiyid yoyor zazha zhzho zuzul";

/// The script that most text of a language is in, for labels that name none; Latin for all others.
const SCRIPTS: [(&str, &str); 10] = [
    ("Arab", "arb ary arq arz apc aeb acm ars afb fas pus urd snd uig ckb pnb azb mzn lrc kas"),
    (
        "Cyrl",
        "rus ukr bel bul mkd srp kaz kir tgk tat mon che chv bak oss ava kom sah tyv myv mrj mhr krc kbd abk xal rue",
    ),
    ("Grek", "ell pnt"),
    ("Hebr", "heb yid"),
    ("Hani", "zho yue wuu"),
    ("Jpan", "jpn"),
    ("Hang", "kor"),
    ("Deva", "hin mar nep san bho mai new gom bih"),
    ("Tfng", "zgh"),
    ("Zzzz", "hye kat tha lao khm mya ben asm guj pan ori tam tel kan mal sin amh tir bod dzo div xmf bpy"),
];

/// The label as documents carry it: `ary_Arab` stays, `ar` becomes `arb_Arab`; `und` for what is no code.
pub(super) fn document_label(label: &str) -> String {
    if crate::document::is_language_label(label) {
        return label.to_owned();
    }
    let code = label.split(['_', '-']).next().unwrap_or(label);
    let language = match code.len() {
        2 => SHORT_CODES.split(' ').find_map(|pair| pair.strip_prefix(code)).unwrap_or_default(),
        _ => code,
    };
    if language.len() != 3 || !language.bytes().all(|b| b.is_ascii_lowercase()) {
        return crate::lid::tally::UND.to_owned();
    }
    let script = SCRIPTS.iter().find(|(_, languages)| languages.split(' ').any(|l| l == language));
    format!("{language}_{}", script.map_or("Latn", |(script, _)| script))
}

#[cfg(test)]
mod tests {
    use super::document_label;

    #[test]
    fn short_and_long_codes_become_labels() {
        for (label, meant) in [
            ("ary_Arab", "ary_Arab"),
            ("ar", "arb_Arab"),
            ("arz", "arz_Arab"),
            ("fr", "fra_Latn"),
            ("kab", "kab_Latn"),
            ("ru", "rus_Cyrl"),
            ("??", "und"),
            ("sport", "und"),
        ] {
            assert_eq!(document_label(label), meant);
        }
    }
}
