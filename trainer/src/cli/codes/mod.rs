//! Owns the stable codes of errors and what `jazari explain` says of them; never touches the errors' own words.
//!
//! A code names a kind of cause, not a place in the program, and keeps its meaning for good: a code that is no longer
//! used stays in the catalogue. The catalogue is a page of the guide in three languages, built into the program.

mod causes;
mod data_causes;

use clap::{Args, ValueEnum};

use super::failure::{Exit, Failure, note, say};

pub(super) use causes::of;

/// The catalogue, by language.
const PAGES: [(Tongue, &str); 3] = [
    (Tongue::En, include_str!("../../../../docs/guide/errors.md")),
    (Tongue::Fr, include_str!("../../../../docs/guide/fr/errors.md")),
    (Tongue::Ar, include_str!("../../../../docs/guide/ar/errors.md")),
];

macro_rules! codes {
    ($($name:ident = $text:literal,)*) => {
        /// A kind of cause.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Code {
            $(#[doc = $text] $name,)*
        }

        impl Code {
            /// Every code there is.
            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self::$name),*];

            /// How it is written: `J0103`.
            pub(super) fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    Usage = "J0001",
    WorkFailed = "J0002",
    ExpectationMissed = "J0003",
    Stopped = "J0004",
    FileNotFound = "J0005",
    NoPermission = "J0006",
    DiskFull = "J0007",
    DiskTrouble = "J0008",
    ExistsAlready = "J0009",
    InUse = "J0010",
    Defect = "J0011",
    ConfigUnreadable = "J0101",
    ConfigSyntax = "J0102",
    UnknownKey = "J0103",
    MissingKey = "J0104",
    WrongType = "J0105",
    InvalidValue = "J0106",
    OtherPlan = "J0107",
    OtherDataset = "J0108",
    NotFresh = "J0109",
    MixtureName = "J0110",
    MixtureTooSmall = "J0111",
    NoInput = "J0201",
    UnknownFormat = "J0202",
    SourceDamaged = "J0203",
    Columns = "J0204",
    Record = "J0205",
    Licence = "J0206",
    NothingLeft = "J0207",
    OutputFolder = "J0208",
    InputChanged = "J0209",
    StageSetting = "J0210",
    TooManyStreams = "J0211",
    RemovalRefused = "J0212",
    NotADataset = "J0301",
    DatasetVersion = "J0302",
    DatasetDamaged = "J0303",
    DatasetMismatch = "J0304",
    DocumentTooLong = "J0305",
    NoTokenizer = "J0401",
    TokenizerUnreadable = "J0402",
    SpecialToken = "J0403",
    TokenizerGates = "J0404",
    TokenizerFailed = "J0405",
    ChatTemplate = "J0406",
    OtherVocabulary = "J0407",
    CheckpointDamaged = "J0501",
    CheckpointMismatch = "J0502",
    CannotSave = "J0503",
    LogDamaged = "J0504",
    Halted = "J0505",
    NotFinite = "J0506",
    BackendNotBuilt = "J0601",
    CudaMissing = "J0602",
    NoSuchDevice = "J0603",
    DeviceFails = "J0604",
    Threads = "J0605",
    NoBf16 = "J0606",
    PeerLost = "J0701",
    ProcessesRefused = "J0702",
    PeerAbsent = "J0703",
    ClusterLocal = "J0704",
    LauncherEnvironment = "J0705",
    LaunchUsage = "J0706",
    Unkillable = "J0707",
    SecretFile = "J0708",
    SiteRefused = "J0709",
    CoordinatorUnreachable = "J0710",
    CoordinatorDamaged = "J0711",
    NoModel = "J0801",
    WeightsDoNotFit = "J0802",
    WeightsDamaged = "J0803",
    ModelUnsupported = "J0804",
    DoesNotRepresent = "J0805",
    ExportDiffers = "J0806",
    AdapterSettings = "J0807",
    OtherBase = "J0808",
    AdapterAlone = "J0809",
    TaskFile = "J0901",
    Prompt = "J0902",
    ReferenceBundle = "J0903",
    SigningKey = "J1001",
    NotCertifiable = "J1002",
    CertificateRefused = "J1003",
    BundleRefused = "J1004",
}

/// A language that the catalogue is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tongue {
    /// English
    En,
    /// French
    Fr,
    /// Arabic
    Ar,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// The code of an error, `J0103`; without it, all codes are listed
    code: Option<String>,
    /// Language; default: the one that LC_ALL, LC_MESSAGES or LANG names, else English
    #[arg(long, value_enum)]
    lang: Option<Tongue>,
}

/// Says what a code means and what to do.
pub(super) fn explain(arguments: &ExplainArguments) -> Result<Exit, Failure> {
    let tongue = arguments.lang.unwrap_or_else(|| Tongue::of(&|name| std::env::var(name).ok()));
    let page = PAGES.iter().find(|(language, _)| *language == tongue).map_or("", |(_, page)| *page);
    let Some(wanted) = &arguments.code else {
        sections(page).for_each(|(title, _)| say(title));
        note("`jazari explain CODE` says more of one");
        return Ok(Exit::Done);
    };
    let plain = wanted.trim_matches(['[', ']']).to_uppercase();
    let code = if plain.starts_with('J') { plain } else { format!("J{plain:0>4}") };
    let found = sections(page).find(|(title, _)| title.split_whitespace().next() == Some(&code));
    let (title, body) = found.ok_or_else(|| {
        Failure::usage(format!("there is no error code `{wanted}`; `jazari explain` lists all of them"))
    })?;
    say(&format!("{title}\n\n{}", body.trim()));
    Ok(Exit::Done)
}

impl Tongue {
    /// What the environment asks for, in the order of POSIX.
    fn of(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &&str| env(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(set).unwrap_or_default();
        match locale.split(['_', '.', '@']).next() {
            Some("fr") => Self::Fr,
            Some("ar") => Self::Ar,
            _ => Self::En,
        }
    }
}

/// Titles and texts of the codes of a page.
fn sections(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split("\n### ").skip(1).map(|section| {
        let (title, body) = section.split_once('\n').unwrap_or((section, ""));
        (title, body.split("\n## ").next().unwrap_or(body).trim_end_matches("</div>\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_in_every_language_and_nothing_else_is() {
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.text()).collect();
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "codes are in order and differ: {codes:?}");
        for (tongue, page) in PAGES {
            let titles: Vec<&str> = sections(page).filter_map(|(title, _)| title.split_whitespace().next()).collect();
            assert_eq!(titles, codes, "{tongue:?}");
            for (title, body) in sections(page) {
                assert!(title.chars().count() > 10 && body.trim().chars().count() > 40, "{tongue:?}: {title}");
                assert!(!body.contains("\n#"), "{tongue:?}: {title} runs into another heading");
            }
        }
    }

    #[test]
    fn the_language_is_that_of_the_environment() {
        let of = |pairs: &[(&str, &str)]| {
            Tongue::of(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[("LANG", "fr_MA.UTF-8")]), Tongue::Fr);
        assert_eq!(of(&[("LANG", "fr_MA.UTF-8"), ("LC_ALL", "ar_MA")]), Tongue::Ar);
        assert_eq!(of(&[("LC_ALL", ""), ("LC_MESSAGES", "ar"), ("LANG", "C")]), Tongue::Ar);
        assert_eq!(of(&[("LANG", "zgh_MA")]), Tongue::En);
        assert_eq!(of(&[]), Tongue::En);
    }
}
