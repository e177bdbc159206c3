//! Tests of finding out encodings and decoding them.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;

fn found(head: &[u8]) -> Option<Encoding> {
    detect(Path::new("f"), head, Encoding::Auto).ok().map(|detected| detected.encoding)
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    text.encode_utf16().flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
}

fn page(table: &'static encoding_rs::Encoding, text: &str) -> Vec<u8> {
    let (bytes, _, lost) = table.encode(text);
    assert!(!lost, "{text}");
    bytes.into_owned()
}

const DARIJA: &str = "واش نقدر نسولك على شي حاجة؟ الجو زوين هاد النهار، والناس خارجين كيتمشاو.";
const FRENCH: &str = "L'été dernier, nous étions à Fès : « déjà vu », s'écria-t-elle près du marché de Marrakech.";
const TAMAZIGHT: &str = "ⴰⵣⵓⵍ ⴼⵍⵍⴰⵡⵏ ⵎⴰⵏⵣⴰⴽⵉⵏ ⵜⴰⵎⴰⵣⵉⵖⵜ ⵏ ⵓⵙⵉⵏⴰⴳ";

#[test]
fn utf8_passes_with_and_without_mark() {
    assert_eq!(detect(Path::new("f"), "\u{feff}سلام".as_bytes(), Encoding::Auto).unwrap().mark, 3);
    for text in ["سلام wach ⵢⴰⵏ", "", "- - - - - - - - - - - -", "a", DARIJA, FRENCH, TAMAZIGHT] {
        assert_eq!(found(text.as_bytes()), Some(Encoding::Utf8), "{text}");
    }
}

#[test]
fn some_damage_is_not_an_encoding() {
    let mut text = "نقدر ".repeat(40).into_bytes();
    text.extend([0xff, 0xfe, 0xff, b' ', 0xc0]);
    text.extend("نقدر ".as_bytes());
    assert_eq!(found(&text), Some(Encoding::Utf8));
    let ascii = format!("{}\u{fffd}", "{\"text\": \"salam labas\"}\n".repeat(50)).into_bytes();
    let damaged: Vec<u8> = ascii.iter().copied().chain([0xff, 0xfe, 0xc3, b' ', 0x80]).collect();
    assert_eq!(found(&damaged), Some(Encoding::Utf8));
    let cut = DARIJA.as_bytes();
    assert_eq!(found(&cut[..cut.len() - 2]), Some(Encoding::Utf8));
}

#[test]
fn wide_encodings_are_told_with_and_without_mark() {
    for text in [DARIJA, FRENCH, TAMAZIGHT, "Walk carefully there", "{\"text\": \"سلام\"}\n"] {
        assert_eq!(found(&utf16(text, false)), Some(Encoding::Utf16Le), "{text}");
        assert_eq!(found(&utf16(text, true)), Some(Encoding::Utf16Be), "{text}");
        let marked = utf16(&format!("\u{feff}{text}"), true);
        let detected = detect(Path::new("f"), &marked, Encoding::Auto).unwrap();
        assert_eq!(detected, Detected { encoding: Encoding::Utf16Be, mark: 2 });
    }
    assert_eq!(found(&[0xff, 0xfe, 0, 0, b'a', 0, 0, 0]), None);
}

#[test]
fn code_pages_are_told_by_their_letters() {
    assert_eq!(found(&page(WINDOWS_1256, DARIJA)), Some(Encoding::Windows1256));
    assert_eq!(found(&page(WINDOWS_1252, FRENCH)), Some(Encoding::Windows1252));
    assert_eq!(found(&page(WINDOWS_1252, "¿Qué? Mañana será otro día, señor Núñez.")), Some(Encoding::Windows1252));
    assert_eq!(found(&page(WINDOWS_1252, "d\u{e9}j\u{e0} pay\u{e9}")), Some(Encoding::Windows1252));
    let mixed = format!("{DARIJA}\nLe marché de Fès est fermé.\n{DARIJA}");
    assert_eq!(found(&page(WINDOWS_1256, &mixed)), Some(Encoding::Windows1256));
    assert_eq!(found(&page(ISO_8859_6, "واش نقدر نسولك على شي حاجة؟ الجو زوين، الناس")), Some(Encoding::Iso8859Six));
    let noise: Vec<u8> = (0..4000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(found(&noise), None);
}

#[test]
fn an_encoding_that_is_asked_for_is_taken() {
    let bytes = page(WINDOWS_1256, DARIJA);
    for asked in [Encoding::Utf8, Encoding::Windows1252, Encoding::Utf16Le] {
        assert_eq!(detect(Path::new("f"), &bytes, asked).unwrap().encoding, asked);
    }
    let marked = "\u{feff}a".as_bytes();
    assert_eq!(detect(Path::new("f"), marked, Encoding::Utf8).unwrap().mark, 3);
}

#[test]
fn decoding_in_pieces_of_any_size_is_decoding_at_once() {
    for (encoding, bytes) in
        [(Encoding::Utf16Le, utf16(DARIJA, false)), (Encoding::Windows1256, page(WINDOWS_1256, DARIJA))]
    {
        for size in [1, 2, 3, 7, 1000] {
            let mut out = Vec::new();
            let mut transcoder = Transcoder::new(encoding).unwrap();
            for piece in bytes.chunks(size) {
                transcoder.decode(piece, false, &mut out);
            }
            transcoder.decode(&[], true, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), DARIJA);
        }
    }
    assert!(Transcoder::new(Encoding::Utf8).is_none());
}

#[test]
fn labels_of_web_pages_are_believed_unless_the_bytes_say_otherwise() {
    let (arabic, french) = (page(WINDOWS_1256, DARIJA), page(WINDOWS_1252, "déjà"));
    assert_eq!(decode_labelled(&arabic, Some("windows-1256")).0, DARIJA);
    assert_eq!(decode_labelled(&arabic, Some("iso-8859-1")).0, DARIJA);
    assert_eq!(decode_labelled(&arabic, Some("utf-8")).0, DARIJA);
    assert_eq!(decode_labelled(&arabic, None).0, DARIJA);
    assert_eq!(decode_labelled(&french, Some("ISO-8859-1")).0, "déjà");
    assert_eq!(decode_labelled(DARIJA.as_bytes(), Some("iso-8859-1")).0, DARIJA);
    assert_eq!(decode_labelled(DARIJA.as_bytes(), Some("nonsense")).0, DARIJA);
}
