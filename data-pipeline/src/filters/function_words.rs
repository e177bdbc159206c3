//! Owns the frequent small words of each language, by which running text is told from lists; never identifies a language.

use ahash::AHashSet;

use super::signals::hasher;

/// Words by their hash; looking one up costs no copy of it.
#[derive(Debug, Clone, Default)]
pub(super) struct WordSet {
    hashes: AHashSet<u64>,
}

impl WordSet {
    /// The words as they are given.
    pub fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> WordSet {
        let hasher = hasher();
        WordSet { hashes: words.into_iter().map(|word| hasher.hash_one(word)).collect() }
    }

    /// Whether a word with this hash (of [`hasher`]) is one of them.
    pub fn has(&self, hash: u64) -> bool {
        self.hashes.contains(&hash)
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

const FRENCH: &str = "de la le et à en l'on des du les est un une il dans par au que qui pour pas sur se ne plus ce avec sont son sa \
    ses aux ou elle être cette vous nous ont leur leurs y a été mais comme si tout fait ces même entre sans sous peut lui \
    on je tu mon ma mes votre vos notre nos dont où très aussi après avant c'est d'un d'une qu'il n'est s'est j'ai";
const ENGLISH: &str = "the be to of and that have with a in is for on are was it as by this from at or an not you your can will \
    which we he she they has had but his her their its if all when there one more what who do our i my me so no up out";
const SPANISH: &str = "de la en el y a que del los se por un con una las su para no al es lo como más o este esta sus le ha sin \
    sobre ser son entre cuando muy hay también fue si ya pero tu te me mi todo nos usted está";
const STANDARD_ARABIC: &str = "في من على إلى أن عن مع هذا هذه التي الذي كان كانت ما لا لم لن قد أو ثم بين بعد قبل كل هو هي هم إن أي \
    كما ذلك تلك حيث عند عندما لكن غير حتى منذ خلال دون إذا بها به لها له فيها فيه منها منه عليها عليه هناك يكون تكون ليس \
    أما بل نحو ضد لدى أمام تحت فوق حول هل كيف لماذا أنت أنا نحن يا ال بن ولا وقد ومن وفي وعلى وهو وهي وأن وإن وما وكان أكثر \
    جميع بعض كانوا الذين اللذين التى فى الى ان او اذا اى";
const DARIJA: &str = "ديال د ف من على لي اللي هاد هادي هادا واش باش شي كاين كاينة ما ماشي غير حتى مع و ولا بزاف كان كانت راه راها هو هي \
    حنا أنا انا نتا نتي هوما ديالي ديالك ديالو ديالها ديالنا علاش كيفاش فين فاش شنو شكون دابا عندي عندو عندك عندها بحال كل بلا \
    لا آه غادي غا كنت كانو تاع نتاع فيه فيها منو منها ليه ليها لي ليك عليه عليها ديالهم ديالكم هداك هديك داك ديك حيت حيث الى إلى \
    يلا إلا والو شوية واحد واحدة وحدة مزيان عافاك الله يا أنت نت بين قبل بعد في عن أو ل ب ملي منين كي كيف أي خاص خصني بغيت كنقول \
    كيقول قال كال أش اش زعما مازال باقي أولا تا حتا هنا هناك تم لهيه كلشي شحال";
const ARABIZI: &str = "dyal d f men 3la li lli had hadi hada wach wash bach chi kayn kayna ma machi ghir ghi 7ta hta m3a w o wla bzaf \
    bzzaf kan kant rah raha howa hiya 7na hna ana nta nti homa dyali dyalk dyalo dyalha dyalna 3lach kifach fin fach chno \
    chnou chkon daba 3ndi 3ndo 3ndk 3ndha b7al bhal kol kola bla la ah ghadi ghada gha knt kano ta3 fih fiha mno mnha lih liha lik 3lih \
    3liha hadak hadik dak dik 7it hit ila walo chwiya wa7d wahd wa7ed mzyan mezyan afak 3afak allah a ya bin 9bel b3d l b mli \
    mnin ki kif khas khasni bghit katgol kaygol gal 9al ach mazal ba9i tta hnaya hna tmma koulchi chhal nhar wlit wl wld fel fl lfo9 \
    fo9 t7t m3ah m3aha m3ak dial dialy dialk u i kanet kayen kaina makaynch makanch maymknch yemken imken de le les des et je pas";
const AMAZIGH_LATIN: &str = "d n s i ad ur ar deg g ɣ ɣef lli nna ra is ma mi ay a wa ta wad tad yan yat nns nnes ines inu inek nnun nnsn \
    di seg zi x xef akked aked ula dayen maca mačči ara ihi ilaq yella llan tella yelli da din dinna seddaw gar zdat wid win \
    tin anida melmi amek acu anwa kra kull yal akk deg-s fell-as yess-s iwakken imi armi neɣ niɣ maca aqqa am bac mec la ad-t \
    gh ghf zegh ger dar sg gis gigh ghayad ghilad urta mli mani manik maḥ f iga tga gan ittu kud mk meqqar bahra ntta nttat nkk keyy \
    d-yusa as yas ak am-t iyi iyid netta nettat nekk kečč kemm nekni kunwi nutni tura yiwen yiwet";
const TIFINAGH: &str = "ⴷ ⵏ ⵙ ⵉ ⴰⴷ ⵓⵔ ⴰⵔ ⴳ ⵖ ⵖⴼ ⵍⵍⵉ ⵏⵏⴰ ⵔⴰⴷ ⵔⴰ ⵉⵙ ⵎⴰ ⴰⵢ ⴰ ⵡⴰ ⵜⴰ ⵡⴰⴷ ⵜⴰⴷ ⵢⴰⵏ ⵢⴰⵜ ⵏⵏⵙ ⵏⵏⴽ ⵏⵏⵓⵏ ⵏⵏⵖ ⵏⵏⵙⵏ ⵉⵏⵓ ⵣⵖ ⵣⴳ ⵙⴳ ⵖⵔ ⴰⵔ \
    ⴰⴽⴷ ⴷ ⵉⴷ ⵓⵍⴰ ⵎⴰⵛⴰ ⵎⴰⵛ ⵎⵅ ⵎⴽ ⵉⴳ ⵉⴳⴰ ⵜⴳⴰ ⵍⵍⴰⵏ ⵉⵍⵍⴰ ⵜⵍⵍⴰ ⴽⵔⴰ ⴽⵓ ⴰⴽⴽⵯ ⴽⵓⵍⵍⵓ ⴰⴼ ⵏⵖ ⵏⵉⵖ ⴳⵔ ⴷⴰⵜ ⴷⵉⴳ ⴷⴰ ⵙ ⴳⵉⵙ ⵖⵉⴷ ⵖⵉⵏⵏ ⵡⵉⵏ ⵜⵉⵏ ⵡⵉⵏⵏⴰ ⵏⵜⵜⴰ ⵏⵜⵜⴰⵜ ⵏⴽⴽ ⴽⵢⵢ ⵏⵏⵉⴳ ⵎⴰⵎⴽ ⵎⴰⵏⵉ \
    ⵎⵉ ⵢⴰⴷ ⴽⵢⵢⵉ ⵉⵎⵉⴽ ⴱⴰⵀⵔⴰ ⴰⵔⴷ ⴰⵎⵎ ⵣⵓⵏⴷ ⴷⵉ ⴰⵙ ⴰⴽ ⵜⵓⵏ ⵉⵜⵙⵏ ⴽⵔⵉⴳⵏ ⵎⵇⵇⴰⵔ ⵙⵓⵍ ⵡⴰⵔ";

/// The lists of a label: `None` for languages that are not known here.
pub(super) fn lists(label: &str) -> Option<&'static [&'static str]> {
    Some(match label {
        "fra_Latn" => &[FRENCH],
        "eng_Latn" => &[ENGLISH],
        "spa_Latn" => &[SPANISH],
        "arb_Arab" => &[STANDARD_ARABIC],
        // Darija and its neighbours borrow freely from the languages beside them.
        "ary_Arab" | "arq_Arab" | "mey_Arab" | "aeb_Arab" | "arz_Arab" | "apc_Arab" | "ars_Arab" | "afb_Arab" => {
            &[DARIJA, STANDARD_ARABIC]
        }
        "ary_Latn" | "arq_Latn" => &[ARABIZI, FRENCH],
        "kab_Latn" | "shi_Latn" | "tzm_Latn" | "rif_Latn" | "zgh_Latn" => &[AMAZIGH_LATIN],
        "zgh_Tfng" | "tzm_Tfng" | "shi_Tfng" | "rif_Tfng" => &[TIFINAGH],
        _ => return None,
    })
}

/// The function words of a label, if it has a list.
pub(super) fn of(label: &str) -> Option<WordSet> {
    let lists = lists(label)?;
    let mut words = Vec::new();
    for word in lists.iter().flat_map(|list| list.split_whitespace()) {
        words.push(word.to_owned());
        if word.starts_with(|c: char| ('\u{600}'..'\u{700}').contains(&c)) {
            // "and" and "so" are written together with the next word, hamzas often not at all.
            let bare: String = word.chars().map(|c| if matches!(c, 'أ' | 'إ' | 'آ') { 'ا' } else { c }).collect();
            for word in [word, bare.as_str()] {
                words.extend(["", "و", "ف"].map(|prefix| format!("{prefix}{word}")));
            }
        } else {
            let mut chars = word.chars();
            let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
            words.push(format!("{first}{}", chars.as_str()));
            words.push(word.to_uppercase());
            words.push(word.replace('\'', "’"));
        }
    }
    Some(WordSet::of(words.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn words_are_found_as_they_are_written() {
        let has = |label: &str, word: &str| of(label).unwrap().has(hasher().hash_one(word));
        assert!(
            has("fra_Latn", "Les") && has("fra_Latn", "DE") && has("fra_Latn", "c’est") && !has("fra_Latn", "maison")
        );
        assert!(
            has("arb_Arab", "والى") && has("arb_Arab", "إلى") && has("ary_Arab", "وديال") && has("ary_Arab", "التي")
        );
        assert!(has("zgh_Tfng", "ⴰⴷ") && has("kab_Latn", "ɣef") && has("ary_Latn", "dyal") && !has("ary_Latn", "dar"));
        assert!(of("und").is_none());
    }
}
