//! Parses the text of a condition into clauses.

use super::{
    BadFilter, Clause, Expr, LIST_MAX, Literal, NESTING_MAX, Order, Right, TEXT_BYTES_MAX, Test,
};
use crate::decide::foreign_syntax::check_text;
use crate::decide::operand::{Operand, split_top};
use crate::model::Path;
use regex_lite::{Regex, RegexBuilder};

/// How much memory the compiled regular expression of a `matches` may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

pub(super) fn parse(text: &str) -> Result<Expr, BadFilter> {
    check_length(text)?;
    let mut parser = Parser { text, at: 0 };
    let root = parser.any(0, false)?;
    parser.blanks();
    if parser.at < text.len() {
        return Err(parser.bad(
            "unexpected text after the condition",
            Some("combine conditions with `&&` and `||`"),
        ));
    }
    Ok(root)
}

fn check_length(text: &str) -> Result<(), BadFilter> {
    if text.trim().is_empty() {
        return Err(bad(0, "the condition is empty", None));
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(bad(
            0,
            &format!("the condition is too long: the limit is {TEXT_BYTES_MAX} bytes"),
            None,
        ));
    }
    Ok(())
}

fn bad(at: usize, message: &str, help: Option<&str>) -> BadFilter {
    BadFilter { at, message: message.to_owned(), help: help.map(str::to_owned) }
}

/// An operator, which ends the left side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Equal,
    Unequal,
    Order(Order),
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    In,
    Exists,
}

