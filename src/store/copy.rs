//! Copies one database to another, whatever drivers they have, and moves the work over exactly
//! once.
//!
//! A pass walks both sides of each table in the order of keys and makes the target like the source.
//! The first pass runs beside a server that works on the source. Then the source is fenced: its
//! tables are put away, so that nobody can accept or claim there. The last pass carries over what
//! has changed meanwhile, and both sides are compared by count and hash. A copy that is interrupted
//! goes on when it is run again.

use std::cmp::Ordering;
use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use super::Store;
use super::error::{Error, Result};
use super::port::tables::{Cell, Move, Row, TABLES, Table};

/// How many rows are read at once.
const PAGE: u32 = 1_000;

/// How far a copy has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What is being done: `copy`, `catch up` or `compare`.
    pub phase: &'static str,
    /// The table that is being walked.
    pub table: &'static str,
    /// Rows of the source walked in this phase.
    pub done: u64,
    /// Rows of the source when the phase began.
    pub of: u64,
}

/// What a finished copy has carried over, table by table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The name of the table, as in the schema.
    pub table: &'static str,
    /// How many rows both sides have.
    pub rows: u64,
    /// SHA-256 of all rows in the order of their keys, in hexadecimal; the same on both sides.
    pub hash: String,
}

/// The two ends of a copy.
pub struct Ends<'a> {
    /// The database that has the data.
    pub source: &'a dyn Store,
    /// How the target's mark names it: without a password.
    pub from: &'a str,
    /// The database to be filled; empty before the first run.
    pub target: &'a dyn Store,
    /// How the source's fence names it: without a password.
    pub to: &'a str,
}

/// Copies everything, fences the source, and compares both sides.
///
/// # Errors
/// The target is not empty or takes part in another copy, the source's schema is not up to date, a
/// database does not answer, or the sides differ in the end. Run again, the copy goes on.
pub async fn copy(ends: &Ends<'_>, tell: &mut dyn FnMut(Progress)) -> Result<Vec<Copied>> {
    let fenced = admit(ends).await?;
    if !fenced {
        pass(ends, "copy", false, tell).await?;
    }
    // Again for one that was interrupted.
    ends.source.fence(ends.to).await?;
    pass(ends, "catch up", true, tell).await?;
    let copied = compare(ends, tell).await?;
    ends.target.set_target(None).await?;
    Ok(copied)
}

/// Checks that this copy may begin, or go on. Answers whether the source is fenced already.
async fn admit(ends: &Ends<'_>) -> Result<bool> {
    if ends.source.missing_migrations().await? > 0 {
        return Err(Error::permanent(
            "the schema of the source is not up to date: run `tidehook migrate` on it first",
        ));
    }
    let fenced = match ends.source.moved().await? {
        None => false,
        Some(Move::Source { to }) if to == ends.to => true,
        Some(Move::Source { to }) => {
            return Err(Error::permanent(format!("the source was copied to {to} already")));
        }
        Some(Move::Target { from }) => {
            return Err(Error::permanent(format!(
                "the source holds an unfinished copy of {from}: finish that one first"
            )));
        }
    };
    ends.target.migrate().await?;
    match ends.target.moved().await? {
        Some(Move::Target { from }) if from == ends.from => return Ok(fenced),
        Some(Move::Target { from }) => {
            return Err(Error::permanent(format!(
                "the target holds an unfinished copy of {from}: use an empty database"
            )));
        }
        Some(Move::Source { to }) => {
            return Err(Error::permanent(format!(
                "the target was copied to {to}: use an empty database"
            )));
        }
        None => {}
    }
    for table in TABLES {
        if ends.target.size(table, false).await? > 0 {
            return Err(Error::permanent(format!(
                "the target is not empty, its table `{}` has rows: use a database that no server \
                 has worked on",
                table.name
            )));
        }
    }
    ends.target.set_target(Some(ends.from)).await?;
    Ok(fenced)
}

