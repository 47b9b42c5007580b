//! The parser for RFC 9535 queries. It follows the grammar exactly, including the types of
//! functions.

use serde_json::Value;

use super::doc::number;
use super::query::{Inner, Operand, Order, Pattern, Query, Segment, Selector, Test, regex};

/// Indexes and steps are whole numbers that a double holds exactly (RFC 9535, section 2.1).
const INTEGER_MAX: i64 = (1 << 53) - 1;

type Result<T> = std::result::Result<T, String>;

pub(super) fn parse(text: &str) -> Result<Query> {
    let mut parser = Parser { text, at: 0 };
    if !parser.eat("$") {
        return parser.wrong("a path must start with `$`");
    }
    let segments = parser.segments()?;
    if parser.at < text.len() {
        return parser.wrong("unexpected text");
    }
    Ok(Query { segments })
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// One side of a comparison, or a test on its own.
enum Term {
    Literal(Value),
    Query(Inner),
    Value(Operand),
    Logical(Test),
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong<T>(&self, why: &str) -> Result<T> {
        Err(format!("{why} at character {}", self.text[..self.at].chars().count() + 1))
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn blanks(&mut self) {
        self.at +=
            self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn segments(&mut self) -> Result<Vec<Segment>> {
        let mut segments = Vec::new();
        loop {
            let before = self.at;
            self.blanks();
            let segment = if self.eat("..") {
                let selectors = if self.peek() == Some('[') {
                    self.brackets()?
                } else {
                    vec![self.shorthand()?]
                };
                Segment { descends: true, selectors }
            } else if self.eat(".") {
                Segment { descends: false, selectors: vec![self.shorthand()?] }
            } else if self.peek() == Some('[') {
                Segment { descends: false, selectors: self.brackets()? }
            } else {
                self.at = before;
                return Ok(segments);
            };
            segments.push(segment);
        }
    }

    fn shorthand(&mut self) -> Result<Selector> {
        if self.eat("*") {
            return Ok(Selector::Wildcard);
        }
        let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
        if !self.peek().is_some_and(starts) {
            return self.wrong("a name or `*` is expected");
        }
        let end = self
            .rest()
            .find(|c: char| !starts(c) && !c.is_ascii_digit())
            .unwrap_or(self.rest().len());
        let name = self.rest()[..end].to_owned();
        self.at += end;
        Ok(Selector::Name(name))
    }

    fn brackets(&mut self) -> Result<Vec<Selector>> {
        self.eat("[");
        let mut selectors = Vec::new();
        loop {
            self.blanks();
            selectors.push(self.selector()?);
            self.blanks();
            if self.eat("]") {
                return Ok(selectors);
            }
            if !self.eat(",") {
                return self.wrong("`,` or `]` is expected");
            }
        }
    }

    fn selector(&mut self) -> Result<Selector> {
        match self.peek() {
            Some('\'' | '"') => self.string().map(Selector::Name),
            Some('*') => {
                self.at += 1;
                Ok(Selector::Wildcard)
            }
            Some('?') => {
                self.at += 1;
                self.blanks();
                self.any().map(Selector::Filter)
            }
            Some('-' | ':' | '0'..='9') => self.index_or_slice(),
            _ => self.wrong("a selector is expected"),
        }
    }

    fn index_or_slice(&mut self) -> Result<Selector> {
        let start = self.integer()?;
        let after_start = self.at;
        self.blanks();
        if !self.eat(":") {
            self.at = after_start;
            return match start {
                Some(index) => Ok(Selector::Index(index)),
                None => self.wrong("a selector is expected"),
            };
        }
        self.blanks();
        let end = self.integer()?;
        let mut step = 1;
        let before = self.at;
        self.blanks();
        if self.eat(":") {
            let after = self.at;
            self.blanks();
            match self.integer()? {
                Some(given) => step = given,
                None => self.at = after,
            }
        } else {
            self.at = before;
        }
        Ok(Selector::Slice { start, end, step })
    }

    fn integer(&mut self) -> Result<Option<i64>> {
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let sign = rest.len() - digits.len();
        if length == 0 {
            return if sign == 0 { Ok(None) } else { self.wrong("a digit is expected after `-`") };
        }
        if digits[..length].starts_with('0') && (length > 1 || sign > 0) {
            return self.wrong("a whole number must not have leading zeros or be `-0`");
        }
        match rest[..sign + length].parse::<i64>() {
            Ok(n) if n.abs() <= INTEGER_MAX => {
                self.at += sign + length;
                Ok(Some(n))
            }
            _ => self.wrong("the number is too large"),
        }
    }

    fn string(&mut self) -> Result<String> {
        let quote = self.peek().unwrap_or('"');
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(c) = self.peek() else { return self.wrong("the string is not closed") };
            match c {
                c if c == quote => {
                    self.at += 1;
                    return Ok(text);
                }
                '\\' => text.push(self.escape(quote)?),
                c if c < ' ' => return self.wrong("the string contains a control character"),
                c => {
                    text.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
    }

    fn escape(&mut self, quote: char) -> Result<char> {
        self.at += 1;
        let Some(c) = self.peek() else { return self.wrong("the string is not closed") };
        self.at += c.len_utf8();
        Ok(match c {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '/' | '\\' => c,
            c if c == quote => c,
            'u' => {
                let first = self.unit()?;
                let point = match first {
                    0xd800..0xdc00 => {
                        if !self.eat("\\u") {
                            return self.wrong("incomplete surrogate pair");
                        }
                        let second = self.unit()?;
                        if !(0xdc00..0xe000).contains(&second) {
                            return self.wrong("incomplete surrogate pair");
                        }
                        0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    other => other,
                };
                match char::from_u32(point) {
                    Some(c) => c,
                    None => return self.wrong("incomplete surrogate pair"),
                }
            }
            _ => return self.wrong("this is not a valid escape"),
        })
    }

    fn unit(&mut self) -> Result<u32> {
        let digits =
            self.rest().get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(unit) => {
                self.at += 4;
                Ok(unit)
            }
            None => self.wrong("four hexadecimal digits are expected"),
        }
    }

    fn any(&mut self) -> Result<Test> {
        let mut tests = vec![self.all()?];
        while self.operator("||") {
            tests.push(self.all()?);
        }
        Ok(if tests.len() == 1 { tests.remove(0) } else { Test::Any(tests) })
    }

    fn all(&mut self) -> Result<Test> {
        let mut tests = vec![self.basic()?];
        while self.operator("&&") {
            tests.push(self.basic()?);
        }
        Ok(if tests.len() == 1 { tests.remove(0) } else { Test::All(tests) })
    }

    /// Consumes an operator and the blanks around it; consumes nothing if it does not follow.
    fn operator(&mut self, token: &str) -> bool {
        let before = self.at;
        self.blanks();
        let found = self.eat(token);
        if found {
            self.blanks();
        } else {
            self.at = before;
        }
        found
    }

    fn basic(&mut self) -> Result<Test> {
        let is_negated = self.eat("!");
        if is_negated {
            self.blanks();
        }
        let test = if self.eat("(") {
            self.blanks();
            let inner = self.any()?;
            self.blanks();
            if !self.eat(")") {
                return self.wrong("`)` is expected");
            }
            inner
        } else {
            let left = self.term()?;
            match self.order() {
                Some(_) if is_negated => {
                    return self
                        .wrong("`!` is before a comparison; put the comparison in parentheses");
                }
                Some(order) => {
                    let left = self.comparable(left)?;
                    let right = self.term()?;
                    Test::Compare(left, order, self.comparable(right)?)
                }
                None => match left {
                    Term::Query(inner) => Test::Exists(inner),
                    Term::Logical(test) => test,
                    Term::Literal(_) => {
                        return self
                            .wrong("a literal is not a condition; compare it with something");
                    }
                    Term::Value(_) => return self.wrong(
                        "the result of this function is not a condition; compare it with something",
                    ),
                },
            }
        };
        Ok(if is_negated { Test::Not(Box::new(test)) } else { test })
    }

    fn order(&mut self) -> Option<Order> {
        const ORDERS: [(&str, Order); 6] = [
            ("==", Order::Equal),
            ("!=", Order::Unequal),
            ("<=", Order::LessOrEqual),
            (">=", Order::GreaterOrEqual),
            ("<", Order::Less),
            (">", Order::Greater),
        ];
        ORDERS.into_iter().find(|(token, _)| self.operator(token)).map(|(_, order)| order)
    }

    fn comparable(&self, term: Term) -> Result<Operand> {
        match term {
            Term::Literal(value) => Ok(Operand::Literal(value)),
            Term::Query(inner) if inner.query.is_singular() => Ok(Operand::Singular(inner)),
            Term::Query(_) => self.wrong("only a path that selects one value can be compared"),
            Term::Value(operand) => Ok(operand),
            Term::Logical(_) => self.wrong("the result of this function cannot be compared"),
        }
    }

    fn term(&mut self) -> Result<Term> {
        match self.peek() {
            Some('@' | '$') => self.inner().map(Term::Query),
            Some('\'' | '"') => self.string().map(|text| Term::Literal(Value::String(text))),
            Some('-' | '0'..='9') => self.number().map(Term::Literal),
            Some('a'..='z') => self.word(),
            _ => self.wrong("a value is expected"),
        }
    }

    fn inner(&mut self) -> Result<Inner> {
        let is_absolute = self.peek() == Some('$');
        self.at += 1;
        Ok(Inner { is_absolute, query: Query { segments: self.segments()? } })
    }

    fn number(&mut self) -> Result<Value> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
            .unwrap_or(rest.len());
        let text = &rest[..end];
        // `-0` is a number here, and JSON's grammar is that of RFC 9535.
        match super::value_of(text) {
            Ok(Value::Number(_)) => {
                self.at += end;
                Ok(Value::Number(number(text)))
            }
            _ => self.wrong("this is not a number"),
        }
    }

    fn word(&mut self) -> Result<Term> {
        let rest = self.rest();
        let end =
            rest.find(|c: char| !matches!(c, 'a'..='z' | '0'..='9' | '_')).unwrap_or(rest.len());
        let name = &rest[..end];
        if !rest[end..].starts_with('(') {
            let value = match name {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                _ => return self.wrong("a value is expected"),
            };
            self.at += end;
            return Ok(Term::Literal(value));
        }
        self.at += end + 1;
        let args = self.arguments()?;
        self.call(name, args)
    }

    fn arguments(&mut self) -> Result<Vec<Term>> {
        let mut args = Vec::new();
        self.blanks();
        if self.eat(")") {
            return Ok(args);
        }
        loop {
            self.blanks();
            args.push(self.term()?);
            self.blanks();
            if self.eat(")") {
                return Ok(args);
            }
            if !self.eat(",") {
                return self.wrong("`,` or `)` is expected");
            }
        }
    }

    fn call(&self, name: &str, args: Vec<Term>) -> Result<Term> {
        let mut args = args.into_iter();
        match (name, args.next(), args.next(), args.next()) {
            ("length", Some(of), None, None) => {
                Ok(Term::Value(Operand::Length(Box::new(self.comparable(of)?))))
            }
            ("count", Some(Term::Query(inner)), None, None) => {
                Ok(Term::Value(Operand::Count(inner)))
            }
            ("value", Some(Term::Query(inner)), None, None) => {
                Ok(Term::Value(Operand::OnlyValue(inner)))
            }
            ("match" | "search", Some(text), Some(pattern), None) => {
                let is_whole = name == "match";
                let pattern = match self.comparable(pattern)? {
                    Operand::Literal(Value::String(text)) => Pattern::Fixed(regex(&text, is_whole)),
                    of => Pattern::Computed { of, is_whole },
                };
                Ok(Term::Logical(Test::Matches { text: self.comparable(text)?, pattern }))
            }
            ("length" | "count" | "value" | "match" | "search", ..) => {
                self.wrong(&format!("wrong arguments for `{name}`"))
            }
            _ => self.wrong(&format!("unknown function `{name}`")),
        }
    }
}