/// Operators by their symbol. A longer symbol stands before its prefix, because the first match
/// wins.
const SYMBOLS: [(&str, Op); 6] = [
    ("==", Op::Equal),
    ("!=", Op::Unequal),
    (">=", Op::Order(Order::GreaterOrEqual)),
    ("<=", Op::Order(Order::LessOrEqual)),
    (">", Op::Order(Order::Greater)),
    ("<", Op::Order(Order::Less)),
];
const WORDS: [(&str, Op); 4] = [
    ("contains", Op::Contains),
    ("starts_with", Op::StartsWith),
    ("ends_with", Op::EndsWith),
    ("matches", Op::Matches),
];

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn bad(&self, message: &str, help: Option<&str>) -> BadFilter {
        bad(self.at, message, help)
    }

    fn eat(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn any(&mut self, depth: usize, in_group: bool) -> Result<Expr, BadFilter> {
        let mut terms = vec![self.all(depth, in_group)?];
        while self.eat("||") {
            terms.push(self.all(depth, in_group)?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expr::Any(terms) })
    }

    fn all(&mut self, depth: usize, in_group: bool) -> Result<Expr, BadFilter> {
        let mut terms = vec![self.unary(depth, in_group)?];
        while self.eat("&&") {
            terms.push(self.unary(depth, in_group)?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expr::All(terms) })
    }

    fn unary(&mut self, depth: usize, in_group: bool) -> Result<Expr, BadFilter> {
        if depth > NESTING_MAX {
            return Err(self.bad(
                &format!("the condition is nested too deeply: the limit is {NESTING_MAX} levels"),
                None,
            ));
        }
        self.blanks();
        let start = self.at;
        if self.eat("not ") || (self.rest().starts_with('!') && self.eat("!")) {
            let inner = self.unary(depth + 1, in_group)?;
            return Ok(Expr::Not(self.text[start..self.at].trim().to_owned(), Box::new(inner)));
        }
        if self.eat("(") {
            let inner = self.any(depth + 1, true)?;
            if !self.eat(")") {
                let help = "add the `)`; an unquoted pattern after `matches` runs to the end of \
                    the condition, so put it in quotes";
                return Err(self.bad("a parenthesis is not closed", Some(help)));
            }
            return Ok(inner);
        }
        self.clause(in_group)
    }

    fn clause(&mut self, in_group: bool) -> Result<Expr, BadFilter> {
        let start = self.at;
        let (left_end, op) = self.left_end(in_group);
        let left_text = self.text[start..left_end].trim();
        self.at = left_end;
        let Some((op, op_len)) = op else {
            check_bare(left_text, start)?;
            let left = operand(left_text, start)?;
            if let Operand::Literal(value) = &left
                && !value.is_boolean()
            {
                let help = "compare it with something: `$.a == x`";
                return Err(bad(
                    start,
                    &format!("`{left_text}` alone is a constant, not a condition"),
                    Some(help),
                ));
            }
            return Ok(self.done(start, left, Test::Truthy));
        };
        check_left(left_text, op, start)?;
        let left = operand(left_text, start)?;
        self.at += op_len;
        let test = match op {
            Op::Exists => Test::Exists,
            Op::Matches => self.pattern(in_group)?,
            Op::In => {
                let at = self.at;
                let list = self.list()?;
                check_list(&list, at)?;
                Test::In(list)
            }
            Op::Equal => Test::Equal(self.right(in_group)?),
            Op::Unequal => Test::Unequal(self.right(in_group)?),
            Op::Order(order) => {
                let at = self.at;
                if is_text(&left) {
                    let help = "only numbers can be ordered; convert a string with `number(x)`";
                    return Err(bad(
                        start,
                        &format!("`{left_text}` is a string, and strings have no order"),
                        Some(help),
                    ));
                }
                let right = self.right(in_group)?;
                if let Right::Value(value) = &right
                    && is_text(value)
                {
                    let help = "only numbers can be ordered; convert a string with `number(x)`";
                    return Err(bad(
                        at,
                        "the right side is a string, and strings have no order",
                        Some(help),
                    ));
                }
                if let Right::Literal(literal) = &right
                    && (literal.number.is_none() || !literal.bare)
                {
                    let help = "only numbers can be ordered: write a number or a path, or convert \
                        the string with `number(x)`";
                    return Err(bad(
                        at,
                        &format!("`{}` is not a number", literal.text),
                        Some(help),
                    ));
                }
                Test::Order(order, right)
            }
            Op::Contains => Test::Contains(self.right(in_group)?),
            Op::StartsWith => Test::StartsWith(self.right(in_group)?),
            Op::EndsWith => Test::EndsWith(self.right(in_group)?),
        };
        Ok(self.done(start, left, test))
    }

    fn done(&self, start: usize, left: Operand, test: Test) -> Expr {
        Expr::Clause(Clause { text: self.text[start..self.at].trim().to_owned(), left, test })
    }

    /// Where the left side ends, and the operator that ends it with its length.
    fn left_end(&self, in_group: bool) -> (usize, Option<(Op, usize)>) {
        let bytes = self.text.as_bytes();
        let (mut at, mut depth) = (self.at, 0usize);
        let mut quote: Option<u8> = None;
        while at < bytes.len() {
            let here = bytes[at];
            match quote {
                Some(b'"') if here == b'\\' => at += 1,
                // Inside brackets both quotes have escapes (RFC 9535).
                Some(b'\'') if here == b'\\' && depth > 0 => at += 1,
                Some(q) if here == q => quote = None,
                Some(_) => {}
                // A quote opens at the start of the operand or inside brackets; `$.it's` is a key.
                None if matches!(here, b'"' | b'\'') && (depth > 0 || at == self.at) => {
                    quote = Some(here)
                }
                None if matches!(here, b'(' | b'[') => depth += 1,
                None if matches!(here, b')' | b']') && depth > 0 => depth -= 1,
                None if depth > 0 => {}
                None if here == b')' && in_group => return (at, None),
                None => {
                    // Every token is ASCII, so a match cannot start inside a character.
                    if !self.text.is_char_boundary(at) {
                        at += 1;
                        continue;
                    }
                    let rest = &self.text[at..];
                    if rest.starts_with("&&") || rest.starts_with("||") {
                        return (at, None);
                    }
                    if let Some((symbol, op)) = SYMBOLS.iter().find(|(s, _)| rest.starts_with(s)) {
                        return (at, Some((*op, symbol.len())));
                    }
                    if here.is_ascii_whitespace()
                        && let Some((op, len)) = word_operator(&rest[1..], in_group)
                    {
                        return (at, Some((op, len + 1)));
                    }
                }
            }
            at += 1;
        }
        (bytes.len(), None)
    }

    fn right(&mut self, in_group: bool) -> Result<Right, BadFilter> {
        self.blanks();
        let start = self.at;
        if let Some(literal) = self.quoted(in_group) {
            return Ok(Right::Literal(literal));
        }
        let end = self.bare_end(in_group);
        let text = self.text[start..end].trim();
        if text.is_empty() {
            return Err(self.bad("a value is missing after the operator", None));
        }
        self.at = end;
        let is_call = text.ends_with(')')
            && text
                .split_once('(')
                .is_some_and(|(name, _)| crate::decide::function::find(name.trim()).is_ok());
        if text.starts_with("$.") || text.starts_with("$[") || text.starts_with("$$") || is_call {
            return operand(text, start).map(Right::Value);
        }
        check_text(text).map_err(|why| bad(start, &why, None))?;
        Ok(Right::Literal(Literal::new(text, true)))
    }

    /// A quoted literal that is followed by nothing but the end of its clause.
    fn quoted(&mut self, in_group: bool) -> Option<Literal> {
        let rest = self.rest();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let mut escaped = false;
        let close = rest.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == quote && !escaped;
            escaped = quote == '"' && *c == '\\' && !escaped;
            ends
        });
        // `"C:\"` has a backslash before its last quote; qhook knows no escapes.
        let close = close.map(|(at, _)| at).or_else(|| rest.rfind(quote).filter(|at| *at > 0))?;
        let after = rest[close + 1..].trim_start();
        let ends_here = after.is_empty()
            || after.starts_with("&&")
            || after.starts_with("||")
            || (in_group && after.starts_with(')'));
        if !ends_here {
            return None;
        }
        self.at += close + 1;
        let inner = &rest[1..close];
        let text = match quote {
            '"' => {
                serde_json::from_str::<String>(&rest[..=close]).unwrap_or_else(|_| inner.to_owned())
            }
            _ => inner.to_owned(),
        };
        Some(Literal::new(&text, false))
    }

    /// Bare words run to the end, to `&&` or `||`, or to the `)` of an open group.
    fn bare_end(&self, in_group: bool) -> usize {
        let bytes = self.text.as_bytes();
        let mut depth = 0usize;
        for at in self.at..bytes.len() {
            match bytes[at] {
                b'&' if bytes.get(at + 1) == Some(&b'&') => return at,
                b'|' if bytes.get(at + 1) == Some(&b'|') => return at,
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                b')' if in_group => return at,
                _ => {}
            }
        }
        bytes.len()
    }

    fn pattern(&mut self, in_group: bool) -> Result<Test, BadFilter> {
        self.blanks();
        let start = self.at;
        let rest = self.rest();
        let quoted = self.quoted(in_group).map(|_| {
            // The pattern is taken as written: only an escaped quote loses its backslash.
            let raw = self.text[start..self.at].trim();
            raw[1..raw.len() - 1].replace("\\\"", "\"")
        });
        let pattern = quoted.unwrap_or_else(|| {
            self.at = self.text.len();
            rest.trim().to_owned()
        });
        match regex(&pattern) {
            Ok(regex) => Ok(Test::Matches(Some(regex))),
            Err(why) => {
                Err(bad(start, &format!("`{pattern}` is not a valid pattern: {why}"), None))
            }
        }
    }

    fn list(&mut self) -> Result<Vec<Literal>, BadFilter> {
        self.blanks();
        let rest = self.rest();
        let close = closing_bracket(rest)
            .ok_or_else(|| self.bad("the list after `in` is not closed with `]`", None))?;
        let inner = &rest[1..close];
        self.at += close + 1;
        let items = split_top(inner, ',');
        if items.len() > LIST_MAX {
            return Err(self.bad(
                &format!("the list after `in` is too long: the limit is {LIST_MAX} items"),
                None,
            ));
        }
        Ok(items.into_iter().map(str::trim).filter(|i| !i.is_empty()).map(list_item).collect())
    }
}

