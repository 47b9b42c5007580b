//! A receiver that does what the path says, and remembers what it was sent.
//!
//! `/ok` `/status/N` `/seq/503,200` (per delivery) `/slow/MS` `/slowseq/MS/500,200` (only the first
//! is slow) `/hang` `/drip` (a byte now and then, for ever) `/rst` `/halfclose` `/garbage`
//! `/http09` `/nul` `/badutf8` `/huge` `/ra/VALUE` (503 with that Retry-After) `/redir/CODE/PORT`
//! `/bighdr` `/manyhdr` `/cl/VALUE` `/dupcl` `/tecl` `/continue` `/held/…` (until a test answers)

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: std::time::Instant,
}

impl ReceivedRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The number of headers of a name.
    pub fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A request whose answer a test has yet to give. Dropped, its connection closes without one.
pub struct UnansweredRequest {
    pub got: ReceivedRequest,
    answer: oneshot::Sender<(u16, Vec<u8>)>,
}

impl UnansweredRequest {
    /// Answers it. Whoever asked may have gone meanwhile.
    pub fn answer(self, status: u16, body: Vec<u8>) {
        let _ = self.answer.send((status, body));
    }
}

#[derive(Default)]
struct Log {
    got: Mutex<Vec<ReceivedRequest>>,
    held: Mutex<Vec<UnansweredRequest>>,
    arrived: Notify,
    turns: Mutex<HashMap<(String, String), usize>>,
}

/// A running receiver.
#[derive(Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    log: Arc<Log>,
}

/// No test waits longer than this for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl Endpoint {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    pub async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Log::default());
        let shared = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, log }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn got(&self) -> Vec<ReceivedRequest> {
        self.log.got.lock().unwrap().clone()
    }

    /// What came to paths that start like this.
    pub fn got_at(&self, path: &str) -> Vec<ReceivedRequest> {
        self.got().into_iter().filter(|g| g.path.starts_with(path)).collect()
    }

    /// The requests that wait for a test's answer.
    pub fn held(&self) -> MutexGuard<'_, Vec<UnansweredRequest>> {
        self.log.held.lock().unwrap()
    }

    /// Waits until a condition holds of what came.
    pub async fn until(
        &self,
        what: &str,
        condition: impl Fn(&[ReceivedRequest]) -> bool,
    ) -> Vec<ReceivedRequest> {
        let waiting = async {
            loop {
                let arrived = self.log.arrived.notified();
                let got = self.got();
                if condition(&got) {
                    return got;
                }
                // A short limit covers the gap between two looks.
                let _ = tokio::time::timeout(Duration::from_millis(200), arrived).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(got) => got,
            Err(_) => panic!("the receiver never saw {what}; it saw {} requests", self.got().len()),
        }
    }

    pub async fn until_count(&self, count: usize) -> Vec<ReceivedRequest> {
        self.until(&format!("{count} requests"), |got| got.len() >= count).await
    }
}

async fn serve(mut stream: TcpStream, log: Arc<Log>) {
    let mut buffer = Vec::new();
    while let Some(got) = read(&mut stream, &mut buffer).await {
        let path = got.path.clone();
        let delivery = got.header("x-tidehook-delivery-id").unwrap_or("").to_owned();
        log.got.lock().unwrap().push(got.clone());
        if path.starts_with("/held/") {
            let (answer, answered) = oneshot::channel();
            log.held.lock().unwrap().push(UnansweredRequest { got, answer });
            let Ok((status, body)) = answered.await else {
                // Something was answered, though no HTTP: a connection that dies without a byte may
                // be tried once more.
                let _ = stream.write_all(b"no answer\r\n\r\n").await;
                return;
            };
            if stream.write_all(&plain(status, "", &body)).await.is_err() {
                return;
            }
            continue;
        }
        log.arrived.notify_waiters();
        if !answer(&mut stream, &path, &delivery, &log).await {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<ReceivedRequest> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
        .collect();
    let length: usize = headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, v)| v.parse().unwrap());
    while buffer.len() < head_end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[head_end..head_end + length].to_vec();
    buffer.drain(..head_end + length);
    Some(ReceivedRequest { method, path, headers, body, at: std::time::Instant::now() })
}

