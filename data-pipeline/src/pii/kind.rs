//! Owns the kinds of personal data and how they are counted; never touches texts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kind of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An e-mail address.
    Email,
    /// A telephone or fax number.
    Phone,
    /// Number of a national identity card, `BK123456`; only beside a word that says so.
    Cin,
    /// Number of a passport; only beside a word that says so.
    Passport,
    /// Bank account: 24 digits with a valid key.
    Rib,
    /// International bank account number with valid check digits.
    Iban,
    /// Number of a payment card that passes the Luhn check.
    Card,
    /// An IPv4 or IPv6 address.
    Ip,
    /// An address with a user name and password in it, or of a personal page on a social network.
    Url,
    /// A user's name on a social network: `@name`.
    Handle,
    /// Registration of a vehicle: `12345-أ-6`.
    Plate,
    /// A pair of coordinates, precise to about a hundred metres or better.
    Gps,
    /// Identifiant commun de l'entreprise: 15 digits after their label.
    Ice,
    /// Identifiant fiscal, after its label.
    If,
    /// Number in the trade register, after its label.
    Rc,
    /// Number at the national social security fund, after its label.
    Cnss,
    /// Number of the business tax, after its label.
    Patente,
}

impl Kind {
    /// All kinds, in the order of their tables.
    pub const ALL: [Kind; 17] = [
        Kind::Email,
        Kind::Phone,
        Kind::Cin,
        Kind::Passport,
        Kind::Rib,
        Kind::Iban,
        Kind::Card,
        Kind::Ip,
        Kind::Url,
        Kind::Handle,
        Kind::Plate,
        Kind::Gps,
        Kind::Ice,
        Kind::If,
        Kind::Rc,
        Kind::Cnss,
        Kind::Patente,
    ];

    /// The name in configurations and counts.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Email => "email",
            Kind::Phone => "phone",
            Kind::Cin => "cin",
            Kind::Passport => "passport",
            Kind::Rib => "rib",
            Kind::Iban => "iban",
            Kind::Card => "card",
            Kind::Ip => "ip",
            Kind::Url => "url",
            Kind::Handle => "handle",
            Kind::Plate => "plate",
            Kind::Gps => "gps",
            Kind::Ice => "ice",
            Kind::If => "if",
            Kind::Rc => "rc",
            Kind::Cnss => "cnss",
            Kind::Patente => "patente",
        }
    }

    /// The kind of a name, if there is one.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What stands in a placeholder: `<PHONE_1>`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Email => "EMAIL",
            Kind::Phone => "PHONE",
            Kind::Cin => "CIN",
            Kind::Passport => "PASSPORT",
            Kind::Rib => "RIB",
            Kind::Iban => "IBAN",
            Kind::Card => "CARD",
            Kind::Ip => "IP",
            Kind::Url => "URL",
            Kind::Handle => "USER",
            Kind::Plate => "PLATE",
            Kind::Gps => "GPS",
            Kind::Ice => "ICE",
            Kind::If => "IF",
            Kind::Rc => "RC",
            Kind::Cnss => "CNSS",
            Kind::Patente => "PATENTE",
        }
    }
}

/// What was found in a document or in many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PiiCounts {
    found: [u64; Kind::ALL.len()],
    replaced: [u64; Kind::ALL.len()],
    /// The first kind found whose action is to drop the document.
    pub dropped_for: Option<Kind>,
}

impl PiiCounts {
    pub(super) fn add(&mut self, kind: Kind, replaced: bool) {
        let at = kind as usize;
        if let (Some(found), Some(count)) = (self.found.get_mut(at), self.replaced.get_mut(at)) {
            *found += 1;
            *count += u64::from(replaced);
        }
    }

    /// Adds the counts of another document.
    pub fn merge(&mut self, other: &PiiCounts) {
        for (sum, count) in self.found.iter_mut().zip(other.found) {
            *sum += count;
        }
        for (sum, count) in self.replaced.iter_mut().zip(other.replaced) {
            *sum += count;
        }
    }

    /// How often a kind was found.
    pub fn found(&self, kind: Kind) -> u64 {
        self.found.get(kind as usize).copied().unwrap_or(0)
    }

    /// How often a kind was replaced.
    pub fn replaced(&self, kind: Kind) -> u64 {
        self.replaced.get(kind as usize).copied().unwrap_or(0)
    }

    /// Everything found.
    pub fn found_total(&self) -> u64 {
        self.found.iter().sum()
    }

    /// Everything replaced.
    pub fn replaced_total(&self) -> u64 {
        self.replaced.iter().sum()
    }

    /// Kinds that were found and how often, by name.
    pub fn by_name(&self) -> BTreeMap<&'static str, u64> {
        Kind::ALL.into_iter().map(|kind| (kind.name(), self.found(kind))).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_kinds_is_in_order_and_names_agree_with_configurations() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            assert_eq!(serde_json::to_value(kind).ok(), Some(kind.name().into()));
            assert_eq!(Kind::named(kind.name()), Some(kind));
        }
        assert_eq!(Kind::named("name"), None);
    }

    #[test]
    fn counts_add_up() {
        let mut sum = PiiCounts::default();
        sum.add(Kind::Phone, true);
        sum.add(Kind::Ice, false);
        let mut twice = sum;
        twice.merge(&sum);
        assert_eq!((twice.found(Kind::Phone), twice.replaced(Kind::Phone), twice.replaced(Kind::Ice)), (2, 2, 0));
        assert_eq!((twice.found_total(), twice.replaced_total()), (4, 2));
        assert_eq!(twice.by_name().into_iter().collect::<Vec<_>>(), [("ice", 2), ("phone", 2)]);
    }
}
