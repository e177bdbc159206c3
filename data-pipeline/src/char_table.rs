//! Owns a table from characters to classes, made of Unicode properties; never says what a class means.

const NUM_BASIC: usize = 0x1_0000;

/// Classes of the basic plane by code point, and ranges above it.
pub(crate) struct CharTable<C> {
    basic: Box<[C]>,
    above: Vec<(char, char, C)>,
    other: C,
}

impl<C: Copy> CharTable<C> {
    /// The table of `properties`, such as `\p{L}`: of several that hold a character the last decides, and characters of
    /// none are `other`. Outside the basic plane they must not overlap.
    pub fn new(properties: &[(&str, C)], other: C) -> Self {
        let mut table = Self { basic: vec![other; NUM_BASIC].into(), above: Vec::new(), other };
        for &(property, class) in properties {
            for (first, last) in ranges_of(property) {
                let (from, to) = (first as usize, (last as usize).min(NUM_BASIC - 1));
                table.basic.get_mut(from..=to).unwrap_or_default().fill(class);
                if last as usize >= NUM_BASIC {
                    table.above.push((first, last, class));
                }
            }
        }
        table.above.sort_unstable_by_key(|range| range.0);
        table
    }

    /// Gives a character of the basic plane a class of its own.
    pub fn set(&mut self, c: char, class: C) {
        if let Some(slot) = self.basic.get_mut(c as usize) {
            *slot = class;
        }
    }

    /// The class of a character.
    #[inline]
    pub fn of(&self, c: char) -> C {
        if let Some(&class) = self.basic.get(c as usize) {
            return class;
        }
        let at = self.above.partition_point(|range| range.0 <= c);
        match at.checked_sub(1).and_then(|i| self.above.get(i)) {
            Some(&(_, last, class)) if c <= last => class,
            _ => self.other,
        }
    }
}

/// The characters of a property, from the tables that regular expressions are matched with.
fn ranges_of(property: &str) -> Vec<(char, char)> {
    use regex_syntax::hir::{Class as HirClass, HirKind};
    // The properties are constants; the tests of those who use a table look their characters up.
    match regex_syntax::parse(property).map(regex_syntax::hir::Hir::into_kind) {
        Ok(HirKind::Class(HirClass::Unicode(class))) => {
            class.iter().map(|range| (range.start(), range.end())).collect()
        }
        _ => Vec::new(),
    }
}
