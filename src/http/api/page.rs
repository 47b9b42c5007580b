//! Reads the query of a list. A parameter that is unknown, repeated or without a usable value is
//! refused.

use axum::extract::RawQuery;

use crate::http::error::ApiError;
use crate::model::Timestamp;
use crate::store::Page;

/// The default of `limit`: how many entries a page holds.
const LIMIT: u32 = 50;
/// The largest page; a higher `limit` is lowered to it.
const LIMIT_MAX: u32 = 1000;

/// The parameters of a query.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query that may hold the `known` parameters, each at most once.
    ///
    /// # Errors
    /// 422 that names the parameter.
    pub fn read(query: RawQuery, known: &[&str]) -> Result<Self, ApiError> {
        let text = query.0.as_deref().unwrap_or("");
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            if !known.contains(&&*name) {
                let message = format!("unknown parameter; valid parameters: {}", known.join(", "));
                return Err(ApiError::invalid_field(&shown(&name), message));
            }
            if value.contains(char::is_control) {
                return Err(ApiError::invalid_field(&name, "must not contain control characters"));
            }
            if pairs.iter().any(|(n, _)| *n == name) {
                return Err(ApiError::invalid_field(&name, "must not be given twice"));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    /// A parameter's text; empty counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// A parameter that `read` turns into a value; `None` when it is absent.
    ///
    /// # Errors
    /// 422 that names the parameter and says what was expected.
    pub fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        read(text)
            .map(Some)
            .ok_or_else(|| ApiError::invalid_field(name, format!("expected {expected}")))
    }

    /// A parameter that is a time: RFC 3339, or the form in which the API prints times, without a
    /// zone.
    ///
    /// # Errors
    /// 422 that names the parameter.
    pub fn instant(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        self.parsed(name, "a time like 2026-01-31T10:00:00Z", Timestamp::parse)
    }

    /// The size and the direction of the page, from `limit` and `order`.
    ///
    /// # Errors
    /// 422 that names the parameter.
    pub fn page(&self) -> Result<Page, ApiError> {
        let limit = self.parsed("limit", "a whole number of at least 1", |t| {
            t.parse::<u64>().ok().filter(|n| *n > 0)
        })?;
        let limit = limit.map_or(LIMIT, |n| u32::try_from(n).unwrap_or(LIMIT_MAX).min(LIMIT_MAX));
        let order = self.parsed("order", "asc or desc", |t| match t {
            "asc" => Some(false),
            "desc" => Some(true),
            _ => None,
        })?;
        Ok(Page { limit, newest_first: order.unwrap_or(false) })
    }
}

/// Whether entries follow the page, and cuts the list to the page. The list must have been read
/// with [`and_one`].
pub fn has_more<T>(list: &mut Vec<T>, page: Page) -> bool {
    let most = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let more = list.len() > most;
    list.truncate(most);
    more
}

/// The page with one entry more, so that [`has_more`] can tell whether others follow.
pub fn and_one(page: Page) -> Page {
    Page { limit: page.limit + 1, ..page }
}

/// A name from the caller, cut to 40 characters so that a message can repeat it.
fn shown(name: &str) -> String {
    name.chars().take(40).collect()
}