/// Whether an operand always yields a text, because it is one or because its function returns one.
fn is_text(operand: &Operand) -> bool {
    const TEXTS: [&str; 14] = [
        "upper",
        "lower",
        "trim",
        "replace",
        "join",
        "string",
        "json",
        "base64",
        "base64_decode",
        "hash",
        "url_encode",
        "uuid",
        "now",
        "format",
    ];
    match operand {
        Operand::Literal(value) => value.is_string(),
        Operand::Call(function, _) => TEXTS.contains(&function.name) || function.name == "date_add",
        Operand::Path(_) => false,
    }
}

/// Refuses a list after `in` that cannot be meant, such as an empty one.
fn check_list(list: &[Literal], at: usize) -> Result<(), BadFilter> {
    if list.is_empty() {
        return Err(bad(
            at,
            "the list after `in` is empty, so the condition never holds",
            Some("list the values it may have: `in [x, y]`"),
        ));
    }
    let is_run_together = |item: &&Literal| {
        let words: Vec<&str> = item.text.split_whitespace().collect();
        let run_together = ["\" \"", "' '"].iter().any(|joint| item.text.contains(joint));
        !item.bare && run_together
            || item.bare
                && words.len() > 1
                && words.iter().all(|word| word.contains('"') || word.parse::<f64>().is_ok())
    };
    match list.iter().find(is_run_together) {
        Some(item) => Err(bad(
            at,
            &format!("`{}` is a single string", item.text),
            Some("separate the items with commas: `in [1, 2]`"),
        )),
        None => Ok(()),
    }
}

