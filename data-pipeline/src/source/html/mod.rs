//! Owns turning a web page into its main text: markup to blocks of text, and the choice of blocks; never decodes bytes, and
//! never judges what a text says.
//!
//! No tree is built. The tokens of the page pass a stack of open elements, of bounded depth, that knows whether what is
//! inside belongs to the page's frame (navigation, footers, forms, cookie banners) or to its content.

mod blocks;
mod hints;
mod select;

pub(super) use blocks::read_page;
pub(super) use hints::{reserves_mining, robots_opt_out};

#[cfg(test)]
mod tests;