/// Makes every table of the target like the source's.
async fn pass(
    ends: &Ends<'_>,
    phase: &'static str,
    fenced: bool,
    tell: &mut dyn FnMut(Progress),
) -> Result<()> {
    let (mut of, mut done) = (0, 0);
    for table in TABLES {
        of += ends.source.size(table, fenced).await?;
    }
    for table in TABLES {
        let mut source = Walk::new(ends.source, table, fenced);
        let mut target = Walk::new(ends.target, table, false);
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        loop {
            let order = match (source.peek().await?, target.peek().await?) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(ours), Some(theirs)) => by_key(table, ours, theirs),
            };
            let ours = if order.is_le() { source.next() } else { None };
            let theirs = if order.is_ge() { target.next() } else { None };
            done += u64::from(ours.is_some());
            if ours == theirs {
                continue;
            }
            gone.extend(theirs.map(|row| row[..table.key].to_vec()));
            new.extend(ours);
            if new.len() + gone.len() >= 500 {
                ends.target.put(table, std::mem::take(&mut gone), std::mem::take(&mut new)).await?;
                tell(Progress { phase, table: table.name, done, of });
            }
        }
        ends.target.put(table, gone, new).await?;
        tell(Progress { phase, table: table.name, done, of });
    }
    Ok(())
}

async fn compare(ends: &Ends<'_>, tell: &mut dyn FnMut(Progress)) -> Result<Vec<Copied>> {
    let (mut of, mut done) = (0, 0);
    for table in TABLES {
        of += ends.source.size(table, true).await?;
    }
    let mut copied = Vec::new();
    for table in TABLES {
        let ours = hashed(ends.source, table, true).await?;
        let theirs = hashed(ends.target, table, false).await?;
        if ours != theirs {
            return Err(Error::permanent(format!(
                "the copies of the table `{}` differ: {} rows with the hash {} against {} with \
                 {}. Run the copy again, and stop whatever else writes to the target",
                table.name, ours.rows, ours.hash, theirs.rows, theirs.hash
            )));
        }
        done += ours.rows;
        tell(Progress { phase: "compare", table: table.name, done, of });
        copied.push(ours);
    }
    Ok(copied)
}

async fn hashed(store: &dyn Store, table: &'static Table, fenced: bool) -> Result<Copied> {
    let mut walk = Walk::new(store, table, fenced);
    let (mut rows, mut hash) = (0, Sha256::new());
    while walk.peek().await?.is_some() {
        for cell in walk.next().into_iter().flatten() {
            match cell {
                Cell::Null => hash.update([0]),
                Cell::Int(n) => hash.update([[1].as_slice(), &n.to_be_bytes()].concat()),
                Cell::Real(n) => hash.update([[2].as_slice(), &n.to_be_bytes()].concat()),
                Cell::Text(text) => sized(&mut hash, 3, text.as_bytes()),
                Cell::Bytes(bytes) => sized(&mut hash, 4, &bytes),
            }
        }
        rows += 1;
    }
    Ok(Copied { table: table.name, rows, hash: hex::encode(hash.finalize()) })
}

/// With its length, so that no two rows look alike.
fn sized(hash: &mut Sha256, kind: u8, bytes: &[u8]) {
    hash.update([kind]);
    hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(bytes);
}

/// One side of a table, row by row.
struct Walk<'a> {
    store: &'a dyn Store,
    table: &'static Table,
    fenced: bool,
    page: VecDeque<Row>,
    behind: Option<Row>,
    is_over: bool,
}

impl<'a> Walk<'a> {
    fn new(store: &'a dyn Store, table: &'static Table, fenced: bool) -> Self {
        Self { store, table, fenced, page: VecDeque::new(), behind: None, is_over: false }
    }

    /// The next row, which stays where it is.
    async fn peek(&mut self) -> Result<Option<&Row>> {
        if self.page.is_empty() && !self.is_over {
            let behind = self.behind.as_deref();
            let page = self.store.rows(self.table, behind, self.fenced, PAGE).await?;
            self.is_over = page.len() < PAGE as usize;
            self.behind = page.last().map(|row| row[..self.table.key].to_vec());
            self.page = page.into();
        }
        Ok(self.page.front())
    }

    fn next(&mut self) -> Option<Row> {
        self.page.pop_front()
    }
}

fn by_key(table: &Table, ours: &Row, theirs: &Row) -> Ordering {
    let pairs = ours[..table.key].iter().zip(&theirs[..table.key]);
    pairs
        .map(|(ours, theirs)| match (ours, theirs) {
            (Cell::Int(ours), Cell::Int(theirs)) => ours.cmp(theirs),
            (Cell::Text(ours), Cell::Text(theirs)) => ours.as_bytes().cmp(theirs.as_bytes()),
            // Keys are numbers and texts, never null.
            _ => Ordering::Equal,
        })
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}
