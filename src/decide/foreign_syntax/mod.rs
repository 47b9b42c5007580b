//! Recognizes expressions that were written in another language's syntax, and says what to write
//! instead.
//!
//! A payload's keys may hold nearly every character. A foreign operator would therefore be read as
//! part of a key, never be found, and make the condition false for ever. Such a text is refused
//! when the configuration is read.

/// Words that are operators in other languages, and what to write here.
const WORDS: [(&[&str], &str); 12] = [
    (&["and", "or", "xor", "∧", "∨"], "combine conditions with `&&` and `||`"),
    (&["not"], "write `not` or `!` before the whole comparison: `not $.a in [x, y]`"),
    (&["is", "equals", "equal", "equalto", "eq"], "write `==`"),
    (&["ne", "neq", "isnt"], "write `!=`"),
    (&["gt", "greater", "above", "after"], "write `>`"),
    (&["ge", "gte"], "write `>=`"),
    (&["lt", "less", "below", "before"], "write `<`"),
    (&["le", "lte"], "write `<=`"),
    (
        &[
            "in",
            "includes",
            "has",
            "like",
            "ilike",
            "between",
            "match",
            "regex",
            "regexp",
            "rlike",
            "startswith",
            "endswith",
            "starts",
            "ends",
            "beginswith",
            "begins",
            "exist",
            "exists",
            "empty",
            "isempty",
            "isnull",
            "isset",
            "notnull",
            "present",
            "defined",
            "contains",
            "matches",
            "typeof",
            "any",
            "all",
        ],
        "use one of the operators `in [x, y]`, `contains`, `starts_with`, `ends_with` or `matches` \
         with a value after it, or `$.a exists`",
    ),
    (
        &[
            "if", "else", "then", "unless", "when", "where", "for", "end", "endif", "as", "return",
            "select", "with",
        ],
        "templates have no conditions and no variables: use `default(x)` for a missing value, or a \
         `choice` step to branch",
    ),
    (
        &["mod", "div", "plus", "minus", "times"],
        "`add(a, b)` adds two numbers; no other arithmetic is supported",
    ),
    (&["null", "nil", "none", "undefined", "true", "false"], "compare with `== null`, `== true`"),
];
/// Characters that hardly any key holds and that are operators in other languages.
const SIGNS: &str = "=<>!&|?(){}\",;*^~`\\≥≤≠≈“”";

/// Checks that a text is probably meant as a path.
///
/// # Errors
/// A sentence: what is wrong, and what to write.
pub fn check_path(text: &str) -> Result<(), String> {
    if text == "$" || text == "$." {
        let why = "`$` alone selects nothing: name a field (`$.order`), or remove the template to \
            pass the body on unchanged";
        return Err(why.to_owned());
    }
    // Where there are brackets or two dots the grammar is that of RFC 9535, which is read for
    // itself.
    let is_query = text.contains('[') || text.contains("..");
    let plain = text.split('[').next().unwrap_or(text);
    check_start(text, plain)?;
    if is_query {
        return Ok(());
    }
    check_computation(plain)?;
    check_joints(plain)?;
    if let Some(sign) = plain.chars().find(|c| SIGNS.contains(*c)) {
        return Err(sign_of(sign, text));
    }
    if plain.ends_with('.') {
        return Err(format!("`{text}` ends with a dot: a key is missing after it"));
    }
    check_words(plain)
}

fn check_start(text: &str, plain: &str) -> Result<(), String> {
    let after = plain.trim_start_matches('$');
    let dollars = plain.len() - after.len();
    if dollars > 0 && !after.is_empty() && !after.starts_with('.') && dollars == 1 {
        return Err(format!("`{text}` has no dot after `$`: write `$.{}`", after.trim_start()));
    }
    if dollars == 0 {
        if let Some(rest) = text.strip_prefix("@.").or_else(|| text.strip_prefix('.')) {
            return Err(format!("a path must start with `$.`: write `$.{rest}`"));
        }
        if text.starts_with(['#', '/']) {
            return Err(format!(
                "`{text}` is a block of another template language: write a path or a function \
                 inside `{{{{ … }}}}`"
            ));
        }
    }
    Ok(())
}

/// Refuses signs that join keys in other languages, and several paths in a row.
fn check_joints(plain: &str) -> Result<(), String> {
    for joint in ["::", ":-", "++", "--", " #", " //", " /*"] {
        if plain.contains(joint) {
            let joint = joint.trim();
            return Err(format!(
                "`{joint}` in `{plain}` is not allowed in a path; write a key that contains it as \
                 `$['a{joint}b']`"
            ));
        }
    }
    // `$ref` may be a key; a `$` inside one, or alone, begins another path.
    let inner = plain.trim_start_matches('$');
    let is_path = |key: &str| key == "$" || key.char_indices().any(|(at, c)| c == '$' && at > 0);
    let first = usize::from(plain.starts_with('$'));
    if plain.split('.').skip(first).any(is_path)
        || inner.split('.').next().is_some_and(|key| key.contains('$') && is_path(key))
    {
        return Err(format!(
            "`{plain}` contains more than one path: write a single path, or combine paths with a \
             function (`format(\"{{}} {{}}\", $.a, $.b)`)"
        ));
    }
    if plain.split('.').any(|key| key.starts_with('\'')) || plain == "@" {
        return Err(format!("`{plain}` is not a path: write quotes inside brackets, `$['a']`"));
    }
    Ok(())
}

