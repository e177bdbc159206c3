//! Owns the choice of the blocks that are a page's main text: by length, share of links, and neighbours; never reads
//! markup. No word list of a language takes part, so that Darija and Tamazight fare as French does.

use super::blocks::{Block, Kind};
use super::hints::is_notice;

/// A block with this many letters, nearly all of them outside links, is content by itself, and with twice as many even
/// when a part is inside links.
const LONG_LETTERS: usize = 50;
const FEW_LINKS: f64 = 0.2;
/// `main` and `article` are the content alone when they hold this much.
const CONTENT_MIN_LETTERS: usize = 120;
/// With the end of a sentence fewer are enough, and inside `main` and `article` fewer still.
const SENTENCE_LETTERS: usize = 45;
const CONTENT_LETTERS: usize = 20;
/// A larger share of letters inside links makes a block navigation.
const MAX_LINK_SHARE: f64 = 0.5;
/// Blocks between two kept ones that may be short, and distance of a heading from what it heads.
const MAX_SHORT_RUN: usize = 8;
const HEADING_REACH: usize = 3;
/// When less than this is found, and so many times more without looking at class names, these have misled.
const LITTLE_LETTERS: usize = 300;
const MISLED_TIMES: usize = 4;
/// A page with less main text than this has none, in letters.
const MIN_PAGE_LETTERS: usize = 25;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Good,
    Short,
    Heading,
    Bad,
}

/// The main text, or an empty one.
pub(super) fn select(blocks: &[Block]) -> String {
    let mut kept = by_context(blocks, &classify(blocks, false));
    let found = letters(blocks, &kept);
    if found < LITTLE_LETTERS {
        // A class name may have misled; tags and roles rarely do.
        let without_hints = by_context(blocks, &classify(blocks, true));
        if letters(blocks, &without_hints) > MISLED_TIMES * found {
            kept = without_hints;
        }
    }
    if letters(blocks, &kept) < MIN_PAGE_LETTERS {
        kept = by_container(blocks);
    }
    if letters(blocks, &kept) < MIN_PAGE_LETTERS {
        return String::new();
    }
    join(blocks, &kept)
}

fn letters(blocks: &[Block], kept: &[bool]) -> usize {
    blocks.iter().zip(kept).filter(|(_, kept)| **kept).map(|(block, _)| block.letters).sum()
}

fn classify(blocks: &[Block], ignore_hints: bool) -> Vec<Class> {
    // Inside `main` alone, when it has enough to be the content.
    let in_content = |block: &&Block| block.content && !block.frame && link_share(block) <= MAX_LINK_SHARE;
    let content: usize = blocks.iter().filter(in_content).map(|block| block.letters).sum();
    let all: usize = blocks.iter().filter(|b| !b.frame && link_share(b) <= MAX_LINK_SHARE).map(|b| b.letters).sum();
    let only_content = content >= CONTENT_MIN_LETTERS && content * 4 >= all;
    let class = |block: &Block| {
        let outside = only_content && !block.content;
        if block.frame || outside || (block.hinted && !ignore_hints) || link_share(block) > MAX_LINK_SHARE {
            return Class::Bad;
        }
        if is_notice(&block.text, block.letters) {
            return Class::Bad;
        }
        let sentence = block.text.contains(['.', '!', '?', '؟', '،', '؛', '۔', '…', ':', ',']);
        let enough = block.letters >= 2 * LONG_LETTERS
            || (block.letters >= LONG_LETTERS && link_share(block) <= FEW_LINKS)
            || (sentence && block.letters >= SENTENCE_LETTERS)
            || (block.content && block.letters >= CONTENT_LETTERS);
        match block.kind {
            Kind::Heading => Class::Heading,
            _ if enough => Class::Good,
            _ => Class::Short,
        }
    };
    blocks.iter().map(class).collect()
}

fn link_share(block: &Block) -> f64 {
    block.link_letters as f64 / block.letters.max(1) as f64
}

/// Good blocks, the short ones between them, and the headings before them.
fn by_context(blocks: &[Block], classes: &[Class]) -> Vec<bool> {
    let mut kept: Vec<bool> = classes.iter().map(|class| *class == Class::Good).collect();
    let good: Vec<usize> = kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(i, _)| i).collect();
    for pair in good.windows(2) {
        let &[from, to] = pair else { continue };
        let between = classes.get(from + 1..to).unwrap_or_default();
        let short = between.iter().filter(|class| **class == Class::Short).count();
        let plain = between.iter().all(|class| *class != Class::Bad);
        if plain && short <= MAX_SHORT_RUN {
            kept.get_mut(from + 1..to).unwrap_or_default().fill(true);
        }
    }
    // Short blocks in the container of a good one belong to it: a list, a poem, a byline.
    let mut holding: Vec<u32> = good.iter().filter_map(|&i| blocks.get(i)).map(|block| block.container).collect();
    holding.sort_unstable();
    holding.dedup();
    for ((kept, class), block) in kept.iter_mut().zip(classes).zip(blocks) {
        let in_good = block.container != 0 && holding.binary_search(&block.container).is_ok();
        *kept |= *class == Class::Short && in_good && block.link_letters == 0;
    }
    // From the end, so that a heading before a heading that is kept is kept as well.
    for i in (0..classes.len()).rev() {
        if classes.get(i) == Some(&Class::Heading) && kept.get(i) == Some(&false) {
            let ahead = kept.get(i + 1..(i + 1 + HEADING_REACH).min(kept.len())).unwrap_or_default();
            let heads = ahead.iter().position(|kept| *kept).is_some_and(|at| {
                classes.get(i + 1..i + 1 + at).unwrap_or_default().iter().all(|class| *class != Class::Bad)
            });
            if let Some(kept) = kept.get_mut(i) {
                *kept = heads;
            }
        }
    }
    kept
}

/// Of a page without one long block (a list of words, a song, a short notice): the container with the most text.
fn by_container(blocks: &[Block]) -> Vec<bool> {
    let usable = |block: &Block| {
        !block.frame && !block.hinted && link_share(block) <= MAX_LINK_SHARE && !is_notice(&block.text, block.letters)
    };
    let mut sums: Vec<(u32, usize)> =
        blocks.iter().filter(|block| usable(block)).map(|block| (block.container, block.letters)).collect();
    sums.sort_unstable();
    let mut best = (0, 0);
    for group in sums.chunk_by(|a, b| a.0 == b.0) {
        let sum: usize = group.iter().map(|(_, letters)| letters).sum();
        if sum > best.1 {
            best = (group.first().map_or(0, |(container, _)| *container), sum);
        }
    }
    blocks.iter().map(|block| usable(block) && block.container == best.0 && best.1 > 0).collect()
}

/// A blank line between paragraphs, a line end between the items of a list.
fn join(blocks: &[Block], kept: &[bool]) -> String {
    let mut text = String::new();
    let mut before = None;
    for (block, _) in blocks.iter().zip(kept).filter(|(_, kept)| **kept) {
        if !text.is_empty() {
            text.push_str(if before == Some(Kind::Item) && block.kind == Kind::Item { "\n" } else { "\n\n" });
        }
        text.push_str(&block.text);
        before = Some(block.kind);
    }
    text
}
