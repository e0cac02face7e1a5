//! Rows on their way to the client: columns with their types, and values encoded as text or binary.
//!
//! The simple protocol always gets text. Drivers that prepare their statements often ask for binary values without another choice,
//! so these are encoded too: there are only four types.

use std::borrow::Cow;
use std::io::Write as _;
use std::ops::Range;

use crate::wire::build;

/// PostgreSQL's number for a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "each is PostgreSQL's name of the type")]
pub enum Type {
    Int8 = 20,
    Int4 = 23,
    Text = 25,
    Numeric = 1700,
}

/// One column of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name; tools look for it.
    pub name: &'static str,
    /// Its type; tools declare it.
    pub kind: Type,
}

/// A text column.
pub const fn text(name: &'static str) -> Column {
    Column {
        name,
        kind: Type::Text,
    }
}

/// An int4 column.
pub const fn int4(name: &'static str) -> Column {
    Column {
        name,
        kind: Type::Int4,
    }
}

/// An int8 column.
pub const fn int8(name: &'static str) -> Column {
    Column {
        name,
        kind: Type::Int8,
    }
}

/// A numeric column; its values are whole numbers.
pub const fn numeric(name: &'static str) -> Column {
    Column {
        name,
        kind: Type::Numeric,
    }
}

/// How a value is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As text.
    #[default]
    Text,
    /// As the type's binary representation.
    Binary,
}

/// The formats a client asked for: none means text, one is for all columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formats(pub Vec<Format>);

impl Formats {
    /// The format of one column.
    fn of(&self, column: usize) -> Format {
        match self.0.as_slice() {
            [one] => *one,
            several => several.get(column).copied().unwrap_or_default(),
        }
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// NULL
    Null,
    /// For a text column.
    Text(Cow<'a, str>),
    /// For a column of any of the number types.
    Int(u64),
}

impl From<u64> for Cell<'_> {
    fn from(number: u64) -> Self {
        Cell::Int(number)
    }
}

impl From<u32> for Cell<'_> {
    fn from(number: u32) -> Self {
        Cell::Int(number.into())
    }
}

impl From<u16> for Cell<'_> {
    fn from(number: u16) -> Self {
        Cell::Int(number.into())
    }
}

impl From<bool> for Cell<'_> {
    fn from(yes: bool) -> Self {
        Cell::Int(yes.into())
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Cell::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Cell<'a> {
    fn from(text: &'a String) -> Self {
        Cell::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Cell<'_> {
    fn from(text: String) -> Self {
        Cell::Text(Cow::Owned(text))
    }
}

impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Null, Into::into)
    }
}

/// Appends the RowDescription of a layout.
pub fn describe(out: &mut Vec<u8>, columns: &[Column], formats: &Formats) {
    let start = out.len();
    build::row_description(out, columns.iter().map(|c| (c.name, c.kind as u32)));
    // A RowDescription is built for text; the format code is the last field of each column.
    let mut at = start + 5 + 2;
    for (n, column) in columns.iter().enumerate() {
        at += column.name.len() + 1 + COLUMN_FIELDS_LEN;
        if formats.of(n) == Format::Binary {
            out[at - 1] = 1;
        }
    }
}

/// Bytes of a column's fields behind its name: table, number, type, length, modifier, format.
const COLUMN_FIELDS_LEN: usize = 4 + 2 + 4 + 2 + 4 + 2;

/// A result: a layout, and its rows as DataRow messages.
#[derive(Clone, Debug)]
pub struct Table {
    columns: &'static [Column],
    formats: Formats,
    body: Vec<u8>,
    rows: usize,
    /// The row being encoded; kept for its memory.
    row: Vec<u8>,
    cells: Vec<Option<Range<usize>>>,
}

impl Table {
    /// A result without rows.
    pub fn new(columns: &'static [Column], formats: Formats) -> Self {
        Table {
            columns,
            formats,
            body: Vec::new(),
            rows: 0,
            row: Vec::new(),
            cells: Vec::new(),
        }
    }

    /// The layout.
    pub fn columns(&self) -> &'static [Column] {
        self.columns
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// True if there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The DataRow messages.
    pub fn into_messages(self) -> Vec<u8> {
        self.body
    }