fn word_operator(rest: &str, in_group: bool) -> Option<(Op, usize)> {
    let trimmed = rest.trim_start();
    let skipped = rest.len() - trimmed.len();
    for (word, op) in WORDS {
        if let Some(after) = trimmed.strip_prefix(word)
            && after.starts_with(char::is_whitespace)
        {
            return Some((op, skipped + word.len()));
        }
    }
    if let Some(after) = trimmed.strip_prefix("in")
        && after.trim_start().starts_with('[')
    {
        return Some((Op::In, skipped + 2));
    }
    if let Some(after) = trimmed.strip_prefix("exists") {
        let after = after.trim_start();
        let ends = after.is_empty()
            || after.starts_with("&&")
            || after.starts_with("||")
            || (in_group && after.starts_with(')'));
        if ends {
            return Some((Op::Exists, skipped + 6));
        }
    }
    None
}

fn closing_bracket(text: &str) -> Option<usize> {
    let mut quote: Option<char> = None;
    for (at, c) in text.char_indices().skip(1) {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None if c == ']' => return Some(at),
            None => {}
        }
    }
    // An odd quote inside the list, as qhook would have taken it: up to the first bracket.
    text.find(']')
}

fn list_item(item: &str) -> Literal {
    let quoted = |q: char| item.len() >= 2 && item.starts_with(q) && item.ends_with(q);
    if quoted('"') || quoted('\'') {
        Literal::new(&item[1..item.len() - 1], false)
    } else {
        Literal::new(item, true)
    }
}

fn operand(text: &str, at: usize) -> Result<Operand, BadFilter> {
    Operand::parse(text, true).map_err(|why| bad(at, &why, None))
}

