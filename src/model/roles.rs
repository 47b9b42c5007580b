//! What one process of a container does: take requests, work on jobs, do the housekeeping. Any
//! subset can run as a process of its own over one database, so that they scale apart.

use std::fmt;
use std::str::FromStr;

/// The roles of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Takes events, callbacks and the requests of the API.
    pub ingress: bool,
    /// Claims due jobs and makes their calls.
    pub worker: bool,
    /// Prunes, expires, finds what was overlooked, and watches lanes.
    pub ticker: bool,
}

impl Roles {
    /// One process that does everything.
    pub const ALL: Self = Self { ingress: true, worker: true, ticker: true };

    /// Whether other processes must do the rest.
    pub fn is_partial(self) -> bool {
        self != Self::ALL
    }
}

impl FromStr for Roles {
    type Err = String;

    /// Reads names with commas between them, such as `ingress,worker`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut roles = Self { ingress: false, worker: false, ticker: false };
        for name in text.split(',').map(str::trim) {
            match name {
                "ingress" => roles.ingress = true,
                "worker" => roles.worker = true,
                "ticker" => roles.ticker = true,
                other => {
                    return Err(format!(
                        "there is no role `{other}`: name some of ingress, worker and ticker, with \
                         commas between them"
                    ));
                }
            }
        }
        Ok(roles)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [(self.ingress, "ingress"), (self.worker, "worker"), (self.ticker, "ticker")];
        let names: Vec<&str> = named.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_written() {
        assert_eq!("ingress,worker,ticker".parse(), Ok(Roles::ALL));
        let two: Roles = "ticker, ingress".parse().unwrap();
        assert_eq!((two.to_string().as_str(), two.is_partial()), ("ingress,ticker", true));
        assert!("worker,".parse::<Roles>().is_err() && "web".parse::<Roles>().is_err());
    }
}