/// Checks that a path fits where only the payload can be read.
///
/// # Errors
/// A sentence: what is wrong, and what to write.
pub fn check_place(text: &str) -> Result<(), String> {
    if text.starts_with("$$") {
        return Err(format!(
            "`{text}` reads the context (`$$`), but only the payload is available here: write a \
             path like `$.order.id`"
        ));
    }
    let is_name = |c: char| c.is_alphanumeric() || "_@-./ ".contains(c);
    if !text.starts_with('$')
        && (!text.contains('[') && !text.chars().all(is_name)
            || text.starts_with(|c: char| c.is_ascii_digit()))
    {
        return Err(format!("`{text}` is not a path: write it like `$.order.id`"));
    }
    Ok(())
}

/// Refuses computations such as `$.a * 2` and `$.a+$.b`. Keys such as `+1` and `detail-type` stay
/// keys.
fn check_computation(plain: &str) -> Result<(), String> {
    let is_number = |text: &str| text.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let computed = plain.char_indices().find(|(at, c)| {
        let (before, after) = (&plain[..*at], &plain[at + c.len_utf8()..]);
        let is_spaced = before.ends_with(' ') && after.starts_with(' ');
        let is_between = before.ends_with(|c: char| c.is_alphanumeric() || c == ' ')
            && (is_number(after) || after.trim_start().starts_with('$'));
        match c {
            '*' | '/' | '%' | '+' => is_spaced || is_between,
            '-' => is_spaced,
            _ => false,
        }
    });
    match computed {
        None => Ok(()),
        Some((_, operator)) => Err(format!(
            "`{operator}` is not an operator here: `add(a, b)` adds two numbers, and no other \
             arithmetic is supported; compute the value beforehand"
        )),
    }
}

fn sign_of(sign: char, text: &str) -> String {
    let help = match sign {
        '=' | '<' | '>' | '!' => {
            "comparisons belong in conditions (`filter`, `when`, `choice`); use `==`, `!=`, `>`, \
             `>=`, `<` or `<=`"
        }
        '&' | '|' => {
            "`&&` and `||` combine conditions; in a template, write one `|` before a function"
        }
        '?' => "`? :` is not supported; use `default(x)` for a missing value",
        '(' | ')' => "write a function as `name(argument)`, with both parentheses and a known name",
        '{' | '}' => {
            "write a placeholder as `{{ $.a }}`, with two braces on each side; conditions use \
             paths without braces"
        }
        '"' => "put quotes around the whole string",
        '*' => "write `$.items[*]` for all items of a list",
        _ => "write a path like `$.order.id`",
    };
    format!(
        "`{sign}` in `{text}` is not allowed in a path: {help}; write a key that contains it as \
         `$['a{sign}b']`"
    )
}

fn check_words(plain: &str) -> Result<(), String> {
    let words =
        || plain.split(|c: char| c.is_whitespace() || c == '.').filter(|word| !word.is_empty());
    if !plain.contains(char::is_whitespace) {
        return Ok(());
    }
    for word in words().skip(usize::from(plain.starts_with('$'))) {
        let lower =
            word.trim_start_matches(['#', '/', '$', '-']).to_ascii_lowercase().replace('_', "");
        if let Some((_, help)) = WORDS.iter().find(|(words, _)| words.contains(&lower.as_str())) {
            return Err(format!(
                "`{word}` in `{plain}` would be read as part of a key: {help}; write a key with \
                 spaces as `$['a b']`"
            ));
        }
    }
    Ok(())
}