/// Refuses a left side that was probably meant as something else.
fn check_left(text: &str, op: Op, at: usize) -> Result<(), BadFilter> {
    check_braces(text, at)?;
    if op == Op::Exists
        && let Some(path) = text.strip_suffix(" not")
    {
        return Err(bad(
            at,
            "`not` must come before the condition it negates",
            Some(&format!("write `not {} exists`", path.trim())),
        ));
    }
    Ok(())
}

/// Refuses a bare path that was probably meant as something else.
fn check_bare(text: &str, at: usize) -> Result<(), BadFilter> {
    if text.contains(" = ") {
        return Err(bad(at, "`=` is not an operator", Some("write `==` to compare")));
    }
    check_braces(text, at)?;
    if let Some((path, rest)) = text.split_once(" is ") {
        let operator = if rest.trim_start().starts_with("not") { "!=" } else { "==" };
        return Err(bad(
            at,
            "`is` is not an operator",
            Some(&format!("write `{} {operator} null`", path.trim())),
        ));
    }
    if text.starts_with('$') && text.contains(" in ") {
        return Err(bad(
            at,
            "`in` needs a list of fixed values",
            Some(
                "write `$.a in [x, y]`; to search a list in the payload, write `$.list contains x`",
            ),
        ));
    }
    Ok(())
}

/// Refuses the braces of a template, which conditions do not have.
fn check_braces(text: &str, at: usize) -> Result<(), BadFilter> {
    if text.contains("{{") {
        return Err(bad(at, "a condition uses paths without braces", Some("write `$.a`")));
    }
    Ok(())
}

fn regex(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > TEXT_BYTES_MAX {
        return Err("it is too long".into());
    }
    RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build().map_err(|e| e.to_string())
}

/// Parses with qhook's own algorithm: one comparison, split at the first operator of a fixed order.
pub(super) fn parse_qhook(text: &str) -> Result<Expr, BadFilter> {
    check_length(text)?;
    let text = text.trim();
    if let Some(inner) = text.strip_prefix("not ") {
        return Ok(Expr::Not(text.to_owned(), Box::new(parse_qhook(inner)?)));
    }
    let clause = |left: &str, test| {
        let left = left.trim();
        // Whatever stands on the left is its path, other operators included.
        let left = Path::parse(left).map(Operand::Path).map_err(|why| bad(0, &why, None))?;
        Ok(Expr::Clause(Clause { text: text.to_owned(), left, test }))
    };
    let literal = |right: &str| Right::Literal(Literal::new(right.trim().trim_matches('"'), false));
    if let Some(left) = text.strip_suffix(" exists") {
        return clause(left, Test::Exists);
    }
    for (symbol, op) in [
        (">=", Op::Order(Order::GreaterOrEqual)),
        ("<=", Op::Order(Order::LessOrEqual)),
        (">", Op::Order(Order::Greater)),
        ("<", Op::Order(Order::Less)),
        ("==", Op::Equal),
        ("!=", Op::Unequal),
        (" contains ", Op::Contains),
        (" starts_with ", Op::StartsWith),
        (" ends_with ", Op::EndsWith),
        (" matches ", Op::Matches),
    ] {
        let Some((left, right)) = text.split_once(symbol) else { continue };
        let test = match op {
            Op::Order(order) => Test::Order(order, literal(right)),
            Op::Equal => Test::Equal(literal(right)),
            Op::Unequal => Test::Unequal(literal(right)),
            Op::Contains => Test::Contains(literal(right)),
            Op::StartsWith => Test::StartsWith(literal(right)),
            Op::EndsWith => Test::EndsWith(literal(right)),
            _ => Test::Matches(regex(right.trim()).ok()),
        };
        return clause(left, test);
    }
    if let Some((left, right)) = text.split_once(" in ")
        && let Some(list) = right.trim().strip_prefix('[').and_then(|r| r.strip_suffix(']'))
    {
        let items = list.split(',').map(|i| Literal::new(i.trim().trim_matches('"'), false));
        return clause(left, Test::In(items.collect()));
    }
    clause(text, Test::Truthy)
}
