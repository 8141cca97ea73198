//! A look over a request's bytes before the codec decodes them.
//!
//! The codec reserves memory for as many elements as an array claims to have, and a claim costs four bytes: one small
//! frame could ask for hundreds of gigabytes. So each request that holds arrays has its layout written down here, and
//! a frame whose arrays can't lie in the bytes that came is refused before anything is reserved. A test walks what
//! the codec encodes in every version, so the two can't drift apart.

use kafka_protocol::messages::ApiKey;

/// The request's bytes do not have the layout of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("request's bytes do not have the layout of its version")]
pub(crate) struct Misshapen;

#[derive(Debug)]
enum Shape {
    Fixed(usize),
    Text,
    Bytes,
    List(&'static Shape),
    Structs(&'static [Field]),
}

/// A field and the versions that have it.
#[derive(Debug)]
struct Field(i16, i16, Shape);

const ALL: i16 = i16::MAX;
const BYTE: Shape = Fixed(1);
const SHORT: Shape = Fixed(2);
const INT: Shape = Fixed(4);
const LONG: Shape = Fixed(8);
const UUID: Shape = Fixed(16);
use Shape::{Bytes, Fixed, List, Structs, Text};

static PRODUCE: &[Field] = &[
    Field(0, ALL, Text),
    Field(0, ALL, SHORT),
    Field(0, ALL, INT),
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, 12, Text),
            Field(13, ALL, UUID),
            Field(0, ALL, Structs(&[Field(0, ALL, INT), Field(0, ALL, Bytes)])),
        ]),
    ),
];

static FETCH: &[Field] = &[
    Field(0, 14, INT),
    Field(0, ALL, INT),
    Field(0, ALL, INT),
    Field(0, ALL, INT),
    Field(0, ALL, BYTE),
    Field(7, ALL, INT),
    Field(7, ALL, INT),
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, 12, Text),
            Field(13, ALL, UUID),
            Field(
                0,
                ALL,
                Structs(&[
                    Field(0, ALL, INT),
                    Field(9, ALL, INT),
                    Field(0, ALL, LONG),
                    Field(12, ALL, INT),
                    Field(5, ALL, LONG),
                    Field(0, ALL, INT),
                ]),
            ),
        ]),
    ),
    Field(7, ALL, Structs(&[Field(0, 12, Text), Field(13, ALL, UUID), Field(0, ALL, List(&INT))])),
    Field(11, ALL, Text),
];

static LIST_OFFSETS: &[Field] = &[
    Field(0, ALL, INT),
    Field(2, ALL, BYTE),
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, Text),
            Field(0, ALL, Structs(&[Field(0, ALL, INT), Field(4, ALL, INT), Field(0, ALL, LONG)])),
        ]),
    ),
    Field(10, ALL, INT),
];

static METADATA: &[Field] = &[
    Field(0, ALL, Structs(&[Field(10, ALL, UUID), Field(0, ALL, Text)])),
    Field(4, ALL, BYTE),
    Field(8, 10, BYTE),
    Field(8, ALL, BYTE),
];

static CREATE_TOPICS: &[Field] = &[
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, Text),
            Field(0, ALL, INT),
            Field(0, ALL, SHORT),
            Field(0, ALL, Structs(&[Field(0, ALL, INT), Field(0, ALL, List(&INT))])),
            Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, Text)])),
        ]),
    ),
    Field(0, ALL, INT),
    Field(0, ALL, BYTE),
];

static DELETE_TOPICS: &[Field] = &[
    Field(6, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, UUID)])),
    Field(0, 5, List(&Text)),
    Field(0, ALL, INT),
];

static DELETE_RECORDS: &[Field] = &[
    Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, Structs(&[Field(0, ALL, INT), Field(0, ALL, LONG)]))])),
    Field(0, ALL, INT),
];

static DESCRIBE_CONFIGS: &[Field] = &[
    Field(0, ALL, Structs(&[Field(0, ALL, BYTE), Field(0, ALL, Text), Field(0, ALL, List(&Text))])),
    Field(0, ALL, BYTE),
    Field(3, ALL, BYTE),
];

static INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, BYTE),
            Field(0, ALL, Text),
            Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, BYTE), Field(0, ALL, Text)])),
        ]),
    ),
    Field(0, ALL, BYTE),
];

static ALTER_CONFIGS: &[Field] = &[
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, BYTE),
            Field(0, ALL, Text),
            Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, Text)])),
        ]),
    ),
    Field(0, ALL, BYTE),
];

static CREATE_PARTITIONS: &[Field] = &[
    Field(
        0,
        ALL,
        Structs(&[Field(0, ALL, Text), Field(0, ALL, INT), Field(0, ALL, Structs(&[Field(0, ALL, List(&INT))]))]),
    ),
    Field(0, ALL, INT),
    Field(0, ALL, BYTE),
];

/// A binding and a filter for bindings look the same.
static ACLS: &[Field] = &[Field(
    0,
    ALL,
    Structs(&[
        Field(0, ALL, BYTE),
        Field(0, ALL, Text),
        Field(0, ALL, BYTE),
        Field(0, ALL, Text),
        Field(0, ALL, Text),
        Field(0, ALL, BYTE),
        Field(0, ALL, BYTE),
    ]),
)];