/// Checks that an unquoted text on the right side of a comparison is probably meant as a text.
///
/// # Errors
/// A sentence: what is wrong, and what to write.
pub fn check_text(text: &str) -> Result<(), String> {
    if text.starts_with('=') {
        return Err("write `==` and `!=` instead of `===` and `!==`".to_owned());
    }
    if joins_conditions(text) {
        return Err(
            "`and`, `or` and `xor` are not operators; combine conditions with `&&` and `||`"
                .to_owned(),
        );
    }
    if ["undefined", "None", "nil", "NULL", "Null"].contains(&text) {
        return Err(format!(
            "`{text}` would be read as a string: write `null`, or put the string in quotes"
        ));
    }
    if ["True", "TRUE", "False", "FALSE"].contains(&text) {
        return Err(format!(
            "`{text}` would be read as a string: write `{}`, or put the string in quotes",
            text.to_ascii_lowercase()
        ));
    }
    let is_wrapped = |open: char, close: char| text.starts_with(open) && text.ends_with(close);
    if is_wrapped('{', '}') || is_wrapped('[', ']') && (text.contains(',') || text.len() == 2) {
        return Err(format!(
            "`{text}` would be read as a string, because lists and objects cannot be compared. \
             Use `length($.a) == 0` for an empty one, or `$.a in [x, y]` for one of several \
             values; put a string in quotes"
        ));
    }
    let depth = |c: char| i32::from(c == '(') - i32::from(c == ')');
    if text.chars().map(depth).sum::<i32>() != 0 {
        return Err(format!(
            "a parenthesis in `{text}` is not closed or not opened; put a string in quotes"
        ));
    }
    if let Some(operator) = [" == ", " != ", " >= ", " <= ", " > ", " < "]
        .iter()
        .find(|operator| text.contains(**operator))
    {
        let operator = operator.trim();
        return Err(format!(
            "`{operator}` is part of an unquoted string: combine conditions with `&&` and `||`, or \
             put the string in quotes"
        ));
    }
    if text.contains("($") {
        return Err(format!(
            "`{text}` calls an unknown function, or a parenthesis is missing; put a string in \
             quotes"
        ));
    }
    if text.contains("{{") {
        return Err("a condition uses paths without braces: write `$.a`".to_owned());
    }
    if text.contains(" ? ") && text.contains(" : ") {
        return Err(
            "`? :` is not supported: write two conditions, or two branches of a `choice` step"
                .to_owned(),
        );
    }
    if [" // ", " /* ", " # "].iter().any(|comment| text.contains(comment)) {
        return Err(
            "a comment would be part of the string: put the string in quotes, and the comment \
             after the YAML value"
                .to_owned(),
        );
    }
    if ["any [", "all ["].iter().any(|list| text.starts_with(list)) {
        return Err("`contains` takes one value: combine several with `||` and `&&`".to_owned());
    }
    let sides: Vec<&str> = text.split_whitespace().collect();
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    if let [left, "+" | "-" | "*" | "/" | "%", right] = sides.as_slice()
        && is_number(left)
        && is_number(right)
    {
        return Err(format!("`{text}` is not calculated: write the result"));
    }
    check_quotes(text)
}

/// Whether a text holds `and`, `or` or `xor` followed by what looks like another condition.
fn joins_conditions(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let starts_one =
        |word: &str| word.starts_with(['$', '!', '(']) || word.eq_ignore_ascii_case("not");
    words.windows(2).any(|pair| {
        ["and", "or", "xor"].iter().any(|join| pair[0].eq_ignore_ascii_case(join))
            && starts_one(pair[1])
    })
}

/// Refuses quotes that do not enclose the whole text.
fn check_quotes(text: &str) -> Result<(), String> {
    let is_wrapped =
        |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if ['`', '“', '”', '„'].iter().any(|quote| text.starts_with(*quote)) {
        return Err("put strings in \"double\" or 'single' quotes".to_owned());
    }
    if text.contains('"')
        && !is_wrapped('"')
        && (text.starts_with('"') || text.ends_with('"') || text.ends_with("\";"))
    {
        return Err(
            "the quotes do not enclose the whole string, or more text follows them: combine \
             conditions with `&&` and `||`"
                .to_owned(),
        );
    }
    for quote in ['"', '\''] {
        if is_wrapped(quote)
            && let Some(close) = text[1..].find(quote)
            && text[close + 2..].starts_with(char::is_whitespace)
        {
            return Err(
                "there is more text after the closing quote: combine conditions with `&&` and `||`"
                    .to_owned(),
            );
        }
    }
    if text.starts_with('\'')
        && text[1..]
            .find('\'')
            .is_some_and(|close| text[close + 2..].starts_with(char::is_whitespace))
    {
        return Err(
            "there is more text after the closing quote: combine conditions with `&&` and `||`"
                .to_owned(),
        );
    }
    Ok(())
}

/// Checks a template for the syntax of other languages and for an unclosed placeholder.
///
/// # Errors
/// A sentence: what is wrong, and what to write.
pub fn check_template(text: &str) -> Result<(), String> {
    let trimmed = text.trim();
    let is_triple = |text: &str| {
        text.starts_with("{{{") && text.ends_with("}}}") && text.matches("{{").count() == 1
    };
    if is_triple(trimmed) {
        return Err(
            "three braces are not supported: write `{{ $.a }}`, which escapes only where it must"
                .to_owned(),
        );
    }
    let Some(open) = text.rfind("{{") else { return Ok(()) };
    let inside = &text[open + 2..];
    if !inside.contains("}}") && inside.trim_start().starts_with('$') {
        return Err("a `{{` has no closing `}}`: write `{{ $.a }}`".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
