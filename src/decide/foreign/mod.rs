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
        "the operators are `$.a in [x, y]`, `contains`, `starts_with`, `ends_with`, `matches`, each with a value after it, and `$.a exists`",
    ),
    (
        &["if", "else", "then", "unless", "when", "where", "for", "end", "endif", "as", "return", "select", "with"],
        "values have no conditions and no names: `default(x)` stands in for what is missing, and `choice` takes ways",
    ),
    (&["mod", "div", "plus", "minus", "times"], "`add(a, b)` adds, and nothing else is computed"),
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
        let why = "`$` alone selects nothing: name a field (`$.order`), or leave the template out to pass the body on";
        return Err(why.to_owned());
    }
    // Where there are brackets or two dots the grammar is that of RFC 9535, which is read for itself.
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
        return Err(format!("`{text}` lacks its dot: write `$.{}`", after.trim_start()));
    }
    if dollars == 0 {
        if let Some(rest) = text.strip_prefix("@.").or_else(|| text.strip_prefix('.')) {
            return Err(format!("a path starts with `$.`: write `$.{rest}`"));
        }
        if text.starts_with(['#', '/']) {
            return Err(format!(
                "`{text}` is a block of another template language; here `{{{{ … }}}}` holds a value: a path, a function"
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
            return Err(format!("`{joint}` in `{plain}` is no part of a path; a key that holds it is written `$['a{joint}b']`"));
        }
    }
    // `$ref` may be a key; a `$` inside one, or alone, begins another path.
    let inner = plain.trim_start_matches('$');
    let is_path = |key: &str| key == "$" || key.char_indices().any(|(at, c)| c == '$' && at > 0);
    let first = usize::from(plain.starts_with('$'));
    if plain.split('.').skip(first).any(is_path) || inner.split('.').next().is_some_and(|key| key.contains('$') && is_path(key)) {
        return Err(format!(
            "`{plain}` holds another path: a value is one path, or a function of several (`format(\"{{}} {{}}\", $.a, $.b)`)"
        ));
    }
    if plain.split('.').any(|key| key.starts_with('\'')) || plain == "@" {
        return Err(format!("`{plain}` is no path: quotes stand inside brackets, `$['a']`"));
    }
    Ok(())
}

/// Checks that a path fits where only the payload can be read.
///
/// # Errors
/// A sentence: what is wrong, and what to write.
pub fn check_place(text: &str) -> Result<(), String> {
    if text.starts_with("$$") {
        return Err(format!("`{text}` is of the context, and only the payload is read here"));
    }
    let is_name = |c: char| c.is_alphanumeric() || "_@-./ ".contains(c);
    if !text.starts_with('$')
        && (!text.contains('[') && !text.chars().all(is_name) || text.starts_with(|c: char| c.is_ascii_digit()))
    {
        return Err(format!("`{text}` is no path: write it like `$.order.id`"));
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
        Some((_, operator)) => {
            Err(format!("`{operator}` is no operator here: `add(a, b)` adds, and nothing else is computed; compute it before"))
        }
    }
}

fn sign_of(sign: char, text: &str) -> String {
    let help = match sign {
        '=' | '<' | '>' | '!' => {
            "comparisons stand in conditions (`filter`, `when`, `choice`) and are `==`, `!=`, `>`, `>=`, `<`, `<=`"
        }
        '&' | '|' => "`&&` and `||` combine conditions; in a template one `|` leads to a function",
        '?' => "`default(x)` stands in for what is missing; there is no `? :`",
        '(' | ')' => "a function is `name(argument)`, with both its parentheses and known by name",
        '{' | '}' => "a placeholder is `{{ $.a }}`, with two braces on each side, and conditions take paths without braces",
        '"' => "a text is in quotes from its start to its end",
        '*' => "all items of a list are `$.items[*]`",
        _ => "a path is `$.order.id`",
    };
    format!("`{sign}` in `{text}` is no part of a path: {help}; a key that holds it is written `$['a{sign}b']`")
}

fn check_words(plain: &str) -> Result<(), String> {
    let words = || plain.split(|c: char| c.is_whitespace() || c == '.').filter(|word| !word.is_empty());
    if !plain.contains(char::is_whitespace) {
        return Ok(());
    }
    for word in words().skip(usize::from(plain.starts_with('$'))) {
        let lower = word.trim_start_matches(['#', '/', '$', '-']).to_ascii_lowercase().replace('_', "");
        if let Some((_, help)) = WORDS.iter().find(|(words, _)| words.contains(&lower.as_str())) {
            return Err(format!(
                "`{word}` in `{plain}` is read as part of a key: {help}; a key with blanks is written `$['a b']`"
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
        return Err("`===` and `!==` are `==` and `!=` here".to_owned());
    }
    if joins_conditions(text) {
        return Err("`and`, `or` and `xor` are plain words here; combine conditions with `&&` and `||`".to_owned());
    }
    if ["undefined", "None", "nil", "NULL", "Null"].contains(&text) {
        return Err(format!("`{text}` is a text here: write `null`, or put the text into quotes"));
    }
    if ["True", "TRUE", "False", "FALSE"].contains(&text) {
        return Err(format!("`{text}` is a text here: write `{}`, or put the text into quotes", text.to_ascii_lowercase()));
    }
    let is_wrapped = |open: char, close: char| text.starts_with(open) && text.ends_with(close);
    if is_wrapped('{', '}') || is_wrapped('[', ']') && (text.contains(',') || text.len() == 2) {
        return Err(format!(
            "`{text}` is a text here: lists and objects are not compared. `length($.a) == 0` asks for an empty one, `$.a in [x, y]` for one of \
             several values; put a text into quotes"
        ));
    }
    let depth = |c: char| i32::from(c == '(') - i32::from(c == ')');
    if text.chars().map(depth).sum::<i32>() != 0 {
        return Err(format!("a parenthesis in `{text}` has no partner; put a text into quotes"));
    }
    if let Some(operator) = [" == ", " != ", " >= ", " <= ", " > ", " < "].iter().find(|operator| text.contains(**operator)) {
        let operator = operator.trim();
        return Err(format!("`{operator}` stands in a text: combine conditions with `&&` and `||`, or put the text into quotes"));
    }
    if text.contains("($") {
        return Err(format!("`{text}` calls no function that is known here, or lacks a parenthesis; put a text into quotes"));
    }
    if text.contains("{{") {
        return Err("a condition takes paths as they are: write `$.a`, without braces".to_owned());
    }
    if text.contains(" ? ") && text.contains(" : ") {
        return Err("there is no `? :`: write two conditions, or two ways of a `choice`".to_owned());
    }
    if [" // ", " /* ", " # "].iter().any(|comment| text.contains(comment)) {
        return Err(
            "a comment would be part of the text: put the text into quotes, and comments after the value of the key".to_owned()
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
        return Err(format!("`{text}` is not computed: write what it comes to"));
    }
    check_quotes(text)
}

/// Whether a text holds `and`, `or` or `xor` followed by what looks like another condition.
fn joins_conditions(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let starts_one = |word: &str| word.starts_with(['$', '!', '(']) || word.eq_ignore_ascii_case("not");
    words.windows(2).any(|pair| ["and", "or", "xor"].iter().any(|join| pair[0].eq_ignore_ascii_case(join)) && starts_one(pair[1]))
}

/// Refuses quotes that do not enclose the whole text.
fn check_quotes(text: &str) -> Result<(), String> {
    let is_wrapped = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if ['`', '“', '”', '„'].iter().any(|quote| text.starts_with(*quote)) {
        return Err("texts are in \"double\" or 'single' quotes".to_owned());
    }
    if text.contains('"') && !is_wrapped('"') && (text.starts_with('"') || text.ends_with('"') || text.ends_with("\";")) {
        return Err(
            "the quotes do not go around the whole text, or something follows them: combine conditions with `&&` and `||`"
                .to_owned(),
        );
    }
    for quote in ['"', '\''] {
        if is_wrapped(quote)
            && let Some(close) = text[1..].find(quote)
            && text[close + 2..].starts_with(char::is_whitespace)
        {
            return Err("something follows the closing quote: combine conditions with `&&` and `||`".to_owned());
        }
    }
    if text.starts_with('\'') && text[1..].find('\'').is_some_and(|close| text[close + 2..].starts_with(char::is_whitespace)) {
        return Err("something follows the closing quote: combine conditions with `&&` and `||`".to_owned());
    }
    Ok(())
}

/// Checks a template for the syntax of other languages and for an unclosed placeholder.
///
/// # Errors
/// A sentence: what is wrong, and what to write.
pub fn check_template(text: &str) -> Result<(), String> {
    let trimmed = text.trim();
    let is_triple = |text: &str| text.starts_with("{{{") && text.ends_with("}}}") && text.matches("{{").count() == 1;
    if is_triple(trimmed) {
        return Err("three braces are another language's: write `{{ $.a }}`, which never escapes anything it need not".to_owned());
    }
    let Some(open) = text.rfind("{{") else { return Ok(()) };
    let inside = &text[open + 2..];
    if !inside.contains("}}") && inside.trim_start().starts_with('$') {
        return Err("a `{{` is never closed: write `{{ $.a }}`".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