static DESCRIBE_USERS: &[Field] = &[Field(0, ALL, Structs(&[Field(0, ALL, Text)]))];

static ALTER_USERS: &[Field] = &[
    Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, BYTE)])),
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, Text),
            Field(0, ALL, BYTE),
            Field(0, ALL, INT),
            Field(0, ALL, Bytes),
            Field(0, ALL, Bytes),
        ]),
    ),
];

static FIND_COORDINATOR: &[Field] = &[Field(0, 3, Text), Field(1, ALL, BYTE), Field(4, ALL, List(&Text))];

/// The layout of a request that holds arrays, and the first version with compact lengths and tagged fields.
fn layout(key: ApiKey) -> Option<(&'static [Field], i16)> {
    Some(match key {
        ApiKey::Produce => (PRODUCE, 9),
        ApiKey::Fetch => (FETCH, 12),
        ApiKey::ListOffsets => (LIST_OFFSETS, 6),
        ApiKey::Metadata => (METADATA, 9),
        ApiKey::CreateTopics => (CREATE_TOPICS, 5),
        ApiKey::DeleteTopics => (DELETE_TOPICS, 4),
        ApiKey::DeleteRecords => (DELETE_RECORDS, 2),
        ApiKey::DescribeConfigs => (DESCRIBE_CONFIGS, 4),
        ApiKey::IncrementalAlterConfigs => (INCREMENTAL_ALTER_CONFIGS, 1),
        ApiKey::AlterConfigs => (ALTER_CONFIGS, 2),
        ApiKey::FindCoordinator => (FIND_COORDINATOR, 3),
        ApiKey::CreatePartitions => (CREATE_PARTITIONS, 2),
        ApiKey::CreateAcls | ApiKey::DeleteAcls => (ACLS, 2),
        ApiKey::DescribeUserScramCredentials => (DESCRIBE_USERS, 0),
        ApiKey::AlterUserScramCredentials => (ALTER_USERS, 0),
        _ => return None,
    })
}

/// Checks the body of a request; one without arrays always passes.
pub(crate) fn check(key: ApiKey, version: i16, body: &[u8]) -> Result<(), Misshapen> {
    let Some((fields, compact_from)) = layout(key) else { return Ok(()) };
    let mut walker = Walker { rest: body, version, compact: version >= compact_from };
    walker.fields(fields)
}

struct Walker<'a> {
    rest: &'a [u8],
    version: i16,
    compact: bool,
}

impl Walker<'_> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), Misshapen> {
        for Field(from, to, shape) in fields {
            if (*from..=*to).contains(&self.version) {
                self.shape(shape)?;
            }
        }
        if self.compact {
            for _ in 0..self.varint()? {
                self.varint()?;
                let size = self.varint()?;
                self.skip(size as usize)?;
            }
        }
        Ok(())
    }

    fn shape(&mut self, shape: &'static Shape) -> Result<(), Misshapen> {
        match shape {
            Fixed(size) => self.skip(*size),
            Text => {
                let length = self.length(2)?;
                self.skip(length)
            }
            Bytes => {
                let length = self.length(4)?;
                self.skip(length)
            }
            List(element) => {
                for _ in 0..self.count(self.least(element))? {
                    self.shape(element)?;
                }
                Ok(())
            }
            Structs(fields) => {
                for _ in 0..self.count(self.least_of(fields))? {
                    self.fields(fields)?;
                }
                Ok(())
            }
        }
    }

    /// How many elements follow, given the least number of bytes that each one takes.
    fn count(&mut self, least: usize) -> Result<usize, Misshapen> {
        let count = self.length(4)?;
        if count > self.rest.len() / least.max(1) { Err(Misshapen) } else { Ok(count) }
    }

    /// A length, of `classic` bytes before the compact versions; null counts as nothing.
    fn length(&mut self, classic: usize) -> Result<usize, Misshapen> {
        if self.compact {
            return Ok(self.varint()?.saturating_sub(1) as usize);
        }
        let (length, rest) = self.rest.split_at_checked(classic).ok_or(Misshapen)?;
        self.rest = rest;
        let length = match length {
            [a, b] => i32::from(i16::from_be_bytes([*a, *b])),
            [a, b, c, d] => i32::from_be_bytes([*a, *b, *c, *d]),
            _ => return Err(Misshapen),
        };
        if length == -1 { Ok(0) } else { usize::try_from(length).map_err(|_| Misshapen) }
    }

    fn varint(&mut self) -> Result<u32, Misshapen> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(Misshapen)?;
            self.rest = rest;
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Misshapen)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Misshapen> {
        self.rest = self.rest.get(bytes..).ok_or(Misshapen)?;
        Ok(())
    }

    /// The least number of bytes of one element.
    fn least(&self, shape: &Shape) -> usize {
        match shape {
            Fixed(size) => *size,
            Text if !self.compact => 2,
            _ if self.compact => 1,
            _ => 4,
        }
    }

    fn least_of(&self, fields: &[Field]) -> usize {
        let there = fields.iter().filter(|Field(from, to, _)| (*from..=*to).contains(&self.version));
        there.map(|Field(_, _, shape)| self.least(shape)).sum::<usize>() + usize::from(self.compact)
    }
}

#[cfg(test)]
mod tests;
