//! Parses JSON text into cells, without recursion and without copying.

use bytes::Bytes;

use super::doc::{Cell, Doc, LENGTH_MAX, NodeKind, unescaped};
use super::{DEPTH_MAX, RESERVED, Unreadable};

/// Reads a JSON text (RFC 8259), tolerant where the bytes leave no doubt: a byte order mark is
/// skipped, a lone surrogate stands for U+FFFD, a number may have any size, and nesting goes down
/// to [`DEPTH_MAX`].
///
/// # Errors What is wrong, and where.
pub fn parse(text: Bytes) -> Result<Doc, Unreadable> {
    let mut parser = Parser { text: &text, at: 0, cells: Vec::new(), open: Vec::new() };
    if text.len() >= LENGTH_MAX {
        return Err(parser.fault("too_large", "the text is too long to be read"));
    }
    if text.starts_with(&[0xff, 0xfe]) || text.starts_with(&[0xfe, 0xff]) {
        return Err(parser.fault("not_utf8", "the text is UTF-16; JSON must be UTF-8"));
    }
    if let Err(error) = std::str::from_utf8(&text) {
        parser.at = error.valid_up_to();
        return Err(parser.fault("not_utf8", "the text is not UTF-8"));
    }
    if text.starts_with(&[0xef, 0xbb, 0xbf]) {
        parser.at = 3;
    }
    parser.document()?;
    let mut cells = parser.cells;
    cells.shrink_to_fit();
    Ok(Doc::new(text, cells))
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    cells: Vec<Cell>,
    /// The cells of the containers that are open, the innermost last.
    open: Vec<usize>,
}

impl Parser<'_> {
    fn fault(&self, word: &'static str, why: &str) -> Unreadable {
        let before = &self.text[..self.at.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        Unreadable { word, why: format!("{why} (line {line}, column {column}, byte {})", self.at) }
    }

    fn wrong<T>(&self, why: &str) -> Result<T, Unreadable> {
        Err(self.fault("not_json", why))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn document(&mut self) -> Result<(), Unreadable> {
        loop {
            self.blanks();
            if self.value()? {
                // A container with something in it was opened: its first value is next.
                continue;
            }
            if self.after_value()? {
                return Ok(());
            }
        }
    }

    /// Reads a scalar or an empty container, or opens a container. Answers whether it opened one.
    fn value(&mut self) -> Result<bool, Unreadable> {
        match self.peek() {
            None => self.wrong("the text ends where a value is expected"),
            Some(b'{') => self.open(NodeKind::Object, b'}'),
            Some(b'[') => self.open(NodeKind::Array, b']'),
            Some(b'"') => self.string().map(|()| false),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| false),
            Some(b't') => self.word(b"true", NodeKind::True),
            Some(b'f') => self.word(b"false", NodeKind::False),
            Some(b'n') => self.word(b"null", NodeKind::Null),
            Some(_) => self.wrong("this is not the start of a value"),
        }
    }

    fn word(&mut self, word: &[u8], kind: NodeKind) -> Result<bool, Unreadable> {
        if !self.text[self.at..].starts_with(word) {
            return self.wrong("this is not the start of a value");
        }
        self.cells.push(Cell::new(kind, self.at, word.len()));
        self.at += word.len();
        Ok(false)
    }

    fn open(&mut self, kind: NodeKind, close: u8) -> Result<bool, Unreadable> {
        if self.open.len() >= DEPTH_MAX {
            return Err(self
                .fault("too_deep", &format!("the text is nested deeper than {DEPTH_MAX} levels")));
        }
        self.at += 1;
        self.blanks();
        let cell = self.cells.len();
        self.cells.push(Cell::new(kind, 0, 0));
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(false);
        }
        self.open.push(cell);
        if kind == NodeKind::Object {
            self.key()?;
        }
        Ok(true)
    }

    fn key(&mut self) -> Result<(), Unreadable> {
        self.blanks();
        if self.peek() != Some(b'"') {
            return self.wrong("a key in double quotes is expected");
        }
        let start = self.at + 1;
        self.string()?;
        self.check_key(&self.text[start..self.at - 1])?;
        self.blanks();
        if self.peek() != Some(b':') {
            return self.wrong("a colon is expected after a key");
        }
        self.at += 1;
        Ok(())
    }

    /// Refuses a key with the reserved prefix. `raw` is the key as it stands between its quotes.
    fn check_key(&self, raw: &[u8]) -> Result<(), Unreadable> {
        let is_reserved = match raw.contains(&b'\\') {
            true => unescaped(&String::from_utf8_lossy(raw)).starts_with(RESERVED),
            false => raw.starts_with(RESERVED.as_bytes()),
        };
        match is_reserved {
            true => Err(self.fault(
                Unreadable::RESERVED_KEY,
                &format!("keys that start with `{RESERVED}` are reserved"),
            )),
            false => Ok(()),
        }
    }

    /// Continues after a value: to the next one, or out of the containers that end here. Answers
    /// whether the document has ended.
    fn after_value(&mut self) -> Result<bool, Unreadable> {
        loop {
            self.blanks();
            let Some(&cell) = self.open.last() else {
                return match self.at == self.text.len() {
                    true => Ok(true),
                    false => self.wrong("there is more text after the end of the value"),
                };
            };
            let inside = self.cells.len() - cell - 1;
            let kind = self.cells[cell].kind();
            self.cells[cell].count_one(inside);
            match (kind, self.peek()) {
                (NodeKind::Object, Some(b',')) => {
                    self.at += 1;
                    self.key()?;
                    return Ok(false);
                }
                (NodeKind::Array, Some(b',')) => {
                    self.at += 1;
                    return Ok(false);
                }
                (NodeKind::Object, Some(b'}')) | (NodeKind::Array, Some(b']')) => {
                    self.at += 1;
                    self.open.pop();
                }
                (NodeKind::Object, None) | (NodeKind::Array, None) => {
                    return self.wrong("the text ends inside a list or an object");
                }
                (NodeKind::Object, _) => return self.wrong("a comma or `}` is expected"),
                _ => return self.wrong("a comma or `]` is expected"),
            }
        }
    }

    fn string(&mut self) -> Result<(), Unreadable> {
        let start = self.at + 1;
        let mut is_escaped = false;
        self.at = start;
        loop {
            match self.peek() {
                None => return self.wrong("the text ends inside a string"),
                Some(b'"') => break,
                Some(b'\\') => {
                    is_escaped = true;
                    self.escape()?;
                }
                Some(byte) if byte < 0x20 => {
                    return self.wrong("a string contains a control character");
                }
                Some(_) => self.at += 1,
            }
        }
        let kind = if is_escaped { NodeKind::Escaped } else { NodeKind::Plain };
        self.cells.push(Cell::new(kind, start, self.at - start));
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Unreadable> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u')
                if self
                    .text
                    .get(self.at + 2..self.at + 6)
                    .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) =>
            {
                self.at += 6;
            }
            _ => return self.wrong("this is not a valid JSON escape"),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Unreadable> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.wrong("a digit is expected"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'0'..=b'9' | b'.')) {
            return self.wrong("this is not a valid number");
        }
        self.cells.push(Cell::new(NodeKind::Number, start, self.at - start));
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), Unreadable> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.wrong("a digit is expected");
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }
}