fn plain(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Answers, and says whether the connection goes on.
async fn answer(stream: &mut TcpStream, path: &str, delivery: &str, log: &Log) -> bool {
    let path = path.split('?').next().unwrap_or("");
    let mut parts = path.trim_start_matches('/').splitn(3, '/');
    let (kind, value, rest) =
        (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
    let bytes = match kind {
        "status" => plain(value.parse().unwrap(), "", b"{}"),
        "seq" => {
            let codes: Vec<u16> = decoded.split(',').map(|c| c.parse().unwrap()).collect();
            let mut turns = log.turns.lock().unwrap();
            let turn = turns.entry((path.to_owned(), delivery.to_owned())).or_default();
            let code = codes[(*turn).min(codes.len() - 1)];
            *turn += 1;
            plain(code, "", b"{}")
        }
        "slow" => {
            tokio::time::sleep(Duration::from_millis(value.parse().unwrap())).await;
            plain(200, "", b"{}")
        }
        "slowseq" => {
            let codes: Vec<u16> = rest.split(',').map(|c| c.parse().unwrap()).collect();
            let turn = {
                let mut turns = log.turns.lock().unwrap();
                let turn = turns.entry((path.to_owned(), delivery.to_owned())).or_default();
                *turn += 1;
                *turn - 1
            };
            if turn == 0 {
                tokio::time::sleep(Duration::from_millis(value.parse().unwrap())).await;
            }
            plain(codes[turn.min(codes.len() - 1)], "", b"{}")
        }
        "hang" => {
            // Until the other side goes away.
            let _ = stream.read(&mut [0; 1]).await;
            return false;
        }
        "drip" => {
            let _ = stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n").await;
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            return false;
        }
        "driphead" => {
            let _ = stream.write_all(b"HTTP/1.1 200 X\r\n").await;
            while stream.write_all(b"x-more: y\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            return false;
        }
        "rst" => {
            let _ = stream.set_zero_linger();
            return false;
        }
        "halfclose" => {
            let _ = stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 50\r\n\r\nabc").await;
            let _ = stream.shutdown().await;
            return false;
        }
        "garbage" => b"\x00\xff\xfe not http\r\n\r\n".to_vec(),
        "http09" => b"<html>hi</html>".to_vec(),
        "nul" => plain(200, "", b"{\"a\":\"x\0y\\u0000\"}"),
        "badutf8" => plain(200, "", b"{\"a\":\"\xff\xfe\xed\xa0\x80\"}"),
        "huge" => {
            let _ = stream.write_all(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let chunk = [b"10000\r\n".as_slice(), &[b'A'; 65536], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {}
            return false;
        }
        "ra" => plain(503, &format!("Retry-After: {decoded}\r\n"), b"{}"),
        "redir" => plain(
            value.parse().unwrap(),
            &format!("Location: http://127.0.0.1:{rest}/canary\r\n"),
            b"",
        ),
        "bighdr" => plain(200, &format!("X-Big: {}\r\n", "b".repeat(1 << 20)), b"{}"),
        "manyhdr" => {
            plain(200, &(0..5000).map(|n| format!("X-{n}: y\r\n")).collect::<String>(), b"{}")
        }
        "cl" => format!("HTTP/1.1 200 X\r\nContent-Length: {decoded}\r\n\r\n{{}}").into_bytes(),
        "dupcl" => b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}".to_vec(),
        "tecl" => {
            b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_vec()
        }
        "continue" => {
            [b"HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000), plain(200, "", b"{}")].concat()
        }
        _ => plain(200, "", b"{}"),
    };
    let goes_on = matches!(
        kind,
        "" | "ok"
            | "status"
            | "seq"
            | "slow"
            | "slowseq"
            | "ra"
            | "nul"
            | "badutf8"
            | "redir"
            | "canary"
    );
    stream.write_all(&bytes).await.is_ok() && goes_on
}