    /// Adds a row with a value for each column.
    pub fn push<const N: usize>(&mut self, cells: [Cell<'_>; N]) {
        self.push_row(&cells);
    }

    /// As [`Table::push`], for rows whose width is not known beforehand.
    pub fn push_row(&mut self, cells: &[Cell<'_>]) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.row.clear();
        self.cells.clear();
        for (n, (cell, column)) in cells.iter().zip(self.columns).enumerate() {
            let start = self.row.len();
            let is_value = encode(&mut self.row, cell, column.kind, self.formats.of(n));
            self.cells.push(is_value.then_some(start..self.row.len()));
        }
        let (row, cells) = (&self.row, &self.cells);
        let values = cells
            .iter()
            .map(|cell| cell.clone().map(|range| &row[range]));
        build::data_row(&mut self.body, values);
        self.rows += 1;
    }
}

/// Appends a value; false for NULL.
fn encode(out: &mut Vec<u8>, cell: &Cell<'_>, kind: Type, format: Format) -> bool {
    match (cell, format) {
        (Cell::Null, _) => return false,
        (Cell::Text(text), _) => out.extend_from_slice(text.as_bytes()),
        (Cell::Int(number), Format::Binary) => binary(out, *number, kind),
        (Cell::Int(number), Format::Text) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{number}");
        }
    }
    true
}

/// A number in binary; one too large for its type becomes the type's largest.
fn binary(out: &mut Vec<u8>, number: u64, kind: Type) {
    match kind {
        Type::Int4 => out.extend(i32::try_from(number).unwrap_or(i32::MAX).to_be_bytes()),
        Type::Int8 => out.extend(i64::try_from(number).unwrap_or(i64::MAX).to_be_bytes()),
        Type::Numeric => binary_numeric(out, number),
        Type::Text => {
            debug_assert!(false, "a number in a text column");
            let _ = write!(out, "{number}");
        }
    }
}

/// PostgreSQL's numeric: digits to the base 10,000, the most significant first, without trailing zeros.
fn binary_numeric(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = Vec::new();
    while number > 0 {
        // The remainder is below 10,000.
        digits.push((number % 10_000) as u16);
        number /= 10_000;
    }
    digits.reverse();
    let weight = digits.len().saturating_sub(1) as u16;
    while digits.last() == Some(&0) {
        digits.pop();
    }
    let (sign, scale) = (0u16, 0u16);
    let head = [digits.len() as u16, weight, sign, scale];
    for field in head.into_iter().chain(digits) {
        out.extend(field.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static LAYOUT: [Column; 4] = [text("t"), int4("i"), int8("l"), numeric("n")];

    #[test]
    fn text_rows() {
        let mut table = Table::new(&LAYOUT, Formats::default());
        table.push(["é".into(), 7u64.into(), true.into(), 10_000u64.into()]);
        table.push([
            Cell::Null,
            None::<u64>.into(),
            0u16.into(),
            Some(3u32).into(),
        ]);
        assert_eq!(table.len(), 2);
        let first = b"D\0\0\0\x1f\0\x04\0\0\0\x02\xc3\xa9\0\0\0\x017\0\0\0\x011\0\0\0\x0510000";
        let second = b"D\0\0\0\x18\0\x04\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x010\0\0\0\x013";
        assert_eq!(table.into_messages(), [&first[..], &second[..]].concat());
    }

    #[test]
    fn binary_rows() {
        let formats = Formats(vec![Format::Binary]);
        let mut table = Table::new(&LAYOUT, formats);
        table.push([
            "a".into(),
            u64::MAX.into(),
            5u64.into(),
            120_000_000u64.into(),
        ]);
        let body = table.into_messages();
        let expected = b"\0\x04\0\0\0\x01a\0\0\0\x04\x7f\xff\xff\xff\0\0\0\x08\0\0\0\0\0\0\0\x05\
                         \0\0\0\x0c\0\x02\0\x02\0\0\0\0\0\x01\x07\xd0";
        assert_eq!(&body[5..], &expected[..]);
    }

    #[test]
    fn numerics() {
        let encoded = |number| {
            let mut out = Vec::new();
            binary_numeric(&mut out, number);
            out.chunks(2)
                .map(|b| u16::from_be_bytes([b[0], b[1]]))
                .collect::<Vec<u16>>()
        };
        assert_eq!(encoded(0), [0, 0, 0, 0]);
        assert_eq!(encoded(9999), [1, 0, 0, 0, 9999]);
        assert_eq!(encoded(10_000), [1, 1, 0, 0, 1]);
        assert_eq!(encoded(1_0002_0003), [3, 2, 0, 0, 1, 2, 3]);
        assert_eq!(encoded(u64::MAX), [5, 4, 0, 0, 1844, 6744, 737, 955, 1615]);
    }

    #[test]
    fn the_description_says_the_formats() {
        let (mut texts, mut mixed) = (Vec::new(), Vec::new());
        describe(&mut texts, &LAYOUT, &Formats::default());
        let formats = Formats(vec![
            Format::Text,
            Format::Binary,
            Format::Text,
            Format::Binary,
        ]);
        describe(&mut mixed, &LAYOUT, &formats);
        assert_eq!(&texts[..7], b"T\0\0\0\x56\0\x04");
        assert_eq!(
            &texts[7..27],
            b"t\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"
        );
        let changed: Vec<usize> = (0..texts.len())
            .filter(|n| texts[*n] != mixed[*n])
            .collect();
        assert_eq!(changed, [46, 86]);
    }
}
