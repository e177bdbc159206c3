//! Owns the 16 bytes before the data of a collective, which show that both sides mean the same; never touches sockets.

use crate::cluster::collective::Order;
use crate::cluster::recorder::Kind;

/// Length on the wire.
pub(super) const HEADER_BYTES: usize = 16;

/// What the bytes that follow belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of the collective; of messages between two ranks the number of the message. Wraps.
    pub(super) sequence: u32,
    /// What it does.
    pub(super) kind: Kind,
    /// How it adds, where it adds.
    pub(super) order: Option<Order>,
    /// Where it starts, where that matters.
    pub(super) root: u16,
    /// Values or bytes.
    pub(super) elements: u64,
}

const KINDS: [(Kind, u8); 8] = [
    (Kind::AllReduce, 1),
    (Kind::ReduceScatter, 2),
    (Kind::AllGather, 3),
    (Kind::AllGatherBytes, 4),
    (Kind::Broadcast, 5),
    (Kind::Barrier, 6),
    (Kind::Send, 7),
    (Kind::Recv, 8),
];

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or(0, |(_, code)| *code);
        let order = match self.order {
            None => 0,
            Some(Order::Exact) => 1,
            Some(Order::Fast) => 2,
        };
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.sequence.to_le_bytes());
        (bytes[4], bytes[5]) = (kind, order);
        bytes[6..8].copy_from_slice(&self.root.to_le_bytes());
        bytes[8..].copy_from_slice(&self.elements.to_le_bytes());
        bytes
    }

    /// `None` for bytes that are no header.
    pub(super) fn decode(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let [s0, s1, s2, s3, code, order, r0, r1, elements @ ..] = bytes;
        let (kind, _) = KINDS.iter().find(|(_, c)| *c == code)?;
        let order = match order {
            0 => None,
            1 => Some(Order::Exact),
            2 => Some(Order::Fast),
            _ => return None,
        };
        let sequence = u32::from_le_bytes([s0, s1, s2, s3]);
        let root = u16::from_le_bytes([r0, r1]);
        Some(Self { sequence, kind: *kind, order, root, elements: u64::from_le_bytes(elements) })
    }

    /// Whether two ranks mean the same although each may pass another number of bytes.
    pub(super) fn agrees_except_length(&self, other: &Self) -> bool {
        Self { elements: other.elements, ..*self } == *other
    }

    /// The words every rank would choose for the same collective.
    pub(super) fn describe(&self) -> String {
        let Self { sequence, kind, order, root, elements } = self;
        let name = kind.name();
        match (kind, order) {
            (Kind::AllReduce | Kind::ReduceScatter, Some(Order::Exact)) => {
                format!("{name} #{sequence} of {elements} values (exact)")
            }
            (Kind::AllReduce | Kind::ReduceScatter, _) => format!("{name} #{sequence} of {elements} values (fast)"),
            (Kind::AllGather, _) => format!("{name} #{sequence} of {elements} values"),
            (Kind::Broadcast, _) => format!("{name} #{sequence} from rank {root}"),
            (Kind::Send | Kind::Recv, _) => format!("message {sequence} between two ranks"),
            (Kind::AllGatherBytes | Kind::Barrier, _) => format!("{name} #{sequence}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_way_and_garbage_is_none() {
        for (kind, _) in KINDS {
            for order in [None, Some(Order::Exact), Some(Order::Fast)] {
                let header = Header { sequence: u32::MAX - 1, kind, order, root: 513, elements: 1 << 40 };
                assert_eq!(Header::decode(header.encode()), Some(header));
                assert!(header.agrees_except_length(&Header { elements: 3, ..header }));
                assert!(!header.agrees_except_length(&Header { root: 3, ..header }));
            }
        }
        assert_eq!(Header::decode([0; HEADER_BYTES]), None);
        assert_eq!(Header::decode([9; HEADER_BYTES]), None);
    }
}
